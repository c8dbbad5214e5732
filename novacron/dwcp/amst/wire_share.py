"""What of a link's bytes on the wire is one transfer's: links count for all of them together."""

from __future__ import annotations

from novacron.dwcp.amst.transport import Link


class WireShare:
    """This transfer's share of what its link put on the wire."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._counters = link.statistics().counters
        self._moved: int | None = None

    def note(self, moved: int, role: str) -> float:
        """The share since the last call, in bytes; *moved* is what the transfer moved in all."""
        before, now = self._counters, self.link.statistics().counters
        own = moved - (self._moved if self._moved is not None else moved)
        self._moved = moved
        if now.sent_bytes < before.sent_bytes or now.received_bytes < before.received_bytes:
            return 0.0  # the link is gone, and its counters with it
        self._counters = now
        if role == "sender":
            wire, content = (
                now.wire_sent_bytes - before.wire_sent_bytes,
                now.sent_bytes - before.sent_bytes,
            )
        else:
            wire, content = (
                now.wire_received_bytes - before.wire_received_bytes,
                now.received_bytes - before.received_bytes,
            )
        return wire * min(1.0, own / content) if content > 0 else float(own and wire)
