"""From samples of a path to figures of it. No clock, no socket: every call names the time.

The kernel measures the round trip with every acknowledgement, and no event loop of either node is in
what it measures. But it smooths, with gain 1/8: while data moves that is settled within milliseconds,
on a session that sends a ping now and then it can be a minute behind a way that changed. Its mean
deviation says whether it is: until it has come down, the pings themselves are taken, no larger than
the kernel finds plausible.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from statistics import fmean, median, pstdev
from typing import Final

from novacron.environment.path import PathMeasure
from novacron.record import Record

GAIN: Final = 0.25
"""Of the smoothed round trip. RFC 6298 has 1/8 for a sample each round trip; with ten samples in all
that would still show the first."""
BUSY_SEGMENTS: Final = 10
"""Acknowledged segments in a round from which on the kernel's round trip, smoothed with gain 1/8,
says how the path is now and not how it was."""
COUNT_SECONDS: Final = 60.0
"""How far loss and marks are looked back on: long enough for the 100,000 segments that show a loss of
0.001 %, at 20 Mbit/s and more; short enough for a repaired path to be called so."""
RATE_SECONDS: Final = 60.0
SETTLED: Final = 0.25
"""Mean deviation, as a share of the kernel's smoothed round trip, up to which that is taken as it is.
After a jump from 0 to 60 ms it has come down to this when the smoothed value is at 53 ms."""
PLAUSIBLE: Final = 4
"""Mean deviations above the smoothed round trip that one may be, by RFC 6298's reckoning of when to
send again."""
YOUNG_SECONDS: Final = 10.0
"""Of a connection, within which the smallest round trip of its whole life counts: while it is set up
the kernel sees handshakes being computed, and smoothing takes a while to forget them."""
JITTER_SECONDS: Final = 30.0
"""How long what the kernel says of the variation counts after the last segment."""
MOST_ROUNDS: Final = 128
"""Entries of counts and of rates, whatever the interval."""
MOST_CONNECTIONS: Final = 1024
"""Of one path whose last counters are remembered; four times what a link may have at once, so that
one that was replaced, or was not looked at for a while, is not counted from its beginning again."""


class Counters(Record):
    """What one connection counted in its life, and measured last. Zero where it is not known."""

    key: Hashable
    """Tells it from every other connection of the path."""
    rtt_us: int
    rttvar_us: int
    min_rtt_us: int
    segments: int
    """Sent, repeated ones included."""
    lost: int
    """Repeated because they were lost, and not only late."""
    delivered: int
    delivered_ce: int
    ecn: bool
    rate_bps: int
    """Bytes a second."""
    limited: bool
    """:attr:`rate_bps` says how much there was to send, not what the path carries."""


class _Count(Record):
    at: float
    segments: int
    lost: int
    delivered: int
    marked: int


class PathWindow:
    """The bounded past of one path.

    Args:
      samples: Round trips that are looked back on.
    """

    def __init__(self, samples: int) -> None:
        self._trips: deque[float] = deque(maxlen=samples)
        self._counts: deque[_Count] = deque(maxlen=MOST_ROUNDS)
        self._rates: deque[tuple[float, int]] = deque(maxlen=MOST_ROUNDS)
        self._last: dict[Hashable, Counters] = {}
        self._variation: tuple[float, float] | None = None
        self._ecn = False
        self._at = 0.0
        self._session: tuple[Hashable, float] | None = None
        self._youth_us = 0
        self.busy = False
        """Data moved in the last round, enough of it to measure by."""

    def note(
        self,
        now: float,
        *,
        trips_us: Sequence[float],
        session: Counters | None,
        streams: Sequence[Counters],
    ) -> bool:
        """One round of sampling; whether it brought a round trip.

        Args:
          trips_us: Of the pings answered since the last round, in order.
          session: The connection that the pings use, where it is known.
          streams: The connections that carry data.
        """
        moved = self._count(now, [*([session] if session is not None else ()), *streams])
        self._see_session(now, session)
        working = [each for each in streams if moved.get(each.key, 0) >= BUSY_SEGMENTS]
        timed = [each for each in working if each.rtt_us > 0]
        self.busy = bool(timed)
        rates = [each.rate_bps for each in working if each.rate_bps and not each.limited]
        if rates:
            self._rates.append((now, sum(rates)))
        found: list[float] = []
        if timed:
            found = [float(median(each.rtt_us for each in timed))]
            self._variation = now, float(median(each.rttvar_us for each in timed))
        elif trips_us:
            found = list(trips_us)
            if session is not None and session.rtt_us and moved.get(session.key):
                found = [_plausible(each, session) for each in trips_us]
                self._variation = now, float(session.rttvar_us)
        self._trips.extend(found)
        if found:
            self._at = now
        self._forget(now)
        return bool(found)

    def measure(self, peer: str, *, same_host: bool, rdma: bool) -> PathMeasure:
        """What the window says, as of its last sample."""
        segments = sum(each.segments for each in self._counts)
        delivered = sum(each.delivered for each in self._counts)
        # What was taken for lost in one round may turn out in the next to have been late.
        lost = max(sum(each.lost for each in self._counts), 0)
        marked = sum(each.marked for each in self._counts)
        rates = [rate for _, rate in self._rates]
        return PathMeasure(
            peer=peer,
            rtt_us=smoothed(self._trips),
            min_rtt_us=self._minimum(),
            jitter_us=self._jitter(),
            loss=min(lost / segments, 1.0) if segments else 0.0,
            ecn=self._ecn,
            ce_share=min(marked / delivered, 1.0) if delivered else 0.0,
            rate_bps=max(rates, default=0),
            same_host=same_host,
            rdma=rdma,
            samples=len(self._trips),
            at=self._at,
            segments=segments,
            rates=len(rates),
            rate_spread=pstdev(rates) / fmean(rates) if len(rates) > 1 else 0.0,
        )

    @property
    def newest_us(self) -> float:
        """The last round trip; 0 before there is one."""
        return self._trips[-1] if self._trips else 0.0

    def _see_session(self, now: float, session: Counters | None) -> None:
        self._youth_us = 0
        if session is None:
            return
        if self._session is None or self._session[0] != session.key:
            self._session = session.key, now
        if now - self._session[1] < YOUNG_SECONDS:
            self._youth_us = session.min_rtt_us

    def _minimum(self) -> float:
        found = min(self._trips, default=0.0)
        return min(found, float(self._youth_us)) if self._youth_us else found

    def _jitter(self) -> float:
        if self._variation is not None:
            return self._variation[1]
        if len(self._trips) < 2:
            return 0.0
        mean = fmean(self._trips)
        return fmean(abs(each - mean) for each in self._trips)

    def _count(self, now: float, connections: Sequence[Counters]) -> dict[Hashable, int]:
        """Add what was counted since the last round; segments delivered meanwhile, by connection."""
        moved: dict[Hashable, int] = {}
        segments = lost = marked = 0
        for each in connections:
            before = self._last.pop(each.key, None)
            self._last[each.key] = each  # at the end: the first is the one longest unseen
            if before is None:
                before = each._replace(segments=0, lost=0, delivered=0, delivered_ce=0)
            elif any(
                getattr(before, name) > getattr(each, name)
                for name in ("segments", "delivered", "delivered_ce")
            ):
                continue  # 32 bits that wrapped; the next round counts on
            moved[each.key] = each.delivered - before.delivered
            segments += each.segments - before.segments
            lost += each.lost - before.lost
            marked += each.delivered_ce - before.delivered_ce
        while len(self._last) > MOST_CONNECTIONS:
            del self._last[next(iter(self._last))]
        if connections:
            self._ecn = any(each.ecn for each in connections)
        delivered = sum(moved.values())
        if segments > 0 or delivered > 0:
            self._counts.append(_Count(now, segments, lost, delivered, marked))
        return moved

    def _forget(self, now: float) -> None:
        while self._counts and now - self._counts[0].at > COUNT_SECONDS:
            self._counts.popleft()
        while self._rates and now - self._rates[0][0] > RATE_SECONDS:
            self._rates.popleft()
        if self._variation is not None and now - self._variation[0] > JITTER_SECONDS:
            self._variation = None


def _plausible(ping_us: float, kernel: Counters) -> float:
    """The round trip of a ping, without what the two event loops took for it."""
    if kernel.rttvar_us <= SETTLED * kernel.rtt_us:
        return min(ping_us, float(kernel.rtt_us))
    return min(ping_us, float(kernel.rtt_us + PLAUSIBLE * kernel.rttvar_us))


def smoothed(trips: Sequence[float]) -> float:
    """Exponentially, with :data:`GAIN`, from the oldest on; 0 of nothing."""
    found = 0.0
    for index, each in enumerate(trips):
        found = each if index == 0 else found + GAIN * (each - found)
    return found
