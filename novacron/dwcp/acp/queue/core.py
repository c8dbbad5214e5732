"""How fast a link sends, all its streams together, decided from what each interval showed.

A queue on the path shows as round trips longer than the least one. The pace follows the rate at which
data arrives, corrected by how far the queue is from a small target: above it less is sent than arrives,
so that the queue shrinks before anything is lost; below it more, faster the longer nothing comes of it.

Where each part comes from: reacting to delay rather than loss, in steps proportional to the delay, and
growing faster after several intervals without a queue, is TIMELY (Mittal et al., SIGCOMM 2015). A target
that is smaller for whoever sends more, by which transfers that share a queue come to equal rates, is
Swift's flow scaling (Kumar et al., SIGCOMM 2020). Slowing down once after the start and from time to
time, to see the path without a queue of one's own, is LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus). The
window of the least round trip, and a mode for paths where others fill the queue whatever we do, are
Copa's (Arun and Balakrishnan, NSDI 2018).
"""

from __future__ import annotations

import enum
from collections import deque
from math import inf, log
from typing import Final

from novacron.dwcp.acp.queue.least import (
    BELIEVED,
    CONTESTED_BELIEVED,
    LONGEST_DRAIN,
    WINDOW,
    Least,
)
from novacron.record import Record

LEAST_TARGET: Final = 0.15
MOST_TARGET: Final = 0.8
"""Queueing delay that is aimed at, in least round trips: for whoever sends much, and little. With the
larger one a smoothed round trip is still below twice the least one."""
MIDDLE_BPS: Final = 10e6
"""Bytes a second at which the target is half a least round trip."""
TARGET_SLOPE: Final = 0.12
"""What the target loses each time the rate is e times larger, in least round trips. Transfers that share
a queue see the same one, and the larger one finds it too long: the steeper, the sooner are they equal."""
SHORTEST_PATH: Final = 0.001
"""Seconds of least round trip below which a link is not paced. What this end sees of such a path in an
interval is the bursts of its own streams and the hosts' timers, several times the path, and a pace that
yielded to those would never come back: measured, it cost half of a 200 Mbit/s path of 0.4 ms. Marks of the
switches are what keeps queues short there."""
TARGET_FLOOR: Final = 0.0025
"""Seconds; less is a matter of bursts and of the hosts' timers, not of the path's queue."""
RESPONSE: Final = 3
"""Intervals, or round trips where they are longer, within which a queue is corrected. What is seen is up
to two of them old, which a quicker response would answer with oscillation."""
DEEPEST_CUT: Final = 0.4
"""Of the rate, in one interval."""
STEEPEST_GROWTH: Final = 0.25
GENTLE_GROWTH: Final = 0.01
"""Of the rate, in one interval, as long as the queue is below its target at all."""
PATIENCE: Final = 5
"""Intervals, or round trips, without a queue after which the growth accelerates."""
BINDING: Final = 0.85
"""Share of the pace that arrives above which the pace is what holds the link."""
HEADROOM: Final = 1.5
"""The pace stays within so many times of what arrives, to be a bound at once when it is needed."""
SLOW_SHARE: Final = 0.25
"""Of the rate, for the slowdown after the start, when others may hold a queue that is taken for the
path; and half of the rate for the later ones, which need only empty our own."""
DRAIN_SHARE: Final = 0.5
CONTESTED: Final = 0.65
"""When so little arrives of what did at the beginning of a queue, because less was sent, and the queue is
still there, then it is another sender's."""
ALONE_GETS: Final = 1.15
"""Times what is sent arrives, at least, while a queue that nobody else fills is drained."""
YIELDED: Final = 0.8
"""Share of that rate which must have been sent before: otherwise it is the path that carries less."""
STAYS: Final = 0.7
"""Of the queue; one that shrinks more is draining already."""
BEST_LASTS: Final = 20.0
"""Seconds in which the best rate is forgotten."""
REGAINED: Final = 0.4
"""Of the best rate: beside one other flow half of it is a fair share, and what is seen is a round trip, in
which the window doubles, behind."""
LONGEST_REGAIN: Final = 2.0
"""Seconds."""
FIRST_PROBE: Final = 4.0
LAST_PROBE: Final = 15.0
"""Seconds between two looks whether others still fill the queue."""
PROBE_SHARE: Final = 0.6
"""Of the rate, and intervals or round trips that it lasts."""
PROBE_STEPS: Final = 4
LONGEST_PROBE: Final = 1.0
"""Seconds."""
ALONE: Final = 0.75
"""Share of what the queue has to lose in a probe where nobody else fills it. Beside one other flow with an
equal rate it loses half of it."""
FREE_AFTER: Final = 2.0
"""Seconds without a queue, and with less than the pace allows, until more streams may be of use."""
CALM: Final = 1.0
"""Seconds without a queue after which nobody fills it any more."""
SHORTEST: Final = 0.001
"""Seconds of an interval that says anything."""
WEIGHT: Final = 0.4
"""Of the newest interval in the rate that arrives."""
LONGEST_START: Final = 3.0
"""Seconds to find the rate. Whoever began among others may never have seen the path without a queue."""
LEAST_PACE: Final = 16 * 1024
"""Bytes a second. Below it no acknowledgements come that would tell that the queue is gone."""
HISTORY: Final = 32


