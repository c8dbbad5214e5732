"""Samples the path to every peer once a second: pings of the session, and what the kernel knows of the
session's connection and of the data connections.

Sampling reads what others measured: it sends nothing, but for a round of pings when a peer is new or
its path seems to be another one all at once. All is bounded: peers and connections looked at in one
round, pings asked for, and what is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import trio

from novacron._native.tcp import TcpInfo
from novacron.config.schema import DetectionSettings
from novacron.dwcp.acp.window.core import Counters, PathWindow, Trip
from novacron.dwcp.amst.transport import Link, StreamStatistics
from novacron.environment.path import PathMeasure
from novacron.network.session import PeerSession

logger = logging.getLogger("novacron.dwcp")

SESSIONS_A_ROUND: Final = 256
"""Peers looked at in one round, in turn; some 20 us each."""
STREAMS_A_ROUND: Final = 512
"""Data connections looked at in one round, whole links in turn; some 30 us each."""
MOST_PATHS: Final = 1024
REMEMBERED: Final = 60.0
"""Seconds a path is kept for after its session ended: most come back at once."""
BURST_PINGS: Final = 10
BURST_INTERVAL: Final = 0.1
"""Ten samples, over a second."""
BURST_PAUSE: Final = 2.0
"""Seconds between two bursts with one peer, so that a path full of spikes costs five pings a second
and no more, while one that changed is known after three bursts."""
BURSTS_A_ROUND: Final = 16


class Peers(Protocol):
    """What sampling needs of :class:`novacron.network.Network`."""

    def sessions(self) -> list[PeerSession]: ...
    async def wait_sessions_changed(self) -> None: ...


class Judge(Protocol):
    """What sampling needs of :class:`novacron.environment.Environment`."""

    def rdma_present(self) -> bool | None: ...
    def observe_path(self, measure: PathMeasure) -> None: ...
    def forget_path(self, peer: str) -> None: ...
    def review_modes(self) -> None: ...
    def mode_is_near(self, peer: str, newest_us: float) -> bool: ...


class _Path:
    def __init__(self, session: PeerSession, samples: int) -> None:
        self.session = session
        self.host = _host(session)
        self.window = PathWindow(samples)
        self.seen = 0
        """Of the session's round trips."""
        self.present_at = trio.current_time()
        self.burst_at: float | None = None

    def take(self, session: PeerSession) -> None:
        """The peer's session is another one now, by the same way."""
        self.session = session
        self.seen = 0


