"""The seam in memory: two links that are joined in one process, for tests, with faults on demand.

Example::

    async with trio.open_nursery() as nursery:
        wire = MemoryWire(nursery)
        first, second = wire.links("node a", "node b")
        receiving = second.receive_object(1, 0, Target(size=size, fd=there), chunk_bytes=65536)
        sending = first.send_object(1, 0, Source(size=size, fd=here), chunk_bytes=65536)
        await sending.wait()
        wire.lose("the cable was pulled")
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat
from array import array
from collections.abc import Awaitable, Callable
from typing import Any, Final
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
from novacron.dwcp.amst.transport import (
    MAX_CHUNK_BYTES,
    Have,
    LinkCounters,
    LinkStatistics,
    Progress,
    Source,
    StreamStatistics,
    Target,
    chunk_count,
)
from novacron.dwcp.amst.tree import zero_leaf
from novacron.errors import DwcpError

_PIPE_READ: Final = 65536
_BLOCK_BYTES: Final = 4096


class Faults:
    """What goes wrong on a wire. Change it at any time.

    Attributes:
      chunk_delay: Seconds that each chunk takes.
      lose_after: The links end when so many more chunks have arrived; None: they do not.
      drop_writes: So many of the next chunks are lost on the way, and sent again.
      flip_writes: So many of the next chunks arrive with another content than was sent, unnoticed.
    """

    def __init__(self) -> None:
        self.chunk_delay = 0.0
        self.lose_after: int | None = None
        self.drop_writes = 0
        self.flip_writes = 0


class MemoryWire:
    """What joins a pair of links; their tasks live in *nursery*."""

    def __init__(
        self,
        nursery: trio.Nursery,
        faults: Faults | None = None,
        *,
        max_chunk_bytes: int = MAX_CHUNK_BYTES,
    ) -> None:
        self.faults = faults or Faults()
        self.max_chunk_bytes = max_chunk_bytes
        self.link_id = secrets.token_bytes(16)
        self._nursery = nursery
        self._ends: list[MemoryLink] = []
        self._over = trio.Event()
        self._reason: DwcpError | None = None

    def links(self, first: str, second: str) -> tuple[MemoryLink, MemoryLink]:
        """The link of node *first* to *second*, and that of *second* to *first*. Once for each
        wire."""
        self._ends = [MemoryLink(self, second), MemoryLink(self, first)]
        self._ends[0]._other, self._ends[1]._other = self._ends[1], self._ends[0]
        return self._ends[0], self._ends[1]

    @property
    def ended(self) -> bool:
        return self._reason is not None

    def lose(self, why: str) -> None:
        """End both links at once. Harmless when repeated."""
        if self._reason is not None:
            return
        self._reason = LinkLostError("the link ended", why=why)
        self._over.set()
        for end in self._ends:
            for moving in list(end._movings):
                moving._fail(LinkLostError("the link ended", why=why))


class MemoryLink:
    """A :class:`~novacron.dwcp.amst.transport.Link`; made by :meth:`MemoryWire.links`."""

    protocol: int = 3
    mover: str = "memory"
    encrypted: bool = False
    _other: MemoryLink

    def __init__(self, wire: MemoryWire, peer: str) -> None:
        self.peer = peer
        self.link_id = wire.link_id
        self.max_chunk_bytes = wire.max_chunk_bytes
        self._wire = wire
        self._movings: set[_Moving] = set()
        self._receiving: dict[tuple[str, int, int], _Moving] = {}
        self._turns = _Turns()
        self.sent_bytes = 0
        self.received_bytes = 0
        self.resent_bytes = 0

    def send_object(
        self,
        number: int,
        generation: int,
        source: Source,
        *,
        chunk_bytes: int,
        priority: int = 1,
        limit_bps: int = 0,
        have: Have | None = None,
    ) -> _ObjectMoving:
        self._check_open()
        moving = _ObjectMoving(self, source.size, chunk_bytes, have)
        moving.prioritise(priority)
        moving.limit(limit_bps)
        moving._start(lambda: self._send_in_turns(moving, number, generation, source))
        return moving

    def receive_object(
        self,
        number: int,
        generation: int,
        target: Target,
        *,
        chunk_bytes: int,
        have: Have | None = None,
    ) -> _ObjectMoving:
        self._check_open()
        moving = _ObjectMoving(self, target.size, chunk_bytes, have)
        moving._target = target
        self._expect(("object", number, generation), moving)
        moving._end_if_whole()
        return moving

    def send_pipe(
        self, number: int, fd: int, *, chunk_bytes: int, priority: int = 0, window_bytes: int
    ) -> _Moving:
        self._check_open()
        moving = _Moving(self)
        stream = _stream_on(fd)
        moving._start(lambda: self._pump(moving, number, stream))
        return moving

    def receive_pipe(self, number: int, fd: int, *, window_bytes: int) -> _Moving:
        self._check_open()
        moving = _Moving(self)
        stream = _stream_on(fd)
        # Half of what is read may wait here: the sender's reads are at most that large.
        push, pull = trio.open_memory_channel[bytes](max(1, window_bytes // _PIPE_READ))
        moving._push = push
        moving._start(lambda: self._drain(moving, stream, pull))
        self._expect(("pipe", number, 0), moving)
        return moving

    def limit(self, bytes_per_second: int) -> None:
        self._turns.limit(bytes_per_second)

    def statistics(self) -> LinkStatistics:
        counters = LinkCounters(
            sent_bytes=self.sent_bytes,
            received_bytes=self.received_bytes,
            wire_sent_bytes=self.sent_bytes,
            wire_received_bytes=self.received_bytes,
            resent_bytes=self.resent_bytes,
            streams=1,
        )
        stream = StreamStatistics(
            id=1,
            state="open",
            mover=self.mover,
            sent_bytes=self.sent_bytes,
            received_bytes=self.received_bytes,
            wire_sent_bytes=self.sent_bytes,
            wire_received_bytes=self.received_bytes,
            in_flight_bytes=0,
        )
        return LinkStatistics(counters, [] if self._wire._over.is_set() else [stream])

    async def wait_ended(self) -> DwcpError:
        await self._wire._over.wait()
        assert self._wire._reason is not None
        return self._wire._reason

    async def aclose(self) -> None:
        self._wire.lose("the link was closed")
        with trio.CancelScope(shield=True):
            for moving in list(self._movings):
                await moving.aclose()

    # Underneath ----------------------------------------------------------------------------

    def _check_open(self) -> None:
        reason = self._wire._reason
        if reason is not None:
            raise LinkLostError("the link ended", why=reason.why)

    def _expect(self, key: tuple[str, int, int], moving: _Moving) -> None:
        self._receiving[key] = moving
        moving._key = key

    def _find(self, key: tuple[str, int, int]) -> _Moving:
        moving = self._other._receiving.get(key)
        if moving is None:
            raise ObjectRefusedError(
                "the other node could not take the object", why="it does not expect this object"
            )
        return moving

    async def _send_in_turns(
        self, moving: _ObjectMoving, number: int, generation: int, source: Source
    ) -> None:
        try:
            await self._send(moving, number, generation, source)
        finally:
            self._turns.leave(moving)

    async def _send(
        self, moving: _ObjectMoving, number: int, generation: int, source: Source
    ) -> None:
        there = self._find(("object", number, generation))
        assert isinstance(there, _ObjectMoving)
        index = 0
        while index < moving.chunks:
            if runs.is_set(moving._bits, index):
                index += 1
                continue
            holes = _hole_chunks(source, there._target, index, moving)
            if holes:
                await trio.lowlevel.checkpoint()
                there._mark_holes(index, holes)
                moving._mark_holes(index, holes)
                index += holes
                continue
            if moving._paused:
                self._turns.leave(moving)
                await moving._wait_allowed()
            offset = index * moving.chunk_bytes
            size = min(moving.chunk_bytes, moving.size - offset)
            await self._turns.take(moving, size)
            data = _read(source, offset, size)
            while not await self._carry(moving, there, index, data, source.sparse):
                moving._resent += size
                self.resent_bytes += size
            if moving._limit:
                self._turns.leave(moving)
                await moving._pay(size)
            index += 1
        # Acknowledged means written: the other end's task may not have said so yet.
        await moving._whole.wait()

    async def _carry(
        self,
        moving: _ObjectMoving,
        there: _ObjectMoving,
        index: int,
        data: bytes,
        sparse: bool,
    ) -> bool:
        """Whether the chunk arrived."""
        faults = self._wire.faults
        if faults.chunk_delay:
            await trio.sleep(faults.chunk_delay)
        else:
            await trio.lowlevel.checkpoint()
        hole = sparse and not any(data)
        if not hole:
            self.sent_bytes += len(data)
        if faults.drop_writes:
            faults.drop_writes -= 1
            return False
        arrived = data
        if faults.flip_writes and data:
            faults.flip_writes -= 1
            arrived = bytes((data[0] ^ 1,)) + data[1:]
        there._take(index, arrived, hole)
        moving._mark(index, crc32(data), len(data), hole)
        if faults.lose_after is not None:
            faults.lose_after -= 1
            if faults.lose_after <= 0:
                faults.lose_after = None
                self._wire.lose("a fault was asked for")
        return True

    async def _pump(self, moving: _Moving, number: int, stream: _FdStream) -> None:
        async with stream:
            there = self._find(("pipe", number, 0))
            assert there._push is not None
            try:
                async with there._push:
                    while data := await stream.receive_some(_PIPE_READ):
                        await there._push.send(bytes(data))
                        moving._moved += len(data)
                        self.sent_bytes += len(data)
            except trio.BrokenResourceError as exc:
                raise ObjectRefusedError(
                    "the other node could not take the object", why="it gave the object up"
                ) from exc
            # The other end closes what it wrote to once all of it is out.
            await there._over.wait()

    async def _drain(
        self, moving: _Moving, stream: _FdStream, pull: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        async with stream, pull:
            async for data in pull:
                try:
                    await stream.send_all(data)
                except trio.BrokenResourceError as exc:
                    raise TargetWriteError(
                        "the target cannot be written", why=os.strerror(errno.EPIPE)
                    ) from exc
                moving._moved += len(data)
                self.received_bytes += len(data)
            if isinstance(stream, trio.SocketStream):
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_eof()


class _Moving:
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


class _Turns:
    """Who sends next on a link: the most urgent, and of those whoever had the fewest turns."""

    def __init__(self) -> None:
        self._bucket = Bucket(0.0, 0.0)
        self._limit_changed = trio.lowlevel.ParkingLot()
        self._waiting: dict[_Moving, trio.Event] = {}
        self._holder: _Moving | None = None

    def limit(self, bytes_per_second: int) -> None:
        self._bucket.change(float(bytes_per_second), trio.current_time())
        self._limit_changed.unpark_all()

    async def take(self, moving: _Moving, size: int) -> None:
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

    def leave(self, moving: _Moving) -> None:
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


class _ObjectMoving(_Moving):
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


_FdStream = trio.SocketStream | trio.lowlevel.FdStream


def _stream_on(fd: int) -> _FdStream:
    duplicate = os.dup(fd)
    os.set_blocking(duplicate, False)
    if stat.S_ISSOCK(os.fstat(duplicate).st_mode):
        return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=duplicate)))
    return trio.lowlevel.FdStream(duplicate)


def _read(source: Source, offset: int, size: int) -> bytes:
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


def _hole_chunks(source: Source, target: Target | None, first: int, moving: _ObjectMoving) -> int:
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
