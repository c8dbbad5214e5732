"""Sessions on memory streams, with time that jumps."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from novacron.errors import NetworkError
from novacron.network.memory import MemoryStream, memory_stream_pair
from novacron.network.session import QUEUE_FRAMES, PeerSession, RequestHandler
from novacron.protocol.codes import GoodbyeReason, MisuseError
from novacron.protocol.events import Closed, ConnectionLostError, Failed, SessionTimeoutError
from novacron.protocol.messages import Ping, Request, encode
from novacron.protocol.party import local_party
from novacron.protocol.session import SessionMachine
from novacron.protocol.states import Role
from tests.network.authority import node_id

A, B = node_id(10), node_id(11)


def open_session(
    stream: MemoryStream,
    role: Role,
    handlers: dict[str, RequestHandler] | None = None,
    **party: Any,
) -> PeerSession:
    own, other = (A, B) if role is Role.INITIATOR else (B, A)
    return PeerSession(
        stream,
        role,
        local_party(own, "boot", **party),
        other,
        handlers or {},
        started_at=trio.current_time(),
    )


@asynccontextmanager
async def two_sessions(
    handlers: dict[str, RequestHandler] | None = None, **party: Any
) -> AsyncIterator[tuple[PeerSession, PeerSession]]:
    near, far = memory_stream_pair("near:1", b"", "far:1", b"")
    first = open_session(near, Role.INITIATOR, **party)
    second = open_session(far, Role.ACCEPTOR, handlers, **party)

    async def live(session: PeerSession) -> None:
        await session.handshake()
        await session.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, first)
        nursery.start_soon(live, second)
        await trio.testing.wait_all_tasks_blocked()
        yield first, second
        nursery.cancel_scope.cancel()


async def raw_peer(**party: Any) -> tuple[MemoryStream, PeerSession]:
    """An acceptor's session whose peer is this test, past the handshake."""
    near, far = memory_stream_pair("near:1", b"", "far:1", b"")
    session = open_session(far, Role.ACCEPTOR, **party)
    machine = SessionMachine(
        Role.INITIATOR, local_party(A, "boot"), certified_id=B, now=trio.current_time()
    )
    await near.send_all(machine.start())
    await session.handshake()
    return near, session


async def test_an_idle_session_lives_on_pings_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with two_sessions(ping_interval=5.0, idle_timeout=60.0) as (first, second):
        await trio.sleep(3600)
        assert first.outcome is second.outcome is None
        assert first.statistics().samples == pytest.approx(720, abs=3)
        assert first.statistics().loss == 0


async def test_a_peer_that_falls_silent_is_given_up_after_the_idle_time_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, session = await raw_peer(idle_timeout=60.0)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def read_and_say_nothing() -> None:
            while await near.receive_some():
                pass

        nursery.start_soon(read_and_say_nothing)
        outcome = await session.run()
    assert isinstance(outcome, Failed)
    assert outcome.reason == "idle_timeout"
    assert trio.current_time() - start == pytest.approx(60.0)


async def test_a_peer_that_dribbles_a_frame_is_given_up_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, session = await raw_peer(idle_timeout=60.0)
    start = trio.current_time()

    async def dribble() -> None:
        for byte in encode(Request(0, "x", bytes(500))):
            await near.send_all(bytes([byte]))
            await trio.sleep(1.0)

    async def read() -> None:
        while await near.receive_some():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        nursery.start_soon(read)
        outcome = await session.run()
        nursery.cancel_scope.cancel()
    assert isinstance(outcome, Failed)
    assert outcome.reason == "idle_timeout"
    assert trio.current_time() - start == pytest.approx(60.0)


async def test_a_peer_that_does_not_read_stops_being_read_and_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def large(_: PeerSession, body: bytes) -> bytes:
        return bytes(10_000)

    near, session = await raw_peer(idle_timeout=60.0, max_in_flight=1000)
    session._handlers = {"large": large}
    taken = 0

    async def ask_without_reading() -> None:
        nonlocal taken
        with contextlib.suppress(ConnectionLostError):
            while True:
                await near.send_all(encode(Request(taken, "large", b"")))
                taken += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_without_reading)
        outcome = await session.run()
        nursery.cancel_scope.cancel()
    assert isinstance(outcome, Failed)
    assert outcome.reason in ("write_timeout", "limit", "idle_timeout")
    # What waits is bounded by the queue, not by what was asked for. A ping of the machine's own and
    # the last words go past the bound, one of each.
    assert len(session._outgoing) <= QUEUE_FRAMES + 2
    assert taken <= 1000 + 16 + 1