class State(enum.StrEnum):
    START = "start"
    """Not paced: congestion control looks for the rate."""
    SLOW = "slow"
    """For a moment, to measure the least round trip."""
    HOLD = "hold"
    """Paced, so that the queue stays at its target."""
    CONTEST = "contest"
    """Others fill the queue: not paced, one flow among theirs."""
    PROBE = "probe"
    """The same, slower for a moment, to see whether they still do."""
    OFF = "off"
    """Fairness is greedy: queues do not matter."""


class Sample(Record):
    """One interval of what this end sends on a link."""

    seconds: float
    delivered_bytes: int
    """Acknowledged by the other end's kernel, headers of frames included."""
    smoothed_rtt: float
    """Seconds: the median of the streams that sent; 0 where it is not known."""
    least_rtt: float
    """The least that any stream measured in its life."""


class Verdict(Record):
    pace_bps: int
    """Bytes a second of all streams; 0: none."""
    senders: int
    """Streams to send on; 0: all."""
    loss_based: bool
    """Use a congestion control that yields to loss alone."""
    regain: bool
    """First one that doubles its window each round trip until something is lost: what was yielded
    before others were noticed is taken back."""
    binding: bool
    """The pace, or the yielding to others, holds the link: more streams would be of no use."""


class Change(Record):
    at: float
    """Seconds since the link began to send."""
    state: State
    pace_bps: int
    why: str


