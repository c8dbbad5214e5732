"""The accept loop: takes connections as long as there is room, and not one more.

Past ``max_connections`` it does not accept and refuse, it does not accept: new connections wait in
the kernel's backlog, cost this process nothing, and get in when one leaves. An attempt of one
address to hold all the places meets the limit for one address first.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from novacron.network.errors import AcceptAbortedError, AcceptExhaustedError
from novacron.network.metrics import CONNECTIONS, PAUSES, REFUSED
from novacron.network.transport import Incoming, Listener

logger = logging.getLogger("novacron.network")

EXHAUSTED_PAUSE: Final = 0.25
"""Seconds. Descriptors come back when sessions end; asking in a tight loop would keep the sessions
from ending."""
ABORTED_PAUSE: Final = 0.01
"""Seconds; keeps an error that is not transient after all from burning a CPU."""
REPEAT_LOG: Final = 60.0
"""Seconds in which the same trouble is logged once."""

Handler = Callable[[Incoming], Awaitable[None]]


class AcceptLoop:
    """Accepts from *listener* and runs *handle* for each connection, until :meth:`stop`.

    *handle* closes what it is given. An exception from it is logged and ends that connection only:
    one peer's bytes must not be able to take the listener down.
    """

    def __init__(
        self, listener: Listener, handle: Handler, *, max_connections: int, max_per_host: int
    ) -> None:
        self.listener = listener
        self.accepting = False
        self.accepted = 0
        self._handle = handle
        self._max_per_host = max_per_host
        self._places = trio.Semaphore(max_connections, max_value=max_connections)
        self._max_connections = max_connections
        self._hosts: dict[str, int] = {}
        self._last_logged = float("-inf")
        self._probes: dict[str, trio.Event] = {}

    @property
    def connections(self) -> int:
        return sum(self._hosts.values())

    @property
    def saturated(self) -> bool:
        """Whether new connections wait in the kernel."""
        return self.connections >= self._max_connections

    def statistics(self) -> dict[str, Any]:
        return {
            "accepting": self.accepting,
            "connections": self.connections,
            "max_connections": self._max_connections,
            "saturated": self.saturated,
            "accepted": self.accepted,
        }

    def expect_probe(self, address: str) -> trio.Event:
        """The health check is about to connect from *address*: the event is set when that
        connection is accepted, which is all it is for."""
        event = self._probes[address] = trio.Event()
        return event

    def forget_probe(self, address: str) -> None:
        self._probes.pop(address, None)

    def stop(self) -> None:
        """Stop listening; connections that were accepted go on."""
        self.listener.close()

    async def run(
        self,
        handlers: trio.Nursery,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until :meth:`stop` or cancelled; connections are handled in *handlers*."""
        self.accepting = True
        task_status.started()
        try:
            while True:
                if self._places.value == 0:
                    PAUSES.inc("max_connections")
                    self._complain(
                        "no place for another connection; new ones wait until one ends",
                        {"key": "network.max_connections", "limit": self._max_connections},
                    )
                await self._places.acquire()
                try:
                    incoming = await self._accept()
                except trio.ClosedResourceError:
                    return
                if not self._admit(incoming):
                    self._places.release()
                    continue
                handlers.start_soon(self._serve, incoming)
        finally:
            self.accepting = False
            self.listener.close()

    async def _accept(self) -> Incoming:
        while True:
            try:
                incoming = await self.listener.accept()
            except AcceptExhaustedError as exc:
                PAUSES.inc("exhausted")
                self._complain(str(exc), {"key": exc.key})
                await trio.sleep(EXHAUSTED_PAUSE)
            except AcceptAbortedError:
                await trio.sleep(ABORTED_PAUSE)
            else:
                return incoming

    def _admit(self, incoming: Incoming) -> bool:
        probe = self._probes.pop(incoming.peer_address, None)
        if probe is not None:
            probe.set()
            incoming.close()
            return False
        host = incoming.peer_host
        count = self._hosts.get(host, 0)
        if count >= self._max_per_host:
            REFUSED.inc("per_address")
            incoming.close()
            self._complain(
                f"refused a connection: {host} has {count} already",
                {"key": "network.max_connections_per_peer", "limit": self._max_per_host},
            )
            return False
        self._hosts[host] = count + 1
        self.accepted += 1
        CONNECTIONS.set(self.connections)
        return True

    async def _serve(self, incoming: Incoming) -> None:
        host = incoming.peer_host
        try:
            await self._handle(incoming)
        except Exception:
            logger.exception("a peer connection failed", extra={"peer": incoming.peer_address})
        finally:
            count = self._hosts[host] - 1
            if count:
                self._hosts[host] = count
            else:
                del self._hosts[host]
            CONNECTIONS.set(self.connections)
            self._places.release()

    def _complain(self, message: str, fields: dict[str, Any]) -> None:
        now = trio.current_time()
        if now - self._last_logged >= REPEAT_LOG:
            self._last_logged = now
            logger.warning(message, extra=fields)
