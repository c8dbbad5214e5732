"""The network component: the peer listener and the sessions to the seeds."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import trio

from novacron.component import (
    Component,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeView,
    ObservableComponent,
    Phase,
)
from novacron.config.schema import NetworkSettings
from novacron.environment import Identity
from novacron.errors import NetworkError, NovaCronError, SecurityError
from novacron.network import distrust
from novacron.network.contacts import Contacts
from novacron.network.description import describe
from novacron.network.errors import NetworkStoppingError, TlsError
from novacron.network.guard import guarded, is_rejection, record_rejection
from novacron.network.listener import AcceptLoop
from novacron.network.metrics import HANDSHAKE_FAILURES, SESSIONS_ENDED
from novacron.network.peers import Seed, SeedState, SelfDialledError
from novacron.network.registry import SessionRegistry
from novacron.network.session import PeerSession, RequestHandler
from novacron.network.tcp_tls import TlsDialer, open_tls_listener
from novacron.network.transport import Dialer, Incoming, Stream, split_address
from novacron.protocol.codes import ErrorCode, GoodbyeReason, ViolationError
from novacron.protocol.events import Closed, Failed, SessionTimeoutError
from novacron.protocol.party import LocalParty, local_party
from novacron.protocol.states import Role
from novacron.security import Security
from novacron.security.errors import PeerRejectedError

logger = logging.getLogger("novacron.network")

PROBE_TIMEOUT: Final = 0.8
"""Seconds; less than a deep check may take, so that the answer is ours and not a timeout's."""

_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean all of this host's, and one of those to reach it by."""
GOODBYE_TIMEOUT: Final = 3.0
"""Seconds for a peer to answer a Goodbye before a session with nothing in flight is dropped: a
dead peer must not hold up the stop of this node for all of boot.stop.drain."""


MAX_SERIALS: Final = 4096
"""Nodes of which it is remembered with which certificate they came last; a link may outlive their
session."""

ExpulsionWatcher = Callable[[str, NovaCronError], None]
"""Is told a node's id, and why it is not served any more."""


