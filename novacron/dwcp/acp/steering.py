"""Applies to a link what the queue controller and the operator say about how it sends.

Only the end that sends acts. It is asked to look every interval while there is something to send, and
reads what the kernel knows of each connection, some 20 us each; nothing here runs for a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import trio

from novacron.config.schema import AcpSettings
from novacron.dwcp.acp.queue.core import QueueController, Sample, State, Verdict
from novacron.dwcp.amst.transport import StreamStatistics, Traffic

INTERVAL: Final = 0.05
"""Seconds. Twice as many could not be told from the noise of timers, half as many see a queue late."""
MANY_STREAMS: Final = 32
"""From which on it is looked half as often: the cost is theirs."""
IDLE_INTERVAL: Final = 0.25
"""While there is nothing to send."""
RESTS_AFTER: Final = 10.0
"""Seconds without sending after which the path has to be found out anew."""
SAME_PACE: Final = 0.01
"""A change of the pace by less is none."""
UNKNOWN_RTT: Final = 0xFFFFFFFF
"""What the kernel says before it measured one."""
LOSS_BASED: Final = "cubic"
REGAINING: Final = ("reno", "bbr", "reno")
"""What BBR leaves behind is a window for a path without a queue, a small one where others keep it full,
from which CUBIC would need half a minute to its share. Reno doubles it each round trip up to the slow
start threshold, which BBR takes away when it begins; CUBIC would stop at the first sign of delay."""


REGAIN_AGAIN: Final = 0.2
REGAIN_ROUND_TRIPS: Final = 3
NOTHING: Final = Verdict(0, 0, loss_based=False, regain=False, binding=False)


class Steered(Protocol):
    """What steering needs of :class:`~novacron.dwcp.amst.native.NativeLink`."""

    mover: str

    @property
    def sends(self) -> bool: ...
    def streams(self) -> list[StreamStatistics]: ...
    def pace(self, bytes_per_second: int) -> None: ...
    def senders(self, most: int) -> None: ...
    def weigh(self, priority: int, weight: int) -> None: ...
    def use_congestion(self, stream_id: int, name: str) -> str: ...


class Steering:
    """Of one link. Call :meth:`observe`, then wait for as many seconds as it says.

    Args:
      off: Why the link is not paced; empty where it is.
    """

    def __init__(self, link: Steered, settings: AcpSettings, *, off: str) -> None:
        self._link = link
        self._controller = QueueController(settings.fairness)
        if not off and settings.queue == "off":
            off = "dwcp.acp.queue is off"
        if not off and settings.fairness == "greedy":
            off = "dwcp.acp.fairness is greedy"
        self.off = off
        self._fairness = settings.fairness
        self._at = trio.current_time()
        self._sent_at = self._at
        self._acked: dict[int, int] = {}
        self._applied = NOTHING
        self._before: dict[int, str] = {}
        """Congestion control of the streams that use another one now, by stream."""
        self._regain_at = 0.0
        """When regaining begins anew."""
        self.why_not = ""
        """Why a stream could not be made to yield to loss."""
        for traffic, weight in (
            (Traffic.STATE, settings.weights.state),
            (Traffic.MIGRATION, settings.weights.migration),
            (Traffic.BULK, settings.weights.bulk),
        ):
            link.weigh(traffic, weight)

    @property
    def binding(self) -> bool:
        """What is done here holds the link: more streams would be of no use."""
        return self._applied.binding

    def observe(self) -> float:
        now = trio.current_time()
        if self.off or self._link.mover != "tcp":
            self._apply(NOTHING, ())
            return IDLE_INTERVAL
        if not self._link.sends:
            if self._acked and now - self._sent_at >= RESTS_AFTER:
                self._controller.rest()
                self._acked = {}
                self._apply(self._controller.verdict(), self._link.streams())
            self._at = now
            return IDLE_INTERVAL
        streams = [s for s in self._link.streams() if s.mover == "tcp" and s.state != "greeting"]
        sample = self._sample(streams, now - self._at)
        self._at = self._sent_at = now
        if sample is not None:
            self._apply(self._controller.observe(sample), streams)
        return INTERVAL if len(streams) <= MANY_STREAMS else 2 * INTERVAL

    def statistics(self) -> dict[str, Any]:
        controller = self._controller
        off = self.off or ("" if self._link.mover == "tcp" else "RDMA has no queue to pace for")
        return {
            "state": str(State.OFF) if off else str(controller.state),
            "why": off or (controller.history[-1].why if controller.history else self.why_not),
            "fairness": self._fairness,
            "pace_bps": self._applied.pace_bps,
            "senders": self._applied.senders,
            "rtt_us": round(controller.rtt * 1e6),
            "least_rtt_us": round(controller.least_rtt * 1e6),
            "target_us": round(controller.target * 1e6),
            "decisions": [
                {
                    "at": round(change.at, 3),
                    "state": str(change.state),
                    "pace_bps": change.pace_bps,
                    "why": change.why,
                }
                for change in controller.history
            ],
        }

    def _sample(self, streams: Sequence[StreamStatistics], seconds: float) -> Sample | None:
        """None of the first interval, whose beginning is not known."""
        before, self._acked = self._acked, {s.id: s.acked_bytes for s in streams}
        if not before:
            return None
        delivered = {s.id: s.acked_bytes - before.get(s.id, 0) for s in streams}
        moved = [s for s in streams if delivered[s.id] > 0 and s.rtt_us] or streams
        round_trips = sorted(s.rtt_us for s in moved)
        least = [s.min_rtt_us for s in streams if 0 < s.min_rtt_us < UNKNOWN_RTT]
        return Sample(
            seconds=seconds,
            delivered_bytes=sum(delivered.values()),
            smoothed_rtt=round_trips[len(round_trips) // 2] / 1e6 if round_trips else 0.0,
            least_rtt=min(least, default=0) / 1e6,
        )

    def _apply(self, verdict: Verdict, streams: Sequence[StreamStatistics]) -> None:
        applied = self._applied
        if verdict.senders != applied.senders:
            self._link.senders(verdict.senders)
        pace = verdict.pace_bps
        if (pace == 0) != (applied.pace_bps == 0) or abs(pace - applied.pace_bps) > (
            SAME_PACE * applied.pace_bps
        ):
            self._link.pace(pace)
        else:
            verdict = verdict._replace(pace_bps=applied.pace_bps)
        if verdict.loss_based:
            self._yield_to_loss(streams, REGAINING if verdict.regain else (LOSS_BASED,))
            if not verdict.regain:
                self._regain_at = 0.0
        elif self._before:
            self._restore(streams)
        self._applied = verdict

    def _yield_to_loss(self, streams: Sequence[StreamStatistics], names: tuple[str, ...]) -> None:
        now = trio.current_time()
        # A loss ends the doubling: it begins anew.
        again = names == REGAINING and now >= self._regain_at
        if again:
            self._regain_at = now + max(REGAIN_AGAIN, REGAIN_ROUND_TRIPS * self._controller.rtt)
        for stream in streams:
            if stream.congestion == "" or (stream.congestion == names[-1] and not again):
                continue
            if stream.id not in self._before:
                self._before[stream.id] = stream.congestion
            for name in names:
                self.why_not = self._link.use_congestion(stream.id, name)

    def _restore(self, streams: Sequence[StreamStatistics]) -> None:
        here = {stream.id for stream in streams}
        for stream_id, name in self._before.items():
            if stream_id in here:
                self._link.use_congestion(stream_id, name)
        self._before = {}
