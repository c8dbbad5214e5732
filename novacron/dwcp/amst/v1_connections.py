"""The connections of protocol version 1: dialled and accepted with TLS, one for each link."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any, Final, Protocol

import trio

from novacron.dwcp.amst import v1
from novacron.dwcp.amst.congestion import Congestion
from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.metrics import CONNECTIONS_REFUSED
from novacron.dwcp.amst.negotiation import Agreement
from novacron.dwcp.amst.transport import Link
from novacron.dwcp.amst.wire import LINK_ID_BYTES
from novacron.errors import DwcpError, NovaCronError
from novacron.network.tcp_tls import TlsDialer, TlsIncoming
from novacron.network.transport import PeerIdentity, Stream

CONNECT_TIMEOUT: Final = 15.0
"""Seconds for the connection of a link, after which the link is none."""
IDLE_AFTER: Final = 60.0
PREAMBLE: Final = b"novacron-dwcp-v1"
"""Then the link's id. It is said inside TLS and needs no proof of its own: the link has to be one with
the node that the certificate was issued for."""

WELCOME: Final = b"+"
"""The acceptor's answer, so that the initiator names the link to nobody who does not have it yet."""


class Certificates(Protocol):
    def server_context(self) -> ssl.SSLContext: ...
    def client_context(self) -> ssl.SSLContext: ...
    def identify(self, der: bytes, presented: Sequence[bytes] = (), /) -> PeerIdentity: ...


class V1Connections:
    """Makes the supervisors of version 1 links, and brings accepted connections to them."""

    def __init__(
        self, certificates: Certificates, congestion: Congestion, nursery: trio.Nursery
    ) -> None:
        self._certificates = certificates
        self._congestion = congestion
        self._nursery = nursery
        self._awaited: dict[bytes, V1Supervisor] = {}

    async def keeper(
        self,
        peer: str,
        agreement: Agreement,
        host: str,
        port: int,
        initiator: bool,
    ) -> V1Supervisor:
        """The supervisor of a new link. The initiator's is connected; the other one's is when the
        initiator has dialled, see :meth:`V1Supervisor.ready`.

        Raises:
          NetworkError: the initiator found nobody there.
          LinkLostError: nobody who knows the link, or not in time.
        """
        supervisor = V1Supervisor(peer, agreement, initiator, self._nursery)
        if initiator:
            stream = await self._dial(host, port, agreement.link_id)
            await self._check(stream, peer)
            await supervisor.open(stream)
        else:
            self._awaited[agreement.link_id] = supervisor
        return supervisor

    async def accept(self, connection: trio.socket.SocketType, address: Any) -> None:
        """A connection that begins like TLS; closed unless it is that of a link that waits for it."""
        incoming = TlsIncoming(connection, address, self._certificates.server_context)
        stream: Stream | None = None
        why = "greeting_timeout"
        try:
            with trio.move_on_after(CONNECT_TIMEOUT):
                stream = await incoming.handshake()
                why = await self._join(stream)
        except NovaCronError:
            why = "tls"
        finally:
            if why:
                if stream is not None:
                    with trio.CancelScope(shield=True):
                        await stream.aclose()
                else:
                    incoming.close()
        if why:
            CONNECTIONS_REFUSED.inc(why)

    async def _join(self, stream: Stream) -> str:
        size = len(PREAMBLE) + LINK_ID_BYTES
        said = b""
        while len(said) < size:
            data = await stream.receive_some()
            if not data:
                return "lost"
            said += data
        if not said.startswith(PREAMBLE):
            return "not_a_greeting"
        self._awaited = {id: s for id, s in self._awaited.items() if not s.over}
        supervisor = self._awaited.get(said[len(PREAMBLE) : size])
        if supervisor is None:
            return "unknown_link"
        try:
            await self._check(stream, supervisor.peer)
        except NovaCronError:
            return "bad_proof"
        self._awaited.pop(supervisor.agreement.link_id, None)
        await stream.send_all(WELCOME)
        await supervisor.open(stream, said[size:])
        return ""

    async def _dial(self, host: str, port: int, link_id: bytes) -> Stream:
        dialer = TlsDialer(self._certificates.client_context)
        stream: Stream | None = None
        welcome = b""
        try:
            with trio.move_on_after(CONNECT_TIMEOUT) as scope:
                stream = await dialer.dial(host, port)
                await stream.send_all(PREAMBLE + link_id)
                welcome = await stream.receive_some()
        finally:
            if stream is not None and welcome != WELCOME:
                with trio.CancelScope(shield=True):
                    await stream.aclose()
        if stream is None or welcome != WELCOME:
            late = f"no connection within {CONNECT_TIMEOUT:g} s"
            why = late if scope.cancelled_caught else "the other node does not know it"
            raise LinkLostError("the link was lost", why=why)
        return stream

    async def _check(self, stream: Stream, peer: str) -> None:
        found = await trio.to_thread.run_sync(
            self._certificates.identify, stream.peer_certificate, stream.peer_chain
        )
        if found.node_id != peer:
            await stream.aclose()
            raise LinkLostError(
                "the connection is not the peer's",
                why=f"its certificate is that of {found.node_id}",
            )


