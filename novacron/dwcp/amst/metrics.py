"""Figures of the transport. No label is a peer, a link or a stream: those are in ``/api/v1/dwcp``."""

from __future__ import annotations

from novacron.observe import Counter, Gauge

LINKS = Gauge("novacron_dwcp_links", "Links to other nodes that are open.", ("protocol",))
STREAMS = Gauge("novacron_dwcp_streams", "Data connections that are open.", ("mover",))
LINKS_OPENED = Counter(
    "novacron_dwcp_links_opened_total", "Links that were agreed on.", ("protocol", "role")
)
LINKS_ENDED = Counter("novacron_dwcp_links_ended_total", "Links that ended, by cause.", ("cause",))
STREAMS_LOST = Counter("novacron_dwcp_streams_lost_total", "Data connections that died.")
CONNECTIONS_REFUSED = Counter(
    "novacron_dwcp_connections_refused_total",
    "Connections to the data port that were closed at once, by reason.",
    ("reason",),
)
BYTES = Counter(
    "novacron_dwcp_bytes_total",
    "Content moved: acknowledged by the other node, or written here.",
    ("direction",),
)
WIRE_BYTES = Counter(
    "novacron_dwcp_wire_bytes_total",
    "Bytes on data connections, with headers, tags and what was sent again.",
    ("direction",),
)
RESENT_BYTES = Counter("novacron_dwcp_resent_bytes_total", "Content that was sent more than once.")
BAD_FRAMES = Counter(
    "novacron_dwcp_bad_frames_total",
    "Frames refused by tag, checksum or rule; each ended its connection.",
)
REKEYS = Counter("novacron_dwcp_rekeys_total", "Keys of data connections that were replaced.")