class PathSampler:
    """Run with :meth:`run`, from when there is time; :meth:`measure` may be asked at any time.

    Args:
      links: The links of this node now.
      judge: Told of every measure; None where nobody judges.
    """

    def __init__(
        self,
        peers: Peers,
        links: Callable[[], Iterable[Link]],
        settings: DetectionSettings,
        judge: Judge | None,
    ) -> None:
        self._peers = peers
        self._links = links
        self._settings = settings
        self._judge = judge
        self._paths: dict[str, _Path] = {}
        self._turn = 0
        self._link_turn = 0

    def measure(self, peer: str) -> PathMeasure | None:
        """What is known of the path to *peer*; None where nothing was sampled."""
        path = self._paths.get(peer)
        return self._measure(peer, path) if path is not None else None

    def measures(self) -> list[PathMeasure]:
        """Of every path that is remembered."""
        return [self._measure(peer, path) for peer, path in self._paths.items()]

    async def run(self) -> None:
        """Until cancelled. Nothing that goes wrong in it ends it: it only looks on."""
        failing = False
        while True:
            try:
                if self._paths or self._peers.sessions():
                    await self.sample()
                else:
                    if self._judge is not None:
                        self._judge.review_modes()
                    await self._peers.wait_sessions_changed()
                    continue
                failing = False
            except Exception:
                if not failing:  # the next round, a second later, most likely fails as this one
                    logger.exception("a round of sampling the paths failed")
                failing = True
            await trio.sleep(self._settings.interval)

    async def sample(self) -> None:
        """One round."""
        now = trio.current_time()
        streams = self._streams()
        bursts = BURSTS_A_ROUND
        for session in self._next_sessions():
            path = self._path(session, now)
            news = path.window.note(
                now,
                trips=self._trips(path),
                session=_of_session(session, session.stream.tcp_info()),
                streams=streams.get(session.node_id, ()),
            )
            if bursts and self._wants_burst(path, now):
                bursts -= 1
                path.burst_at = now
                session.hasten_pings(BURST_PINGS, BURST_INTERVAL)
            if news and self._judge is not None:
                self._judge.observe_path(self._measure(session.node_id, path))
            await trio.lowlevel.checkpoint()
        self._forget(now)
        if self._judge is not None:
            self._judge.review_modes()

    def _next_sessions(self) -> list[PeerSession]:
        found = self._peers.sessions()
        if len(found) <= SESSIONS_A_ROUND:
            return found
        first = self._turn % len(found)
        self._turn = first + SESSIONS_A_ROUND
        return (found[first:] + found[:first])[:SESSIONS_A_ROUND]

    def _path(self, session: PeerSession, now: float) -> _Path:
        path = self._paths.get(session.node_id)
        if path is None or (path.session is not session and path.host != _host(session)):
            path = self._paths[session.node_id] = _Path(session, self._settings.samples)
        elif path.session is not session:
            path.take(session)
        path.present_at = now
        return path

    @staticmethod
    def _trips(path: _Path) -> list[Trip]:
        session = path.session
        found = [
            Trip(each.seconds * 1e6, _of_session(session, each.info))
            for each in session.trips_since(path.seen)
        ]
        path.seen = session.machine.link.samples
        return found

    def _wants_burst(self, path: _Path, now: float) -> bool:
        if path.window.busy or (path.burst_at is not None and now - path.burst_at < BURST_PAUSE):
            return False
        if path.burst_at is None:
            return True
        newest = path.window.newest_us
        return bool(
            newest and self._judge and self._judge.mode_is_near(path.session.node_id, newest)
        )

    def _streams(self) -> dict[str, list[Counters]]:
        """By peer, as far as one round goes."""
        links = list(self._links())
        found: dict[str, list[Counters]] = {}
        budget = STREAMS_A_ROUND
        first = self._link_turn % len(links) if links else 0
        for index, link in enumerate(links[first:] + links[:first]):
            if budget <= 0:
                self._link_turn = first + index
                break
            streams = link.statistics().streams
            budget -= len(streams) + 1
            found.setdefault(link.peer, []).extend(_of_streams(link.link_id, streams))
        return found

    def _forget(self, now: float) -> None:
        old = [peer for peer, path in self._paths.items() if now - path.present_at > REMEMBERED]
        extra = len(self._paths) - len(old) - MOST_PATHS
        if extra > 0:
            left = sorted(set(self._paths) - set(old), key=lambda p: self._paths[p].present_at)
            old += left[:extra]
        for peer in old:
            del self._paths[peer]
            if self._judge is not None:
                self._judge.forget_path(peer)

    def _measure(self, peer: str, path: _Path) -> PathMeasure:
        rdma = self._judge.rdma_present() if self._judge is not None else None
        return path.window.measure(peer, same_host=path.session.same_host, rdma=bool(rdma))


def _host(session: PeerSession) -> str:
    return session.stream.peer_address.rpartition(":")[0]


def _of_session(session: PeerSession, info: TcpInfo | None) -> Counters | None:
    if info is None:
        return None
    return Counters(
        key=("session", session.opened_at),
        rtt_us=info.rtt_us,
        rttvar_us=info.rttvar_us,
        min_rtt_us=info.min_rtt_us,
        base_rtt_us=0,
        segments=info.segments_out,
        lost=info.total_retrans - info.needless_retrans,
        delivered=info.delivered,
        delivered_ce=info.delivered_ce,
        ecn=info.ecn,
        rate_bps=info.delivery_rate,
        limited=info.app_limited,
    )


def _of_streams(link_id: bytes, streams: Iterable[StreamStatistics]) -> Iterator[Counters]:
    for each in streams:
        # RDMA and TLS in Python have no such figures.
        if each.mover == "tcp" and each.rtt_us:
            yield Counters(
                key=(link_id, each.id),
                rtt_us=each.rtt_us,
                rttvar_us=each.rttvar_us,
                min_rtt_us=each.min_rtt_us,
                base_rtt_us=each.base_rtt_us,
                segments=each.segments_out,
                lost=each.total_retrans - each.needless_retrans,
                delivered=each.delivered,
                delivered_ce=each.delivered_ce,
                ecn=each.ecn,
                rate_bps=each.delivery_rate,
                limited=each.app_limited,
            )
