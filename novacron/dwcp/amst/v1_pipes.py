"""Byte streams of protocol v1: read from a descriptor here, written to one over there, in order."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from abc import abstractmethod
from typing import TYPE_CHECKING

import trio

from novacron.dwcp.amst.v1_moving import Signal, V1Moving, unreadable, unwritable
from novacron.dwcp.amst.wire import FrameError
from novacron.errors import DwcpError

if TYPE_CHECKING:
    from novacron.dwcp.amst.v1 import V1Link


class V1Pipe(V1Moving):
    """One task moves bytes between the descriptor and what the link takes or gives."""

    def __init__(
        self, link: V1Link, number: int, descriptor: int, priority: int, window_bytes: int
    ) -> None:
        super().__init__(link, (number, 0), 0, priority, 0)
        self.window_bytes = window_bytes
        self.signal = Signal()
        self._scope = trio.CancelScope()
        self._descriptor = os.dup(descriptor)
        os.set_blocking(self._descriptor, False)
        # Whoever closes the pipe waits for its task, also where that has not yet begun.
        self._users += 1

    async def run(self) -> None:
        try:
            with self._scope:
                await self._pump()
        finally:
            os.close(self._descriptor)
            self._release()

    @abstractmethod
    async def _pump(self) -> None:
        """Move bytes until the end."""

    def abort(self) -> None:
        super().abort()
        self._scope.cancel()

    def finish(self, error: DwcpError | None = None) -> None:
        super().finish(error)
        if error is not None:
            self._scope.cancel()


class SendingPipe(V1Pipe):
    def __init__(
        self,
        link: V1Link,
        number: int,
        descriptor: int,
        chunk_bytes: int,
        priority: int,
        window_bytes: int,
    ) -> None:
        super().__init__(link, number, descriptor, priority, window_bytes)
        self._chunk_bytes = chunk_bytes
        self._segment = b""
        self._taken = 0
        """Place in the stream up to which the link has taken segments."""
        self._read = 0
        """Place up to which everything left the receiver."""
        self._ended = False
        self._end_taken = False
        self._end_acknowledged = False

    def ready(self) -> bool:
        if self.paused or self.finished or self.aborted:
            return False
        return bool(self._segment) or (self._ended and not self._end_taken)

    def take(self) -> tuple[int, bytes]:
        """The next segment and its place; an empty one is the end."""
        offset, segment = self._taken, self._segment
        if not segment:
            self._end_taken = True
        self._taken += len(segment)
        self._segment = b""
        self.signal.notify()
        return offset, segment

    def acknowledged(self, size: int) -> None:
        """Of a segment, or with 0 bytes of the end."""
        if size:
            self._moved_bytes += size
        else:
            self._end_acknowledged = True
            self._finish_if_done()

    def was_read(self, offset: int) -> None:
        """Raises FrameError: that far nothing was sent."""
        if offset > self._taken:
            raise FrameError("the peer broke the protocol", why="it read more than was sent")
        self._read = max(self._read, offset)
        self._done_bytes = self._read
        self.signal.notify()
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._end_acknowledged and self._read == self._taken:
            self.finish()

    async def _pump(self) -> None:
        while not self._ended:
            room = self.window_bytes - (self._taken - self._read)
            if self._segment or room <= 0:
                await self.signal.wait()
                continue
            await trio.lowlevel.checkpoint()
            try:
                self._segment = os.read(self._descriptor, min(self._chunk_bytes, room))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._descriptor)
                continue
            except OSError as exc:
                self.finish(unreadable(exc.strerror or str(exc)))
                return
            self._ended = not self._segment
            self._link.kick()


class ReceivingPipe(V1Pipe):
    def __init__(self, link: V1Link, number: int, descriptor: int, window_bytes: int) -> None:
        super().__init__(link, number, descriptor, 0, window_bytes)
        self._waiting = bytearray()
        """Arrived, and not yet taken to be written. In one piece: however small the segments are,
        it takes no more memory than the window."""
        self._arrived = 0
        self._written = 0
        self._told = 0
        self._end: int | None = None

    def arrive(self, offset: int, segment: bytes) -> None:
        """Raises FrameError: it is not what comes next, or more than the window."""
        if self._end is not None or offset != self._arrived:
            raise FrameError("the peer broke the protocol", why=f"a segment at {offset}")
        if self._arrived + len(segment) - self._written > self.window_bytes:
            raise FrameError("the peer broke the protocol", why="more than the window of a stream")
        if segment:
            self._waiting += segment
            self._arrived += len(segment)
        else:
            self._end = offset
        self.signal.notify()

    async def _pump(self) -> None:
        try:
            while self._end is None or self._waiting:
                if not self._waiting:
                    await self.signal.wait()
                    continue
                segment, self._waiting = self._waiting, bytearray()
                await self._write(segment)
                self._tell()
        except OSError as exc:
            self.finish(unwritable(exc))
            self._link.refuse_failed(self.key, exc.errno or 0)
            return
        if stat.S_ISSOCK(os.fstat(self._descriptor).st_mode):
            with (
                socket.socket(fileno=os.dup(self._descriptor)) as sock,
                contextlib.suppress(OSError),
            ):
                sock.shutdown(socket.SHUT_WR)
        self.finish()
        self._link.tell_read(self.key, self._written)

    async def _write(self, segment: bytearray) -> None:
        view = memoryview(segment)
        while view:
            await trio.lowlevel.checkpoint()
            try:
                count = os.write(self._descriptor, view)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._descriptor)
                continue
            view = view[count:]
            self._written += count
            self._done_bytes += count
            self._moved_bytes += count
            self._link.received(count)
            if self._written - self._told >= self.window_bytes // 4:
                self._tell()

    def _tell(self) -> None:
        if self._written != self._told:
            self._told = self._written
            self._link.tell_read(self.key, self._written)
