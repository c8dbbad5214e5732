"""The sessions of this node, at most one with each other node.

Two nodes that name each other as seeds dial at the same time. Both must keep the same one of the
two connections without talking about it: the one dialled by the node with the smaller id. When
both were dialled by the same node the newer stays, because a node does not dial again while its
own session is well.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from novacron.network.metrics import SESSIONS, SESSIONS_TOTAL
from novacron.network.session import PeerSession
from novacron.protocol.codes import GoodbyeReason


def keeps_newer(old_initiator: str, old_boot_id: str, new_initiator: str, new_boot_id: str) -> bool:
    """Whether the newer of two sessions with one node stays."""
    if old_boot_id != new_boot_id:
        return True  # the other end of the old one is a process that no longer runs
    return new_initiator <= old_initiator


class SessionRegistry:
    """Counts every session that runs; finds the one to keep by node."""

    def __init__(self) -> None:
        self._by_node: dict[str, PeerSession] = {}
        self._all: set[PeerSession] = set()
        self._counts: dict[str, int] = {}
        self._changed = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[PeerSession]:
        return iter(tuple(self._by_node.values()))

    def all(self) -> list[PeerSession]:
        """Those about to end as well."""
        return list(self._all)

    def find(self, node_id: str) -> PeerSession | None:
        return self._by_node.get(node_id)

    def add(self, session: PeerSession) -> None:
        """Take *session*, which is established; the one too many is told Goodbye."""
        self._all.add(session)
        SESSIONS_TOTAL.inc(session.role)
        self._count(session, 1)
        old = self._by_node.get(session.node_id)
        if old is not None and old.peer is not None and session.peer is not None:
            duplicate = "the two nodes have another session"
            if not keeps_newer(
                old.initiator_id, old.peer.boot_id, session.initiator_id, session.peer.boot_id
            ):
                session.leave(GoodbyeReason.DUPLICATE, duplicate)
                return
            old.leave(GoodbyeReason.DUPLICATE, duplicate)
        self._by_node[session.node_id] = session
        self._changed.unpark_all()

    def remove(self, session: PeerSession) -> None:
        """*session* ended. Harmless when repeated."""
        if session in self._all:
            self._all.discard(session)
            self._count(session, -1)
        if self._by_node.get(session.node_id) is session:
            del self._by_node[session.node_id]
        self._changed.unpark_all()

    async def wait_changed(self) -> None:
        """Return when a session came or went."""
        await self._changed.park()

    async def wait_empty(self) -> None:
        while self._all:
            await self._changed.park()

    def leave_all(self, reason: GoodbyeReason, message: str) -> None:
        for session in tuple(self._all):
            session.leave(reason, message)

    def abort_idle(self) -> None:
        """Drop the sessions in which this node owes no answer, without waiting for the peers."""
        for session in tuple(self._all):
            if not session.machine.owed:
                session.abort()

    def _count(self, session: PeerSession, change: int) -> None:
        count = self._counts[session.role] = self._counts.get(session.role, 0) + change
        SESSIONS.set(count, session.role)
