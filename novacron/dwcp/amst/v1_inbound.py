"""What a link of protocol v1 receives: frames, each checked, stored and acknowledged."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

import trio

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.v1_moving import Key, Signal, V1Moving
from novacron.dwcp.amst.v1_objects import ReceivingObject
from novacron.dwcp.amst.v1_outbound import SEED, ByteStream, Outbound
from novacron.dwcp.amst.v1_pipes import ReceivingPipe
from novacron.dwcp.amst.wire import Ack, AckKind, ErrorNumber, Frame, FrameError, FrameType

Receiving: TypeAlias = ReceivingObject | ReceivingPipe

_MAX_WAITING: Final = 65536
"""Frames that wait to be stored, and acknowledgements that wait to be sent; then nothing more is
read. Chunks are bounded by their bytes long before."""


class Inbound:
    """The receiving half of a link."""

    def __init__(
        self,
        stream: ByteStream,
        outbound: Outbound,
        max_chunk_bytes: int,
        window_bytes: int,
        received: bytes,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self.moving: dict[Key, Receiving] = {}
        self.in_frame = False
        """A frame has begun, and its rest is awaited."""
        self.heard_at = trio.current_time()
        self.received_bytes = 0
        self.duplicate_bytes = 0
        self.wire_bytes = 0
        self._stream = stream
        self._outbound = outbound
        self._max_chunk_bytes = max_chunk_bytes
        self._window_bytes = window_bytes
        self._limiter = limiter
        self._input = bytearray(received)
        self._sequence = 1
        self._arrived: deque[tuple[ReceivingObject, Frame, bytearray]] = deque()
        self._delivered = Signal()
        self._held_bytes = 0
        """Of chunks that are not written yet."""

    def drop(self, moving: V1Moving) -> None:
        if self.moving.get(moving.key) is moving:
            del self.moving[moving.key]

    # Frames --------------------------------------------------------------------------------

    async def receive(self) -> None:
        """Take frame after frame, for ever.

        Raises:
          LinkLostError: the stream or the link came to its end.
          FrameError, ChecksumError: the peer broke the protocol.
        """
        while True:
            header = await self._take(wire.HEADER_BYTES)
            frame = wire.read_header(header, SEED, self._max_chunk_bytes)
            if (frame.stream, frame.epoch, frame.sequence) != (0, 0, self._sequence):
                raise FrameError("the peer broke the protocol", why="a frame out of its order")
            self._sequence += 1
            await self._wait_room(frame)
            payload = await self._take(frame.wire_size)
            self.wire_bytes += len(header) + len(payload)
            self._dispatch(frame, payload)

    async def _wait_room(self, frame: Frame) -> None:
        """A peer that keeps to the window never gets here to wait."""
        size = frame.raw_size if frame.type == FrameType.DATA else 0
        while (
            (size and self._held_bytes and self._held_bytes + size > self._window_bytes)
            or len(self._arrived) >= _MAX_WAITING
            or len(self._outbound.acks) >= _MAX_WAITING
        ):
            await self._outbound.acks_taken.wait()

    async def _take(self, size: int) -> bytearray:
        taken = bytearray(size)
        filled = min(size, len(self._input))
        taken[:filled] = self._input[:filled]
        del self._input[:filled]
        self.heard_at = trio.current_time()
        self.in_frame = filled > 0 or size != wire.HEADER_BYTES
        while filled < size:
            data = await self._stream.receive_some()
            if not data:
                raise LinkLostError("the link was lost", why="the other node closed the connection")
            self.heard_at = trio.current_time()
            self.in_frame = True
            count = min(len(data), size - filled)
            taken[filled : filled + count] = data[:count]
            self._input += data[count:]
            filled += count
        self.in_frame = False
        return taken

    def _dispatch(self, frame: Frame, payload: bytearray) -> None:
        match frame.type:
            case FrameType.DATA:
                self._take_chunk(frame, payload)
            case FrameType.ZERO:
                self._take_zeros(frame, payload)
            case FrameType.SEGMENT | FrameType.END:
                self._take_segment(frame, payload)
            case FrameType.ACK:
                for ack in wire.read_acks(payload):
                    self._outbound.take_ack(ack)
            case FrameType.BYE:
                raise LinkLostError("the link ended", why="the other node closed it")
            case _:
                raise FrameError("the peer broke the protocol", why="a greeting on an open link")

    # Content -------------------------------------------------------------------------------

    def _expecting(self, frame: Frame) -> Receiving | None:
        """What the frame is for; None: nothing takes it, and the peer was told."""
        moving = self.moving.get((frame.object, frame.generation))
        if moving is None:
            self._refuse(frame, ErrorNumber.NOT_FOUND)
        elif moving.error is not None:
            self._refuse(frame, ErrorNumber.SYSTEM)
            return None
        return moving

    def _take_chunk(self, frame: Frame, payload: bytearray) -> None:
        moving = self._expecting(frame)
        if moving is None:
            return
        if not isinstance(moving, ReceivingObject) or not moving.expects(
            frame.offset, frame.raw_size
        ):
            self._misfit(moving, frame)
        elif moving.begin(frame.offset):
            self._held_bytes += frame.raw_size
            self._arrived.append((moving, frame, payload))
            self._delivered.notify()
        else:
            self.duplicate_bytes += frame.raw_size
            self._answer(AckKind.CHUNK, frame, frame.raw_size)

    def _take_zeros(self, frame: Frame, payload: bytearray) -> None:
        size = wire.read_zero_run(frame, payload)
        moving = self._expecting(frame)
        if moving is None:
            return
        if not isinstance(moving, ReceivingObject) or not moving.expects_zeros(frame.offset, size):
            self._misfit(moving, frame)
            return
        self._arrived.append((moving, frame, payload))
        self._delivered.notify()

    def _take_segment(self, frame: Frame, payload: bytearray) -> None:
        content = bytes(wire.check_content(payload)) if frame.type == FrameType.SEGMENT else b""
        moving = self._expecting(frame)
        if moving is None:
            return
        if not isinstance(moving, ReceivingPipe):
            self._misfit(moving, frame)
            return
        moving.arrive(frame.offset, content)
        self._answer(AckKind.SEGMENT, frame, len(content))

    def _misfit(self, moving: V1Moving, frame: Frame) -> None:
        why = "a piece of another place or size than the object has"
        moving.finish(FrameError("the other node sent what does not fit", why=why))
        self._refuse(frame, ErrorNumber.PROTOCOL)

    def _refuse(self, frame: Frame, number: ErrorNumber, os_errno: int = 0) -> None:
        self._outbound.refuse((frame.object, frame.generation), number, os_errno)

    def _answer(self, kind: AckKind, frame: Frame, size: int) -> None:
        self._outbound.answer(Ack(kind, frame.object, frame.generation, frame.offset, size))

    # Storing -------------------------------------------------------------------------------

    async def store(self) -> None:
        """Write what arrived, for ever; several tasks do."""
        while True:
            if not self._arrived:
                await self._delivered.wait()
                continue
            moving, frame, payload = self._arrived.popleft()
            try:
                await self._store_one(moving, frame, payload)
            finally:
                if frame.type == FrameType.DATA:
                    self._held_bytes -= frame.raw_size

    async def _store_one(self, moving: ReceivingObject, frame: Frame, payload: bytearray) -> None:
        if moving.aborted:
            self._refuse(frame, ErrorNumber.NOT_FOUND)
            return
        if moving.error is not None:
            self._refuse(frame, ErrorNumber.SYSTEM)
            return
        if frame.type == FrameType.DATA:
            kind, size = AckKind.CHUNK, frame.raw_size
            failure = await moving.store(frame.offset, payload, self._limiter)
            self.received_bytes += 0 if failure else size
        else:
            kind, size = AckKind.ZERO, wire.read_zero_run(frame, payload)
            failure = await moving.store_zeros(frame.offset, size, self._limiter)
        if failure:
            self._refuse(frame, ErrorNumber.SYSTEM, failure)
            return
        self._answer(kind, frame, size)
        moving.finish_if_done()
