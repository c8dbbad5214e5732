"""The network's figures. No label is a peer, but for the configured seeds, which are few."""

from __future__ import annotations

from novacron.observe import Counter, Gauge, Histogram

SESSIONS = Gauge("novacron_network_sessions", "Peer sessions that are open.", ("role",))
CONNECTIONS = Gauge(
    "novacron_network_connections", "Accepted connections, those in the handshake included."
)
SESSIONS_TOTAL = Counter(
    "novacron_network_sessions_opened_total", "Peer sessions that were opened.", ("role",)
)
SESSIONS_ENDED = Counter(
    "novacron_network_sessions_ended_total", "Peer sessions that ended, by reason.", ("reason",)
)
BYTES = Counter(
    "novacron_network_bytes_total", "Bytes of peer sessions, before TLS.", ("direction",)
)
FRAMES = Counter("novacron_network_frames_total", "Frames of peer sessions.", ("direction", "type"))
HANDSHAKE_FAILURES = Counter(
    "novacron_network_handshake_failures_total",
    "Connections that did not become a session, by reason.",
    ("role", "reason"),
)
REFUSED = Counter(
    "novacron_network_connections_refused_total",
    "Connections closed before the handshake, by reason.",
    ("reason",),
)
PAUSES = Counter(
    "novacron_network_accept_pauses_total",
    "Times the listener stopped accepting for a while, by reason.",
    ("reason",),
)
ROUND_TRIP = Histogram(
    "novacron_network_round_trip_seconds",
    "Round trips measured by pings, all peers together.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
SEED_ROUND_TRIP = Gauge(
    "novacron_network_seed_round_trip_seconds",
    "Smoothed round trip to a configured seed.",
    ("seed",),
)
SEED_CONNECTED = Gauge(
    "novacron_network_seed_connected",
    "Whether there is a session with a configured seed.",
    ("seed",),
)
