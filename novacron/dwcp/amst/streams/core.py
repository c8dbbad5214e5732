"""How many streams a link should have: decided from what was measured, without I/O or a clock.

The only thing more streams are good for is goodput. So each change is a trial: it stays if the goodput
shows that it was worth it, and is taken back and remembered if it did not. More are tried first; where
they bring nothing fewer are tried at once, because every stream takes its share of a queue that others
wait in as well. When neither helps the number rests until the memory of that fades or the path changes.
Where nothing could be gained anyway (the source, a limit, the pace or the receiver's window holds the link)
nothing is tried.
"""

from __future__ import annotations

import enum
from collections import deque
from math import sqrt
from typing import Final

from novacron.record import Record

GROW_GAIN: Final = 0.10
"""What more streams have to bring; less is noise, or was bought with queueing."""
GROW_SIGMAS: Final = 2
"""Standard deviations by which a gain has to be beyond doubt before it is believed at once. All other
early verdicts need one: what they can get wrong is put right within the next trials."""
SHRINK_LOSS: Final = 0.05
"""What fewer may cost, however many steps down it took."""
LINEAR: Final = 0.8
"""A gain of this share of what the added streams could bring shows that each is held by itself (by a
policer, its window or loss): the next step is four times as many. By doubling alone 256 streams are
too far from 8 to be reached within five seconds on a path of 80 ms."""
FORGET_AFTER: Final = 30.0
"""Seconds a number that failed is not tried again; a path does not change much faster. Twice as long
each time it fails again, up to :data:`LONGEST_MEMORY`: a trial of too few streams costs goodput."""
LONGEST_MEMORY: Final = 240.0
QUEUE_MEMORY: Final = 2
"""Times as long for a number that failed while there was a queue: the path was full."""
SHORT_MEMORY: Final = 10.0
"""Seconds for a verdict that is in doubt: something else held the link meanwhile, or the gain was small
enough to be noise after all."""
BOUND_SHARE: Final = 0.5
"""Of the streams' time spent waiting for something, above which that something is the bottleneck."""
QUEUE_RATIO: Final = 2.5
"""Smoothed over least round trip above which there is a queue worth worrying about."""
SETTLE: Final = 1
"""Intervals after a change that are not counted: connections are made and find their rate."""
SETTLE_LIMIT: Final = 8
"""Intervals that are waited for the number of streams to be what was asked for."""
MEASURE: Final = 2
"""Intervals that are counted, at least; more while the goodput still rises or cannot be told from
noise."""
MEASURE_LIMIT: Final = 12
"""Intervals after which a trial is judged by what there is."""
RISING: Final = 0.03
"""Growth within a measurement that is taken for streams still finding their rate."""
FIRST_NOISE: Final = 0.1
"""Standard deviation of an interval's goodput, relative to it, before any was measured."""
NOISE_WEIGHT: Final = 0.2
"""Of the newest interval in the noise."""
SHORTEST: Final = 0.01
"""Seconds of an interval that says anything."""
OTHER_PATH: Final = 1.5
"""A goodput so many times larger or smaller, with the same streams, is another path: what was learned
about the old one is forgotten."""
OTHER_NOISE: Final = 4
"""And by at least so many standard deviations."""
PACE: Final = "pace"
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
    """One interval of a link. All but *streams* are of that interval alone."""

    seconds: float
    """Its length."""
    moved_bytes: int
    """What the network took from this end and gave to it; not what waits in a socket's buffer. Whole
    chunks would be too coarse: a slow stream acknowledges one in many intervals."""
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
    paced: bool = False
    """The queue controller held the link: the path is full, or left to others."""


class Decision(Record):
    at: float
    """Seconds since the link began."""
    target: int
    reason: Reason
    goodput_bps: float
    """Bytes a second that it was judged by; 0 at the start."""
    why: str
    """The reason as a sentence."""


