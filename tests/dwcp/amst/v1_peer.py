"""A peer of protocol v1 that speaks frame by frame, and does what a test says."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.transport import Source, Target
from novacron.dwcp.amst.v1 import V1Link, open_link
from novacron.dwcp.amst.wire import Ack, Frame, FrameType
from novacron.network.memory import MemoryStream, memory_stream_pair

CHUNK = 65536
PATIENCE = 0.4


class Peer:
    """The other end, frame by frame."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.sequence = 1
        self._input = bytearray()

    def frame(self, kind: FrameType, payload: bytes = b"", **fields: Any) -> bytes:
        fields = {"sequence": self.sequence, "wire_size": len(payload)} | fields
        self.sequence += 1
        return wire.write_header(Frame(kind, **fields), 0) + payload

    async def say(self, kind: FrameType, payload: bytes = b"", **fields: Any) -> None:
        await self.stream.send_all(self.frame(kind, payload, **fields))

    async def say_chunk(self, index: int, data: bytes, number: int = 1) -> None:
        payload = data + wire.content_checksum(data)
        await self.say(
            FrameType.DATA, payload, object=number, offset=index * CHUNK, raw_size=len(data)
        )

    async def acknowledge(self, *acks: Ack) -> None:
        await self.say(FrameType.ACK, wire.write_acks(acks))

    async def _take(self, size: int) -> bytes:
        while len(self._input) < size:
            data = await self.stream.receive_some()
            assert data, "the link ended"
            self._input += data
        taken = bytes(self._input[:size])
        del self._input[:size]
        return taken

    async def hear(self) -> tuple[Frame, bytes]:
        frame = wire.read_header(await self._take(wire.HEADER_BYTES), 0)
        return frame, await self._take(frame.wire_size)

    async def hear_acks(self) -> list[Ack]:
        frame, payload = await self.hear()
        assert frame.type == FrameType.ACK
        return wire.read_acks(payload)


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[V1Link, Peer]]:
    near, far = memory_stream_pair("a:0", b"a", "b:0", b"b")
    options = {
        "peer": "b",
        "max_chunk_bytes": CHUNK,
        "send_window": 4 * CHUNK,
        "receive_window": 4 * CHUNK,
        "patience": PATIENCE,
    } | options
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            link = await open_link(near, nursery=nursery, **options)
            try:
                yield link, Peer(far)
            finally:
                with trio.CancelScope(shield=True):
                    await far.aclose()
                    await link.aclose()


def send(link: V1Link, size: int, **options: Any) -> Any:
    return link.send_object(1, 0, Source(size, memory=bytes(size)), chunk_bytes=CHUNK, **options)


def receive(link: V1Link, size: int) -> tuple[Any, bytearray]:
    target = bytearray(size)
    return link.receive_object(1, 0, Target(size, memory=target), chunk_bytes=CHUNK), target


class Local:
    """A byte stream at the link's end, and the program's end of it."""

    def __init__(self) -> None:
        self.program, self.link_end = socket.socketpair()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *exc: object) -> None:
        self.program.close()
        self.link_end.close()
