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
from typing import Final
from zlib import crc32

import trio

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.errors import (
    LinkLostError,
    ObjectRefusedError,
    TargetWriteError,
)
from novacron.dwcp.amst.memory_moving import (
    FdStream,
    MemoryMoving,
    MemoryObject,
    Turns,
    hole_chunks,
    read,
    stream_on,
)
from novacron.dwcp.amst.transport import (
    MAX_CHUNK_BYTES,
    Have,
    LinkCounters,
    LinkStatistics,
    Source,
    StreamStatistics,
    Target,
)
from novacron.errors import DwcpError

_PIPE_READ: Final = 65536


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
    codecs: tuple[str, ...] = ("raw",)
    encrypted: bool = False
    _other: MemoryLink

    def __init__(self, wire: MemoryWire, peer: str) -> None:
        self.peer = peer
        self.link_id = wire.link_id
        self.max_chunk_bytes = wire.max_chunk_bytes
        self._wire = wire
        self._movings: set[MemoryMoving] = set()
        self._receiving: dict[tuple[str, int, int], MemoryMoving] = {}
        self._turns = Turns()
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
    ) -> MemoryObject:
        self._check_open()
        moving = MemoryObject(self, source.size, chunk_bytes, have)
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
    ) -> MemoryObject:
        self._check_open()
        moving = MemoryObject(self, target.size, chunk_bytes, have)
        moving._target = target
        self._expect(("object", number, generation), moving)
        moving._end_if_whole()
        return moving

    def send_pipe(
        self, number: int, fd: int, *, chunk_bytes: int, priority: int = 0, window_bytes: int
    ) -> MemoryMoving:
        self._check_open()
        moving = MemoryMoving(self)
        stream = stream_on(fd)
        moving._start(lambda: self._pump(moving, number, stream))
        return moving

    def receive_pipe(self, number: int, fd: int, *, window_bytes: int) -> MemoryMoving:
        self._check_open()
        moving = MemoryMoving(self)
        stream = stream_on(fd)
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

    def _expect(self, key: tuple[str, int, int], moving: MemoryMoving) -> None:
        self._receiving[key] = moving
        moving._key = key

    def _find(self, key: tuple[str, int, int]) -> MemoryMoving:
        moving = self._other._receiving.get(key)
        if moving is None:
            raise ObjectRefusedError(
                "the other node could not take the object", why="it does not expect this object"
            )
        return moving

    async def _send_in_turns(
        self, moving: MemoryObject, number: int, generation: int, source: Source
    ) -> None:
        try:
            await self._send(moving, number, generation, source)
        finally:
            self._turns.leave(moving)

    async def _send(
        self, moving: MemoryObject, number: int, generation: int, source: Source
    ) -> None:
        there = self._find(("object", number, generation))
        assert isinstance(there, MemoryObject)
        index = 0
        while index < moving.chunks:
            if runs.is_set(moving._bits, index):
                index += 1
                continue
            holes = hole_chunks(source, there._target, index, moving)
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
            data = read(source, offset, size)
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
        moving: MemoryObject,
        there: MemoryObject,
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

    async def _pump(self, moving: MemoryMoving, number: int, stream: FdStream) -> None:
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
        self, moving: MemoryMoving, stream: FdStream, pull: trio.MemoryReceiveChannel[bytes]
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
