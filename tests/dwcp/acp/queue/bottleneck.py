"""A path with one queue, and senders on it: a fluid model in steps of a millisecond.

Bytes wait in one first-in first-out queue that holds so much and drops the rest; acknowledgements come
one least round trip after they left it. Senders are windows: they have at most so much under way, grow
until something is dropped (CUBIC, RFC 9438) and may be paced below that.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

STEP = 0.001
SEGMENT = 1448
SHRINK = 0.7
CUBIC = 0.4


class Window:
    """Loss-based congestion control of some streams together."""

    def __init__(self, streams: int = 1) -> None:
        self.streams = streams
        self.size = 10.0 * SEGMENT * streams
        self.slow_start = True
        self._origin = 0.0
        self._since = 0.0
        self._lost_at = -1.0

    def use(self, streams: int) -> None:
        self._origin *= streams / self.streams
        self.streams = streams

    def begin(self, now: float, *, slow_start: bool) -> None:
        """Another congestion control, with the window as it is."""
        self.slow_start = slow_start
        self._origin, self._since = self.size, now

    def acknowledged(self, now: float, size: float, limited: bool, rtt: float) -> None:
        if not limited:
            return
        if self.slow_start:
            self.size += size
            return
        segments = self._origin / SEGMENT / self.streams
        k = (segments * (1 - SHRINK) / CUBIC) ** (1 / 3)
        cubic = CUBIC * (now - self._since - k) ** 3 + segments
        # Not slower than Reno would be with that decrease (RFC 9438, 4.3).
        reno = segments * SHRINK + 3 * (1 - SHRINK) / (1 + SHRINK) * (now - self._since) / rtt
        wanted = max(cubic, reno) * SEGMENT * self.streams
        self.size += max(0.0, min(wanted - self.size, self.size / 2)) * min(size / self.size, 1.0)

    def lost(self, now: float, rtt: float) -> None:
        """Of several streams not all lose at once."""
        if now - self._lost_at < rtt:
            return
        self._lost_at = self._since = now
        self._origin = self.size
        self.slow_start = False
        self.size *= 1 - (1 - SHRINK) / self.streams**0.5
        self.size = max(self.size, 2.0 * SEGMENT)


class Sender:
    def __init__(self, path: Path, *, streams: int = 1, starts: float = 0.0) -> None:
        self.path = path
        self.starts = starts
        self.window = Window(streams)
        self.pace = 0.0
        """Bytes a second; 0: none."""
        self.under_way = 0.0
        self.acknowledged = 0.0
        self.rtt = 0.0
        self.least = 0.0
        path.senders.append(self)

    def wants(self) -> float:
        if self.path.now < self.starts:
            return 0.0
        room = max(0.0, self.window.size - self.under_way)
        # What an empty window may send at once is spread over a round trip, as a pacing kernel does.
        spread = 2 * self.window.size / max(self.rtt, self.path.least) * STEP
        return min(room, spread, self.pace * STEP if self.pace else room)

    def hear(self, size: float, rtt: float) -> None:
        self.under_way -= size
        self.acknowledged += size
        weight = 1 - (1 - 1 / 8) ** max(size / (2 * SEGMENT), 0.01)
        self.rtt = self.rtt + weight * (rtt - self.rtt) if self.rtt else rtt
        self.least = min(self.least or rtt, rtt)
        limited = self.under_way + size >= 0.8 * self.window.size
        self.window.acknowledged(self.path.now, size, limited, max(self.rtt, self.path.least))


class Path:
    """Bytes a second, seconds and bytes."""

    def __init__(
        self, rate: float, least: float, buffer: float, *, jitter: float = 0.0, seed: int = 1
    ) -> None:
        self.rate = rate
        self.least = least
        self.buffer = buffer
        self.now = 0.0
        self.queued = 0.0
        self.senders: list[Sender] = []
        self.carried = 0.0
        self._queue: deque[_Mixture] = deque()
        self._acks: deque[tuple[float, Sender, float, float]] = deque()
        self._jitter = jitter
        self._random = random.Random(seed)

    def run(self, seconds: float, every: float, act: Callable[[], None]) -> None:
        """*act* is called each *every* seconds."""
        end = self.now + seconds
        due = self.now + every
        while self.now < end:
            self._step()
            if self.now >= due:
                due += every
                act()

    def _step(self) -> None:
        self.now += STEP
        offers = [(sender, sender.wants()) for sender in self.senders]
        total = sum(size for _, size in offers)
        room = self.buffer - self.queued + self.rate * STEP
        taken = min(1.0, room / total) if total > 0 else 1.0
        if total > 0:
            self._queue.append(_Mixture(self.now, total * taken, offers, total))
            self.queued += total * taken
        for sender, size in offers:
            sender.under_way += size * taken
            if taken < 1.0 and size > 0:
                sender.window.lost(self.now, max(sender.rtt, self.least))
        self._serve()
        while self._acks and self._acks[0][0] <= self.now:
            _, sender, size, rtt = self._acks.popleft()
            sender.hear(size, rtt)

    def _serve(self) -> None:
        left = self.rate * STEP
        while left > 1e-9 and self._queue:
            head = self._queue[0]
            served = min(head.size, left)
            left -= served
            head.size -= served
            self.queued -= served
            self.carried += served
            waited = self.now - head.came - left / self.rate
            rtt = max(0.0, waited) + self.least
            if self._jitter:
                rtt += self._random.uniform(0, self._jitter)
            for sender, offered in head.offers:
                if offered > 0:
                    share = served * offered / head.offered
                    self._acks.append((self.now + self.least, sender, share, rtt))
            if head.size <= 1e-9:
                self._queue.popleft()


class _Mixture:
    """What all sent in one step: nobody is first."""

    def __init__(
        self, came: float, size: float, offers: list[tuple[Sender, float]], offered: float
    ) -> None:
        self.came = came
        self.size = size
        self.offers = offers
        self.offered = offered
