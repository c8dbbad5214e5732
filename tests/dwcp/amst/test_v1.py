"""Protocol v1 against a peer that is slow or silent, and its beginning and end.

What a link does with a peer in order is in ``tests/contracts/check_link.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.buckets import TokenBucket
from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.transport import Source, Target
from novacron.dwcp.amst.v1 import LinkMisuseError, open_link
from novacron.dwcp.amst.v1_objects import ReceivingObject
from novacron.dwcp.amst.wire import Ack, AckKind, FrameType
from novacron.network.memory import memory_stream_pair
from tests.dwcp.amst.v1_peer import CHUNK, Peer, opened, receive, send


@pytest.fixture(autouse=True)
def nothing_left_open(no_leaks: None) -> None:
    pass


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
