"""The log file: a bounded queue and a thread, so that a slow disk never holds up the event loop."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from novacron import observe

MAX_QUEUED = 4 * 1024 * 1024
"""Characters. Some 20,000 usual lines: half a minute of a busy node while the disk hangs."""

RETRY_AFTER = 30.0
"""Seconds between attempts to write again after the disk refused."""

_dropped = observe.Counter(
    "novacron_log_dropped_total", "Log lines lost because the file could not keep up"
)


class LogWriter:
    """Appends lines to *path*, rotating it at *max_bytes* and keeping *count* old files.

    Who starts it closes it. :meth:`put` may be called from any thread and never blocks on the
    disk. When the disk refuses (full, read-only, gone), *on_failure* is called once with the
    reason, from the writer's thread, and lines are dropped and counted until it works again.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        count: int,
        *,
        on_failure: Callable[[str], None],
        on_open: Callable[[], None] = lambda: None,
        notice: Callable[[int], str] = lambda lost: f"{lost} log lines were lost",
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.count = count
        self.failure: str | None = None
        """Why lines do not reach the file at the moment."""
        self.dropped = 0
        self._on_failure = on_failure
        self._on_open = on_open
        self._notice = notice
        self._max_queued = max_queued
        self._lines: deque[str] = deque()
        self._queued = 0
        self._unreported = 0
        self._closing = False
        self._wake = threading.Condition()
        self._descriptor = -1
        self._size = 0
        self._retry_at = 0.0
        # A daemon: a disk that hangs for good must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="novacron-log", daemon=True)

    def start(self) -> None:
        """Start the thread; *on_open* is called from it when the first attempt to open is over."""
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue *line*, without its end; dropped and counted when the queue is full."""
        with self._wake:
            if self._closing or self._queued + len(line) > self._max_queued:
                self._drop(1)
                return
            self._lines.append(line)
            self._queued += len(line)
            self._wake.notify()

    def close(self, timeout: float) -> bool:
        """Write what is queued and stop; blocks up to *timeout* seconds. False: lines are lost."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive() and self.failure is None
        return True

    def _drop(self, amount: int) -> None:
        self.dropped += amount
        self._unreported += amount
        _dropped.inc(by=amount)

    def _run(self) -> None:
        self._try_open()
        self._on_open()
        while True:
            with self._wake:
                while not self._lines and not self._closing:
                    self._wake.wait()
                batch = list(self._lines)
                self._lines.clear()
                self._queued = 0
                if self._unreported and self.failure is None:
                    batch.append(self._notice(self._unreported))
                    self._unreported = 0
                closing = self._closing
            if batch:
                self._write(batch)
            if closing:
                break
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, batch: list[str]) -> None:
        if self._descriptor < 0 and time.monotonic() >= self._retry_at:
            self._try_open()
        if self._descriptor < 0:
            with self._wake:
                self._drop(len(batch))
            return
        try:
            self._follow()
            # As few writes as rotation allows.
            pending: list[bytes] = []
            size = self._size
            for line in batch:
                data = line.encode("utf-8", "backslashreplace") + b"\n"
                if size and size + len(data) > self.max_bytes:
                    self._append(pending)
                    pending = []
                    self._rotate()
                    size = 0
                pending.append(data)
                size += len(data)
            self._append(pending)
        except OSError as exc:
            with self._wake:
                self._drop(len(batch))
            self._fail(exc)
        else:
            self.failure = None

    def _append(self, pending: list[bytes]) -> None:
        view = memoryview(b"".join(pending))
        while view:
            written = os.write(self._descriptor, view)
            self._size += written
            view = view[written:]

    def _try_open(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as exc:
            self._fail(exc)
        else:
            self.failure = None

    def _open(self) -> None:
        # Never through a link: whoever can plant one in the directory could aim the node's writes.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            # The last process died within a line; ours must not continue it.
            self._append([b"\n"])

    def _follow(self) -> None:
        """Open anew when somebody else moved or removed the file (logrotate, an operator)."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        here = os.fstat(self._descriptor)
        if there is None or (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            self._reopen()

    def _reopen(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._open()

    def _rotate(self) -> None:
        for number in range(self.count, 0, -1):
            older = self.path if number == 1 else self._numbered(number - 1)
            with contextlib.suppress(FileNotFoundError):
                os.replace(older, self._numbered(number))
        self._reopen()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _fail(self, exc: OSError) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        self._retry_at = time.monotonic() + RETRY_AFTER
        told = self.failure is not None
        self.failure = exc.strerror or str(exc)
        if not told:
            self._on_failure(self.failure)