class Network(ObservableComponent, Component):
    """Ready when the listener is bound; seeds are dialled from then on and waited for by nobody."""

    name: ClassVar[str] = "network"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.CRITICAL

    def __init__(
        self,
        security: Security,
        identity: Identity,
        settings: NetworkSettings,
        node: NodeView,
    ) -> None:
        self._security = security
        self._identity = identity
        self._settings = settings
        self._node = node
        self._handlers: dict[str, RequestHandler] = {}
        self._watchers: list[ExpulsionWatcher] = []
        self._came_with: dict[str, tuple[str, str]] = {}
        self.replaced = ""
        """That this node's authority was replaced while it was away, as a sentence; until a session
        comes about."""
        self._port = 0
        self._reset()

    def _reset(self) -> None:
        self._registry = SessionRegistry()
        self._accept_loop: AcceptLoop | None = None
        self._contacts: Contacts | None = None
        self._seeds: list[Seed] = []
        self._local: LocalParty | None = None
        self._dialling: trio.CancelScope | None = None
        self._stopping = False

    # For the components above ----------------------------------------------------------------

    @property
    def address(self) -> str | None:
        """``host:port`` of the listener while it is bound."""
        return self._accept_loop.listener.address if self._accept_loop else None

    def session(self, node_id: str) -> PeerSession | None:
        """The session with that node, if there is one."""
        return self._registry.find(node_id)

    def sessions(self) -> list[PeerSession]:
        return list(self._registry)

    async def wait_sessions_changed(self) -> None:
        """Return when a session came or went."""
        await self._registry.wait_changed()

    async def reach(self, node: str) -> PeerSession:
        """The session with *node*; where there is none one is made, and goes on as any other does.

        Args:
          node: Its id, four or more characters of the beginning of that, or ``host:port``, which
            may be a seed's; the port may be left out where it is 7401.

        Raises:
          PeerUnknownError: no node is known by that name, or no address of it.
          PeerAmbiguousError: several are.
          PeerIsSelfError: it is this node's.
          AddressInvalidError: *node* has a colon and is no address.
          NetworkStoppingError: this node makes no sessions any more.
          NetworkError, SecurityError: none could be made; whether it may work later is on the
            other axis.
        """
        if self._contacts is None or self._stopping:
            raise NetworkStoppingError(
                f"no session with {node}", why="the network of this node is not running"
            )
        return await self._contacts.reach(node)

    def register_handler(self, method: str, handler: RequestHandler) -> None:
        """Let peers ask for *method*, from now on and on every session. Who may is said by the rule
        of that name in :data:`novacron.security.policy.RULES`.

        Raises:
          ValueError: somebody else registered it, or it has no rule.
        """
        if method in self._handlers:
            raise ValueError(f"method {method} has a handler")
        self._handlers[method] = guarded(method, handler, self._security.audit)

    def remove_handler(self, method: str) -> None:
        self._handlers.pop(method, None)

    def watch_expulsions(self, watcher: ExpulsionWatcher) -> None:
        """Have *watcher* called for each node that is not to be served any more, to end what it has
        beside its session."""
        self._watchers.append(watcher)

    def unwatch_expulsions(self, watcher: ExpulsionWatcher) -> None:
        """Harmless when repeated."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def expel_revoked(self) -> list[tuple[str, NovaCronError]]:
        """End at once the sessions of certificates that are revoked, or of an authority that the
        cluster has replaced, and whatever else the nodes have that last came with one of those;
        returns these nodes, and why."""
        expelled: list[tuple[str, NovaCronError]] = []
        for session in self._registry.all():
            error = self._distrusted(session.node_id, session.serial, session.issuer)
            if error is not None:
                session.expel(error)
        for node_id, (serial, issuer) in list(self._came_with.items()):
            error = self._distrusted(node_id, serial, issuer)
            if error is not None:
                del self._came_with[node_id]
                expelled.append((node_id, error))
                for watcher in list(self._watchers):
                    watcher(node_id, error)
        return expelled

    async def renew_session(self, session: PeerSession) -> None:
        """Make another session with the node at the other end, which this node has dialled: both ends
        show their present certificates, and the other session ends when what is in flight there is
        answered. Raises as :meth:`reach`."""
        if self._contacts is not None:
            await self._contacts.again(session)

    # The component contract ------------------------------------------------------------------

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Raises what :func:`~novacron.network.tcp_tls.open_tls_listener` does, and
        AddressInvalidError for a seed or advertised address that is none."""
        self._reset()
        settings = self._settings
        seeds = [(*split_address(seed, "network.seeds"), seed) for seed in settings.seeds]
        if settings.advertise_address is not None:
            split_address(settings.advertise_address, "network.advertise_address")
        certificates = self._security.certificates
        listener = await open_tls_listener(
            settings.listen_address, settings.port, certificates.server_context, again=self._port
        )
        self._port = split_address(listener.address, "network.port")[1]
        self._accept_loop = AcceptLoop(
            listener,
            self._accepted,
            max_connections=settings.max_connections,
            max_per_host=settings.max_connections_per_peer,
        )
        self._local = local_party(
            self._identity.node_id,
            self._node.boot_id,
            address=settings.advertise_address or _dialable(listener.address),
            max_frame_bytes=settings.max_frame_bytes,
            handshake_timeout=settings.handshake_timeout,
            idle_timeout=settings.idle_timeout,
            ping_interval=settings.ping_interval,
        )
        dialer = TlsDialer(certificates.client_context)

        async def dial(host: str, port: int) -> PeerSession:
            return await self._dial(dialer, host, port)

        def serve(session: PeerSession, address: str) -> None:
            self._admit(session, address)
            nursery.start_soon(self._serve_dialled, session)

        contacts = Contacts(self._identity.node_id, self._registry, dial, serve)
        contacts.seeds = self._seeds = [
            Seed(
                host,
                port,
                seed,
                dial=contacts.connect,
                registry=self._registry,
                warn=self._node.warn,
            )
            for host, port, seed in seeds
        ]
        self._contacts = contacts
        await nursery.start(self._accept_loop.run, nursery)
        if self._seeds:
            nursery.start_soon(self._dial_seeds)
        self._node.publish_address("peer", listener.address)
        logger.info("listening for peers", extra={"address": listener.address})

    async def drain(self) -> None:
        self._stopping = True
        if self._accept_loop is not None:
            self._accept_loop.stop()
        if self._dialling is not None:
            self._dialling.cancel()
        self._registry.leave_all(GoodbyeReason.STOPPING, "the node stops")
        with trio.move_on_after(GOODBYE_TIMEOUT):
            await self._registry.wait_empty()
        self._registry.abort_idle()
        await self._registry.wait_empty()

    async def shutdown(self) -> None:
        """The sessions that are left end when the nursery is cancelled, right after this."""
        self._stopping = True
        if self._accept_loop is not None:
            self._accept_loop.stop()
            self._accept_loop = None
        if self._dialling is not None:
            self._dialling.cancel()

    async def health_check(self, depth: HealthDepth) -> Health:
        loop = self._accept_loop
        if loop is None or not loop.accepting:
            return Health(HealthState.UNHEALTHY, "the peer listener does not accept connections")
        details = {"sessions": len(self._registry), **loop.statistics()}
        if depth is not HealthDepth.SHALLOW:
            if not loop.saturated and not await self._probe(loop):
                return Health(
                    HealthState.UNHEALTHY, "the peer listener did not take a connection", details
                )
            if self._seeds and all(seed.failed for seed in self._seeds):
                return Health(HealthState.DEGRADED, "no session with any of network.seeds", details)
        return Health(HealthState.HEALTHY, "", details)

    def statistics(self) -> Mapping[str, Any]:
        loop = self._accept_loop
        return {
            "address": self.address,
            "listener": loop.statistics() if loop is not None else None,
            "sessions": len(self._registry),
            "peers": [describe(session) for session in self._registry],
            "seeds": [seed.statistics() for seed in self._seeds],
        }

    async def _probe(self, loop: AcceptLoop) -> bool:
        """Connect to the own listener; the accept loop knows the address and answers by an event,
        so that the check costs no handshake and counts as no failure of one."""
        host, port = split_address(loop.listener.address, "network.port")
        host = _WILDCARDS.get(host, host)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        connection = trio.socket.socket(family, socket.SOCK_STREAM)
        with connection, trio.move_on_after(PROBE_TIMEOUT):
            try:
                await connection.bind((host, 0))
                name, number = connection.getsockname()[:2]
                address = f"[{name}]:{number}" if ":" in name else f"{name}:{number}"
                accepted = loop.expect_probe(address)
                try:
                    await connection.connect((host, port))
                    await accepted.wait()
                finally:
                    loop.forget_probe(address)
            except OSError:
                return False
            return True
        return False

    # Sessions --------------------------------------------------------------------------------

    async def _dial_seeds(self) -> None:
        with trio.CancelScope() as self._dialling:
            async with trio.open_nursery() as nursery:
                for seed in self._seeds:
                    nursery.start_soon(seed.run)

    async def _accepted(self, incoming: Incoming) -> None:
        started_at = trio.current_time()
        stream = session = None
        try:
            with trio.move_on_at(started_at + self._settings.handshake_timeout):
                stream = await incoming.handshake()
            if stream is None:
                _count_failure(Role.ACCEPTOR, "handshake_timeout", incoming.peer_address, None)
                return
            own_issuer = self._security.certificates.issuer()
            session = await self._authenticate(stream, Role.ACCEPTOR, started_at, own_issuer)
            await session.handshake()
        except NovaCronError as exc:
            _count_failure(Role.ACCEPTOR, _reason(exc, session), incoming.peer_address, exc)
            if is_rejection(exc):
                await record_rejection(self._security.audit, incoming.peer_address, exc)
        finally:
            if session is None:
                incoming.close()
            elif session.peer is None:
                await session.close()
        if session is not None and session.peer is not None:
            self._admit(session, None)
            await self._serve(session)

    async def _dial(self, dialer: Dialer, host: str, port: int) -> PeerSession:
        settings = self._settings
        started_at = trio.current_time()
        session = None
        try:
            with trio.move_on_after(settings.connect_timeout + settings.handshake_timeout):
                # Before the handshake: if another is shown by then, the session is made once more.
                own_issuer = self._security.certificates.issuer()
                stream = await dialer.dial(host, port)
                now = trio.current_time()
                session = await self._authenticate(stream, Role.INITIATOR, now, own_issuer)
                await session.handshake()
                return session
            raise SessionTimeoutError(
                f"no session with {host}:{port}",
                why=f"it took longer than {trio.current_time() - started_at:.0f} s",
                key="network.connect_timeout",
            )
        except NovaCronError as exc:
            _count_failure(Role.INITIATOR, _reason(exc, session), f"{host}:{port}", None)
            if isinstance(exc, ViolationError) and exc.error_code is ErrorCode.SELF:
                raise SelfDialledError from exc
            if (
                session is not None
                and isinstance(exc, TlsError)
                and exc.reason == "refused"
                and self._security.certificates.succeeded_by(session.issuer)
            ):
                error = distrust.replaced(self._identity.node_id, f"{host}:{port}")
                self.replaced = f"{error.why}; {error.remedy}"
                raise error from exc
            raise
        finally:
            if session is not None and session.peer is None:
                await session.close()

    async def _authenticate(
        self, stream: Stream, role: Role, started_at: float, own_issuer: str
    ) -> PeerSession:
        assert self._local is not None
        try:
            # In a thread: it verifies a signature, and the first call imports the X.509 library.
            peer = await trio.to_thread.run_sync(
                self._security.certificates.identify, stream.peer_certificate, stream.peer_chain
            )
            if peer.node_id == self._identity.node_id:
                raise ViolationError(
                    ErrorCode.SELF,
                    "both ends of the session are this node",
                    remedy="remove this node's own address from network.seeds",
                )
        except BaseException:
            await stream.aclose()
            raise
        return PeerSession(
            stream,
            role,
            self._local,
            peer.node_id,
            self._handlers,
            started_at=started_at,
            serial=peer.serial,
            issuer=peer.authority,
            own_issuer=own_issuer,
        )

    async def _serve_dialled(self, session: PeerSession) -> None:
        try:
            await self._serve(session)
        except Exception:
            # As for accepted ones: one peer must not be able to end the component.
            logger.exception("a peer session failed", extra={"peer": session.node_id})

    def _admit(self, session: PeerSession, dialled: str | None) -> None:
        """Into the registry; who asks for it from now on finds it. :meth:`_serve` takes it out."""
        assert self._contacts is not None
        self._contacts.learn(session, dialled)
        self._registry.add(session)
        self.replaced = ""
        self._came_with.pop(session.node_id, None)
        self._came_with[session.node_id] = (session.serial, session.issuer)
        while len(self._came_with) > MAX_SERIALS:
            del self._came_with[next(iter(self._came_with))]
        if self._distrusted(session.node_id, session.serial, session.issuer) is not None:
            # Revoked while the two shook hands.
            self.expel_revoked()
        elif self._stopping:
            session.leave(GoodbyeReason.STOPPING, "the node stops")

    def _distrusted(self, node_id: str, serial: str, issuer: str) -> PeerRejectedError | None:
        certificates = self._security.certificates
        if certificates.revocations.find(serial) is not None:
            return distrust.revoked(node_id, serial)
        if certificates.replaced(issuer):
            return distrust.of_a_former_authority(node_id, serial)
        return None

    async def _serve(self, session: PeerSession) -> None:
        fields = {"peer": session.node_id, "role": str(session.role)}
        logger.info("session with %s", session.stream.peer_address, extra=fields)
        try:
            outcome = await session.run()
        finally:
            self._registry.remove(session)
        if isinstance(outcome, Closed):
            SESSIONS_ENDED.inc("goodbye")
            logger.info("session ended", extra=fields)
        else:
            SESSIONS_ENDED.inc(outcome.reason)
            logger.warning("session lost: %s", outcome.error, extra=fields)


def _dialable(bound: str) -> str:
    """Empty for a wildcard: others cannot dial that, and saying nothing is better than a wrong
    address."""
    host, _ = split_address(bound, "network.listen_address")
    return "" if host in _WILDCARDS else bound


def _reason(exc: NovaCronError, session: PeerSession | None) -> str:
    if isinstance(exc, TlsError):
        return exc.reason
    if isinstance(exc, SecurityError):
        return "certificate"
    if isinstance(exc, ViolationError):
        return exc.error_code.name.lower()
    if session is not None and isinstance(session.outcome, Failed):
        return session.outcome.reason
    return exc.code.rpartition(".")[2]


def _count_failure(role: Role, reason: str, address: str, exc: NovaCronError | None) -> None:
    HANDSHAKE_FAILURES.inc(role, reason)
    if exc is not None:
        # At info: whoever can reach the port can make these, and the metric counts them all.
        logger.info("no session with %s: %s", address, exc, extra={"reason": reason})


__all__ = ["Network", "NetworkError", "SeedState"]
