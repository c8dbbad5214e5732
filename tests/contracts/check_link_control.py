"""The part of the link contract about turns, pauses, limits, and what goes wrong with an object."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from novacron.dwcp.amst.errors import (
    ObjectRefusedError,
    SourceReadError,
    TargetWriteError,
)
from novacron.dwcp.amst.transport import Moving, Source, Target
from novacron.errors import DwcpError
from tests.contracts.link_pair import (
    CHUNK,
    SLOW,
    Case,
    Pair,
    content,
    finish,
    link_works,
    move,
    opened,
    settled,
    until,
)

# --- Turns, pauses and limits -----------------------------------------------------------------


class Crowd:
    """Two objects of one size on a slow link, sent with these priorities."""

    def __init__(self, pair: Pair, size: int, priorities: tuple[int, int]) -> None:
        pair.near.limit(4 * SLOW)
        self.near: list[Moving] = []
        self.far: list[Moving] = []
        for number, priority in enumerate(priorities, 1):
            data = content(size, number)
            self.far.append(
                pair.far.receive_object(
                    number, 0, Target(size, memory=bytearray(size)), chunk_bytes=CHUNK
                )
            )
            self.near.append(
                pair.near.send_object(
                    number, 0, Source(size, memory=data), chunk_bytes=CHUNK, priority=priority
                )
            )


async def what_is_urgent_overtakes(pair: Pair, directory: Path) -> None:
    crowd = Crowd(pair, 16 * CHUNK, (2, 0))
    await crowd.near[1].wait()
    assert crowd.near[0].progress().done_bytes < 16 * CHUNK
    pair.near.limit(0)
    await finish(*crowd.near, *crowd.far)


async def a_priority_may_change_on_the_way(pair: Pair, directory: Path) -> None:
    crowd = Crowd(pair, 16 * CHUNK, (0, 1))
    await until(lambda: crowd.near[0].progress().done_bytes)
    crowd.near[0].prioritise(7)
    await crowd.near[1].wait()
    assert crowd.near[0].progress().done_bytes < 16 * CHUNK
    pair.near.limit(0)
    await finish(*crowd.near, *crowd.far)


async def those_of_one_priority_share(pair: Pair, directory: Path) -> None:
    crowd = Crowd(pair, 24 * CHUNK, (1, 1))
    await until(lambda: crowd.near[0].progress().done_bytes >= 12 * CHUNK)
    assert crowd.near[1].progress().done_bytes >= 4 * CHUNK
    pair.near.limit(0)
    await finish(*crowd.near, *crowd.far)


async def a_paused_object_stands_still_until_it_goes_on(pair: Pair, directory: Path) -> None:
    crowd = Crowd(pair, 16 * CHUNK, (1, 1))
    await until(lambda: crowd.near[0].progress().done_bytes)
    crowd.near[0].pause(True)
    stopped = await settled(crowd.near[0])
    await crowd.near[1].wait()
    assert crowd.near[0].progress().done_bytes == stopped < 16 * CHUNK
    pair.near.limit(0)
    crowd.near[0].pause(False)
    await finish(*crowd.near, *crowd.far)


async def each_object_keeps_its_limit(pair: Pair, directory: Path) -> None:
    size = 64 * CHUNK
    moving: list[Moving] = []
    for number, rate in ((1, SLOW), (2, 6 * SLOW)):
        target = Target(size, memory=bytearray(size))
        moving += [
            pair.far.receive_object(number, 0, target, chunk_bytes=CHUNK),
            pair.near.send_object(
                number,
                0,
                Source(size, memory=content(size)),
                chunk_bytes=CHUNK,
                limit_bps=rate,
            ),
        ]
    slow, fast = moving[1], moving[3]
    await until(lambda: fast.progress().moved_bytes >= 36 * CHUNK)
    # Six times, but for a chunk or two at the beginning, and a machine that has other things to do.
    assert 2 * CHUNK <= slow.progress().moved_bytes <= 14 * CHUNK
    slow.limit(0)
    fast.limit(0)
    await finish(*moving)


async def a_link_keeps_its_limit_over_all_objects(pair: Pair, directory: Path) -> None:
    taken = []
    for rate in (2 * SLOW, 12 * SLOW):
        pair.near.limit(rate)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in (1, 2):
                data = content(6 * CHUNK, number)
                nursery.start_soon(
                    move,
                    pair,
                    Source(len(data), memory=data),
                    Target(len(data), memory=bytearray(len(data))),
                    number,
                )
        taken.append(trio.current_time() - begun)
    assert taken[0] > 2 * taken[1]


# --- What goes wrong --------------------------------------------------------------------------


async def an_object_nobody_expects_is_refused(pair: Pair, directory: Path) -> None:
    near = pair.near.send_object(5, 0, Source(CHUNK, memory=content(CHUNK)), chunk_bytes=CHUNK)
    with pytest.raises(ObjectRefusedError, match="does not expect"):
        await near.wait()
    await near.aclose()
    await link_works(pair)


async def a_receiver_that_gives_up_stops_the_sender(pair: Pair, directory: Path) -> None:
    size = 32 * CHUNK
    target = bytearray(size)
    far = pair.far.receive_object(1, 0, Target(size, memory=target), chunk_bytes=CHUNK)
    near = pair.near.send_object(
        1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK, limit_bps=4 * SLOW
    )
    await until(lambda: far.progress().done_bytes)
    await far.aclose()
    there = bytes(target)
    with pytest.raises(ObjectRefusedError):
        await near.wait()
    with pytest.raises(DwcpError):
        await far.wait()
    assert target == there, "nothing touches the memory any more"
    await near.aclose()
    await link_works(pair)


async def a_sender_that_gives_up_leaves_the_link_in_order(pair: Pair, directory: Path) -> None:
    size = 32 * CHUNK
    far = pair.far.receive_object(1, 0, Target(size, memory=bytearray(size)), chunk_bytes=CHUNK)
    near = pair.near.send_object(
        1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK, limit_bps=4 * SLOW
    )
    await until(lambda: near.progress().done_bytes)
    await near.aclose()
    with pytest.raises(DwcpError):
        await near.wait()
    assert await settled(far) < size
    await far.aclose()
    await link_works(pair)


async def a_full_disk_is_known_on_both_ends(pair: Pair, directory: Path) -> None:
    size = 8 * CHUNK
    full = os.open("/dev/full", os.O_RDWR)
    try:
        far = pair.far.receive_object(1, 0, Target(size, fd=full), chunk_bytes=CHUNK)
        near = pair.near.send_object(1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK)
        with pytest.raises(TargetWriteError, match="No space left"):
            await far.wait()
        with pytest.raises(ObjectRefusedError, match="No space left"):
            await near.wait()
        await near.aclose()
        await far.aclose()
    finally:
        os.close(full)
    await link_works(pair)


async def a_target_that_cannot_be_written_is_known_on_both_ends(
    pair: Pair, directory: Path
) -> None:
    (directory / "target").write_bytes(bytes(CHUNK))
    read_only = os.open(directory / "target", os.O_RDONLY)
    try:
        far = pair.far.receive_object(1, 0, Target(CHUNK, fd=read_only), chunk_bytes=CHUNK)
        near = pair.near.send_object(1, 0, Source(CHUNK, memory=content(CHUNK)), chunk_bytes=CHUNK)
        with pytest.raises(TargetWriteError):
            await far.wait()
        with pytest.raises(ObjectRefusedError):
            await near.wait()
        await near.aclose()
        await far.aclose()
    finally:
        os.close(read_only)
    await link_works(pair)


async def a_source_that_shrank_is_known_to_the_sender(pair: Pair, directory: Path) -> None:
    size = 8 * CHUNK
    # Of an object that did not finish, frames may still be under way: the next needs another number.
    for number, sparse in enumerate((False, True), 1):
        with opened(directory / f"source {sparse}", content(3 * CHUNK)) as source:
            far = pair.far.receive_object(
                number, 0, Target(size, memory=bytearray(size)), chunk_bytes=CHUNK
            )
            near = pair.near.send_object(
                number, 0, Source(size, fd=source, sparse=sparse), chunk_bytes=CHUNK
            )
            with pytest.raises(SourceReadError, match="shorter"):
                await near.wait()
            await near.aclose()
            await far.aclose()
    await link_works(pair)


async def what_is_closed_while_cancelled_is_closed(pair: Pair, directory: Path) -> None:
    size = 32 * CHUNK
    target = bytearray(size)
    far = pair.far.receive_object(1, 0, Target(size, memory=target), chunk_bytes=CHUNK)
    near = pair.near.send_object(1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK)
    with trio.CancelScope() as scope:
        scope.cancel()
        await far.aclose()
        await near.aclose()
    there = bytes(target)
    await link_works(pair)
    assert target == there


CASES: list[Case] = [
    what_is_urgent_overtakes,
    a_priority_may_change_on_the_way,
    those_of_one_priority_share,
    a_paused_object_stands_still_until_it_goes_on,
    each_object_keeps_its_limit,
    a_link_keeps_its_limit_over_all_objects,
    an_object_nobody_expects_is_refused,
    a_receiver_that_gives_up_stops_the_sender,
    a_sender_that_gives_up_leaves_the_link_in_order,
    a_full_disk_is_known_on_both_ends,
    a_target_that_cannot_be_written_is_known_on_both_ends,
    a_source_that_shrank_is_known_to_the_sender,
    what_is_closed_while_cancelled_is_closed,
]
