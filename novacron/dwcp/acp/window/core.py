"""From samples of a path to figures of it. No clock, no socket: every call names the time.

The kernel measures the round trip with every acknowledgement, and no event loop of either node is in
what it measures. But it smooths, with gain 1/8. While data moves that is settled within milliseconds;
on a session that sends a ping now and then it would be minutes behind a way that changed. So what the
kernel said is read with each ping, and the single sample between two readings computed back.
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
KERNEL_GAIN: Final = 1 / 8
"""alpha of RFC 6298, as in tcp_rtt_estimator() of Linux."""
TELLABLE: Final = 8
"""Segments between two readings up to which a sample is computed back. With more the older ones weigh
next to nothing, but so many are no ping and answer any more: something else was sent meanwhile."""
PLAUSIBLE: Final = 4
"""Mean deviations above the smoothed round trip that one may be, by RFC 6298's reckoning of when to
send again. Bounds a ping whose sample cannot be told."""
FILLED_SECONDS: Final = 30.0
"""How long a queue of this node's own may stand without the way being called longer. BBR empties it
every ten seconds, but streams of one path do that together only after a few times."""
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
    base_rtt_us: int
    """What BBR saw of the path with the queue it makes drained; 0 where nobody looks."""
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


class Trip(Record):
    """A ping that was answered."""

    ping_us: float
    """As the event loops saw it."""
    kernel: Counters | None
    """Its connection, just afterwards."""


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
        self._of_streams = False
        self._lows: deque[tuple[float, float]] = deque(maxlen=MOST_ROUNDS)
        self._before: Counters | None = None
        self._ecn = False
        self._at = 0.0
        self.busy = False
        """Data moved in the last round, enough of it to measure by."""

    def note(
        self,
        now: float,
        *,
        trips: Sequence[Trip],
        session: Counters | None,
        streams: Sequence[Counters],
    ) -> bool:
        """One round of sampling; whether it brought a round trip.

        Args:
          trips: The pings answered since the last round, in order.
          session: The connection that the pings use, where it is known.
          streams: The connections that carry data.
        """
        moved = self._count(now, [*([session] if session is not None else ()), *streams])
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
            self._of_streams = True
        elif trips:
            found = [self._single(trip) for trip in trips]
            newest = trips[-1].kernel
            if newest is not None and newest.rtt_us:
                self._variation, self._of_streams = (now, float(newest.rttvar_us)), False
        self._trips.extend(found)
        if found:
            self._at = now
            self._see_low(now, [each for each in timed if not each.limited])
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
            min_rtt_us=min((low for _, low in self._lows), default=0.0),
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

    def _see_low(self, now: float, filling: Sequence[Counters]) -> None:
        """While this node fills the path, every round trip has its own queue in it, and a way that
        got longer looks the same for a while: then the smallest within :data:`FILLED_SECONDS` counts,
        and of BBR what it sees when it looks behind the queue. Else the window is the truth."""
        lows = self._lows
        if not filling:
            lows.clear()
            lows.append((now, min(self._trips)))
            return
        lows.append((now, float(min(each.base_rtt_us or each.rtt_us for each in filling))))
        while now - lows[0][0] > FILLED_SECONDS:
            lows.popleft()

    def _jitter(self) -> float:
        """The kernel's own mean deviation lags behind as its round trip does; that of the window is
        large while the way changes. Both are too large then, and the smaller one is nearer the
        truth. Of streams the window has smoothed values, whose deviation says nothing."""
        kernel = self._variation[1] if self._variation is not None else None
        if kernel is not None and self._of_streams:
            return kernel
        if len(self._trips) < 2:
            return kernel or 0.0
        mean = fmean(self._trips)
        own = fmean(abs(each - mean) for each in self._trips)
        return own if kernel is None else min(own, kernel)

    def _single(self, trip: Trip) -> float:
        """The round trip of one ping, without what the two event loops took for it."""
        after = trip.kernel
        if after is None or not after.rtt_us:
            return trip.ping_us
        before, self._before = self._before, after
        if before is None or before.key != after.key:
            return min(trip.ping_us, _plausible(after))
        count = after.delivered - before.delivered
        if not 0 < count <= TELLABLE:
            return min(trip.ping_us, _plausible(after))
        return min(trip.ping_us, max(_sample(before.rtt_us, after.rtt_us, count), after.min_rtt_us))

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


def _sample(before_us: float, after_us: float, count: int) -> float:
    """What *count* samples, all the same, took the smoothed round trip from *before_us* to *after_us*."""
    rest = (1 - KERNEL_GAIN) ** count
    return (after_us - before_us * rest) / (1 - rest)


def _plausible(kernel: Counters) -> float:
    return float(kernel.rtt_us + PLAUSIBLE * kernel.rttvar_us)


def smoothed(trips: Sequence[float]) -> float:
    """Exponentially, with :data:`GAIN`, from the oldest on; 0 of nothing."""
    found = 0.0
    for index, each in enumerate(trips):
        found = each if index == 0 else found + GAIN * (each - found)
    return found
