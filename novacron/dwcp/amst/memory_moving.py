"""What moves on a link in memory, whose turn it is, and how it reads and writes."""

from __future__ import annotations

import errno
import os
import socket
import stat
from array import array
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import trio

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.errors import (
    LinkLostError,
    ObjectRefusedError,
    SourceReadError,
    TargetWriteError,
)
from novacron.dwcp.amst.rates import Bucket
from novacron.dwcp.amst.transport import Have, Progress, Source, Target, chunk_count
from novacron.dwcp.amst.tree import zero_leaf
from novacron.dwcp.hde.report import NOTHING, CodingReport
from novacron.errors import DwcpError

if TYPE_CHECKING:
    from novacron.dwcp.amst.memory import MemoryLink

_BLOCK_BYTES: Final = 4096


class MemoryMoving:
    """A :class:`~novacron.dwcp.amst.transport.Moving`; a byte stream, unless it is an object."""

    chunks = 0

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._over = trio.Event()
        self._task_ended: trio.Event | None = None
        self._scope = trio.CancelScope()
        self._failure: DwcpError | None = None
        self._moved = 0
        self._resent = 0
        self._priority = 1
        self._served = 0
        self._paused = False
        self._may_go = trio.Event()
        self._limit = 0
        self._limit_changed = trio.lowlevel.ParkingLot()
        self._key: tuple[str, int, int] | None = None
        self._push: trio.MemorySendChannel[bytes] | None = None
        link._movings.add(self)

    async def wait(self) -> None:
        await self._over.wait()
        if self._failure is not None:
            raise self._failure

    def progress(self) -> Progress:
        return Progress(self._moved, self._moved, 0, self._resent, 0, 0)

    def coding(self) -> CodingReport:
        return NOTHING

    def pause(self, paused: bool) -> None:
        self._paused = paused
        if not paused:
            self._may_go.set()
            self._may_go = trio.Event()

    def limit(self, bytes_per_second: int) -> None:
        self._limit = bytes_per_second
        self._limit_changed.unpark_all()

    def prioritise(self, priority: int) -> None:
        self._priority = priority

    def bitmap(self) -> bytes:
        return b""

    def leaves(self, first: int, count: int) -> array[int]:
        return array("I")

    async def aclose(self) -> None:
        self._fail(LinkLostError("the object was given up here"))
        if self._task_ended is not None:
            with trio.CancelScope(shield=True):
                await self._task_ended.wait()
        self._link._movings.discard(self)
        if self._key is not None and self._link._receiving.get(self._key) is self:
            del self._link._receiving[self._key]

    def _start(self, run: Callable[[], Awaitable[None]]) -> None:
        self._task_ended = trio.Event()
        self._link._wire._nursery.start_soon(self._run, run)

    async def _run(self, run: Callable[[], Awaitable[None]]) -> None:
        assert self._task_ended is not None
        try:
            with self._scope:
                try:
                    await run()
                except DwcpError as exc:
                    self._fail(exc)
                except (trio.ClosedResourceError, trio.BrokenResourceError) as exc:
                    self._fail(LinkLostError("the byte stream broke", why=str(exc)))
                else:
                    self._over.set()
        finally:
            self._over.set()
            self._task_ended.set()

    def _fail(self, failure: DwcpError) -> None:
        if self._over.is_set():
            return
        self._failure = failure
        self._over.set()
        self._scope.cancel()

    async def _wait_allowed(self) -> None:
        while self._paused:
            await self._may_go.wait()

    async def _pay(self, size: int) -> None:
        begun = trio.current_time()
        while self._limit and trio.current_time() < begun + size / self._limit:
            with trio.move_on_at(begun + size / self._limit):
                await self._limit_changed.park()


class Turns:
    """Who sends next on a link: the most urgent, and of those whoever had the fewest turns."""

    def __init__(self) -> None:
        self._bucket = Bucket(0.0, 0.0)
        self._limit_changed = trio.lowlevel.ParkingLot()
        self._waiting: dict[MemoryMoving, trio.Event] = {}
        self._holder: MemoryMoving | None = None

    def limit(self, bytes_per_second: int) -> None:
        self._bucket.change(float(bytes_per_second), trio.current_time())
        self._limit_changed.unpark_all()

    async def take(self, moving: MemoryMoving, size: int) -> None:
        """Wait for a turn to send *size* bytes; it lasts until the next one, or :meth:`leave`."""
        turn = self._waiting[moving] = trio.Event()
        if self._holder is moving:
            self._holder = None
        self._next()
        try:
            await turn.wait()
        except trio.Cancelled:
            self._waiting.pop(moving, None)
            self.leave(moving)
            raise
        moving._served += 1
        until = trio.current_time() + self._bucket.take(size, trio.current_time())
        while self._bucket.rate and trio.current_time() < until:
            with trio.move_on_at(until):
                await self._limit_changed.park()

    def leave(self, moving: MemoryMoving) -> None:
        """It has nothing to send now. Harmless when it was not its turn."""
        if self._holder is moving:
            self._holder = None
            self._next()

    def _next(self) -> None:
        if self._holder is not None or not self._waiting:
            return
        chosen = min(self._waiting, key=lambda moving: (moving._priority, moving._served))
        self._holder = chosen
        self._waiting.pop(chosen).set()


