"""What objects and byte streams of protocol v1 have in common."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from novacron.dwcp.amst.buckets import TokenBucket
from novacron.dwcp.amst.errors import (
    LinkLostError,
    ObjectRefusedError,
    SourceReadError,
    TargetWriteError,
)
from novacron.dwcp.amst.transport import Progress
from novacron.dwcp.amst.wire import ErrorNumber
from novacron.dwcp.hde.report import NOTHING, CodingReport
from novacron.errors import DwcpError

if TYPE_CHECKING:
    from novacron.dwcp.amst.v1 import V1Link

Key: TypeAlias = tuple[int, int]
"""Number and generation."""

SMALL_CREDIT: Final = 64
"""What a frame without content takes of the window."""

_REFUSALS: Final = {
    ErrorNumber.NOT_FOUND: "it does not expect this object",
    ErrorNumber.DENIED: "it is not allowed to",
    ErrorNumber.PROTOCOL: "the pieces do not fit the object that it expects",
    ErrorNumber.CLOSED: "it gave the object up",
    ErrorNumber.MEMORY: "it is out of memory",
    ErrorNumber.LIMIT: "it is at a limit",
    ErrorNumber.INTEGRITY: "the pieces did not arrive as they were sent",
}


class Signal:
    """Wakes everybody who waits, each time."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        event, self._event = self._event, trio.Event()
        event.set()

    async def wait(self) -> None:
        await self._event.wait()


class V1Moving:
    """A :class:`~novacron.dwcp.amst.transport.Moving`."""

    def __init__(self, link: V1Link, key: Key, chunks: int, priority: int, limit_bps: int) -> None:
        self.key = key
        self.priority = priority
        self.paused = False
        self.aborted = False
        self.bucket = TokenBucket(limit_bps, trio.current_time())
        self.error: DwcpError | None = None
        self._link = link
        self._finished = trio.Event()
        self._users = 0
        self._quiet = Signal()
        self._chunks = chunks
        self._done_bytes = 0
        self._moved_bytes = 0
        self._zero_bytes = 0
        self._done_chunks = 0

    # The seam ------------------------------------------------------------------------------

    async def wait(self) -> None:
        await self._finished.wait()
        if self.error is not None:
            # A new one each time: several tasks may wait, and each adds its traceback.
            raise type(self.error)(
                self.error.what, why=self.error.why, remedy=self.error.remedy, key=self.error.key
            )

    def progress(self) -> Progress:
        return Progress(
            self._done_bytes,
            self._moved_bytes,
            self._zero_bytes,
            0,
            self._done_chunks,
            self._chunks,
        )

    def coding(self) -> CodingReport:
        return NOTHING

    def pause(self, paused: bool) -> None:
        self.paused = paused
        self._link.kick()

    def limit(self, bytes_per_second: int) -> None:
        self.bucket.change(bytes_per_second, trio.current_time())
        self._link.kick()

    def prioritise(self, priority: int) -> None:
        self.priority = priority
        self._link.sort()

    def bitmap(self) -> bytes:
        return b""

    def leaves(self, first: int, count: int) -> array[int]:
        return array("I")

    async def aclose(self) -> None:
        self.abort()
        with trio.CancelScope(shield=True):
            while self._users:
                await self._quiet.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()

    # For the link --------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    def finish(self, error: DwcpError | None = None) -> None:
        """The first one counts."""
        if not self._finished.is_set():
            self.error = error
            self._finished.set()

    def abort(self) -> None:
        """Nothing more is begun for it."""
        if not self.aborted:
            self.aborted = True
            self._link.drop(self)
            self.finish(LinkLostError("it was not finished", why="it was given up here"))

    def ready(self) -> bool:
        """Whether it has something to send now."""
        return False

    def refused(self, number: int, os_errno: int) -> None:
        """The other side said so."""
        why = os.strerror(os_errno) if os_errno else _REFUSALS.get(ErrorNumber(number), "")
        self.finish(
            ObjectRefusedError(
                "the other node could not take the object",
                why=why or "its system refused",
                remedy="see its log",
            )
        )

    @contextmanager
    def used(self) -> Iterator[None]:
        """While something touches its descriptor or memory."""
        self._users += 1
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        self._users -= 1
        if not self._users:
            self._quiet.notify()


def unreadable(why: str) -> SourceReadError:
    return SourceReadError("the source cannot be read", why=why)


def unwritable(exc: OSError) -> TargetWriteError:
    return TargetWriteError("the target cannot be written", why=exc.strerror or str(exc))
