"""What the registry of links knows of each."""

from __future__ import annotations

import trio

from novacron.dwcp.amst.negotiation import Agreement
from novacron.dwcp.amst.supervision import Supervisor


class LinkEntry:
    """A link and what keeps it."""

    def __init__(
        self, peer: str, boot_id: str, agreement: Agreement, keeper: Supervisor, *, asked: bool
    ) -> None:
        self.peer = peer
        self.boot_id = boot_id
        self.agreement = agreement
        self.keeper = keeper
        self.asked = asked
        """By this node."""
        self.opened_at = trio.current_time()
        self.ended = trio.Event()