class MemoryObject(MemoryMoving):
    def __init__(self, link: MemoryLink, size: int, chunk_bytes: int, have: Have | None) -> None:
        super().__init__(link)
        self.size = size
        self.chunk_bytes = chunk_bytes
        self.chunks = chunk_count(size, chunk_bytes)
        self._target: Target | None = None
        self._whole = trio.Event()
        self._zero = 0
        self._bits = bytearray(runs.bitmap_bytes(self.chunks))
        self._leaves = array("I", bytes(4)) * self.chunks
        if have is not None:
            self._bits[:] = have.bits
            self._leaves[:] = have.leaves
        self._set = runs.count_set(self._bits)
        if self._set == self.chunks:
            self._whole.set()

    def progress(self) -> Progress:
        done = min(self.size, self._set * self.chunk_bytes)
        if self.chunks and self.size % self.chunk_bytes and self._set != self.chunks:
            last = self.chunks - 1
            if runs.is_set(self._bits, last):
                done -= self.chunk_bytes - self.size % self.chunk_bytes
        return Progress(done, self._moved, self._zero, self._resent, self._set, self.chunks)

    def bitmap(self) -> bytes:
        return bytes(self._bits)

    def leaves(self, first: int, count: int) -> array[int]:
        return self._leaves[first : first + count]

    def _mark(self, index: int, leaf: int, size: int, hole: bool) -> None:
        if hole:
            self._zero += size
        else:
            self._moved += size
        self._leaves[index] = leaf
        self._set += runs.set_run(self._bits, index, 1)
        self._end_if_whole()

    def _mark_holes(self, first: int, count: int) -> None:
        end = min(self.size, (first + count) * self.chunk_bytes)
        self._zero += end - first * self.chunk_bytes
        last = end - (first + count - 1) * self.chunk_bytes
        self._leaves[first : first + count - 1] = array("I", [zero_leaf(self.chunk_bytes)]) * (
            count - 1
        )
        self._leaves[first + count - 1] = zero_leaf(last)
        self._set += runs.set_run(self._bits, first, count)
        self._end_if_whole()

    def _end_if_whole(self) -> None:
        if self._set == self.chunks:
            self._whole.set()
            if self._target is not None:
                self._over.set()

    def _take(self, index: int, data: bytes, hole: bool) -> None:
        """At the receiving end: write a chunk."""
        assert self._target is not None
        if self._over.is_set():
            raise ObjectRefusedError(
                "the other node could not take the object",
                why=str(self._failure) if self._failure else "it gave the object up",
            )
        if not (hole and self._target.sparse):
            try:
                _write(self._target, index * self.chunk_bytes, data)
            except OSError as exc:
                why = os.strerror(exc.errno or errno.EIO)
                full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
                self._fail(
                    TargetWriteError(
                        "the target cannot be written",
                        why=why,
                        remedy="free space on its file system" if full else "",
                    )
                )
                raise ObjectRefusedError(
                    "the other node could not take the object", why=why
                ) from exc
        self._link.received_bytes += 0 if hole else len(data)
        self._mark(index, crc32(data), len(data), hole)


FdStream = trio.SocketStream | trio.lowlevel.FdStream


def stream_on(fd: int) -> FdStream:
    duplicate = os.dup(fd)
    os.set_blocking(duplicate, False)
    if stat.S_ISSOCK(os.fstat(duplicate).st_mode):
        return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=duplicate)))
    return trio.lowlevel.FdStream(duplicate)


def read(source: Source, offset: int, size: int) -> bytes:
    if source.memory is not None:
        return bytes(memoryview(source.memory).cast("B")[offset : offset + size])
    assert source.fd is not None
    try:
        data = os.pread(source.fd, size, offset)
    except OSError as exc:
        raise SourceReadError("the source cannot be read", why=exc.strerror or "") from exc
    if len(data) != size:
        raise SourceReadError(
            "the source cannot be read", why="it is shorter than it was when the transfer began"
        )
    return data


def hole_chunks(source: Source, target: Target | None, first: int, moving: MemoryObject) -> int:
    """How many chunks from *first* on are one hole that neither end has to touch."""
    if source.fd is None or not source.sparse or target is None or not target.sparse:
        return 0
    begin = first * moving.chunk_bytes
    try:
        data = os.lseek(source.fd, begin, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            return 0
        data = moving.size
    end = moving.chunks if data >= moving.size else data // moving.chunk_bytes
    for index in range(first, end) if runs.count_set(moving._bits) else ():
        if runs.is_set(moving._bits, index):
            return index - first
    return end - first


def _write(target: Target, offset: int, data: bytes) -> None:
    if target.memory is not None:
        area: Any = memoryview(target.memory).cast("B")
        area[offset : offset + len(data)] = data
        return
    assert target.fd is not None
    if not target.sparse:
        _write_all(target.fd, memoryview(data), offset)
        return
    for at in range(0, len(data), _BLOCK_BYTES):
        block = data[at : at + _BLOCK_BYTES]
        if any(block):
            _write_all(target.fd, memoryview(block), offset + at)


def _write_all(fd: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
