"""What a link of protocol v1 sends: chunks, segments and acknowledgements, over its one stream."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

import trio

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.buckets import TokenBucket
from novacron.dwcp.amst.v1_moving import SMALL_CREDIT, Key, Signal, V1Moving
from novacron.dwcp.amst.v1_objects import Piece, SendingObject
from novacron.dwcp.amst.v1_pipes import SendingPipe
from novacron.dwcp.amst.wire import Ack, AckKind, ErrorNumber, Frame, FrameType
from novacron.record import Record

Sending: TypeAlias = SendingObject | SendingPipe

SEED: Final = 0
"""Of the headers' checksums: TLS tells one link from another."""
_SLICE_BYTES: Final = 256 * 1024
"""Given to TLS at once. Less costs calls; more, and a slow line that does move looks like one that
does not: at 30 s, this is 8 KiB/s."""


class ByteStream(Protocol):
    """What a link runs on; see :class:`novacron.network.transport.Stream`."""

    async def send_all(self, data: bytes) -> None: ...
    async def receive_some(self) -> bytes: ...
    async def aclose(self) -> None: ...


class _Flight(Record):
    """Something sent and not yet acknowledged."""

    moving: Sending
    credit: int
    """What it takes of the window."""
    size: int
    """Bytes, as the acknowledgement will say."""
    piece: Piece | None


class _Loaded(Record):
    moving: SendingObject
    piece: Piece
    credit: int


