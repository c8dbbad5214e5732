"""The component that keeps a node trusted, and what it trusts up to date.

Which certificates are revoked goes from peer to peer: whenever two nodes meet they tell each other
the number of their list, the one that is behind asks for the other's, and tells its own peers in
turn. A list is signed by the authority and only ever replaced by one with a higher number, so that
nobody on the way can do more than withhold it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from novacron.component import (
    HEALTHY,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeView,
    ObservableComponent,
    Phase,
)
from novacron.errors import NovaCronError, SecurityError
from novacron.network import Network
from novacron.network.session import PeerSession
from novacron.observe import Counter
from novacron.security import Security
from novacron.trust.messages import (
    AUTHORITY,
    REPORT,
    REVOKED,
    ROOTS,
    SIGN,
    STATE,
    State,
    pack,
    unpack_state,
)
from novacron.trust.roots import RootsKeeper

if TYPE_CHECKING:
    from novacron.trust.renewal import Renewal
    from novacron.trust.reports import Reports

logger = logging.getLogger("novacron.trust")

WATCH_EVERY: Final = 1.0
"""Seconds between looks at whether ``novacron certificate revoke`` has written a new list, or
``novacron pki rotate`` another: two ``stat``."""
ASK_TIMEOUT: Final = 15.0

_LISTS = Counter(
    "novacron_revocation_lists_total",
    "Lists of revoked certificates that peers have offered, by outcome.",
    ("outcome",),
)
_EXPELLED = Counter(
    "novacron_sessions_revoked_total", "Sessions ended because a certificate was revoked."
)


class Trust(ObservableComponent):
    """Renewal and revocation."""

    name: ClassVar[str] = "trust"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.WARNING

    def __init__(self, security: Security, network: Network, node: NodeView) -> None:
        self._security = security
        self._network = network
        self._node = node
        self._issuers: set[str] = set()
        self._renewal: Renewal | None = None
        self._reports: Reports | None = None
        self._roots = RootsKeeper(security, network, self._roots_changed)
        self._pulling = trio.Lock()
        self._latest: dict[PeerSession, State] = {}
        self._compared: dict[PeerSession, trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        self._failure = ""
        self._unread = ""
        """Why the list of authorities on disk is not used."""

    async def initialize(self, nursery: trio.Nursery) -> None:
        self._issuers.clear()
        self._roots.open()
        await nursery.start(self._live)
        for method, handler in self._handlers().items():
            self._network.register_handler(method, handler)

    async def _live(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        # A nursery within the component's: nothing here may outlive what it works with.
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._meet)
            self._nursery.start_soon(self._watch)
            if self._security.certificates.joined is not None:
                self._nursery.start_soon(self._renew_in_time)
                self._nursery.start_soon(self._report)
            task_status.started()

    async def shutdown(self) -> None:
        for method in self._handlers():
            self._network.remove_handler(method)
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            nursery.cancel_scope.cancel()

    def _handlers(self) -> Mapping[str, Any]:
        return {
            STATE: self._hear_state,
            REVOKED: self._give_list,
            AUTHORITY: self._give_authority,
            SIGN: self._sign,
            ROOTS: self._roots.give,
            REPORT: self._hear_report,
        }

    def _renewing(self) -> Renewal:
        """Imported when it is needed: by a joined node in the background, by others perhaps never."""
        if self._renewal is None:
            from novacron.trust.renewal import Renewal

            self._renewal = Renewal(self._security, self._network, self._issuers)
        return self._renewal

    async def _renew_in_time(self) -> None:
        await trio.to_thread.run_sync(self._renewing)
        await self._renewing().run()

    async def _sign(self, session: PeerSession, body: bytes) -> bytes:
        return await self._renewing().answer(session, body)

    def _reporting(self) -> Reports:
        """As :meth:`_renewing`."""
        if self._reports is None:
            from novacron.trust.reports import Reports

            self._reports = Reports(
                self._security, self._network, self._issuers, self._roots.unsettled
            )
        return self._reports

    async def _report(self) -> None:
        await trio.to_thread.run_sync(self._reporting)
        await self._reporting().run()

    async def _hear_report(self, session: PeerSession, body: bytes) -> bytes:
        return await self._reporting().answer(session, body)

    async def renew(self) -> None:
        """Take a new certificate of this node into use now.

        Raises:
          RenewalError: it is for another node to issue, and none did.
          SecurityError: it cannot be issued here.
        """
        if self._security.certificates.joined is not None:
            await self._renewing().renew()
        elif not self._security.certificates.holds_authority:
            raise SecurityError(
                "the node's certificate is not renewed",
                why="it comes from outside, as configured",
                remedy="put a new one in its place; the node takes it within a minute",
                key="security.certificate",
            )
        else:
            await self._security.renew_certificate()

    async def health_check(self, depth: HealthDepth) -> Health:
        if self._nursery is None:
            return Health(HealthState.UNKNOWN, "not started")
        failure = self._failure or self._unread or self._network.replaced
        if failure:
            return Health(HealthState.DEGRADED, failure)
        renewal = self._renewal
        return (renewal.health() if renewal is not None else None) or HEALTHY

    def statistics(self) -> Mapping[str, Any]:
        if self._nursery is None:
            return {}
        certificates = self._security.certificates
        current = certificates.revocations.current
        renewal = self._renewal
        return {
            "authorities": list(certificates.authority_hashes()),
            "roots": certificates.material.roots_number,
            "issued_by": certificates.material.issuer,
            "issues": certificates.holds_authority,
            "issuers": sorted(self._issuers),
            "revocation_list": current.number,
            "revoked": len(current.entries),
            "renewal_attempts": renewal.attempts if renewal is not None else 0,
            "renewal_failure": (renewal.failure if renewal is not None else "") or None,
        }

    # --- What the two ends of a session know -----------------------------------------------------

    def _state(self) -> State:
        certificates = self._security.certificates
        return State(
            certificates.revocations.current.number,
            certificates.holds_authority,
            int(certificates.material.ca_not_after),
            certificates.material.roots_number,
            certificates.material.issuer,
        )

    async def _meet(self) -> None:
        """Tell everybody who comes; the other side does the same."""
        greeted: set[PeerSession] = set()
        while True:
            present = set(self._network.sessions())
            for session in present - greeted:
                self._tell(session)
            greeted = present
            self._compared = {s: e for s, e in self._compared.items() if s in present}
            await self._network.wait_sessions_changed()

    def _tell(self, session: PeerSession) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._exchange, session)

    def _tell_all(self, but: PeerSession | None = None) -> None:
        for session in self._network.sessions():
            if session is not but:
                self._tell(session)

    async def _exchange(self, session: PeerSession) -> None:
        try:
            body = await session.request(STATE, pack(self._state()), within=ASK_TIMEOUT)
            state = unpack_state(body)
        except NovaCronError as exc:
            # One that stops, or that is of a version before there was this.
            logger.debug("node %s does not say what it knows: %s", session.node_id, exc)
            return
        self._heard(session, state)

    async def _hear_state(self, session: PeerSession, body: bytes) -> bytes:
        self._heard(session, unpack_state(body))
        return pack(self._state())

    def _heard(self, session: PeerSession, state: State) -> None:
        """One task a session, for the latest that was said there: a peer that talks all the time
        gets its turn and nobody else's."""
        considering = session in self._latest
        self._latest[session] = state
        if not considering and self._nursery is not None:
            self._nursery.start_soon(self._consider_latest, session)

    async def _consider_latest(self, session: PeerSession) -> None:
        try:
            state = None
            while state is not self._latest[session]:
                state = self._latest[session]
                await self._consider(session, state)
        finally:
            del self._latest[session]

    async def _consider(self, session: PeerSession, state: State) -> None:
        if state.issues:
            self._issuers.add(session.node_id)
        else:
            self._issuers.discard(session.node_id)
        self._wake()
        try:
            # First: by these authorities the rest is signed.
            await self._pull_roots(session, state.roots)
            mine = self._state()
            if self._roots.outdated(session, state) and self._nursery is not None:
                self._nursery.start_soon(self._roots.make_anew, session)
            if state.number > mine.number:
                await self._pull_list(session, state.number)
            if state.authority_ends > mine.authority_ends:
                await self._pull_authority(session)
            if state.number > 0:
                await self._compare(session)
        except NovaCronError as exc:
            logger.warning(
                "what node %s knows of trust cannot be used: %s",
                session.node_id,
                exc,
                extra={"peer": session.node_id},
            )
        except Exception:
            # One peer must not be able to end the component.
            logger.exception(
                "what a node knows of trust cannot be read", extra={"peer": session.node_id}
            )

    def _wake(self) -> None:
        for waiting in (self._renewal, self._reports):
            if waiting is not None:
                waiting.met()

    # --- The authorities that are trusted ---------------------------------------------------------

    async def _pull_roots(self, session: PeerSession, number: int) -> None:
        if number > self._roots.number:
            async with self._pulling:
                await self._roots.pull(session, number)

    def _roots_changed(self) -> None:
        self._wake()
        self._tell_all()

    # --- Revocation ------------------------------------------------------------------------------

    async def _pull_list(self, session: PeerSession, number: int) -> None:
        revocations = self._security.certificates.revocations
        # One at a time, in turn: of a hundred peers that have the new list one is asked.
        async with self._pulling:
            if number <= revocations.current.number:
                return
            data = await session.request(REVOKED, b"", within=ASK_TIMEOUT)
            try:
                newer = await trio.to_thread.run_sync(revocations.offer_blocking, data)
            except SecurityError:
                _LISTS.inc("refused")
                raise
        _LISTS.inc("taken" if newer else "known")
        if newer:
            await self._applied(session)

    async def _compare(self, session: PeerSession) -> None:
        """On the authority's node, once a session: its files may be those of a backup, and then what
        was revoked since is on the lists of others alone, under numbers that it gives again."""
        if not self._security.certificates.holds_authority:
            return
        done = self._compared.get(session)
        if done is not None:
            await done.wait()
            return
        done = self._compared[session] = trio.Event()
        try:
            await self._take_back(session)
        except NovaCronError as exc:
            logger.warning(
                "the list of revoked certificates of node %s cannot be used: %s",
                session.node_id,
                exc,
                extra={"peer": session.node_id},
            )
        finally:
            done.set()

    async def _take_back(self, session: PeerSession) -> None:
        certificates = self._security.certificates
        data = await session.request(REVOKED, b"", within=ASK_TIMEOUT)
        if data == certificates.revocations.current.pem or not data:
            return
        if await trio.to_thread.run_sync(self._taken_back, data):
            logger.warning(
                "the list of revoked certificates was made anew from that of node %s: this node's "
                "files are older",
                session.node_id,
            )
            await self._applied(None)

    def _taken_back(self, data: bytes) -> bool:
        from novacron.security.revocations import check_list

        issuer = self._security.issuer()
        return issuer.take_back(check_list(data, issuer.authority.certificates()))

    async def _give_list(self, session: PeerSession, body: bytes) -> bytes:
        # First what the other has: it is about to forget it for what it gets.
        await self._compare(session)
        return self._security.certificates.revocations.current.pem

    async def _watch(self) -> None:
        """See what the command line has changed on disk, and what upkeep has renewed."""
        revocations = self._security.certificates.revocations
        told = self._state()
        while True:
            await trio.sleep(WATCH_EVERY)
            if self._state().authority_ends > told.authority_ends:
                self._tell_all()
            told = self._state()
            try:
                await self._roots.look()
            except SecurityError as exc:
                if self._unread != str(exc):
                    logger.error("the list of trusted authorities on disk is not used: %s", exc)
                self._unread = str(exc)
                continue
            self._unread = ""
            if not revocations.changed_on_disk:
                continue
            try:
                newer = await trio.to_thread.run_sync(revocations.refresh_blocking)
            except SecurityError as exc:
                self._failure = str(exc)
                logger.error("the list of revoked certificates on disk is not used: %s", exc)
                continue
            self._failure = ""
            if newer:
                await self._applied(None)

    async def _applied(self, source: PeerSession | None) -> None:
        """A newer list is in use: nobody on it is served any more, and everybody else is told."""
        current = self._security.certificates.revocations.current
        logger.info(
            "a new list of revoked certificates is in use",
            extra={
                "number": current.number,
                "entries": len(current.entries),
                "source": source.node_id if source is not None else "this node",
            },
        )
        expelled = self._network.expel_revoked()
        _EXPELLED.inc(by=len(expelled))
        self._tell_all(but=source)
        for node_id, why in expelled:
            logger.warning("node %s is not served any more: %s", node_id, why)
        await self._record(current.number, [node_id for node_id, _ in expelled])

    async def _record(self, number: int, expelled: list[str]) -> None:
        try:
            await self._security.audit.append(
                "certificate.revocations",
                f"node:{self._security.certificates.material.node_id}",
                f"revocation-list:{number}",
                details={"expelled": expelled},
            )
        except SecurityError as exc:
            logger.error("a new list of revoked certificates is not in the audit log: %s", exc)

    # --- The authority's own certificate -----------------------------------------------------------

    async def _pull_authority(self, session: PeerSession) -> None:
        joined = self._security.certificates.joined
        if joined is None:
            return
        async with self._pulling:
            data = await session.request(AUTHORITY, b"", within=ASK_TIMEOUT)
            newer = await trio.to_thread.run_sync(joined.install_authority, data)
        if newer:
            await self._security.renew_certificate(force=False)
            self._tell_all(but=session)

    async def _give_authority(self, session: PeerSession, body: bytes) -> bytes:
        return self._security.certificates.material.trusted[0]
