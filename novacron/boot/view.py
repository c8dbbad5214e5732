"""Shows a boot on standard output: a live view, plain lines, or JSON lines; then one summary.

:func:`open_view` chooses. The view is a listener of the engine and is :meth:`View.close`\\ d by the
entry point. Nothing here may slow a boot or fail it: an output that goes away (a closed pipe) is
forgotten. The live view is drawn by rich in a thread of its own, and only when the boot has not
ended shortly after it began: importing rich (35 ms of CPU) would make every quick boot a slow one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TextIO

from novacron.boot import events, summary
from novacron.boot.summary import Style, clean

if TYPE_CHECKING:
    from novacron.boot.live import LiveView


class View(ABC):
    """Base of the three: writes text to one stream and survives the loss of it."""

    def __init__(self, stream: TextIO, style: Style) -> None:
        self._stream: TextIO | None = stream
        self.style: Final = style

    @abstractmethod
    def listen(self, event: events.Event) -> None:
        """Take one event; called from the Trio thread."""

    def close(self) -> None:
        """Restore the terminal. Harmless when called twice."""
        return

    def write(self, text: str) -> None:
        """One or more whole lines."""
        stream = self._stream
        if stream is None:
            return
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            stream.flush()
        except (OSError, ValueError):
            # Nobody reads any more (`| head`), or the stream is closed: the node goes on.
            self._stream = None


class JsonView(View):
    """Each event as one JSON object on a line, with the wall-clock ``time`` it was told."""

    def listen(self, event: events.Event) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        record = {"time": f"{stamp}.{int(now % 1 * 1000):03d}Z", **event.as_json()}
        self.write(json.dumps(record, default=str))


class PlainView(View):
    """Lines that are as good in a journal as on paper: the moment, who, what."""

    def listen(self, event: events.Event) -> None:
        words = describe(event, self.style)
        if isinstance(event, events.NodeReady):
            self.write(summary.ready(event, self.style))
        elif isinstance(event, events.BootFailed):
            self.write(summary.failed(event, self.style))
        elif words:
            self.write(f"[{event.at:8.3f}] {words}")


class TerminalView(View):
    """The live view while the boot lasts; afterwards only what the operator must know."""

    def __init__(
        self, stream: TextIO, style: Style, *, patience: float = 0.3, live: bool = True
    ) -> None:
        """*patience*: seconds from the first event before the live view appears. *live* False
        (a terminal that cannot move its cursor) never draws one."""
        super().__init__(stream, style)
        self._patience = patience
        self._draws = live
        self._live: LiveView | None = None
        self._booting = True

    def listen(self, event: events.Event) -> None:
        if isinstance(event, events.BootStarted) and self._draws and self._stream is not None:
            from novacron.boot.live import LiveView

            self._live = LiveView(self._stream, self.style, self._patience)
            self._live.start()
        if self._live is not None:
            self._live.listen(event)
        if isinstance(event, events.NodeReady):
            self._end_live()
            self._booting = False
            self.write(summary.ready(event, self.style))
        elif isinstance(event, events.BootFailed):
            self._end_live()
            self.write(summary.failed(event, self.style))
        elif isinstance(event, events.NodeStopping):
            self._end_live()
            self._booting = False
            reason = clean(event.reason)
            self.write(f"Stopping ({reason}). Ctrl-C again stops at once.")
        elif self._live is None or not self._booting:
            self._after_boot(event)

    def close(self) -> None:
        self._end_live()

    def _after_boot(self, event: events.Event) -> None:
        # A quick boot needs no lines: the summary follows. Without cursor control it gets them.
        quiet = isinstance(event, events.BootStarted | events.ComponentStopping)
        if quiet or (self._booting and self._draws):
            return
        words = describe(event, self.style)
        if words:
            self.write(f"  {words}")

    def _end_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


def open_view(
    format: str,
    stream: TextIO | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    patience: float = 0.3,
) -> View:
    """The view for *format* (``system.log_format``: auto, console, plain, json) on *stream*
    (standard output unless given). ``auto`` is console on a terminal, else plain."""
    output = sys.stdout if stream is None else stream
    variables = os.environ if environment is None else environment
    try:
        terminal = output.isatty()
    except ValueError:
        terminal = False
    style = style_of(output, variables, terminal=terminal)
    if format == "json":
        return JsonView(output, style)
    if format == "console" or (format == "auto" and terminal):
        live = terminal and variables.get("TERM", "dumb") not in ("dumb", "unknown", "")
        return TerminalView(output, style, patience=patience, live=live)
    return PlainView(output, style)


def style_of(stream: TextIO, environment: Mapping[str, str], *, terminal: bool) -> Style:
    """What *stream* can show: https://no-color.org, TERM, the locale's encoding, the width."""
    capable = environment.get("TERM", "dumb") not in ("dumb", "unknown", "")
    # Piped text has no width; 100 columns keep messages on few lines without losing the shape.
    width = 100
    if terminal:
        try:
            width = os.get_terminal_size(stream.fileno()).columns or 80
        except (OSError, ValueError):
            width = 80
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    return Style(
        width=width,
        colour=terminal and capable and not environment.get("NO_COLOR"),
        unicode=encoding.startswith("utf"),
        terminal=terminal,
    )


