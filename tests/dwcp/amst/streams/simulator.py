"""Paths that exist only here: flows with windows, one bottleneck with a queue, and what limits them.

A fluid model in steps of a few milliseconds. It has what the controller's decisions depend on (caps of
single flows, slow start, halved windows after a loss, a queue that adds to the round trip, ends that
are slower than the path) and nothing else.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from novacron.dwcp.amst.streams.core import Controller, Decision, Sample

MSS = 1448
FIRST_WINDOW = 10 * MSS
CONNECT_ROUND_TRIPS = 2
"""The TCP handshake, and the greeting with its answer."""


@dataclass
class Path:
    """Rates in bytes a second, times in seconds."""

    rtt: float
    capacity: float
    flow_cap: float = float("inf")
    """A policer's, for each flow."""
    loss: float = 0.0
    """Of packets, at random."""
    buffer: float = 0.02
    """Of the bottleneck, in seconds of its capacity."""
    source: float = float("inf")
    """What the sending side has to send."""
    receiver: float = float("inf")
    """What the other side takes."""
    standing: float = 0.0
    """Bytes each flow keeps in the queue, whatever it is told."""
    noise: float = 0.0
    """Standard deviation of the whole goodput from one interval to the next, relative to it."""
    changes: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """When which of these become what."""


class _Flow:
    def __init__(self, opens_at: float) -> None:
        self.opens_at = opens_at
        self.window = float(FIRST_WINDOW)
        self.slow_start = True
        self.rate = 0.0


class Link:
    """The flows of one link on a path."""

    def __init__(self, path: Path, *, seed: int = 1) -> None:
        self.path = path
        self.now = 0.0
        self.queue = 0.0
        self._changes = list(path.changes)
        self._flows: list[_Flow] = []
        self._random = random.Random(seed)

    @property
    def rtt(self) -> float:
        path = self.path
        standing = path.standing * len(self._flows)
        return path.rtt + min(self.queue + standing, path.buffer * path.capacity) / path.capacity

    def aim_at(self, count: int) -> None:
        while len(self._flows) < count:
            self._flows.append(_Flow(self.now + CONNECT_ROUND_TRIPS * self.rtt))
        del self._flows[count:]

    def interval(self) -> Sample:
        """As long as the supervisor's are."""
        seconds = max(0.25, 4 * self.rtt)
        step = max(0.005, min(self.path.rtt / 2, 0.02))
        moved = idle = 0.0
        round_trips = []
        why = ""
        for _ in range(max(1, round(seconds / step))):
            bytes_moved, share, held_by = self._step(step)
            moved += bytes_moved
            idle += share * step
            why = held_by or why
            round_trips.append(self.rtt)
        moved *= max(0.0, self._random.gauss(1.0, self.path.noise))
        shares = dict.fromkeys(("source", "receiver"), 0.0)
        if why:
            shares[why] = idle / seconds
        return Sample(
            seconds=seconds,
            moved_bytes=int(moved),
            streams=sum(flow.opens_at <= self.now for flow in self._flows),
            starved_share=shares["source"],
            limited_share=0.0,
            window_share=shares["receiver"],
            smoothed_rtt=sum(round_trips) / len(round_trips),
            least_rtt=self.path.rtt,
        )

    def _step(self, step: float) -> tuple[float, float, str]:
        """Bytes moved, the streams' share of time without work, and for want of what."""
        path = self.path
        self.now += step
        while self._changes and self._changes[0][0] <= self.now:
            for name, value in self._changes.pop(0)[1].items():
                setattr(path, name, value)
        rtt = self.rtt
        flows = [flow for flow in self._flows if flow.opens_at <= self.now]
        for flow in flows:
            flow.rate = min(flow.window / rtt, path.flow_cap)
        wanted = sum(flow.rate for flow in flows)
        ends = min(path.source, path.receiver)
        idle, held_by = 0.0, ""
        if wanted > ends:
            idle, held_by = 1 - ends / wanted, "source" if path.source <= ends else "receiver"
            for flow in flows:
                flow.rate *= ends / wanted
            wanted = ends
        room = path.buffer * path.capacity
        self.queue = max(0.0, self.queue + (wanted - path.capacity) * step)
        overflow = max(0.0, self.queue - room)
        self.queue -= overflow
        for flow in flows:
            self._adapt(flow, step, rtt, overflow / (wanted * step) if wanted else 0.0, idle > 0)
        return min(wanted, path.capacity) * step, idle, held_by

    def _adapt(self, flow: _Flow, step: float, rtt: float, dropped: float, idle: bool) -> None:
        packets = flow.rate * step / MSS
        chance = 1 - (1 - min(1.0, self.path.loss + dropped)) ** packets
        if self._random.random() < chance:
            flow.slow_start = False
            # Cubic gives up less than half, once in a round trip at most; steps are shorter than it.
            flow.window = max(2.0 * MSS, flow.window * (1 - 0.3 * min(1.0, 2 * step / rtt)))
        elif idle or flow.rate >= self.path.flow_cap:
            return  # what is not used does not grow
        elif flow.slow_start:
            flow.window *= 2 ** (step / rtt)
        else:
            flow.window += 2 * MSS * step / rtt


@dataclass
class Run:
    goodputs: list[tuple[float, float]]
    """End of each interval, and bytes a second in it."""
    round_trips: list[tuple[float, float]]
    targets: list[tuple[float, int]]
    decisions: list[Decision]

    def goodput(self, start: float, end: float = float("inf")) -> float:
        rates = [rate for at, rate in self.goodputs if start < at <= end]
        return sum(rates) / len(rates)

    def rtt(self, start: float) -> float:
        values = [rtt for at, rtt in self.round_trips if at > start]
        return sum(values) / len(values)

    def target_at(self, when: float) -> int:
        return [target for at, target in self.targets if at <= when][-1]

    def changes(self, start: float, end: float = float("inf")) -> int:
        """How often the number of streams changed."""
        counts = [target for at, target in self.targets if start < at <= end]
        return sum(one != other for one, other in itertools.pairwise(counts))


def run(path: Path, controller: Controller | int, seconds: float, *, seed: int = 1) -> Run:
    """A link on *path* under *controller*, or with a fixed number of streams."""
    link = Link(path, seed=seed)
    target = controller if isinstance(controller, int) else controller.target
    link.aim_at(target)
    result = Run([], [], [(0.0, target)], [])
    while link.now < seconds:
        sample = link.interval()
        if not isinstance(controller, int):
            target = controller.observe(sample)
            link.aim_at(target)
        result.goodputs.append((link.now, sample.moved_bytes / sample.seconds))
        result.round_trips.append((link.now, sample.smoothed_rtt))
        result.targets.append((link.now, target))
    if not isinstance(controller, int):
        result.decisions = list(controller.history)
    return result