async def test_pings_of_a_peer_that_does_not_read_fill_the_queue_and_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, session = await raw_peer(idle_timeout=60.0)
    highest = 0

    async def ping_without_reading() -> None:
        nonlocal highest
        with contextlib.suppress(ConnectionLostError):
            for number in range(10_000):
                await near.send_all(encode(Ping(number, 0)))
                await trio.sleep(0.02)
                highest = max(highest, len(session._outgoing))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping_without_reading)
        outcome = await session.run()
        nursery.cancel_scope.cancel()
    assert isinstance(outcome, Failed)
    assert outcome.reason == "write_timeout"
    assert highest <= QUEUE_FRAMES + 2


async def test_requests_that_come_with_the_handshake_are_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def echo(_: PeerSession, body: bytes) -> bytes:
        return body

    near, far = memory_stream_pair("near:1", b"", "far:1", b"")
    session = open_session(near, Role.INITIATOR, {"echo": echo})
    machine = SessionMachine(
        Role.ACCEPTOR, local_party(B, "boot"), certified_id=A, now=trio.current_time()
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.handshake)
        events = machine.receive(await far.receive_some(), 0.0)
        welcome = events[0].data  # type: ignore[attr-defined]
        await far.send_all(welcome + machine.send(Request(0, "echo", b"early")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        found: list[Any] = []
        while not found:
            events = machine.receive(await far.receive_some(), 0.0)
            found = [event.response for event in events if hasattr(event, "response")]
        assert found[0].body == b"early"
        nursery.cancel_scope.cancel()


async def test_requests_wait_for_a_place_among_those_the_peer_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    at_once = 0
    highest = 0

    async def slow(_: PeerSession, body: bytes) -> bytes:
        nonlocal at_once, highest
        at_once += 1
        highest = max(highest, at_once)
        await trio.sleep(1.0)
        at_once -= 1
        return body

    async with two_sessions({"slow": slow}, max_in_flight=4) as (first, _):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(partial(first.request, "slow", bytes([number]), within=60))
        assert highest == 4


async def test_a_cancelled_request_leaves_the_session_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(_: PeerSession, body: bytes) -> bytes:
        await trio.sleep(10.0)
        return body

    async with two_sessions({"slow": slow}) as (first, second):
        for _ in range(5):
            with trio.move_on_after(0.1):
                await first.request("slow", b"", within=60)
        assert first.machine.asked == 5
        first.leave(GoodbyeReason.UNNEEDED, "")
        await first.ended.wait()
        await second.ended.wait()
        assert isinstance(first.outcome, Closed)
        assert isinstance(second.outcome, Closed)


async def test_requests_end_with_the_session(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(_: PeerSession, body: bytes) -> bytes:
        await trio.sleep(80_000)
        return body

    async with two_sessions({"hang": hang}) as (first, second):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ConnectionLostError, match="the session ended"):
                    await first.request("hang", b"", within=1000)

            nursery.start_soon(ask)
            await trio.sleep(1)
            second.abort()
        with pytest.raises(ConnectionLostError):
            await first.request("hang", b"", within=1000)


async def test_a_session_without_requests_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with two_sessions(optional=0) as (first, _):
        with pytest.raises(MisuseError, match="cannot send a request"):
            await first.request("x", b"", within=1)


async def test_a_body_over_the_peers_limit_is_refused_here(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with two_sessions(max_frame_bytes=2000) as (first, _):
        with pytest.raises(MisuseError, match="cannot send a frame"):
            await first.request("x", bytes(3000), within=1)
        assert first.outcome is None


@pytest.mark.parametrize("role", list(Role))
async def test_a_handshake_that_gets_no_answer_ends_at_its_deadline(
    autojump_clock: trio.testing.MockClock, role: Role
) -> None:
    near, far = memory_stream_pair("near:1", b"", "far:1", b"")
    session = open_session(near, role, handshake_timeout=10.0)
    start = trio.current_time()
    with pytest.raises(SessionTimeoutError, match="the handshake took longer than 10 s"):
        await session.handshake()
    assert trio.current_time() - start == pytest.approx(10.0)
    await session.close()
    await far.aclose()


@pytest.mark.parametrize("data", [b"", b"garbage", b"NCPP\x01"])
async def test_garbage_in_the_handshake_ends_it(
    autojump_clock: trio.testing.MockClock, data: bytes
) -> None:
    near, far = memory_stream_pair("near:1", b"", "far:1", b"")
    session = open_session(near, Role.ACCEPTOR)
    await far.send_all(data)
    await far.aclose()
    with pytest.raises(NetworkError, match=r"lost|does not speak"):
        await session.handshake()
    assert isinstance(session.outcome, Failed)
    await session.close()


async def test_cancelling_a_session_closes_its_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, session = await raw_peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert session.ended.is_set()
    assert isinstance(session.outcome, Failed)
    assert session.outcome.reason == "closed"
    with pytest.raises(ConnectionLostError):
        await near.send_all(b"x")
