"""Keeps sessions with the nodes there are links with: only a session tells that one was started again.

A node that is no seed is dialled by nobody else while its link has everybody wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import trio

from novacron.errors import NovaCronError
from novacron.network.session import PeerSession

LOOK_EVERY: Final = 1.0
"""Seconds between looks."""
PAUSE: Final = 2.0
"""Seconds from a failure to reach a node to the next attempt."""


class Sessions(Protocol):
    """What this needs of :class:`novacron.network.Network`."""

    def session(self, node_id: str) -> PeerSession | None: ...


class Returns:
    """
    Args:
      reach: Makes a session with a node; a NovaCronError means not now.
    """

    def __init__(
        self,
        sessions: Sessions,
        reach: Callable[[str], Awaitable[PeerSession]],
        nursery: trio.Nursery,
    ) -> None:
        self._sessions = sessions
        self._reach = reach
        self._nursery = nursery
        self._reaching: set[str] = set()

    async def run(
        self, peers: Callable[[], Iterable[str]], see: Callable[[PeerSession], None]
    ) -> None:
        """Until cancelled: hand the sessions with *peers*, which it asks for each time, to *see*."""
        while True:
            await trio.sleep(LOOK_EVERY)
            for peer in peers():
                session = self._sessions.session(peer)
                if session is not None:
                    see(session)
                elif peer not in self._reaching:
                    self._reaching.add(peer)
                    self._nursery.start_soon(self._reach_again, peer)

    async def _reach_again(self, peer: str) -> None:
        try:
            await self._reach(peer)
        except NovaCronError:
            await trio.sleep(PAUSE)
        finally:
            self._reaching.discard(peer)
