"""Sessions to the configured seeds: dial, hold, dial again."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable
from random import random
from typing import Any, Final

import trio

from novacron.boot.retry import Backoff, RetryPolicy
from novacron.errors import NovaCronError
from novacron.network.metrics import SEED_CONNECTED, SEED_ROUND_TRIP
from novacron.network.registry import SessionRegistry
from novacron.network.session import PeerSession
from novacron.network.transport import join_address

logger = logging.getLogger("novacron.network")

SEED_RETRY: Final = RetryPolicy(
    delay=1.0, factor=2.0, max_delay=60.0, jitter=0.25, reset_after=60.0
)
"""A quarter of jitter, so that a cluster that lost its switch does not come back in step; at most
a minute, so that it comes back at all before somebody looks."""

Dial = Callable[[str, int], Awaitable[PeerSession]]
"""Connects, does both handshakes, and has the session served by a task of its own: not by the
seed's, because a node that stops ceases to dial before it lets its sessions finish."""


class SeedState(enum.StrEnum):
    WAITING = "waiting"
    """Before the first attempt, or until the next."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    SELF = "self"
    """The seed is this node; it is not dialled again."""


class SelfDialledError(Exception):
    """Raised by :data:`Dial` when the other end turned out to be this node."""


class Seed:
    """Keeps a session to one configured address, whichever side dialled it."""

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        *,
        dial: Dial,
        registry: SessionRegistry,
        warn: Callable[[str], None],
        random: Callable[[], float] = random,
    ) -> None:
        self.name = name
        self.state = SeedState.WAITING
        self.node_id: str | None = None
        self.attempts = 0
        self.last_error: str | None = None
        self.address = join_address(host, port)
        self._host = host
        self._port = port
        self._dial = dial
        self._registry = registry
        self._warn = warn
        self._backoff = Backoff(SEED_RETRY, random)
        self._next_attempt: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the last attempt failed and there is no session."""
        return self.last_error is not None and self.state in (
            SeedState.WAITING,
            SeedState.CONNECTING,
        )

    async def run(self) -> None:
        """Until cancelled, or the seed turns out to be this node."""
        while True:
            await self._wait_while_connected()
            self.state = SeedState.CONNECTING
            self.attempts += 1
            self._next_attempt = None
            try:
                session = await self._dial(self._host, self._port)
            except SelfDialledError:
                self.state = SeedState.SELF
                self._warn(
                    f"network.seeds names this node itself ({self.name}); that seed is left out"
                )
                return
            except NovaCronError as exc:
                self._failed(exc)
            else:
                self.last_error = None
                self.node_id = session.node_id
                self._connected(session)
                await session.ended.wait()
                # A session refused as a duplicate ends at once, the other one goes on.
            await self._wait_while_connected()
            await self._sleep()

    def _connected(self, session: PeerSession) -> None:
        self.state = SeedState.CONNECTED
        session.seed_name = self.name
        self._backoff.note_ready(trio.current_time())
        SEED_CONNECTED.set(1, self.name)

    def _failed(self, exc: NovaCronError) -> None:
        text = str(exc)
        # The same failure every minute is one line in the log, not one a minute.
        level = logging.DEBUG if text == self.last_error else logging.WARNING
        logger.log(level, "no session with seed %s: %s", self.name, text, extra={"seed": self.name})
        self.last_error = text

    async def _wait_while_connected(self) -> None:
        while session := self._session():
            if session.seed_name != self.name:
                self._connected(session)
                self.last_error = None
            await self._registry.wait_changed()
        SEED_CONNECTED.set(0, self.name)
        SEED_ROUND_TRIP.remove(self.name)

    def _session(self) -> PeerSession | None:
        return self._registry.find(self.node_id) if self.node_id is not None else None

    async def _sleep(self) -> None:
        delay = self._backoff.next_delay(trio.current_time())
        self.state = SeedState.WAITING
        self._next_attempt = trio.current_time() + delay
        deadline = self._next_attempt
        with trio.move_on_at(deadline):
            while self._session() is None:
                await self._registry.wait_changed()

    def statistics(self) -> dict[str, Any]:
        return {
            "seed": self.name,
            "state": str(self.state),
            "node_id": self.node_id,
            "attempts": self.attempts,
            "error": self.last_error,
            "next_attempt_seconds": None
            if self._next_attempt is None
            else max(0.0, self._next_attempt - trio.current_time()),
        }
