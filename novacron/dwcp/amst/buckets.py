"""Token buckets: how rate limits are kept. Pure: the caller brings the time."""

from __future__ import annotations

from typing import Final

_BURST_SECONDS: Final = 0.1
"""Saved up at most while nothing is sent: less would cost throughput where the clock is coarse, more
would be felt by those who share the line."""
_SHORTEST_WAIT: Final = 0.0005


class TokenBucket:
    """Goes into debt: what is to be sent passes as soon as the bucket is not in debt, however large
    it is, and the next one waits the longer. Over time the rate is exact."""

    def __init__(self, rate: int, now: float) -> None:
        """*rate*: bytes a second; 0: no limit. *now*: seconds, of any clock that never steps."""
        self.rate = rate
        self._level = 0.0
        self._at = now

    def change(self, rate: int, now: float) -> None:
        self._refill(now)
        self.rate = rate
        # A debt made at a high rate is not to be paid off at a low one.
        self._level = max(self._level, 0.0)

    def wait(self, now: float) -> float:
        """Seconds until something may pass; 0: now."""
        self._refill(now)
        if not self.rate or self._level >= 0:
            return 0.0
        return max(-self._level / self.rate, _SHORTEST_WAIT)

    def take(self, size: int) -> None:
        """*size* bytes pass; less than zero: they did not after all."""
        if self.rate:
            self._level -= size

    def _refill(self, now: float) -> None:
        gained = max(0.0, now - self._at) * self.rate
        self._level = min(self._level + gained, self.rate * _BURST_SECONDS)
        self._at = now
