"""A transfer in words and as a bar: from the node's view of it, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from novacron.cli.tables import cell

if TYPE_CHECKING:
    from rich.console import RenderableType

View = Mapping[str, Any]

ENDED = frozenset({"done", "failed", "cancelled"})
SHORT_ID = 8
MIN_RATIO = 1.05
"""From here on content became less worth telling of."""
_BAR_WIDTH = 24
_FIGURES_WIDTH = 50
"""Columns that what stands behind the bar takes at most."""


def size(count: float) -> str:
    """Bytes as a person reads them: ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def seconds(count: float) -> str:
    """A time as a person reads it: ``850 ms``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if count < 1:
        return f"{count * 1000:.0f} ms"
    if count < 10:
        return f"{count:.1f} s"
    whole = round(count)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def fraction(view: View) -> float:
    """How much is done, 0.0 to 1.0. Nothing to do counts as done only at the end."""
    total, done = view["bytes_total"], view["bytes_done"]
    if view["state"] == "done":
        return 1.0
    return min(1.0, done / total) if total else 0.0


def figures(view: View) -> str:
    """Percent, bytes, rate, estimate: what fits beside a bar."""
    parts = [
        f"{fraction(view):4.0%}",
        f"{size(view['bytes_done'])} of {size(view['bytes_total'])}",
    ]
    if view["state"] in ("moving", "finishing"):
        parts.append(f"{size(view['rate_bps'])}/s")
        if view["eta_seconds"] is not None:
            parts.append(f"{seconds(view['eta_seconds'])} left")
    return "  ".join(parts)


def details(view: View) -> str:
    """State, streams, bytes on the wire, files: the second line."""
    parts = [view["state"] + (f" ({cell(view['why'])})" if view["why"] else "")]
    if view["streams"]:
        streams = f"{view['streams']} {'stream' if view['streams'] == 1 else 'streams'}"
        crypt = "encrypted" if view["encrypted"] else "not encrypted"
        parts.append(f"{streams} ({cell(view['mover'])}, {crypt})")
    parts.append(_wire(view))
    if view["limit_bps"]:
        parts.append(f"limit {size(view['limit_bps'])}/s")
    if view["files_total"] > 1:
        parts.append(f"{view['files_done']} of {view['files_total']} files")
    if view["current"]:
        parts.append(cell(view["current"]))
    return ", ".join(parts)


def _wire(view: View) -> str:
    """``12 MiB on the wire (3.4:1)``, while it moves ``12 MiB on the wire at 4.0 MiB/s (3.4:1)``.
    Nothing is said of a ratio that is none."""
    rate = f" at {size(view['wire_rate_bps'])}/s" if view["wire_rate_bps"] else ""
    found = view["coding"]["ratio"]
    shown = f" ({ratio(found)})" if found is not None and found >= MIN_RATIO else ""
    return f"{size(view['wire_bytes'])} on the wire{rate}{shown}"


def ratio(value: float) -> str:
    """Content for each byte on the wire: ``3.4:1``, ``118:1``."""
    return f"{value:.0f}:1" if value >= 100 else f"{value:.1f}:1"


def line(view: View) -> str:
    """Everything on one line, for what is not a terminal."""
    return f"{view['id'][:SHORT_ID]}  {figures(view)}  {details(view)}"


def summary(view: View) -> str:
    """The line at the end of a transfer that was done."""
    verb = "sent" if view["role"] == "sender" else "received"
    files = f"{view['files_done']} {'file' if view['files_done'] == 1 else 'files'}"
    start = view["started_at"] or view["created_at"]
    took = max(0.0, (view["finished_at"] or start) - start)
    speed = f" ({size(view['bytes_done'] / took)}/s)" if took > 0 else ""
    kept = view["bytes_done"] - view["bytes_moved"] - view["bytes_zero"]
    notes = []
    if kept > 0:
        notes += [f"{size(kept)} were there already", f"{size(view['bytes_moved'])} moved"]
    notes.append(_wire(view))
    if view["bytes_zero"]:
        notes.append(f"{size(view['bytes_zero'])} of holes")
    if view["bytes_resent"]:
        notes.append(f"{size(view['bytes_resent'])} sent twice")
    if view["files_skipped"]:
        notes.append(f"{view['files_skipped']} skipped")
    return (
        f"{verb} {files}, {size(view['bytes_done'])} in {seconds(took)}{speed}; {', '.join(notes)}"
    )


class Bars:
    """One bar and one line below it for each transfer, redrawn in place on a terminal.

    Imports rich, which a command that only prints does not pay for. Close it with :meth:`close`:
    until then the cursor is hidden.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, views: Sequence[View]) -> None:
        from rich.console import Group

        rows = max(1, self._console.height // 2 - 1)
        lines: list[RenderableType] = []
        for view in views[:rows]:
            lines += self._rows(view)
        self._live.update(Group(*lines), refresh=True)

    def say(self, text: str) -> None:
        """Print *text* above the bars."""
        self._console.print(cell(text), markup=False, highlight=False)

    def close(self) -> None:
        """Take the bars away and give the cursor back. Harmless when repeated."""
        self._live.stop()

    def _rows(self, view: View) -> list[RenderableType]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        room = self._console.width - _FIGURES_WIDTH - SHORT_ID - 4
        bar = ProgressBar(total=1.0, completed=fraction(view), width=min(_BAR_WIDTH, max(4, room)))
        row = Table.grid(padding=(0, 1))
        row.add_row(
            Text(view["id"][:SHORT_ID], no_wrap=True),
            bar,
            Text(figures(view), no_wrap=True, overflow="ellipsis"),
        )
        below = Text("  " + details(view), style="dim", no_wrap=True, overflow="ellipsis")
        return [row, below]


class Lines:
    """One plain line now and then, where nothing can be redrawn."""

    def __init__(self, stream: TextIO, interval: float) -> None:
        """*interval*: seconds between two lines about a transfer whose state stays the same."""
        self._stream = stream
        self._interval = interval
        self._last: dict[str, tuple[float, str]] = {}

    def show(self, views: Sequence[View]) -> None:
        import time

        now = time.monotonic()
        for view in views:
            then, state = self._last.get(view["id"], (-self._interval, ""))
            if view["state"] != state or now - then >= self._interval:
                self._last[view["id"]] = (now, view["state"])
                self.say(line(view))

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        return


class Silence:
    """Nothing is shown."""

    def show(self, views: Sequence[View]) -> None:
        return

    def say(self, text: str) -> None:
        return

    def close(self) -> None:
        return


Screen = Bars | Lines | Silence

LINE_INTERVAL = 5.0


def open_screen(stream: TextIO, *, silent: bool = False) -> Screen:
    """What suits *stream*."""
    import os

    if silent:
        return Silence()
    if stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        return Bars(stream)
    return Lines(stream, LINE_INTERVAL)
