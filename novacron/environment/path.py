"""What was measured of the way to one peer; numbers and nothing else, so that every layer may read
them: mode detection here, path classes and pacing in :mod:`novacron.dwcp.acp`."""

from __future__ import annotations

from novacron.record import Record


class PathMeasure(Record):
    """One window of samples of one path, taken together.

    A number that nothing was measured for is 0, and the field that says how much stands behind it
    is 0 as well: :attr:`samples` for the round trip and its jitter, :attr:`segments` for
    :attr:`loss` and :attr:`ce_share`, :attr:`rates` for :attr:`rate_bps` and
    :attr:`rate_spread`. Zero measured and not measured are thus never the same.
    """

    peer: str
    """The node's id."""
    rtt_us: float
    """Microseconds, smoothed over the window."""
    min_rtt_us: float
    """The smallest seen in the window: the path without queues."""
    jitter_us: float
    """Mean deviation of the round trip from its smoothed value."""
    loss: float
    """Share of the segments sent that had to be sent again, 0 to 1."""
    ecn: bool
    """Both ends and the way between agreed on explicit congestion notification."""
    ce_share: float
    """Share of the delivered segments that came with the mark of a queue, 0 to 1."""
    rate_bps: int
    """Bytes a second; the largest recent delivery rate that the path bounded and not the sender's
    lack of data. 0: unknown."""
    same_host: bool
    """The peer runs on this machine; says nothing of a network."""
    rdma: bool
    """This node has an RDMA device."""
    samples: int
    """Round trips behind :attr:`rtt_us` and :attr:`jitter_us`, after the bound of the window."""
    at: float
    """Monotonic seconds (``trio.current_time()``) of the last sample."""
    segments: int = 0
    """Segments sent within the window."""
    rates: int = 0
    """Delivery rates behind :attr:`rate_bps`."""
    rate_spread: float = 0.0
    """Standard deviation of those rates as a share of their mean; 0 with fewer than two."""

    @property
    def measured(self) -> bool:
        """Whether anything is known of the way at all."""
        return self.samples > 0
