"""How fast something goes, how long it will take, and how a limit is kept. Decides; waits for
nothing."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_SECONDS: Final = 5.0
"""Long enough to be read, short enough to show a stall."""
BURST_SECONDS: Final = 0.05
"""What may be let through at once after a rest, as a share of a second's."""


class Meter:
    """The rate of something that is counted, over the last seconds.

    Every call names the time, monotonic seconds, and the count so far.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now: float, count: int) -> None:
        samples = self._samples
        if samples and count < samples[-1][1]:
            samples.clear()  # it began anew
        samples.append((now, count))
        # The newest one that is old enough stays: the rate is over the whole window.
        while len(samples) > 2 and now - samples[1][0] >= WINDOW_SECONDS:
            samples.popleft()

    def rate(self, now: float) -> float:
        """In a second; 0 before there are two samples."""
        if len(self._samples) < 2:
            return 0.0
        (begin, first), (_, last) = self._samples[0], self._samples[-1]
        return (last - first) / max(now - begin, 1e-3)

    def forget(self) -> None:
        self._samples.clear()


def eta_seconds(left: int, rate: float) -> float | None:
    """None where nobody can tell."""
    if left <= 0:
        return 0.0
    return left / rate if rate > 0 else None


class Bucket:
    """A token bucket that may go into debt: one thing of any size passes, the next ones wait."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        """In a second; 0: no limit."""
        self._tokens = rate * BURST_SECONDS
        self._at = now

    def change(self, rate: float, now: float) -> None:
        self._refill(now)
        # A debt made at a high rate is not to be paid off at a low one.
        if self.rate and rate and self._tokens < 0:
            self._tokens *= rate / self.rate
        self.rate = rate
        self._tokens = min(self._tokens, rate * BURST_SECONDS)

    def take(self, amount: int, now: float) -> float:
        """Take *amount*; returns the seconds to wait before using it."""
        if not self.rate:
            return 0.0
        self._refill(now)
        wait = max(0.0, -self._tokens / self.rate)
        self._tokens -= amount
        return wait

    def _refill(self, now: float) -> None:
        self._tokens = min(
            self.rate * BURST_SECONDS, self._tokens + max(0.0, now - self._at) * self.rate
        )
        self._at = now


def shares(limit_bps: int, large: int, small: bool) -> int:
    """The limit of each of *large* objects, and of all small ones together if there are any, so
    that they keep to *limit_bps* in all; 0: no limit.

    The engine limits objects, links and nodes, and knows nothing of transfers; a shared bucket in
    it would cost every chunk a lock that all threads contend for. Equal shares are wrong only while
    one object is held up by something else than its share, and then the transfer goes too slow,
    never too fast. Small ones are paid for before they start, since each would begin with a burst of
    its own.
    """
    if not limit_bps:
        return 0
    return max(1, limit_bps // max(1, large + small))