class Outbound:
    """The sending half of a link. Nothing here waits for a disk but :meth:`load`."""

    def __init__(
        self,
        stream: ByteStream,
        max_chunk_bytes: int,
        window_bytes: int,
        limits: Sequence[TokenBucket],
        limiter: trio.CapacityLimiter,
    ) -> None:
        self.moving: dict[Key, Sending] = {}
        self.in_flight_bytes = 0
        self.sending_since: float | None = None
        """When the stream was given something that it has not taken yet."""
        self.progress_at = trio.current_time()
        """When something was taken or acknowledged last."""
        self.acks: deque[Ack] = deque()
        self.acks_taken = Signal()
        self.sent_bytes = 0
        self.wire_bytes = 0
        self.idle_seconds = {"limited": 0.0, "starved": 0.0, "window": 0.0}
        self._stream = stream
        self._max_chunk_bytes = max_chunk_bytes
        self._window_bytes = window_bytes
        self._own_limit = TokenBucket(0, trio.current_time())
        self._limits = (*limits, self._own_limit)
        self._limiter = limiter
        self._queue: list[Sending] = []
        """By priority; those of one priority take turns."""
        self._flights: dict[tuple[Key, int], _Flight] = {}
        self._loaded: _Loaded | None = None
        self._reads: dict[Key, int] = {}
        """Newest READ of each byte stream: only that counts."""
        self._work = Signal()
        self._sequence = 1
        self._objects_turn = False

    @property
    def waiting(self) -> bool:
        """Whether acknowledgements are to come."""
        return bool(self._flights)

    def kick(self) -> None:
        """There may be something to send, or leave to send it."""
        self._work.notify()

    def add(self, moving: Sending) -> None:
        self.moving[moving.key] = moving
        self._queue.append(moving)
        self.sort()

    def drop(self, moving: V1Moving) -> None:
        """What is under way of it stays in the window until it is acknowledged: the other end holds
        it all the same."""
        for mine in [mine for mine in self._queue if mine is moving]:
            self._queue.remove(mine)
            del self.moving[mine.key]
        self.kick()

    def sort(self) -> None:
        """A priority changed."""
        self._queue.sort(key=lambda moving: moving.priority)
        self.kick()

    def limit(self, bytes_per_second: int) -> None:
        self._own_limit.change(bytes_per_second, trio.current_time())
        self.kick()

    # Acknowledgements ----------------------------------------------------------------------

    def answer(self, ack: Ack) -> None:
        self.acks.append(ack)
        self.kick()

    def refuse(self, key: Key, number: ErrorNumber, os_errno: int = 0) -> None:
        """Something that comes in cannot be taken."""
        offset = min(max(os_errno, 0), wire.MAX_ERRNO)
        self.answer(Ack(AckKind.REFUSED, *key, offset, number))

    def tell_read(self, key: Key, offset: int) -> None:
        self._reads[key] = offset
        self.kick()

    def take_ack(self, ack: Ack) -> None:
        """Raises FrameError: it cannot be."""
        key = (ack.object, ack.generation)
        moving = self.moving.get(key)
        if ack.kind == AckKind.READ:
            if isinstance(moving, SendingPipe):
                moving.was_read(ack.offset)
        elif ack.kind == AckKind.REFUSED:
            for place in [place for place in self._flights if place[0] == key]:
                self.in_flight_bytes -= self._flights.pop(place).credit
            if moving is not None:
                moving.refused(ack.value, ack.offset)
        else:
            self._land(key, ack)
        self.progress_at = trio.current_time()
        self.kick()

    def _land(self, key: Key, ack: Ack) -> None:
        flight = self._flights.get((key, ack.offset))
        if flight is None or flight.size != ack.value:
            return
        del self._flights[key, ack.offset]
        self.in_flight_bytes -= flight.credit
        if ack.kind != AckKind.ZERO:
            self.sent_bytes += flight.size
        if isinstance(flight.moving, SendingPipe):
            flight.moving.acknowledged(flight.size)
        elif flight.piece is not None:
            flight.moving.acknowledged(flight.piece)

    # Choosing ------------------------------------------------------------------------------

    def _choose(self, pipes: bool) -> tuple[Sending | None, float, str]:
        """What is to be sent next, of objects or of byte streams; or how long there is to wait at
        least, and why."""
        in_flight = self.in_flight_bytes
        if in_flight and in_flight + self._max_chunk_bytes > self._window_bytes:
            return None, math.inf, "window"
        now = trio.current_time()
        wait = max(bucket.wait(now) for bucket in self._limits)
        if wait:
            return None, wait, "limited"
        shortest = math.inf
        for moving in self._queue:
            if isinstance(moving, SendingPipe) != pipes or not moving.ready():
                continue
            wait = moving.bucket.wait(now)
            if not wait:
                return moving, 0.0, ""
            shortest = min(shortest, wait)
        return None, shortest, "starved" if shortest == math.inf else "limited"

    def _charge(self, moving: Sending, size: int, credit: int) -> None:
        self.in_flight_bytes += credit
        for bucket in (*self._limits, moving.bucket):
            bucket.take(size)

    def _rotate(self, moving: Sending) -> None:
        """Behind all others of its priority."""
        self._queue.remove(moving)
        self._queue.append(moving)
        self._queue.sort(key=lambda one: one.priority)

    async def _idle(self, wait: float, why: str) -> None:
        begun = trio.current_time()
        with trio.move_on_after(wait):
            await self._work.wait()
        if why:
            self.idle_seconds[why] += trio.current_time() - begun

    # Sending -------------------------------------------------------------------------------

    async def load(self) -> None:
        """Keep the next chunk read, while the one before it is being sent. For ever."""
        while True:
            if self._loaded is not None:
                await self._idle(math.inf, "")
                continue
            moving, wait, why = self._choose(pipes=False)
            if not isinstance(moving, SendingObject):
                await self._idle(wait, why)
                continue
            self._rotate(moving)
            size = moving.next_size
            self._charge(moving, size, size)
            piece = await moving.next_piece(self._limiter)
            if piece is None or moving.aborted:
                self._charge(moving, -size, -size)
                continue
            if piece.zeros:
                self._charge(moving, -size, SMALL_CREDIT - size)
            credit = SMALL_CREDIT if piece.zeros else size
            self._loaded = _Loaded(moving, piece, credit)
            self.kick()

    async def write(self) -> None:
        """Send whatever there is, acknowledgements first. For ever."""
        while True:
            if self.acks or self._reads:
                await self.send(Frame(FrameType.ACK), wire.write_acks(self._batch()))
                self.acks_taken.notify()
                continue
            pipe, wait, _ = self._choose(pipes=True)
            loaded = self._loaded
            if isinstance(pipe, SendingPipe) and self._comes_first(pipe, loaded):
                self._objects_turn = True
                await self._send_segment(pipe)
            elif loaded is not None:
                self._objects_turn = False
                await self._send_piece(loaded)
            else:
                await self._idle(wait, "")

    def _comes_first(self, pipe: SendingPipe, loaded: _Loaded | None) -> bool:
        if loaded is None or pipe.priority < loaded.moving.priority:
            return True
        return pipe.priority == loaded.moving.priority and not self._objects_turn

    def _batch(self) -> list[Ack]:
        batch: list[Ack] = []
        while self.acks and len(batch) < wire.MAX_ACKS:
            batch.append(self.acks.popleft())
        while self._reads and len(batch) < wire.MAX_ACKS:
            key, offset = self._reads.popitem()
            batch.append(Ack(AckKind.READ, *key, offset))
        return batch

    async def _send_segment(self, pipe: SendingPipe) -> None:
        self._rotate(pipe)
        offset, segment = pipe.take()
        credit = len(segment) or SMALL_CREDIT
        self._charge(pipe, len(segment), credit)
        self._launch(offset, _Flight(pipe, credit, len(segment), None))
        if segment:
            frame = _frame(FrameType.SEGMENT, pipe.key, offset, len(segment))
            await self.send(frame, segment + wire.content_checksum(segment))
        else:
            await self.send(_frame(FrameType.END, pipe.key, offset), b"")

    async def _send_piece(self, loaded: _Loaded) -> None:
        moving, piece, credit = loaded
        self._loaded = None
        self.kick()
        if moving.aborted:
            self.in_flight_bytes -= credit
            return
        offset = piece.first * moving.chunk_bytes
        self._launch(offset, _Flight(moving, credit, piece.size, piece._replace(frame=bytearray())))
        if piece.zeros:
            frame = _frame(FrameType.ZERO, moving.key, offset)
            await self.send(frame, wire.write_zero_run(piece.size))
        else:
            frame = _frame(FrameType.DATA, moving.key, offset, piece.size)
            await self._send_buffer(frame, piece.frame)

    def _launch(self, offset: int, flight: _Flight) -> None:
        self._flights[flight.moving.key, offset] = flight

    async def send(self, frame: Frame, payload: bytes) -> None:
        await self._send_buffer(frame, bytearray(wire.HEADER_BYTES) + payload)

    async def _send_buffer(self, frame: Frame, buffer: bytearray) -> None:
        """*buffer* has room for the header, then the payload."""
        wire_size = len(buffer) - wire.HEADER_BYTES
        whole = frame._replace(sequence=self._sequence, wire_size=wire_size)
        self._sequence += 1
        buffer[: wire.HEADER_BYTES] = wire.write_header(whole, SEED, self._max_chunk_bytes)
        for begin in range(0, len(buffer), _SLICE_BYTES):
            self.sending_since = self.progress_at = trio.current_time()
            await self._stream.send_all(bytes(buffer[begin : begin + _SLICE_BYTES]))
        self.sending_since = None
        self.wire_bytes += len(buffer)


def _frame(kind: FrameType, key: Key, offset: int, raw_size: int = 0) -> Frame:
    return Frame(kind, object=key[0], generation=key[1], offset=offset, raw_size=raw_size)
