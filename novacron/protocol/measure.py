"""What a link is like, from pings alone: round trip, jitter, loss.

Loss here is pings that stay unanswered past the retransmission time-out. Under TCP the kernel
repairs lost packets, so this is what a program sees of them (stalls), not what the wire does; the
packet figures come from TCP_INFO where a transport reads it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from novacron.protocol.messages import Record

CLOCK_GRANULARITY: Final = 0.001
"""Seconds; G of RFC 6298."""
MIN_TIMEOUT: Final = 1.0
"""Seconds; RFC 6298 (2.4)."""
MAX_TIMEOUT: Final = 60.0
"""Seconds; RFC 6298 (2.5)."""
LOSS_WINDOW: Final = 128
"""Pings that are looked back on: about ten minutes at the default interval, and the resolution of
the loss figure."""


class RoundTrip:
    """Smoothed round trip and its time-out, RFC 6298. All in seconds; None before a sample."""

    __slots__ = ("latest", "minimum", "smoothed", "timeout", "variation")

    def __init__(self) -> None:
        self.latest: float | None = None
        self.minimum: float | None = None
        self.smoothed: float | None = None
        self.variation: float | None = None
        self.timeout = MIN_TIMEOUT

    def sample(self, seconds: float) -> None:
        if self.smoothed is None or self.variation is None:
            self.smoothed = seconds
            self.variation = seconds / 2
        else:
            # (2.3): the variation first, from the old smoothed value; beta 1/4, alpha 1/8.
            self.variation += (abs(self.smoothed - seconds) - self.variation) / 4
            self.smoothed += (seconds - self.smoothed) / 8
        self.latest = seconds
        self.minimum = seconds if self.minimum is None else min(self.minimum, seconds)
        timeout = self.smoothed + max(CLOCK_GRANULARITY, 4 * self.variation)
        self.timeout = min(max(timeout, MIN_TIMEOUT), MAX_TIMEOUT)


class Jitter:
    """Interarrival jitter as RFC 3550, section 6.4.1 smooths it (gain 1/16), of round trips
    instead of one-way transits, so that the two clocks need not agree. Seconds."""

    __slots__ = ("_last", "value")

    def __init__(self) -> None:
        self.value: float | None = None
        self._last: float | None = None

    def sample(self, seconds: float) -> None:
        if self._last is not None:
            difference = abs(seconds - self._last)
            value = self.value or 0.0
            self.value = value + (difference - value) / 16
        self._last = seconds


class LinkStatistics(Record):
    """A snapshot. Seconds, None where nothing was measured; ``loss`` from 0 to 1."""

    __slots__ = (
        "samples",
        "round_trip",
        "round_trip_latest",
        "round_trip_minimum",
        "round_trip_variation",
        "jitter",
        "loss",
        "clock_offset",
    )
    samples: int
    round_trip: float | None
    round_trip_latest: float | None
    round_trip_minimum: float | None
    round_trip_variation: float | None
    jitter: float | None
    loss: float | None
    clock_offset: float | None


class _Sent:
    __slots__ = ("answered", "at", "sequence")

    def __init__(self, sequence: int, at: float) -> None:
        self.sequence = sequence
        self.at = at
        self.answered = False


class Link:
    """Pings sent and answered on one session."""

    __slots__ = ("_clock_offset", "_window", "jitter", "round_trip", "samples")

    def __init__(self) -> None:
        self.round_trip = RoundTrip()
        self.jitter = Jitter()
        self.samples = 0
        self._window: deque[_Sent] = deque(maxlen=LOSS_WINDOW)
        self._clock_offset: float | None = None

    def ping_sent(self, sequence: int, now: float) -> None:
        self._window.append(_Sent(sequence, now))

    def pong_received(self, sequence: int, now: float) -> float | None:
        """The round trip in seconds; None if no such ping is open (never sent, answered already,
        or too long ago)."""
        window = self._window
        if not window:
            return None
        index = (sequence - window[0].sequence) & 0xFFFFFFFF  # the counter wraps
        if index >= len(window) or window[index].answered:
            return None
        sent = window[index]
        sent.answered = True
        seconds = max(now - sent.at, 0.0)
        self.samples += 1
        self.round_trip.sample(seconds)
        self.jitter.sample(seconds)
        return seconds

    def clock_seen(self, sent_ns: int, remote_ns: int, received_ns: int) -> None:
        """Wall clocks of ping, answer and its arrival: the remote one was read, at best guess,
        half-way (RFC 5905's offset with one remote reading)."""
        self._clock_offset = (remote_ns - (sent_ns + received_ns) / 2) / 1e9

    def loss(self, now: float) -> float | None:
        """Unanswered among the pings of the window that can be judged: answered, or older than
        the time-out."""
        judged = lost = 0
        for sent in self._window:
            if sent.answered:
                judged += 1
            elif now - sent.at > self.round_trip.timeout:
                judged += 1
                lost += 1
        return lost / judged if judged else None

    def statistics(self, now: float) -> LinkStatistics:
        trip = self.round_trip
        return LinkStatistics(
            self.samples,
            trip.smoothed,
            trip.latest,
            trip.minimum,
            trip.variation,
            self.jitter.value,
            self.loss(now),
            self._clock_offset,
        )
