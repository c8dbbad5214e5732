"""How many streams a link should have: decided from what was measured, without I/O or a clock.

The only thing more streams are good for is goodput. So each change is a trial: it stays if the
acknowledged goodput shows that it was worth it, and is taken back and remembered if it did not.
Where nothing could be gained anyway (the source, a rate limit or the receiver's window holds the link)
nothing is tried. Where the number is more than is needed, fewer are tried, because every stream takes
its share of a queue that others wait in as well.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

from novacron.record import Record

GROW_GAIN: Final = 0.10
"""Twice the streams have to bring this much more; less is noise, or was bought with queueing."""
SHRINK_LOSS: Final = 0.05
"""Half the streams may cost this much."""
FORGET_AFTER: Final = 30.0
"""Seconds a number that failed is not tried again; a path does not change much faster."""
SHRINK_AFTER: Final = 8.0
"""Seconds without a change after which fewer are tried."""
BOUND_SHARE: Final = 0.5
"""Of the streams' time spent waiting for something, above which that something is the bottleneck."""
QUEUE_RATIO: Final = 2.5
"""Smoothed over least round trip above which there is a queue worth worrying about."""
SETTLE: Final = 2
"""Intervals after a change that are not counted: connections are made and find their rate."""
MEASURE: Final = 2
"""Intervals that are, at least; more where they hold too few chunks to tell 10 %."""
MEASURE_CHUNKS: Final = 24
MEASURE_LIMIT: Final = 12
"""Intervals after which a trial is judged however little arrived."""
HISTORY: Final = 64


class Reason(enum.StrEnum):
    START = "start"
    GROW = "grow"
    GROW_KEPT = "grow_kept"
    GROW_TAKEN_BACK = "grow_taken_back"
    SHRINK = "shrink"
    SHRINK_KEPT = "shrink_kept"
    SHRINK_TAKEN_BACK = "shrink_taken_back"


class Sample(Record):
    """One interval of a link. All but *seconds* are of that interval alone."""

    seconds: float
    """Its length."""
    acknowledged_bytes: int
    streams: int
    """Open at its end."""
    starved_share: float
    """Of the streams' time, 0 to 1: ready, and nothing to send."""
    limited_share: float
    """Ready, and held by a rate limit."""
    window_share: float
    """Ready, and the receiver's window was full."""
    smoothed_rtt: float
    """Seconds, the median of the streams; 0 where it is not known."""
    least_rtt: float
    chunk_bytes: int


class Decision(Record):
    at: float
    """Seconds since the link began."""
    target: int
    reason: Reason
    goodput_bps: float
    """Bytes a second that it was judged by; 0 at the start."""


class _Trial:
    def __init__(self, before: int, baseline: float, kind: Reason) -> None:
        self.before = before
        self.baseline = baseline
        self.kind = kind


class Controller:
    """Give it each interval with :meth:`observe`; it answers with the number to aim at."""

    def __init__(self, *, minimum: int, maximum: int, start: int) -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.target = min(max(start, minimum), maximum)
        self.history: deque[Decision] = deque(maxlen=HISTORY)
        self.bound_by = ""
        """What held the link in the last interval: ``source``, ``rate``, ``receiver`` or nothing."""
        self._now = 0.0
        self._changed_at = 0.0
        self._failed: dict[int, float] = {}
        self._trial: _Trial | None = None
        self._intervals = 0
        self._bytes = 0
        self._seconds = 0.0
        self.history.append(Decision(0.0, self.target, Reason.START, 0.0))

    def observe(self, sample: Sample) -> int:
        self._now += sample.seconds
        self._intervals += 1
        self.bound_by = _bound(sample)
        if self._intervals <= SETTLE:
            return self.target
        self._bytes += sample.acknowledged_bytes
        self._seconds += sample.seconds
        if not self._measured(sample):
            return self.target
        goodput = self._bytes / self._seconds if self._seconds else 0.0
        if self._trial is not None:
            self._judge(self._trial, goodput)
        elif not self.bound_by:
            self._try(sample, goodput)
        else:
            self._restart()
        return self.target

    def _measured(self, sample: Sample) -> bool:
        counted = self._intervals - SETTLE
        if counted < MEASURE:
            return False
        return self._bytes >= MEASURE_CHUNKS * sample.chunk_bytes or counted >= MEASURE_LIMIT

    def _try(self, sample: Sample, goodput: float) -> None:
        queueing = sample.least_rtt > 0 and sample.smoothed_rtt > QUEUE_RATIO * sample.least_rtt
        more = min(self.target * 2, self.maximum)
        fewer = max(self.target // 2, self.minimum)
        if more > self.target and not self._fails(more) and not (queueing and self._failed):
            self._trial = _Trial(self.target, goodput, Reason.GROW)
            self._change(more, Reason.GROW, goodput)
        elif (
            fewer < self.target
            and not self._fails(fewer)
            and (queueing or self._now - self._changed_at >= SHRINK_AFTER)
        ):
            self._trial = _Trial(self.target, goodput, Reason.SHRINK)
            self._change(fewer, Reason.SHRINK, goodput)
        else:
            self._restart()

    def _judge(self, trial: _Trial, goodput: float) -> None:
        self._trial = None
        if trial.kind is Reason.GROW:
            kept = goodput >= trial.baseline * (1 + GROW_GAIN)
            kept_as, back_as = Reason.GROW_KEPT, Reason.GROW_TAKEN_BACK
        else:
            kept = goodput >= trial.baseline * (1 - SHRINK_LOSS)
            kept_as, back_as = Reason.SHRINK_KEPT, Reason.SHRINK_TAKEN_BACK
        if kept:
            if trial.kind is Reason.SHRINK:
                self._failed[trial.before] = self._now + FORGET_AFTER
            self._change(self.target, kept_as, goodput)
        else:
            self._failed[self.target] = self._now + FORGET_AFTER
            self._change(trial.before, back_as, goodput)

    def _fails(self, number: int) -> bool:
        self._failed = {n: until for n, until in self._failed.items() if until > self._now}
        return number in self._failed

    def _change(self, target: int, reason: Reason, goodput: float) -> None:
        self.target = target
        self._changed_at = self._now
        self.history.append(Decision(self._now, target, reason, goodput))
        # A trial that is kept was settled already; all others start from new connections.
        self._restart()
        if reason in (Reason.GROW_KEPT, Reason.SHRINK_KEPT):
            self._intervals = SETTLE

    def _restart(self) -> None:
        self._intervals = SETTLE if self._trial is None else 0
        self._bytes = 0
        self._seconds = 0.0


def _bound(sample: Sample) -> str:
    if sample.limited_share > BOUND_SHARE:
        return "rate"
    if sample.window_share > BOUND_SHARE:
        return "receiver"
    if sample.starved_share > BOUND_SHARE:
        return "source"
    return ""