def describe(event: events.Event, style: Style) -> str:
    """The event in a line, or nothing where it is not worth one. Errors in full: no second look
    into another file should be needed."""
    match event:
        case events.BootStarted():
            count = sum(len(names) for names in event.components.values())
            return f"boot {event.boot_id} of {count} components"
        case events.PhaseStarted():
            return f"phase {event.phase}"
        case events.PhaseFinished():
            if event.outcome == "ready":
                return ""
            return style.paint(f"phase {event.phase}: {event.outcome}", "red")
        case events.ComponentReady():
            how = " on its fallback" if event.fallback else ""
            colour = ("yellow",) if event.fallback else ()
            return style.paint(f"{event.name} ready{how} in {event.seconds * 1000:.1f} ms", *colour)
        case events.ComponentRetry():
            return style.paint(
                f"{event.name}: attempt {event.attempt} failed, next in {event.delay:.1f} s: "
                f"{_error(event.error)}",
                "yellow",
            )
        case events.ComponentFailed():
            return style.paint(f"{event.name} failed: {_error(event.error)}", "red")
        case events.ComponentSkipped():
            return f"{event.name} not started: {clean(event.because)}"
        case events.ComponentProgress():
            return f"{event.name}: {clean(event.message)}"
        case events.ComponentLost():
            return style.paint(f"{event.name} is down: {_error(event.error)}", "red")
        case events.ComponentRestored():
            return style.paint(f"{event.name} is back after {event.seconds:.1f} s", "green")
        case _:
            return _describe_stop(event, style)


def _describe_stop(event: events.Event, style: Style) -> str:
    match event:
        case events.RollbackStarted():
            return f"rolling back: {clean(event.reason)}"
        case events.UndoRan():
            if event.error is None:
                return f"undone: {event.component} {event.step_kind}"
            return style.paint(
                f"not undone: {event.component} {event.step_kind}: {_error(event.error)}", "red"
            )
        case events.NodeStopping():
            return f"stopping: {clean(event.reason)}"
        case events.ComponentStopping():
            return f"stopping {event.name}"
        case events.ComponentStopped():
            if event.error is None:
                return f"{event.name} stopped"
            return style.paint(f"{event.name} did not stop cleanly: {_error(event.error)}", "red")
        case events.NodeStopped():
            return f"stopped, exit code {event.code}"
        case _:
            return ""


def _error(error: BaseException) -> str:
    fields = events.describe_error(error)
    words = fields["what"]
    if fields["why"]:
        words += f": {fields['why']}"
    if fields["remedy"]:
        words += f". {fields['remedy'][0].upper()}{fields['remedy'][1:]}"
    if fields["key"]:
        words += f" [{fields['key']}]"
    return clean(words)
