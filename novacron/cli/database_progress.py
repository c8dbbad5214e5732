"""How far a backup or a restoration is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from novacron.cli.progress import LINE_INTERVAL, size
from novacron.cli.tables import cell

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_REDRAW = 0.1
"""Seconds between two changes of the bar; a report comes every few hundred rows."""


class Advance:
    """A :class:`~novacron.database.copies.tables.Report` on standard error; use it in ``with``.

    Args:
      silent: show nothing.
    """

    def __init__(self, *, silent: bool) -> None:
        import os

        self._silent = silent
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last = time.monotonic()
        terminal = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        if terminal and not silent:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.description}", markup=False),
                TimeRemainingColumn(compact=True),
                console=Console(file=sys.stderr, highlight=False),
                transient=True,
            )

    def __call__(self, step: str, rows: int, total: int, size_: int) -> None:
        now = time.monotonic()
        if self._silent:
            return
        if self._bar is not None:
            if now - self._last < _REDRAW and rows < total:
                return
            self._last = now
            if self._task is None:
                self._task = self._bar.add_task("", total=None)
            self._bar.update(
                self._task,
                completed=rows,
                total=total or None,
                description=_words(step, rows, total, size_),
            )
        elif now - self._last >= LINE_INTERVAL:
            self._last = now
            print(_words(step, rows, total, size_), file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _words(step: str, rows: int, total: int, size_: int) -> str:
    parts = [cell(step)]
    if total:
        parts.append(f"{rows} of {total} rows")
    if size_:
        parts.append(size(size_))
    return ", ".join(parts)
