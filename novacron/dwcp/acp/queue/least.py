"""The least round trip of a path, which is the path without a queue."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW: Final = 10.0
"""Seconds the least round trip is believed; a path changes about as often."""
BELIEVED: Final = 2 * WINDOW
CONTESTED_BELIEVED: Final = 6 * WINDOW
NEAR: Final = 1.3
"""As long the kernel's least round trip is believed although no smoothed one came so near to it: others
may keep the queue from draining for a while, but the path may also be a longer one now."""
SAME: Final = 1.05
"""A round trip within this of the least one shows that it is still the path's."""
LONGEST_DRAIN: Final = 0.5
"""Seconds."""
MOST_NOISE: Final = 0.003
"""Seconds that round trips may be longer than the kernel's least one without a queue: packets leave in
bursts and hosts are busy, which on a short path is more than the path. A pace that yielded to that would
never come back. A queue of less than 5 ms harms nobody (CoDel, RFC 8289, 4.4)."""


class Least:
    """The least round trip of the path.

    It is the least smoothed one of a window, in which the slowdowns show what is without a queue, but at
    most a little more than the kernel's own. That is exact, and is believed as long as smoothed round trips
    come close to it at least within some windows; after that the path is another one.
    """

    def __init__(self) -> None:
        self._smoothed: deque[tuple[float, float]] = deque()
        """Times and round trips, both rising: only what can still become the least one."""
        self._kernel = 0.0
        self._near_at = 0.0
        """When a round trip near the kernel's was seen last."""
        self.seen_at = 0.0
        """When a round trip as short as the least one was seen last."""

    @property
    def value(self) -> float:
        smoothed = self._smoothed[0][1] if self._smoothed else 0.0
        return min(self._kernel + MOST_NOISE, smoothed) if self._kernel else smoothed

    def take(self, now: float, smoothed: float, kernel: float, believed: float) -> None:
        """*kernel* is 0 where the kernel knows none."""
        while self._smoothed and self._smoothed[-1][1] >= smoothed:
            self._smoothed.pop()
        self._smoothed.append((now, smoothed))
        # The margin is for the slowdown that is due when the window ends.
        while self._smoothed[0][0] < now - WINDOW - 2 * LONGEST_DRAIN:
            self._smoothed.popleft()
        if kernel <= 0 or smoothed <= kernel * NEAR:
            self._near_at = now
        self._kernel = kernel if now - self._near_at <= believed else 0.0
        if smoothed <= self.value * SAME:
            self.seen_at = now

    def touch(self, now: float) -> None:
        """What there is was measured anew."""
        self.seen_at = now

    def forget(self) -> None:
        self._smoothed.clear()
        self._kernel = 0.0
