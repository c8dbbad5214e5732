"""The live view of a boot that takes its time: four phases, their components, what they wait for.

A thread waits for the boot to end; if it has not after the patience, the thread imports rich and
draws until it does. The Trio thread only ever appends to a list and sets an event.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, TextIO

from novacron.boot import events
from novacron.boot.summary import Style, clean

if TYPE_CHECKING:
    from rich.text import Text

_FRAME_SECONDS: Final = 0.1
_END_SECONDS: Final = 1.0
"""How long an end of the boot waits for the drawing thread to clear the view: one frame, or the
import of rich if it is in the middle of that."""

_GLYPHS: Final = {
    "pending": ("·", "."),
    "starting": ("●", "*"),
    "retrying": ("↻", "~"),
    "ready": ("✓", "+"),
    "degraded": ("!", "!"),
    "failed": ("✗", "x"),
    "skipped": ("-", "-"),
    "stopped": ("■", "#"),
}
_STYLES: Final = {
    "pending": "dim",
    "starting": "cyan",
    "retrying": "yellow",
    "ready": "green",
    "degraded": "yellow",
    "failed": "red",
    "skipped": "dim",
    "stopped": "dim",
}


class Row:
    """One component as the view shows it."""

    __slots__ = ("name", "note", "seconds", "since", "state")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.state = "pending"
        self.note = ""
        self.since = 0.0
        """On the view's clock, since when it is in this state."""
        self.seconds: float | None = None


class Picture:
    """What the events so far add up to. Pure: no clock, no output."""

    def __init__(self) -> None:
        self.phases: dict[str, list[Row]] = {}
        self.outcomes: dict[str, tuple[str, float]] = {}
        self.started: dict[str, float] = {}
        self.rows: dict[str, Row] = {}
        self.headline = "Booting"

    def apply(self, event: events.Event) -> None:
        match event:
            case events.BootStarted():
                for phase, names in event.components.items():
                    rows = [Row(name) for name in names]
                    self.phases[str(phase)] = rows
                    self.rows.update((row.name, row) for row in rows)
            case events.PhaseStarted():
                self.started[str(event.phase)] = event.at
            case events.PhaseFinished():
                took = event.at - self.started.get(str(event.phase), event.at)
                self.outcomes[str(event.phase)] = (event.outcome, took)
            case events.ComponentEntered():
                self._change(event.name, "starting", event.at)
                if event.attempt > 1:
                    self.rows[event.name].note = f"attempt {event.attempt}"
            case events.ComponentProgress():
                if event.name in self.rows:
                    self.rows[event.name].note = clean(event.message)
            case events.ComponentRetry():
                what = clean(events.describe_error(event.error)["what"])
                note = f"attempt {event.attempt} failed: {what}"
                self._change(event.name, "retrying", event.at, note, event.delay)
            case events.ComponentReady():
                state, note = ("degraded", "on its fallback") if event.fallback else ("ready", "")
                self._change(event.name, state, event.at, note, event.seconds)
            case events.ComponentFailed():
                what = clean(events.describe_error(event.error)["what"])
                self._change(event.name, "failed", event.at, what)
            case events.ComponentSkipped():
                self._change(event.name, "skipped", event.at, clean(event.because))
            case events.ComponentStopped():
                self._change(event.name, "stopped", event.at)
            case events.RollbackStarted():
                self.headline = f"Rolling back: {clean(event.reason)}"

    def _change(
        self, name: str, state: str, at: float, note: str = "", seconds: float | None = None
    ) -> None:
        row = self.rows.get(name)
        if row is not None:
            row.state, row.note, row.since, row.seconds = state, note, at, seconds

    def lines(self, now: float, height: int) -> list[tuple[str, str, str]]:
        """Style, glyph name and words of each line, at most *height* (at least 6): phases always,
        then the components of the phase under way, those at work before those that are done."""
        lines = [("bold", "", f"{self.headline}, {now:.1f} s")]
        room = max(height - 1 - len(self.phases), 1)
        for phase, rows in self.phases.items():
            done = sum(1 for row in rows if row.state in ("ready", "degraded"))
            if phase in self.outcomes:
                outcome, took = self.outcomes[phase]
                state = "ready" if outcome == "ready" else "failed"
                words = f"{phase}: {done} of {len(rows)} ready, {took:.1f} s"
                lines.append((_STYLES[state], state, words))
            elif phase not in self.started:
                lines.append(("dim", "pending", f"{phase}: {_count(rows)}"))
            else:
                took = now - self.started[phase]
                words = f"{phase}: {done} of {len(rows)} ready, {took:.1f} s"
                lines.append(("bold", "starting", words))
                lines += self._components(rows, now, room)
        return lines

    def _components(self, rows: list[Row], now: float, room: int) -> list[tuple[str, str, str]]:
        order = ("failed", "retrying", "starting", "degraded", "skipped", "pending", "ready")
        shown = rows
        if len(rows) > room:
            ranked = sorted(
                rows, key=lambda row: order.index(row.state) if row.state in order else 9
            )
            shown = ranked[: room - 1]
        lines = [self._component(row, now) for row in shown]
        if len(shown) < len(rows):
            lines.append(("dim", "", f"    and {len(rows) - len(shown)} more"))
        return lines

    def _component(self, row: Row, now: float) -> tuple[str, str, str]:
        words = f"  {row.name}"
        if row.state == "starting":
            words += f"  {max(0.0, now - row.since):.1f} s"
        elif row.state == "retrying" and row.seconds is not None:
            words += f"  again in {max(0.0, row.since + row.seconds - now):.1f} s"
        elif row.seconds is not None:
            words += f"  {row.seconds:.3f} s"
        if row.note:
            words += f"  {row.note}"
        return _STYLES.get(row.state, ""), row.state, words