class _Measurement:
    """Intervals with the same number of streams."""

    def __init__(self) -> None:
        self.intervals = 0
        """With those in which it settled."""
        self.rates: deque[float] = deque(maxlen=MEASURE_LIMIT)
        self.bounds: deque[str] = deque(maxlen=MEASURE_LIMIT)

    @property
    def counted(self) -> int:
        """The newest half, so that the time in which streams found their rate weighs less, the longer
        it is measured."""
        return max(MEASURE, len(self.rates) // 2)

    def goodput(self) -> float:
        newest = list(self.rates)[-self.counted :]
        return sum(newest) / len(newest) if newest else 0.0

    def rises(self, noise: float) -> bool:
        half = len(self.rates) // 2
        rates = list(self.rates)
        return half > 0 and sum(rates[-half:]) > sum(rates[:half]) * (1 + max(RISING, noise))

    def bound(self) -> str:
        """What held the link for most of the time; empty where it was the network."""
        newest = list(self.bounds)[-self.counted :]
        bound = [what for what in newest if what]
        return bound[-1] if len(bound) * 2 > len(newest) else ""


class _Failure:
    """A number of streams that is not to be tried."""

    def __init__(self, until: float, goodput: float) -> None:
        self.until = until
        self.goodput = goodput
        """What it moved; where the present number moves much less, it deserves another trial."""


class _Trial:
    def __init__(self, kind: Reason, before: int, baseline: float, counted: int) -> None:
        self.kind = kind
        self.before = before
        self.baseline = baseline
        self.counted = counted
        """Intervals the baseline was measured in."""


class Controller:
    """Give it each interval with :meth:`observe`; it answers with the number to aim at."""

    def __init__(self, *, minimum: int, maximum: int, start: int) -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.target = min(max(start, minimum), maximum)
        self.history: deque[Decision] = deque(maxlen=HISTORY)
        self.bound_by = ""
        """What held the link in the last interval: ``source``, ``rate``, ``pace``,
        ``receiver`` or nothing."""
        self._now = 0.0
        self._failed: dict[int, _Failure] = {}
        self._failures: dict[int, int] = {}
        """How often each failed in succession."""
        self._trial: _Trial | None = None
        self._measured = _Measurement()
        self._noise = FIRST_NOISE
        self._linear = False
        self._anchor = 0.0
        """Goodput before the first step down after the last step up; 0 where there was none. Each
        step is held against it, so that several small losses cannot add up."""
        self._resting = 0.0
        """Goodput when there was nothing more to try; 0 while there is."""
        self._record(Reason.START, 0.0, f"a link begins with {self.target}")

    def observe(self, sample: Sample) -> int:
        self._now += sample.seconds
        self.bound_by = _bound(sample)
        measured = self._measured
        measured.intervals += 1
        if sample.streams == 0 or sample.seconds < SHORTEST:
            self._measured = _Measurement()  # what comes after a loss of all has to settle again
        elif measured.intervals > SETTLE and (
            sample.streams == self.target or measured.intervals > SETTLE_LIMIT
        ):
            self._measure(sample)
            if len(measured.rates) >= MEASURE:
                if self._trial is not None:
                    self._judge(self._trial, sample)
                else:
                    self._plan(sample)
        return self.target

    def _measure(self, sample: Sample) -> None:
        measured = self._measured
        rate = sample.moved_bytes / sample.seconds
        if measured.rates and not measured.rises(self._noise):
            last = measured.rates[-1]
            if rate + last > 0:
                # Half the squared difference of two estimates their variance, whatever their mean.
                variance = (rate - last) ** 2 / 2 / ((rate + last) / 2) ** 2
                self._noise = sqrt(
                    (1 - NOISE_WEIGHT) * self._noise**2 + NOISE_WEIGHT * min(variance, 1.0)
                )
        measured.rates.append(rate)
        measured.bounds.append(self.bound_by)

    # Trying ------------------------------------------------------------------------------------

    def _plan(self, sample: Sample) -> None:
        measured = self._measured
        goodput = measured.goodput()
        bound = measured.bound()
        if bound not in ("", PACE) or goodput <= 0:
            return
        if measured.rises(self._noise) and len(measured.rates) < MEASURE_LIMIT:
            return
        other = max(OTHER_PATH, 1 + OTHER_NOISE * self._noise)
        if self._resting and not 1 / other < goodput / self._resting < other:
            self._failed.clear()
            self._failures.clear()
            self._anchor = self._resting = 0.0
        # Where the pace holds the link one stream does what many do, and is one flow among others'.
        more = self.target if bound == PACE else self._more(goodput)
        fewer = max(self.target // 2, self.minimum)
        if more > self.target:
            self._begin(Reason.GROW, more, goodput, goodput)
        elif fewer < self.target and not self._fails(fewer, self.target - 1):
            if goodput < self._anchor * (1 - SHRINK_LOSS):
                self._anchor = 0.0  # not for want of streams: with so few it would not have stayed
            self._anchor = self._anchor or goodput
            self._begin(Reason.SHRINK, fewer, self._anchor, goodput)
        elif not self._resting:
            self._resting = goodput

    def _more(self, goodput: float) -> int:
        """How many to try next; the number there is where no larger one promises anything."""
        promising = goodput * (1 + GROW_GAIN + self._noise)
        for factor in (4, 2) if self._linear else (2,):
            more = min(self.target * factor, self.maximum)
            if not self._fails(self.target + 1, more, promising):
                return more
        return self.target

    def _begin(self, kind: Reason, target: int, baseline: float, goodput: float) -> None:
        self._resting = 0.0
        self._trial = _Trial(kind, self.target, baseline, self._measured.counted)
        self._change(
            target,
            kind,
            goodput,
            "whether more streams move more"
            if kind is Reason.GROW
            else "whether fewer move as much",
        )

    # Judging -----------------------------------------------------------------------------------

    def _judge(self, trial: _Trial, sample: Sample) -> None:
        verdict = self._verdict(trial)
        if verdict is None:
            return
        goodput = self._measured.goodput()
        ratio = goodput / trial.baseline
        tried = self.target
        why = f"{tried} streams move {ratio:.2f} times what {trial.before} did"
        bound = self._measured.bound()
        if bound:
            why += f"; the {bound} held the link"
        self._trial = None
        if trial.kind is Reason.GROW:
            self._linear = verdict and ratio - 1 >= LINEAR * (tried / trial.before - 1)
        if verdict:
            if trial.kind is Reason.GROW:
                self._anchor = 0.0
            self._failures.pop(tried, None)
            # The way back is known to be worse, for a while.
            sure = self._linear or trial.kind is Reason.SHRINK
            memory = FORGET_AFTER if sure else SHORT_MEMORY
            self._failed[trial.before] = _Failure(self._now + memory, trial.baseline)
            kept = Reason.GROW_KEPT if trial.kind is Reason.GROW else Reason.SHRINK_KEPT
            self._record(kept, goodput, why)
            # It is measured already, and so the baseline of whatever is tried next.
            self._plan(sample)
            return
        self._fail(tried, bound, sample)
        back = Reason.GROW_TAKEN_BACK if trial.kind is Reason.GROW else Reason.SHRINK_TAKEN_BACK
        self._change(trial.before, back, goodput, why)

    def _verdict(self, trial: _Trial) -> bool | None:
        """Whether the number stays; None while that cannot be told."""
        measured = self._measured
        ratio = measured.goodput() / trial.baseline
        grows = trial.kind is Reason.GROW
        threshold = 1 + GROW_GAIN if grows else 1 - SHRINK_LOSS
        if measured.bound():
            # Streams that wait are as many as needed: fewer are welcome, and more were of no use.
            return not grows or ratio >= threshold
        margin = self._noise * sqrt(1 / measured.counted + 1 / trial.counted)
        if ratio - margin * (GROW_SIGMAS if grows else 1) >= threshold:
            return True
        if len(measured.rates) >= MEASURE_LIMIT:
            return ratio >= threshold
        # One more before it fails: streams may still be finding their rate, while a rate that is
        # good enough already can only become better.
        settled = len(measured.rates) > MEASURE and not measured.rises(self._noise)
        return False if settled and ratio + margin < threshold else None

    def _fail(self, number: int, bound: str, sample: Sample) -> None:
        memory = SHORT_MEMORY
        if not bound:
            times = self._failures.get(number, 0)
            self._failures[number] = min(times + 1, 8)
            queue = sample.least_rtt > 0 and sample.smoothed_rtt > QUEUE_RATIO * sample.least_rtt
            memory = FORGET_AFTER * 2**times * (QUEUE_MEMORY if queue else 1)
            memory = min(memory, LONGEST_MEMORY)
        self._failed[number] = _Failure(self._now + memory, self._measured.goodput())

    def _fails(self, first: int, last: int, promising: float = float("inf")) -> bool:
        """Whether a number of that range failed: what twice as many did not bring, four times as many
        will not. One that moved *promising* bytes a second or more does not count."""
        return any(
            first <= number <= last and failure.until > self._now and failure.goodput < promising
            for number, failure in self._failed.items()
        )

    def _change(self, target: int, reason: Reason, goodput: float, why: str) -> None:
        self.target = target
        self._measured = _Measurement()
        self._record(reason, goodput, why)

    def _record(self, reason: Reason, goodput: float, why: str) -> None:
        self.history.append(Decision(self._now, self.target, reason, goodput, why))


def _bound(sample: Sample) -> str:
    if sample.paced:
        return PACE
    if sample.limited_share > BOUND_SHARE:
        return "rate"
    if sample.window_share > BOUND_SHARE:
        return "receiver"
    if sample.starved_share > BOUND_SHARE:
        return "source"
    return ""