class QueueController:
    """Give it each interval with :meth:`observe`; it answers with what to do.

    Args:
      fairness: Of ``dwcp.acp.fairness``: what it is beside flows that fill the queue. ``transfer``: one
        flow. ``flow``: as many as it has streams. ``greedy``: it never yields to delay.
    """

    def __init__(self, fairness: str) -> None:
        self._fairness = fairness
        self.state = State.OFF if fairness == "greedy" else State.START
        self.history: deque[Change] = deque(maxlen=HISTORY)
        self.rtt = 0.0
        self.target = 0.0
        """Seconds of queueing delay."""
        self._now = 0.0
        self._least = Least()
        self._shrinks = False
        """The queue did, in the last interval."""
        self._step = 0.0
        """Seconds in which what was changed can be seen."""
        self._newest = 0.0
        """Bytes a second that arrived in the last interval."""
        self._rate = 0.0
        """What arrives, smoothed; while the queue is ours alone or empty, what the path carries."""
        self._share = 0.0
        """The rate that the pace is made from."""
        self._pace = 0.0
        self._paces: deque[tuple[float, float]] = deque(maxlen=64)
        """Since when, of late."""
        self._over = 0
        """Intervals in succession with more queue than the target."""
        self._empty_for = 0.0
        """Seconds without a queue."""
        self._began = 0.0
        self._free_for = 0.0
        """Seconds that something other than the pace or the path's rate held the link."""
        self._until = 0.0
        """Of a state that ends by itself."""
        self._episode: _Episode | None = None
        self._probe_every = FIRST_PROBE
        self._probe_at = 0.0
        self._best = 0.0
        """The best rate of the last while, in bytes a second."""
        self._regain_until = 0.0
        self._regain_from = 0.0
        """What arrives until then was sent on all streams."""
        self._left_at = -inf
        """When others did not fill the queue any more. Where they do again soon after, as beside a flow
        that empties a short queue each time it loses something, the next look waits long."""
        self._left_rate = 0.0
        self._look_at = 0.0
        self._look: tuple[float, float] | None = None
        """When a probe began to show, and the queue then."""

    @property
    def least_rtt(self) -> float:
        """Seconds; 0 before anything was measured."""
        return self._least.value

    @property
    def queue(self) -> float:
        """Seconds that the path's queue takes."""
        return max(0.0, self.rtt - self._least.value)

    def observe(self, sample: Sample) -> Verdict:
        self._now += sample.seconds
        if self.state is State.OFF or sample.smoothed_rtt <= 0 or sample.seconds < SHORTEST:
            return self.verdict()
        self._measure(sample)
        if 0 < sample.least_rtt < SHORTEST_PATH:
            self._leave_alone()
            return self.verdict()
        match self.state:
            case State.START:
                self._start()
            case State.SLOW:
                self._slow()
            case State.HOLD:
                self._hold(sample.seconds)
            case State.CONTEST:
                self._contest()
            case State.PROBE:
                self._probe()
        return self.verdict()

    def verdict(self) -> Verdict:
        contested = self.state in (State.CONTEST, State.PROBE)
        alone = contested and self._fairness == "transfer"
        paced = self.state in (State.HOLD, State.SLOW, State.PROBE)
        return Verdict(
            pace_bps=max(int(self._pace), LEAST_PACE) if paced else 0,
            senders=1 if alone else 0,
            loss_based=alone,
            regain=alone and self._regain_until > self._now,
            binding=contested
            or self.state is State.SLOW
            or (self.state is State.HOLD and self._free_for < FREE_AFTER),
        )

    def rest(self) -> None:
        """Nothing was sent for so long that what is known of the rate is none any more."""
        if self.state in (State.OFF, State.START):
            return
        self._least.forget()
        self._rate = self._share = self._pace = 0.0
        self._over = 0
        self._began = self._now
        self._enter(State.START, "nothing was sent for a while")

    def _leave_alone(self) -> None:
        if self.state is not State.START or not self.history:
            self._pace = 0.0
            self._began = self._now
            self._enter(
                State.START, f"the path is shorter than {_ms(SHORTEST_PATH)}: it is not paced"
            )

    # What the path shows -----------------------------------------------------------------------

    def _measure(self, sample: Sample) -> None:
        contested = self.state in (State.CONTEST, State.PROBE)
        self._shrinks = sample.smoothed_rtt < self.rtt
        self.rtt = sample.smoothed_rtt
        believed = CONTESTED_BELIEVED if contested else BELIEVED
        self._least.take(self._now, sample.smoothed_rtt, sample.least_rtt, believed)
        self._newest = sample.delivered_bytes / sample.seconds
        self._rate += WEIGHT * (self._newest - self._rate) if self._rate else self._newest
        if not contested:
            self._best = max(self._rate, self._best * (1 - sample.seconds / BEST_LASTS))
        self.target = target_delay(self._rate, self._least.value)
        self._step = max(sample.seconds, self.rtt)
        if self.queue > self.target:
            self._over += 1
        else:
            self._over = 0
        self._empty_for = self._empty_for + sample.seconds if self._is_empty() else 0.0

    def _is_empty(self) -> bool:
        return self.queue < self.target / 2

    def _binds(self) -> bool:
        return self._rate >= BINDING * self._pace

    # States ------------------------------------------------------------------------------------

    def _start(self) -> None:
        # One interval may be an accident, unless it is a large one.
        if self._over >= 2 or self.queue > 2 * self.target:
            self._share = self._rate
            why = f"a queue of {_ms(self.queue)} came: the rate is found"
        elif self._now - self._began >= LONGEST_START:
            why = "no queue came yet: to see whether the least round trip is without one"
        else:
            return
        self._share = self._rate
        self._slow_down(SLOW_SHARE, 4 * self._step, why)

    def _slow_down(self, share: float, seconds: float, why: str) -> None:
        self._pace = self._share * share
        self._until = self._now + min(seconds, LONGEST_DRAIN)
        self._enter(State.SLOW, why)

    def _slow(self) -> None:
        if self._now < self._until:
            return
        self._least.touch(self._now)
        self._rate = self._share  # what arrived meanwhile says nothing about the path
        self._pace = self._share
        self._empty_for = 0.0
        self._episode = None
        self._enter(State.HOLD, f"the least round trip is {_ms(self._least.value)}")

    def _hold(self, seconds: float) -> None:
        free = self._is_empty() and not self._binds()
        self._free_for = self._free_for + seconds if free else 0.0
        if self._contested():
            return
        if self._now - self._least.seen_at >= WINDOW:
            self._slow_down(
                DRAIN_SHARE,
                self._step + 2 * self.queue + seconds,
                "to measure the least round trip again",
            )
            return
        error = self.target - self.queue
        change = max(error / (RESPONSE * self._step), -DEEPEST_CUT)
        if self._over:
            # There is a queue: what arrives is what the path has for us, unless the queue shrinks
            # because we sent less than we might, as BBR does for a fifth of a second every ten.
            if not (self._shrinks and self._newest < CONTESTED * self._pace_then()):
                self._share += WEIGHT * (self._newest - self._share)
        elif self._binds():
            # Less arriving than before says nothing about the path as long as no queue comes of it: it
            # may be a host that was busy for a moment, and a pace that followed would not come back.
            self._share = max(self._share, self._rate)
            waited = self._empty_for / self._step
            change = max(change * max(1.0, waited - PATIENCE), GENTLE_GROWTH)
        else:
            # Something else holds the link; the pace keeps within reach.
            change = 0.0
            self._share = max(min(self._share, HEADROOM * self._best), LEAST_PACE)
        self._pace = self._share * (1 + min(change, STEEPEST_GROWTH))
        self._paces.append((self._now, self._pace))

    def _contested(self) -> bool:
        """Whether less was sent, less arrives, and the queue is still there."""
        if self._over == 0:
            self._episode = None
            return False
        if self._episode is None:
            # Beside a flow that empties the queue with each loss, several short ones count as one.
            before = self._left_rate if self._now - self._left_at < 2 * LAST_PROBE else 0.0
            self._episode = _Episode(max(self._rate, before))
        episode = self._episode
        episode.queue = max(episode.queue, self.queue)
        if self._shrinks and self._newest > ALONE_GETS * self._pace_then():
            # More arrives than is sent: the queue shrinks and is ours, and this is the path's rate.
            episode.rate, episode.followed_at = self._newest, inf
        elif (
            self._rate >= CONTESTED * episode.rate
            or self._pace_then() > YIELDED * episode.rate
            or self.queue < STAYS * episode.queue
        ):
            episode.followed_at = inf
        else:
            episode.followed_at = min(episode.followed_at, self._now)
        if self._now - episode.followed_at < 2 * self._step:
            return False
        again = self._now - self._left_at < 2 * LAST_PROBE
        self._probe_every = LAST_PROBE if again else FIRST_PROBE
        self._probe_at = self._now + self._probe_every
        self._regain_until = self._now + LONGEST_REGAIN
        self._regain_from = self._now + 3 * self._step
        self._episode = None
        self._enter(
            State.CONTEST,
            f"{_ms(self.queue)} of queue stayed while this link went from "
            f"{_mbit(episode.rate)} to {_mbit(self._rate)}: others fill it",
        )
        return True

    def _pace_then(self) -> float:
        """What was in force when that was sent which arrived in the last interval."""
        then = self._now - self._step - self.rtt
        while len(self._paces) > 1 and self._paces[1][0] <= then:
            self._paces.popleft()
        return self._paces[0][1] if self._paces else inf

    def _contest(self) -> None:
        if self._now >= self._regain_from and self._newest >= REGAINED * self._best:
            self._regain_until = 0.0
        if self._empty_for >= CALM:
            self._share = self._rate
            self._leave("there was no queue for a while")
        elif self._now >= self._probe_at:
            self._share = self._rate
            self._pace = self._share * PROBE_SHARE
            self._until = self._now + min(PROBE_STEPS * self._step, LONGEST_PROBE)
            self._look = None
            self._look_at = self._now + self._step
            self._enter(State.PROBE, "whether others still fill the queue")

    def _probe(self) -> None:
        """Alone, the queue shrinks by exactly what is not sent."""
        if self._look is None and self._now >= self._look_at:
            self._look = self._now, self.queue
        if self._look is not None and self._now >= self._until:
            at, queue = self._look
            due = (1 - PROBE_SHARE) * (self._now - at)
            if due > 0 and queue - self.queue >= ALONE * min(due, queue):
                self._leave(f"{_ms(queue - self.queue)} of queue went when this link slowed down")
                return
            self._rate = self._share
            self._probe_every = min(2 * self._probe_every, LAST_PROBE)
            self._probe_at = self._now + self._probe_every
            self._enter(State.CONTEST, f"others hold {_ms(self.queue)} of queue")
        elif self.queue <= self.target:
            self._leave("the queue went when this link slowed down")

    def _leave(self, why: str) -> None:
        self._rate = self._pace = self._share
        self._empty_for = 0.0
        self._episode = None
        self._left_at, self._left_rate = self._now, self._share
        self._enter(State.HOLD, f"{why}: nobody else fills it")

    def _enter(self, state: State, why: str) -> None:
        self.state = state
        self.history.append(Change(self._now, state, self.verdict().pace_bps, why))


class _Episode:
    """A queue above the target."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        """What arrived at its beginning."""
        self.queue = 0.0
        """The longest."""
        self.followed_at = inf
        """Since when what arrives follows what is sent."""


def target_delay(rate_bps: float, least_rtt: float) -> float:
    """Seconds of queue to aim at."""
    share = 0.5 - TARGET_SLOPE * log(max(rate_bps, 1.0) / MIDDLE_BPS)
    return max(min(max(share, LEAST_TARGET), MOST_TARGET) * least_rtt, TARGET_FLOOR)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _mbit(rate_bps: float) -> str:
    return f"{rate_bps * 8 / 1e6:.1f} Mbit/s"
