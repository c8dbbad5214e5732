"""When seeds are dialled; time jumps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio
import trio.testing

from novacron.network.errors import ConnectError
from novacron.network.peers import SEED_RETRY, Seed, SelfDialledError
from novacron.network.registry import SessionRegistry
from novacron.network.session import PeerSession
from tests.network.authority import node_id


class FakeSession:
    """As much of a session as a seed sees of it."""

    def __init__(self) -> None:
        self.node_id = node_id(5)
        self.ended = trio.Event()
        self.seed_name: str | None = None


class Bench:
    """A seed whose dialling this test answers."""

    def __init__(self, lifetimes: Sequence[float | Exception]) -> None:
        self.answers = list(lifetimes)
        self.dialled: list[float] = []
        self.warnings: list[str] = []
        self.registry = SessionRegistry()
        self.nursery: trio.Nursery | None = None
        self.seed = Seed(
            "host",
            7401,
            "host:7401",
            dial=self.dial,
            registry=self.registry,
            warn=self.warnings.append,
            random=lambda: 0.5,  # the middle: no jitter
        )

    async def dial(self, host: str, port: int) -> PeerSession:
        assert (host, port) == ("host", 7401)
        self.dialled.append(trio.current_time())
        answer = self.answers.pop(0) if self.answers else ConnectError("cannot connect")
        if isinstance(answer, Exception):
            raise answer
        self.lifetime = answer
        session = cast(PeerSession, FakeSession())
        self.serve(session)
        return session

    def serve(self, session: PeerSession) -> None:
        async def live() -> None:
            self.registry._by_node[session.node_id] = session
            await trio.sleep(self.lifetime)
            session.ended.set()
            self.registry.remove(session)

        assert self.nursery is not None
        self.nursery.start_soon(live)

    async def run(self, seconds: float) -> list[float]:
        """When it dialled, in seconds from the start."""
        start = trio.current_time()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as self.nursery:
                await self.seed.run()
        return [round(when - start, 3) for when in self.dialled]


async def test_a_seed_that_is_not_there_is_dialled_ever_less_often(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench([])
    assert await bench.run(250) == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert bench.seed.failed
    assert bench.seed.statistics()["error"] == "cannot connect"


async def test_a_session_that_held_resets_the_back_off_and_one_that_did_not_does_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gone = ConnectError("cannot connect")
    bench = Bench([gone, gone, gone, 5.0, gone, 100.0, gone])
    #       0, 1, 3: fail; 7: five seconds, too short; 12+8=20: fail; 36: a hundred; 136+1; +2
    assert (await bench.run(140))[:8] == [0, 1, 3, 7, 20, 36, 137, 139]


def test_jitter_spreads_by_a_quarter() -> None:
    assert SEED_RETRY.jitter == 0.25
    assert SEED_RETRY.max_delay == 60.0


async def test_a_seed_that_dials_us_meanwhile_is_not_dialled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench([10.0])
    inbound = cast(Any, FakeSession())

    async def come() -> None:
        # The session this side dialled ends; the seed dials back before the next attempt.
        await trio.sleep(10.5)
        bench.registry._by_node[inbound.node_id] = inbound
        bench.registry._changed.unpark_all()
        await trio.sleep(50)
        assert bench.seed.statistics()["state"] == "connected"
        assert inbound.seed_name == "host:7401"
        bench.registry.remove(inbound)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come)
        dialled = await bench.run(65)
    assert dialled[0] == 0
    assert all(when > 60 for when in dialled[1:])
    assert len(dialled) > 1


async def test_a_seed_that_is_this_node_is_dialled_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench([SelfDialledError()])
    assert await bench.run(1000) == [0]
    assert bench.seed.statistics()["state"] == "self"
    assert not bench.seed.failed
    assert "network.seeds names this node itself (host:7401)" in bench.warnings[0]


async def test_the_same_failure_is_a_warning_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    other = ConnectError("cannot connect", why="no route")
    bench = Bench([ConnectError("cannot connect")] * 4 + [other] * 4)
    with caplog.at_level(logging.WARNING, "novacron.network"):
        await bench.run(120)
    assert [record.getMessage() for record in caplog.records] == [
        "no session with seed host:7401: cannot connect",
        "no session with seed host:7401: cannot connect: no route",
    ]
