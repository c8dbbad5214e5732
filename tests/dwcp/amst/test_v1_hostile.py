"""Protocol v1 against a peer that breaks the protocol."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.errors import LinkLostError, ObjectRefusedError
from novacron.dwcp.amst.v1 import V1Link
from novacron.dwcp.amst.wire import Ack, AckKind, FrameType
from novacron.errors import DwcpError
from tests.dwcp.amst.v1_peer import CHUNK, Local, Peer, opened, receive, send


@pytest.fixture(autouse=True)
def nothing_left_open(no_leaks: None) -> None:
    pass


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