class V1Supervisor:
    """A :class:`~novacron.dwcp.amst.supervision.Supervisor` of a link with one TLS connection. That
    one lost, the link is over: version 1 replaces nothing."""

    def __init__(
        self,
        peer: str,
        agreement: Agreement,
        initiator: bool,
        nursery: trio.Nursery,
    ) -> None:
        self.peer = peer
        self.agreement = agreement
        self.heard_close = False
        self._initiator = initiator
        self._nursery = nursery
        self._link: v1.V1Link | None = None
        self._connected = trio.Event()
        self._over = trio.Event()
        self._reason: DwcpError | None = None

    @property
    def link(self) -> Link | None:
        return self._link

    @property
    def over(self) -> bool:
        return self._over.is_set()

    async def open(self, stream: Stream, received: bytes = b"") -> None:
        """Give it its connection, which is closed with the link."""
        agreement = self.agreement
        self._link = await v1.open_link(
            stream,
            peer=self.peer,
            link_id=agreement.link_id,
            max_chunk_bytes=agreement.chunk_bytes,
            send_window=agreement.send_window,
            receive_window=agreement.receive_window,
            nursery=self._nursery,
            received=received,
        )
        self._connected.set()

    async def ready(self) -> Link:
        while self._link is None and self._reason is None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_then_cancel, self._connected, nursery.cancel_scope)
                nursery.start_soon(_then_cancel, self._over, nursery.cancel_scope)
        if self._link is None:
            assert self._reason is not None
            raise self._reason
        return self._link

    def end(self, reason: DwcpError) -> None:
        if self._reason is None:
            self._reason = reason
            self._over.set()

    async def run(self) -> DwcpError:
        with trio.move_on_after(CONNECT_TIMEOUT):
            await self._connected.wait()
        if self._link is None:
            self.end(LinkLostError("the link was lost", why="the other node never connected"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            await self._over.wait()
            nursery.cancel_scope.cancel()
        assert self._reason is not None
        return self._reason

    async def _watch(self) -> None:
        link = self._link
        if link is None:
            return
        idle_since = trio.current_time()
        while True:
            with trio.move_on_after(1.0):
                self.end(await link.wait_ended())
                return
            now = trio.current_time()
            if link.busy:
                idle_since = now
            elif self._initiator and now - idle_since >= IDLE_AFTER:
                self.end(LinkLostError("the link was closed", why="nothing moved on it"))

    async def aclose(self) -> None:
        if self._link is not None:
            await self._link.aclose()

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = {"role": "initiator" if self._initiator else "acceptor"}
        if self._link is not None:
            counters, streams = self._link.statistics()
            found["counters"] = counters._asdict()
            found["streams"] = [stream._asdict() for stream in streams]
        return found


async def _then_cancel(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
