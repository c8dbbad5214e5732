"""What every :class:`novacron.dwcp.amst.transport.Link` must do.

Each case gets a connected pair, whose chunks may have up to 1 MiB and whose windows have 4 MiB, and
a directory. ``CASES`` has them all.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from novacron.dwcp.amst.errors import (
    LinkLostError,
)
from novacron.dwcp.amst.transport import Moving, Source, Target
from novacron.errors import DwcpError
from tests.contracts import (
    check_link_coding,
    check_link_control,
    check_link_objects,
    check_link_pipes,
)
from tests.contracts.check_link_pipes import Pipes
from tests.contracts.link_pair import (
    CHUNK,
    MAX_CHUNK,
    SLOW,
    WINDOW,
    Case,
    Pair,
    content,
    move,
    until,
)

__all__ = ["CASES", "MAX_CHUNK", "WINDOW", "Case", "Pair"]


class Everything:
    """Something of each kind, none of which can finish."""

    def __init__(self, pair: Pair) -> None:
        size = 64 * CHUNK
        pair.near.limit(SLOW)
        self.pipes = Pipes(pair, 3)
        self.moving: list[Moving] = [
            pair.far.receive_object(1, 0, Target(size, memory=bytearray(size)), chunk_bytes=CHUNK),
            pair.near.send_object(1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK),
            *self.pipes.moving,
        ]

    async def all_lose(self) -> None:
        for one in self.moving:
            with pytest.raises(LinkLostError):
                await one.wait()

    async def aclose(self) -> None:
        for one in self.moving:
            await one.aclose()
        await self.pipes.__aexit__()


async def when_the_link_is_lost_everything_on_it_is(pair: Pair, directory: Path) -> None:
    everything = Everything(pair)
    try:
        await until(lambda: everything.moving[1].progress().done_bytes)
        await pair.lose()
        assert isinstance(await pair.near.wait_ended(), DwcpError)
        assert isinstance(await pair.far.wait_ended(), DwcpError)
        await everything.all_lose()
        for link in (pair.near, pair.far):
            with pytest.raises(LinkLostError):
                link.send_object(9, 0, Source(1, memory=b"x"), chunk_bytes=CHUNK)
            with pytest.raises(LinkLostError):
                link.receive_object(9, 0, Target(1, memory=bytearray(1)), chunk_bytes=CHUNK)
    finally:
        await everything.aclose()


async def a_closed_link_ends_what_is_on_it(pair: Pair, directory: Path) -> None:
    everything = Everything(pair)
    try:
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(everything.all_lose)
            await trio.sleep(0.05)
            nursery.start_soon(pair.near.aclose)
            nursery.start_soon(pair.far.aclose)
        assert isinstance(await pair.near.wait_ended(), DwcpError)
        await pair.near.aclose()
    finally:
        await everything.aclose()


async def a_link_may_be_closed_while_cancelled(pair: Pair, directory: Path) -> None:
    everything = Everything(pair)
    with trio.CancelScope() as scope:
        scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.near.aclose)
            nursery.start_soon(pair.far.aclose)
    await everything.all_lose()
    await everything.aclose()


async def the_statistics_say_what_was_moved(pair: Pair, directory: Path) -> None:
    data = content(9 * CHUNK + 1)
    await move(
        pair,
        Source(len(data), memory=data),
        Target(len(data), memory=bytearray(len(data))),
    )
    # A chunk that was sent twice, because a stream was slow, may still be under way.
    await until(lambda: not pair.near.statistics().counters.in_flight_bytes)
    near, far = pair.near.statistics(), pair.far.statistics()
    assert near.counters.sent_bytes >= far.counters.received_bytes == len(data)
    assert near.counters.wire_sent_bytes >= len(data)
    assert far.counters.wire_received_bytes >= len(data)
    assert near.counters.streams == len(near.streams) >= 1
    assert sum(stream.sent_bytes for stream in near.streams) >= len(data)
    assert {stream.mover for stream in near.streams} == {pair.near.mover}
    assert pair.near.protocol in (1, 3)
    assert pair.near.max_chunk_bytes >= CHUNK


_ENDS: list[Case] = [
    when_the_link_is_lost_everything_on_it_is,
    a_closed_link_ends_what_is_on_it,
    a_link_may_be_closed_while_cancelled,
    the_statistics_say_what_was_moved,
]

CASES: list[Case] = [
    *check_link_objects.CASES,
    *check_link_coding.CASES,
    *check_link_control.CASES,
    *check_link_pipes.CASES,
    *_ENDS,
]
