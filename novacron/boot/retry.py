"""When to try again: exponential back-off with jitter, a budget, and a reset. Pure."""

from __future__ import annotations

from collections.abc import Callable


class RetryPolicy:
    """Delays of ``delay * factor**n``, at most ``max_delay`` seconds, each varied by ``jitter``.

    ``attempts`` counts the first try. After ``reset_after`` seconds of healthy running the next
    delay is ``delay`` again: a back-off that never forgets punishes a component for last month's
    outage.
    """

    __slots__ = ("attempts", "delay", "factor", "jitter", "max_delay", "reset_after")

    def __init__(
        self,
        attempts: int = 4,
        delay: float = 1.0,
        factor: float = 2.0,
        max_delay: float = 30.0,
        jitter: float = 0.1,
        reset_after: float = 60.0,
    ) -> None:
        self.attempts = attempts
        self.delay = delay
        self.factor = factor
        self.max_delay = max_delay
        self.jitter = jitter
        self.reset_after = reset_after

    def nominal(self, failures: int) -> float:
        """The delay after that many failures in a row (1 or more), before jitter, in seconds."""
        # The exponent is capped: 2**1024 overflows a float, and no delay ever grows that far.
        return min(self.max_delay, self.delay * self.factor ** min(failures - 1, 64))

    def schedule(self) -> list[float]:
        """The nominal delays between the attempts of one start."""
        return [self.nominal(n) for n in range(1, self.attempts)]


class Backoff:
    """One component's memory of its failures.

    *random* returns a number in [0, 1).
    """

    __slots__ = ("_random", "failures", "policy", "ready_at")

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        self.policy = policy
        self.failures = 0
        self.ready_at: float | None = None
        self._random = random

    def note_ready(self, now: float) -> None:
        self.ready_at = now

    def next_delay(self, now: float) -> float:
        """Count a failure at *now* (monotonic seconds) and return the delay before the next try."""
        if self.ready_at is not None and now - self.ready_at >= self.policy.reset_after:
            self.failures = 0
        self.ready_at = None
        self.failures += 1
        spread = self.policy.jitter * (2 * self._random() - 1)
        return self.policy.nominal(self.failures) * (1 + spread)

    @property
    def exhausted(self) -> bool:
        """Whether the failures so far used up the budget of attempts."""
        return self.failures >= self.policy.attempts
