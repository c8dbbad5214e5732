"""Sampling between nodes with real sessions and links, on loopback, and with stand-ins for many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from novacron._native.tcp import TcpInfo
from novacron.config.schema import DetectionSettings
from novacron.dwcp.acp import sampling
from novacron.dwcp.acp.sampling import BURST_PAUSE, BURST_PINGS, MOST_PATHS, PathSampler
from novacron.dwcp.amst.transport import LinkCounters, LinkStatistics, StreamStatistics
from novacron.environment.path import PathMeasure
from novacron.network.session import Trip
from novacron.protocol.measure import Link
from tests.dwcp.amst.sides import Side, move, sides
from tests.network.authority import Certificates
from tests.network.conftest import MakeNode, Node, until


@pytest.fixture(autouse=True)
def methods_of_the_tests(peer_methods: Callable[..., None]) -> None:
    peer_methods("test.sleepy")


class Judge:
    """Notes what it is told."""

    def __init__(self, *, near: bool = False) -> None:
        self.near = near
        self.observed: list[PathMeasure] = []
        self.forgotten: list[str] = []
        self.reviews = 0

    def rdma_present(self) -> bool | None:
        return True

    def observe_path(self, measure: PathMeasure) -> None:
        self.observed.append(measure)

    def forget_path(self, peer: str) -> None:
        self.forgotten.append(peer)

    def review_modes(self) -> None:
        self.reviews += 1

    def mode_is_near(self, peer: str, newest_us: float) -> bool:
        return self.near


SETTINGS = DetectionSettings(interval=0.1)


@asynccontextmanager
async def running(sampler: PathSampler, within: float = 30) -> AsyncIterator[None]:
    with trio.fail_after(within):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sampler.run)
            yield
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def two_nodes(make_node: MakeNode) -> AsyncIterator[tuple[Node, Node]]:
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            one = await make_node(1).start(nursery)
            # No pings but the first while the test lasts, unless somebody asks for more.
            two = await make_node(2, seeds=(one.address,), ping_interval=30).start(nursery)
            await two.wait_session(one)
            yield one, two
            nursery.cancel_scope.cancel()


async def test_a_new_peer_is_measured_by_a_burst_of_pings(make_node: MakeNode) -> None:
    judge = Judge()
    async with two_nodes(make_node) as (one, two):
        sampler = PathSampler(two.network, list, SETTINGS, judge)
        assert sampler.measure(one.id) is None
        async with running(sampler):
            await until(lambda: (m := sampler.measure(one.id)) and m.samples == 10, within=20)
        found = sampler.measure(one.id)
        assert found is not None
        assert (found.peer, found.same_host, found.rdma) == (one.id, True, True)
        assert 0 < found.min_rtt_us <= found.rtt_us
        assert found.segments >= BURST_PINGS
        assert (found.loss, found.rate_bps, found.rates) == (0.0, 0, 0)
        assert judge.observed[-1] == found
        assert sampler.measures() == [found]


async def test_a_node_without_peers_waits_and_starts_with_the_first(make_node: MakeNode) -> None:
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            one = await make_node(1).start(nursery)
            judge = Judge()
            sampler = PathSampler(one.network, list, SETTINGS, judge)
            async with running(sampler):
                await trio.sleep(0.3)
                assert (judge.reviews, judge.observed) == (1, [])
                two = await make_node(2, seeds=(one.address,)).start(nursery)
                await until(lambda: sampler.measure(two.id), within=20)
            nursery.cancel_scope.cancel()


async def test_the_kernel_measures_the_way_and_not_the_event_loop_at_its_end(
    make_node: MakeNode,
) -> None:
    slow = 0.03

    async def sleepy(session: Any, body: bytes) -> bytes:
        await trio.sleep(slow)
        return body

    async with two_nodes(make_node) as (one, two):
        one.network.register_handler("test.sleepy", sleepy)
        session = two.network.session(one.id)
        assert session is not None
        for _ in range(20):
            await session.request("test.sleepy", b"", within=20)
        info = session.stream.tcp_info()
        assert info is not None
        assert info.rtt_us < slow * 1e6 / 2


async def test_streams_that_carry_data_are_sampled(
    tmp_path: Path, certificates: Callable[[int], Certificates]
) -> None:
    pair = [Side(Node(n, certificates(n)), tmp_path, "auto", streams_start=3) for n in (1, 2)]
    a, b = pair
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        other = await until(lambda: b.keeper().link if len(b.links) else None)
        sampler = PathSampler(a.node.network, lambda: [link], SETTINGS, None)
        await sampler.sample()
        before = sampler.measure(b.id)
        await move(link, other, 20_000_000)
        await sampler.sample()
        found = sampler.measure(b.id)
        assert before is not None
        assert found is not None
        # 20 MB in segments of at most 64 KiB less a little, as loopback has them.
        assert found.segments - before.segments >= 20_000_000 // 65_536
        assert found.samples > before.samples
        assert found.rtt_us > 0


# --- Many, and none of them real -----------------------------------------------------------------


class FakeStream:
    def __init__(self, host: str) -> None:
        self.peer_address = f"{host}:7401"
        self.info: TcpInfo | None = None

    def tcp_info(self) -> TcpInfo | None:
        return self.info


class FakeSession:
    """Answers each ping at once, in *trip_us*."""

    def __init__(self, node_id: str, host: str = "192.0.2.1") -> None:
        self.node_id = node_id
        self.same_host = False
        self.stream = FakeStream(host)
        self.opened_at = trio.current_time()
        self.machine = self
        self.link = Link()
        self.trips: list[Trip] = []
        self.bursts: list[float] = []
        self._sequence = 0

    def ping(self, trip_us: float) -> None:
        self.link.ping_sent(self._sequence, 0.0)
        self.link.pong_received(self._sequence, trip_us / 1e6)
        self.trips.append(Trip(trip_us / 1e6, None))
        self._sequence += 1

    def trips_since(self, samples: int) -> list[Trip]:
        return self.trips[samples:]

    def hasten_pings(self, count: int, interval: float) -> None:
        assert count == BURST_PINGS
        self.bursts.append(trio.current_time())


class FakePeers:
    def __init__(self, *found: FakeSession) -> None:
        self.found = list(found)

    def sessions(self) -> list[Any]:
        return list(self.found)

    async def wait_sessions_changed(self) -> None:
        await trio.sleep_forever()


class FakeLink:
    def __init__(self, peer: str, streams: int) -> None:
        self.peer = peer
        self.link_id = peer.encode()
        self.looked_at = 0
        self._streams = streams

    def statistics(self) -> LinkStatistics:
        self.looked_at += 1
        stream = StreamStatistics(1, "open", "tcp", 0, 0, 0, 0, 0, rtt_us=100)
        return LinkStatistics(LinkCounters(), [stream] * self._streams)


def sampler_of(
    peers: FakePeers, judge: Judge, links: Sequence[FakeLink] = (), **settings: Any
) -> PathSampler:
    return PathSampler(
        peers, lambda: cast(Any, links), DetectionSettings(**settings), cast(Any, judge)
    )


async def test_bursts_come_where_a_change_is_near_and_never_closer_than_the_pause(
    autojump_clock: MockClock,
) -> None:
    session = FakeSession("a")
    judge = Judge(near=True)
    sampler = sampler_of(FakePeers(session), judge, interval=0.5)
    async with running(sampler):
        for _ in range(20):
            session.ping(300)
            await trio.sleep(0.5)
    asked = len(session.bursts)
    assert asked >= 5
    apart = [b - a for a, b in zip(session.bursts, session.bursts[1:], strict=False)]
    assert all(each >= BURST_PAUSE for each in apart)
    judge.near = False
    async with running(sampler):
        await trio.sleep(10)
    assert len(session.bursts) == asked


async def test_a_round_asks_no_more_than_some_of_many_new_peers_for_a_burst(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "BURSTS_A_ROUND", 3)
    peers = FakePeers(*(FakeSession(str(n)) for n in range(10)))
    sampler = sampler_of(peers, Judge())
    for asked in (3, 6, 9, 10, 10):
        await sampler.sample()
        assert sum(len(each.bursts) for each in peers.found) == asked


async def test_many_peers_take_turns(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SESSIONS_A_ROUND", 4)
    peers = FakePeers(*(FakeSession(str(n)) for n in range(10)))
    judge = Judge()
    sampler = sampler_of(peers, judge)
    for _ in range(3):
        for each in peers.found:
            each.ping(300)
        await sampler.sample()
    assert {each.peer for each in judge.observed} == {str(n) for n in range(10)}


async def test_links_with_many_streams_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "STREAMS_A_ROUND", 20)
    links = [FakeLink(str(n), streams=8) for n in range(6)]
    sampler = sampler_of(FakePeers(), Judge(), links)
    for _ in range(4):
        await sampler.sample()
    assert [each.looked_at for each in links] == [2] * 6


async def test_a_path_outlives_its_session_for_a_minute_and_goes_on_with_the_next(
    autojump_clock: MockClock,
) -> None:
    peers, judge = FakePeers(FakeSession("a")), Judge()
    sampler = sampler_of(peers, judge)
    peers.found[0].ping(300)
    async with running(sampler, within=1000):
        await trio.sleep(5)
        peers.found.clear()
        await trio.sleep(50)
        again = FakeSession("a")
        again.ping(500)
        peers.found.append(again)
        await trio.sleep(5)
        found = sampler.measure("a")
        assert found is not None
        assert (found.samples, found.min_rtt_us) == (2, pytest.approx(300))
        peers.found.clear()
        await trio.sleep(70)
        assert sampler.measure("a") is None
        assert judge.forgotten == ["a"]


async def test_a_peer_that_is_reached_another_way_begins_anew(autojump_clock: MockClock) -> None:
    peers = FakePeers(FakeSession("a", "192.0.2.1"))
    sampler = sampler_of(peers, Judge())
    peers.found[0].ping(300)
    await sampler.sample()
    peers.found = [FakeSession("a", "198.51.100.1")]
    peers.found[0].ping(80_000)
    await sampler.sample()
    found = sampler.measure("a")
    assert found is not None
    assert (found.samples, found.min_rtt_us) == (1, pytest.approx(80_000))


async def test_more_paths_than_are_kept_push_out_the_oldest(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MOST_PATHS", 4)
    peers, judge = FakePeers(), Judge()
    sampler = sampler_of(peers, judge)
    for n in range(6):
        peers.found = [FakeSession(str(n))]
        await sampler.sample()
        await trio.sleep(1)
    assert [each.peer for each in sampler.measures()] == ["2", "3", "4", "5"]
    assert judge.forgotten == ["0", "1"]
    assert MOST_PATHS == 1024


async def test_a_round_that_fails_is_logged_and_the_next_one_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    session = FakeSession("a")
    session.ping(300)
    peers = FakePeers(session)
    sampler = sampler_of(peers, Judge())
    broken = [True]

    def sessions() -> list[Any]:
        if broken[0]:
            raise OSError("no such luck")
        return list(peers.found)

    peers.sessions = sessions  # type: ignore[method-assign]
    async with running(sampler):
        await trio.sleep(1.5)
        assert caplog.text.count("a round of sampling the paths failed") == 1
        broken[0] = False
        await trio.sleep(2)
        assert sampler.measure("a") is not None
