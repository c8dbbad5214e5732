"""Figures of paths and modes. Peers are a label here, since one figure for all would say nothing; at
most :data:`MOST_PEERS` of them."""

from __future__ import annotations

from typing import Final

from novacron.environment.path import PathMeasure
from novacron.observe import Counter, Gauge

MOST_PEERS: Final = 64
"""Whoever has more looks at ``/api/v1/mode``, or at the nodes from the other end."""

MODE = Gauge(
    "novacron_environment_mode",
    "1 for the network mode the node is in, 0 for the others.",
    ("mode",),
)
MODE_MEASURED = Gauge(
    "novacron_environment_mode_measured",
    "Whether the network mode comes from a measured path, and not from the devices alone.",
)
MODE_SWITCHES = Counter(
    "novacron_environment_mode_switches_total",
    "Times the network mode changed, by the mode it changed to.",
    ("mode",),
)
PATHS = Gauge("novacron_environment_paths", "Paths to peers by network mode.", ("mode",))
ROUND_TRIP = Gauge(
    "novacron_environment_path_round_trip_seconds", "Smoothed round trip to a peer.", ("peer",)
)
JITTER = Gauge(
    "novacron_environment_path_jitter_seconds",
    "Mean deviation of the round trip to a peer.",
    ("peer",),
)
LOSS = Gauge(
    "novacron_environment_path_loss_ratio",
    "Share of the segments to a peer that were lost within the last minute.",
    ("peer",),
)
_OF_PATHS: Final = (ROUND_TRIP, JITTER, LOSS)


def show_path(measure: PathMeasure) -> None:
    labels = (measure.peer,)
    if labels not in ROUND_TRIP.values and len(ROUND_TRIP.values) >= MOST_PEERS:
        return
    ROUND_TRIP.set(measure.rtt_us / 1e6, measure.peer)
    JITTER.set(measure.jitter_us / 1e6, measure.peer)
    if measure.segments:
        LOSS.set(measure.loss, measure.peer)
    else:
        LOSS.remove(measure.peer)


def hide_path(peer: str) -> None:
    for family in _OF_PATHS:
        family.remove(peer)
