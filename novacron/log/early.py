"""Logging before the logger component runs: standard error now, the file as soon as it is open.

:func:`configure` is for the entry point. What is logged before the component has opened its file is
kept, bounded, and handed over by :func:`hand_over`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from novacron.log.formatters import JsonFormatter, PlainFormatter, message_of

MAX_EARLY = 1000
"""Records. A boot logs some dozens before its file opens; at level debug some hundreds."""

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

log = logging.getLogger("novacron.log")


class StandardErrorHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at that moment: a live view redirects it while it draws.

    A record with the field ``shown`` tells the file what the boot's view has told the person
    already, in better words.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO | None = sys.stderr
        if stream is None or (getattr(record, "shown", False) and _state.format != "json"):
            return
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except (OSError, ValueError):
            # The reader went away (a closed pipe, a closed stream): there is nobody to tell.
            return


class EarlyBuffer(logging.Handler):
    """Keeps the first records for the file."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque()
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        # The first ones tell how it began; what comes later is on standard error as well.
        if len(self.records) >= MAX_EARLY:
            self.lost += 1
            return
        # Arguments may change until the file opens: the words are fixed now.
        record.msg, record.args = message_of(record), None
        self.records.append(record)


class _State:
    stderr: StandardErrorHandler | None = None
    buffer: EarlyBuffer | None = None
    format: str = "plain"
    hooks: tuple[Any, Any, Any] | None = None


_state = _State()


def resolve_format(format: str) -> str:
    """What ``auto`` means for this standard error: ``console`` on a terminal, else ``plain``."""
    if format != "auto":
        return format
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return "console" if terminal else "plain"


def configure(level: str, format: str) -> None:
    """Log to standard error from now on, and keep the records for the file. May be called again.

    *level* is ``system.log_level``; *format* ``system.log_format``. Libraries below the root logger
    are heard from level warning on. With ``console`` a live view shows the boot, so standard error
    gets warnings and errors only, unless *level* is debug.
    """
    root = logging.getLogger()
    if _state.stderr is None:
        _state.stderr = StandardErrorHandler()
        root.addHandler(_state.stderr)
    if _state.buffer is None:
        _state.buffer = EarlyBuffer()
        root.addHandler(_state.buffer)
    _state.format = resolve_format(format)
    _state.stderr.setFormatter(JsonFormatter() if _state.format == "json" else PlainFormatter())
    set_level(level)
    _capture()


def set_level(level: str) -> None:
    """Change the least severe level that is logged, at once and everywhere."""
    number = _LEVELS[level]
    logging.getLogger("novacron").setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING))
    if _state.stderr is not None:
        quiet = _state.format == "console" and number > logging.DEBUG
        _state.stderr.setLevel(max(number, logging.WARNING) if quiet else number)


def hand_over(receive: Callable[[logging.LogRecord], None]) -> int:
    """Give the kept records to *receive*, in order, and keep no more; returns how many were lost."""
    buffer, _state.buffer = _state.buffer, None
    if buffer is None:
        return 0
    logging.getLogger().removeHandler(buffer)
    for record in buffer.records:
        receive(record)
    return buffer.lost


def restore() -> None:
    """Undo :func:`configure`: for a process that goes on after the node, such as a test's."""
    root = logging.getLogger()
    hand_over(lambda record: None)
    if _state.stderr is not None:
        root.removeHandler(_state.stderr)
        _state.stderr = None
    logging.getLogger("novacron").setLevel(logging.NOTSET)
    root.setLevel(logging.WARNING)
    if _state.hooks is not None:
        logging.captureWarnings(False)
        sys.excepthook, threading.excepthook, sys.unraisablehook = _state.hooks
        _state.hooks = None


def _capture() -> None:
    """Send warnings and errors nobody caught to the log."""
    if _state.hooks is not None:
        return
    _state.hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("an error was not caught", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread is not None else "unknown"
    log.critical(
        "an error in a thread was not caught",
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        extra={"thread_name": name},
    )


def _unraisable(unraisable: Any) -> None:
    error = unraisable.exc_value
    if error is None:
        return
    log.error(
        "an error could not be raised where it happened",
        exc_info=(type(error), error, unraisable.exc_traceback),
        extra={"where": unraisable.err_msg or "in a finalizer"},
    )