def _count(rows: list[Row]) -> str:
    return "1 component" if len(rows) == 1 else f"{len(rows)} components"


class LiveView:
    """Draws a :class:`Picture` on a terminal until :meth:`stop`."""

    def __init__(self, stream: TextIO, style: Style, patience: float) -> None:
        self._stream: Final = stream
        self._style: Final = style
        self._patience: Final = patience
        self._events: list[events.Event] = []
        self._over: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="boot view", daemon=True)
        self._offset = 0.0

    def start(self) -> None:
        self._thread.start()

    def listen(self, event: events.Event) -> None:
        if not self._events:
            self._offset = time.monotonic() - event.at
        self._events.append(event)

    def stop(self) -> None:
        """Clear the view; when this returns, the terminal is the caller's again."""
        self._over.set()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        if self._over.wait(self._patience):
            return
        try:
            self._draw()
        except (OSError, ValueError):
            # The terminal went away; the view in the Trio thread finds out by itself.
            return

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(
            file=self._stream, no_color=not self._style.colour, highlight=False, emoji=False
        )
        if self._over.is_set():
            return
        picture = Picture()
        seen = 0
        with Live(
            console=console, auto_refresh=False, transient=True, vertical_overflow="crop"
        ) as live:
            while True:
                for event in self._events[seen:]:
                    picture.apply(event)
                    seen += 1
                live.update(self._frame(picture, console.height), refresh=True)
                if self._over.wait(_FRAME_SECONDS):
                    return

    def _frame(self, picture: Picture, height: int) -> Text:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="ellipsis" if self._style.unicode else "crop")
        lines = picture.lines(time.monotonic() - self._offset, max(6, height - 1))
        for index, (style, state, words) in enumerate(lines):
            glyph = _GLYPHS[state][0 if self._style.unicode else 1] + " " if state else ""
            indent = "  " if words.startswith("  ") else ""
            end = "" if index == len(lines) - 1 else "\n"
            text.append(f"{indent}{glyph}{words.strip()}{end}", style=style)
        return text
