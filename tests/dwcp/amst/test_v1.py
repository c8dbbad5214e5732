"""Protocol v1 against a peer that is slow, silent, broken or hostile.

What a link does with a peer in order is in ``tests/contracts/check_link.py``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.buckets import TokenBucket
from novacron.dwcp.amst.errors import LinkLostError, ObjectRefusedError
from novacron.dwcp.amst.transport import Source, Target
from novacron.dwcp.amst.v1 import LinkMisuseError, V1Link, open_link
from novacron.dwcp.amst.v1_objects import ReceivingObject
from novacron.dwcp.amst.wire import Ack, AckKind, Frame, FrameType
from novacron.errors import DwcpError
from novacron.network.memory import MemoryStream, memory_stream_pair

CHUNK = 65536
PATIENCE = 0.4


@pytest.fixture(autouse=True)
def nothing_left_open(no_leaks: None) -> None:
    pass


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


# --- Waiting ----------------------------------------------------------------------------------


async def test_a_peer_that_takes_nothing_loses_the_link() -> None:
    async with opened(send_window=64 * CHUNK) as (link, _):
        moving = send(link, 60 * CHUNK)
        assert "took nothing" in str(await link.wait_ended())
        with pytest.raises(LinkLostError, match="took nothing"):
            await moving.wait()


async def test_a_peer_that_stops_within_a_frame_loses_the_link() -> None:
    for cut in (1, wire.HEADER_BYTES, wire.HEADER_BYTES + 5):
        async with opened() as (link, peer):
            receive(link, CHUNK)
            data = bytes(CHUNK)
            payload = data + wire.content_checksum(data)
            frame = peer.frame(FrameType.DATA, payload, object=1, raw_size=CHUNK)
            await peer.stream.send_all(frame[:cut])
            assert "middle of a frame" in str(await link.wait_ended())


async def test_a_frame_that_began_together_with_the_one_before_counts_as_well() -> None:
    async with opened() as (link, peer):
        ack = peer.frame(FrameType.ACK, wire.write_acks([Ack(AckKind.READ, 9)]))
        await peer.stream.send_all(ack + b"\x4e")
        assert "middle of a frame" in str(await link.wait_ended())


async def test_a_peer_that_acknowledges_nothing_loses_the_link() -> None:
    async with opened(patience=0.1) as (link, peer):
        moving = send(link, CHUNK)
        frame, _ = await peer.hear()
        assert frame.type == FrameType.DATA
        assert "acknowledged nothing" in str(await link.wait_ended())
        with pytest.raises(LinkLostError):
            await moving.wait()


async def test_a_peer_that_moves_slowly_keeps_it() -> None:
    async with opened(patience=0.2) as (link, peer):
        moving, target = receive(link, CHUNK)
        data = os.urandom(CHUNK)
        payload = data + wire.content_checksum(data)
        frame = peer.frame(FrameType.DATA, payload, object=1, raw_size=CHUNK)
        for begin in range(0, len(frame), 8192):
            await peer.stream.send_all(frame[begin : begin + 8192])
            await trio.sleep(0.06)
        await moving.wait()
        assert target == data


async def test_silence_while_nothing_is_under_way_is_no_failure() -> None:
    async with opened(patience=0.05) as (link, peer):
        moving, target = receive(link, CHUNK)
        with trio.move_on_after(0.5) as scope:
            await link.wait_ended()
        assert scope.cancelled_caught
        await peer.say_chunk(0, b"x" * CHUNK)
        await moving.wait()
        assert target == b"x" * CHUNK


async def test_no_more_is_under_way_than_the_window() -> None:
    async with opened(patience=30) as (link, peer):
        send(link, 20 * CHUNK)
        heard = []
        with trio.move_on_after(0.3):
            while True:
                heard.append((await peer.hear())[0].offset)
        assert heard == [0, CHUNK, 2 * CHUNK, 3 * CHUNK]
        await peer.acknowledge(Ack(AckKind.CHUNK, 1, 0, CHUNK, CHUNK))
        assert (await peer.hear())[0].offset == 4 * CHUNK


async def test_what_was_given_up_stays_in_the_window_until_it_is_acknowledged() -> None:
    async with opened(patience=30) as (link, peer):
        moving = send(link, 20 * CHUNK)
        for _ in range(4):
            await peer.hear()
        await moving.aclose()
        send(link, CHUNK)
        with trio.move_on_after(0.2) as scope:
            await peer.hear()
        assert scope.cancelled_caught
        await peer.acknowledge(*(Ack(AckKind.CHUNK, 1, 0, n * CHUNK, CHUNK) for n in range(4)))
        assert (await peer.hear())[0].offset == 0


async def test_a_peer_that_ignores_the_window_is_not_read() -> None:
    """What it sends stays in the stream; memory is bounded by the window."""
    go = trio.Event()
    held = 0
    most = 0
    real = ReceivingObject.store

    async def slow(self: ReceivingObject, offset: int, payload: bytearray, limiter: Any) -> int:
        await go.wait()
        return await real(self, offset, payload, limiter)

    with mock.patch.object(ReceivingObject, "store", slow):
        async with opened(patience=30) as (link, peer):
            moving, target = receive(link, 40 * CHUNK)
            async with trio.open_nursery() as nursery:

                async def flood() -> None:
                    nonlocal held, most
                    for index in range(40):
                        await peer.say_chunk(index, bytes([index]) * CHUNK)
                        held += 1
                        if not go.is_set():
                            most = held

                nursery.start_soon(flood)
                before = -1
                while before != (before := held):
                    await trio.sleep(0.1)
                # The window, one more that was read up to its header, and the stream's own 16.
                assert 4 <= most <= 4 + 1 + 17
                go.set()
                while not moving.finished:
                    await peer.hear_acks()
            assert target == b"".join(bytes([index]) * CHUNK for index in range(40))


# --- What breaks the protocol -----------------------------------------------------------------


async def ends(link: V1Link, why: str) -> None:
    reason = await link.wait_ended()
    assert why in str(reason)
    assert link.statistics().counters.bad_frames == 1
    assert link.statistics().streams == []


async def test_a_frame_out_of_its_order_ends_the_link() -> None:
    for fields in ({"sequence": 2}, {"sequence": 0}, {"stream": 1}, {"epoch": 1}):
        async with opened() as (link, peer):
            await peer.say(FrameType.BYE, **fields)
            await ends(link, "out of its order")


async def test_a_repeated_frame_ends_the_link() -> None:
    async with opened() as (link, peer):
        frame = peer.frame(FrameType.ACK, wire.write_acks([Ack(AckKind.READ, 9)]))
        await peer.stream.send_all(frame + frame)
        await ends(link, "out of its order")


async def test_a_damaged_header_ends_the_link() -> None:
    for position in (0, 5, 20, 63):
        async with opened() as (link, peer):
            frame = bytearray(peer.frame(FrameType.BYE))
            frame[position] ^= 1
            await peer.stream.send_all(bytes(frame))
            await ends(link, "no frame of this link")


async def test_damaged_content_ends_the_link_and_is_not_written() -> None:
    async with opened() as (link, peer):
        moving, target = receive(link, CHUNK)
        data = bytearray(b"x" * CHUNK)
        payload = bytes(data) + wire.content_checksum(b"y" * CHUNK)
        await peer.say(FrameType.DATA, payload, object=1, raw_size=CHUNK)
        await ends(link, "damaged")
        with pytest.raises(LinkLostError):
            await moving.wait()
        assert not any(target)


async def test_a_greeting_on_an_open_link_ends_it() -> None:
    async with opened() as (link, peer):
        await peer.stream.send_all(wire.write_hello(FrameType.HELLO, 0, bytes(16), bytes(16), 0))
        await ends(link, "out of its order")


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": 1, "raw_size": CHUNK},
        {"offset": 2 * CHUNK, "raw_size": CHUNK},
        {"offset": CHUNK, "raw_size": CHUNK},
        {"offset": 0, "raw_size": 100},
        {"offset": 1 << 62, "raw_size": 100},
    ],
)
async def test_a_chunk_that_does_not_fit_fails_its_object_alone(fields: dict[str, int]) -> None:
    async with opened() as (link, peer):
        moving, target = receive(link, CHUNK + 5)
        data = b"x" * fields["raw_size"]
        payload = data + wire.content_checksum(data)
        await peer.say(FrameType.DATA, payload, object=1, **fields)
        assert [ack.kind for ack in await peer.hear_acks()] == [AckKind.REFUSED]
        with pytest.raises(DwcpError, match="does not fit"):
            await moving.wait()
        assert not any(target)
        await peer.say_chunk(0, b"y" * CHUNK)
        assert [ack.kind for ack in await peer.hear_acks()] == [AckKind.REFUSED]
        assert not any(target)


@pytest.mark.parametrize(
    ("offset", "size"), [(1, CHUNK), (0, 100), (0, 1 << 40), (CHUNK, CHUNK), (4 * CHUNK, 5)]
)
async def test_a_run_of_zeros_that_does_not_fit_fails_its_object_alone(
    offset: int, size: int
) -> None:
    async with opened() as (link, peer):
        moving, _ = receive(link, CHUNK + 5)
        await peer.say(FrameType.ZERO, wire.write_zero_run(size), object=1, offset=offset)
        assert [ack.kind for ack in await peer.hear_acks()] == [AckKind.REFUSED]
        with pytest.raises(DwcpError, match="does not fit"):
            await moving.wait()


async def test_a_chunk_that_comes_twice_is_written_once() -> None:
    async with opened() as (link, peer):
        moving, target = receive(link, 2 * CHUNK)
        await peer.say_chunk(0, b"a" * CHUNK)
        assert await peer.hear_acks() == [Ack(AckKind.CHUNK, 1, 0, 0, CHUNK)]
        await peer.say_chunk(0, b"b" * CHUNK)
        assert await peer.hear_acks() == [Ack(AckKind.CHUNK, 1, 0, 0, CHUNK)]
        assert target == b"a" * CHUNK + bytes(CHUNK)
        assert link.statistics().counters.duplicate_bytes == CHUNK
        await peer.say_chunk(1, b"c" * CHUNK)
        await moving.wait()


async def test_zeros_after_content_do_not_change_its_leaf() -> None:
    async with opened() as (link, peer):
        moving, _ = receive(link, 2 * CHUNK)
        await peer.say_chunk(0, b"a" * CHUNK)
        await peer.hear_acks()
        leaf = moving.leaves(0, 1)
        await peer.say(FrameType.ZERO, wire.write_zero_run(2 * CHUNK), object=1)
        await moving.wait()
        assert moving.leaves(0, 1) == leaf
        assert moving.progress().done_bytes == 2 * CHUNK


async def test_acknowledgements_of_what_was_not_sent_are_passed_over() -> None:
    async with opened(patience=30) as (link, peer):
        moving = send(link, CHUNK)
        await peer.hear()
        await peer.acknowledge(
            Ack(AckKind.CHUNK, 1, 0, CHUNK, CHUNK),
            Ack(AckKind.CHUNK, 1, 0, 0, CHUNK - 1),
            Ack(AckKind.CHUNK, 1, 1, 0, CHUNK),
            Ack(AckKind.CHUNK, 2, 0, 0, CHUNK),
            Ack(AckKind.READ, 1, 0, 5),
        )
        with trio.move_on_after(0.1) as scope:
            await moving.wait()
        assert scope.cancelled_caught
        assert moving.progress().done_bytes == 0
        await peer.acknowledge(Ack(AckKind.CHUNK, 1, 0, 0, CHUNK))
        await moving.wait()


async def test_a_refusal_of_a_kind_nobody_knows_is_a_refusal() -> None:
    async with opened() as (link, peer):
        moving = send(link, CHUNK)
        await peer.hear()
        await peer.acknowledge(Ack(AckKind.REFUSED, 1, 0, 0, 4711))
        with pytest.raises(ObjectRefusedError):
            await moving.wait()


class Local:
    """A byte stream at the link's end, and the program's end of it."""

    def __init__(self) -> None:
        self.program, self.link_end = socket.socketpair()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *exc: object) -> None:
        self.program.close()
        self.link_end.close()


async def say_segment(peer: Peer, offset: int, data: bytes) -> None:
    payload = data + wire.content_checksum(data)
    await peer.say(FrameType.SEGMENT, payload, object=1, offset=offset, raw_size=len(data))


async def test_segments_out_of_order_end_the_link() -> None:
    for offset in (0, 2, 1 << 40):
        with Local() as local:
            async with opened() as (link, peer):
                link.receive_pipe(1, local.link_end.fileno(), window_bytes=CHUNK)
                await say_segment(peer, 0, b"x")
                await say_segment(peer, offset, b"y")
                await ends(link, "a segment at")


async def test_segments_beyond_the_window_end_the_link() -> None:
    with Local() as local:
        local.link_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with opened() as (link, peer):
            link.receive_pipe(1, local.link_end.fileno(), window_bytes=2 * CHUNK)
            for number in range(6):
                await say_segment(peer, number * CHUNK, bytes(CHUNK))
            await ends(link, "window of a stream")


async def test_a_segment_after_the_end_ends_the_link() -> None:
    with Local() as local:
        async with opened() as (link, peer):
            link.receive_pipe(1, local.link_end.fileno(), window_bytes=CHUNK)
            await peer.say(FrameType.END, object=1)
            await say_segment(peer, 0, b"x")
            reason = await link.wait_ended()
            assert "a segment at" in str(reason)


async def test_reading_more_than_was_sent_ends_the_link() -> None:
    with Local() as local:
        async with opened() as (link, peer):
            link.send_pipe(1, local.link_end.fileno(), chunk_bytes=CHUNK, window_bytes=CHUNK)
            local.program.send(b"abc")
            await peer.hear()
            await peer.acknowledge(Ack(AckKind.READ, 1, 0, 4))
            await ends(link, "more than was sent")


async def test_a_byte_stream_stays_within_its_window_of_unread_bytes() -> None:
    with Local() as local:
        async with opened(patience=30) as (link, peer):
            link.send_pipe(1, local.link_end.fileno(), chunk_bytes=CHUNK, window_bytes=1000)
            local.program.send(bytes(5000))
            frame, payload = await peer.hear()
            assert (frame.type, len(payload)) == (FrameType.SEGMENT, 1004)
            await peer.acknowledge(Ack(AckKind.SEGMENT, 1, 0, 0, 1000))
            with trio.move_on_after(0.1) as scope:
                await peer.hear()
            assert scope.cancelled_caught
            await peer.acknowledge(Ack(AckKind.READ, 1, 0, 300))
            frame, payload = await peer.hear()
            assert (frame.offset, len(payload)) == (1000, 304)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_no_bytes_whatever_break_anything_but_the_link(data: Any) -> None:
    """Frames in order with arbitrary fields, cut, joined and damaged."""

    async def run() -> None:
        with Local() as local:
            async with opened(patience=30) as (link, peer):
                moving, target = receive(link, 3 * CHUNK + 5)
                link.receive_pipe(2, local.link_end.fileno(), window_bytes=CHUNK)
                send(link, 2 * CHUNK)
                said = bytearray()
                for _ in range(data.draw(st.integers(0, 8))):
                    said += data.draw(FRAMES)(peer)
                for position in data.draw(st.lists(st.integers(0, 10**6), max_size=2)):
                    if said:
                        said[position % len(said)] ^= data.draw(st.integers(1, 255))
                said += data.draw(st.binary(max_size=80))
                if said:
                    await peer.stream.send_all(bytes(said))
                await trio.testing.wait_all_tasks_blocked(0.002)
                await peer.stream.aclose()
                assert isinstance(await link.wait_ended(), DwcpError)
                assert moving.finished
                assert (moving.error is None) == (moving.progress().done_chunks == 4)
                # What was written is what a sender said, at its place.
                for index in range(4):
                    part = bytes(target[index * CHUNK : (index + 1) * CHUNK])
                    assert len(set(part)) == 1

    trio.run(run)


def _chunk(index: int, value: int, number: int) -> Any:
    def make(peer: Peer) -> bytes:
        content = bytes([value]) * (CHUNK if index < 3 else 5)
        payload = content + wire.content_checksum(content)
        return peer.frame(
            FrameType.DATA, payload, object=number, offset=index * CHUNK, raw_size=len(content)
        )

    return make


def _segment(offset: int, size: int, number: int) -> Any:
    def make(peer: Peer) -> bytes:
        content = bytes(size)
        payload = content + wire.content_checksum(content)
        return peer.frame(FrameType.SEGMENT, payload, object=number, offset=offset, raw_size=size)

    return make


def _acks(kind: AckKind, number: int, offset: int, value: int) -> Any:
    def make(peer: Peer) -> bytes:
        low = 0 if kind in (AckKind.READ, AckKind.SEGMENT) else 1
        high = {AckKind.READ: 0, AckKind.REFUSED: 11}.get(kind, CHUNK)
        ack = Ack(kind, number, 0, offset, min(max(value, low), high))
        return peer.frame(FrameType.ACK, wire.write_acks([ack]))

    return make


def _mark(kind: FrameType, number: int, offset: int, size: int) -> Any:
    def make(peer: Peer) -> bytes:
        payload = wire.write_zero_run(size) if kind == FrameType.ZERO else b""
        return peer.frame(kind, payload, object=number, offset=offset)

    return make


NUMBERS = st.integers(1, 3)
OFFSETS = st.sampled_from([0, 1, 5, CHUNK, 2 * CHUNK, 3 * CHUNK])
COUNTS = st.sampled_from([1, 5, CHUNK, 2 * CHUNK, 3 * CHUNK + 5])
FRAMES = st.one_of(
    st.builds(_chunk, st.integers(0, 3), st.integers(0, 255), NUMBERS),
    st.builds(_segment, OFFSETS, st.sampled_from([1, 5, CHUNK]), NUMBERS),
    st.builds(
        _acks, st.sampled_from(list(AckKind)), NUMBERS, st.sampled_from([0, 5, 4095]), COUNTS
    ),
    st.builds(_mark, st.sampled_from([FrameType.ZERO, FrameType.END]), NUMBERS, OFFSETS, COUNTS),
)


# --- Ends and beginnings ----------------------------------------------------------------------


async def test_what_was_read_before_belongs_to_the_link() -> None:
    near, far = memory_stream_pair("a:0", b"a", "b:0", b"b")
    peer = Peer(far)
    early = peer.frame(FrameType.ZERO, wire.write_zero_run(CHUNK), object=1)
    async with trio.open_nursery() as nursery:
        link = await open_link(
            near,
            peer="b",
            max_chunk_bytes=CHUNK,
            send_window=CHUNK,
            receive_window=CHUNK,
            nursery=nursery,
            received=early[:30],
        )
        moving, _ = receive(link, CHUNK)
        await far.send_all(early[30:])
        with trio.fail_after(10):
            await moving.wait()
        await far.aclose()
        await link.aclose()


async def test_a_closed_link_says_so_and_the_peer_knows() -> None:
    async with opened() as (link, peer):
        await link.aclose()
        frame, _ = await peer.hear()
        assert frame.type == FrameType.BYE
        assert await peer.stream.receive_some() == b""


async def test_a_farewell_ends_the_link() -> None:
    async with opened() as (link, peer):
        await peer.say(FrameType.BYE)
        assert "the other node closed it" in str(await link.wait_ended())


async def test_the_end_of_the_stream_ends_the_link() -> None:
    async with opened() as (link, peer):
        await peer.stream.aclose()
        assert "closed the connection" in str(await link.wait_ended())


async def test_a_cancelled_nursery_loses_what_moves(tmp_path: Path) -> None:
    near, far = memory_stream_pair("a:0", b"a", "b:0", b"b")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            link = await open_link(
                near,
                peer="b",
                max_chunk_bytes=CHUNK,
                send_window=CHUNK,
                receive_window=CHUNK,
                nursery=nursery,
            )
            moving = send(link, 10 * CHUNK)
            nursery.cancel_scope.cancel()
        with pytest.raises(LinkLostError):
            await moving.wait()
        await moving.aclose()
        await link.aclose()
    await far.aclose()


async def test_a_limit_may_be_shared_by_several_links() -> None:
    bucket = TokenBucket(100 * CHUNK, trio.current_time())
    bucket.take(1000 * CHUNK)
    async with opened(limits=[bucket], patience=30) as (link, peer):
        send(link, CHUNK)
        with trio.move_on_after(0.2) as scope:
            await peer.hear()
        assert scope.cancelled_caught
        bucket.change(0, trio.current_time())
        link.kick()
        assert (await peer.hear())[0].type == FrameType.DATA
        assert link.statistics().counters.limited_ns > 0


async def test_what_does_not_fit_the_link_is_a_mistake() -> None:
    async with opened() as (link, _):
        source, target = Source(1, memory=b"x"), Target(1, memory=bytearray(1))
        for chunk in (0, 100, CHUNK + 4096, 2 * CHUNK):
            with pytest.raises(LinkMisuseError):
                link.send_object(1, 0, source, chunk_bytes=chunk)
        with pytest.raises(LinkMisuseError):
            link.receive_object(0, 0, target, chunk_bytes=CHUNK)
        link.receive_object(1, 0, target, chunk_bytes=CHUNK)
        with pytest.raises(LinkMisuseError, match="taken"):
            link.receive_object(1, 0, target, chunk_bytes=CHUNK)
        with pytest.raises(LinkMisuseError):
            link.receive_pipe(2, 0, window_bytes=0)
        with pytest.raises(LinkMisuseError):
            link.send_pipe(2, 0, chunk_bytes=0, window_bytes=1)
