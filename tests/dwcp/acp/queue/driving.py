"""A queue controller that steers a sender on a path of the model, as a node does every interval."""

from __future__ import annotations

from novacron.dwcp.acp.queue.core import QueueController, Sample, State
from tests.dwcp.acp.queue.bottleneck import SEGMENT, Path, Sender

INTERVAL = 0.05


class Driver:
    def __init__(
        self, path: Path, *, fairness: str = "transfer", streams: int = 8, starts: float = 0.0
    ) -> None:
        self.sender = Sender(path, streams=streams, starts=starts)
        self.controller = QueueController(fairness)
        self.path = path
        self.streams = streams
        self.moments: list[tuple[float, float, float]] = []
        """Time, bytes a second acknowledged, smoothed round trip."""
        self._acknowledged = 0.0
        self._regains = False

    def act(self) -> None:
        sender, window = self.sender, self.sender.window
        if self.path.now < sender.starts:
            return
        delivered = sender.acknowledged - self._acknowledged
        self._acknowledged = sender.acknowledged
        verdict = self.controller.observe(
            Sample(INTERVAL, int(delivered), sender.rtt, sender.least)
        )
        sender.pace = verdict.pace_bps
        streams = verdict.senders or self.streams
        if streams < window.streams:
            window.size = max(window.size * streams / window.streams, 2.0 * SEGMENT)
        window.use(streams)
        if verdict.regain != self._regains:
            self._regains = verdict.regain
            window.begin(self.path.now, slow_start=verdict.regain)
        self.moments.append((self.path.now, delivered / INTERVAL, sender.rtt))

    @property
    def states(self) -> list[State]:
        return [change.state for change in self.controller.history]

    def goodput(self, begin: float, end: float) -> float:
        found = [rate for at, rate, _ in self.moments if begin <= at < end]
        return sum(found) / len(found)

    def round_trip(self, begin: float, end: float) -> float:
        found = [rtt for at, _, rtt in self.moments if begin <= at < end]
        return sum(found) / len(found)


def run(path: Path, seconds: float, *drivers: Driver) -> None:
    def act() -> None:
        for driver in drivers:
            driver.act()

    path.run(seconds, INTERVAL, act)


def jain(*rates: float) -> float:
    """Fairness index (Jain, Chiu and Hawe, 1984): 1 where all are equal."""
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))
