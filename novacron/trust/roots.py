"""Which authorities are trusted goes from peer to peer, as the list of revoked certificates does: the
numbers are told, the one that is behind asks, verifies, and tells on.

What follows from a new list is done here too. A joined node asks for a certificate of the authority
that issues now (:mod:`novacron.trust.renewal`). A session that was made with a certificate of the old
one is made anew by the side that has dialled it, as soon as both ends have one of the new, and only
then is the old session left: so that when the old authority is trusted no more, nobody's session ends
who is a node of the cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from novacron.errors import NovaCronError, SecurityError
from novacron.network import Network
from novacron.network.session import PeerSession
from novacron.observe import Counter, Gauge
from novacron.protocol.states import Role
from novacron.security import Security, documents
from novacron.security.errors import RevocationListError
from novacron.trust.messages import ROOTS, State

logger = logging.getLogger("novacron.trust")

ASK_TIMEOUT: Final = 15.0
AGAIN_AFTER: Final = 10.0
"""Seconds before a session with the same node is made anew once more: a peer that says one thing and
shows another must not keep this node dialling."""

_NUMBER = Gauge(
    "novacron_trusted_roots_number",
    "Number of the list of authorities this node goes by; 0 while the first one was never replaced.",
)
_OFFERED = Counter(
    "novacron_trusted_roots_lists_total",
    "Lists of authorities that peers have offered, by outcome.",
    ("outcome",),
)


class RootsKeeper:
    """Keeps the list of trusted authorities up to date.

    Args:
      changed: Called whenever another list is in use, or another certificate because of it.
    """

    def __init__(self, security: Security, network: Network, changed: Callable[[], None]) -> None:
        self._security = security
        self._network = network
        self._changed = changed
        self._stamp: documents.Stamp | None = None
        self._in_use = 0
        self._issuer = ""
        self._redialled: dict[tuple[str, str], float] = {}

    @property
    def number(self) -> int:
        return self._security.certificates.material.roots_number

    def open(self) -> None:
        material = self._security.certificates.material
        self._stamp = documents.stamp(material.authority)
        self._in_use, self._issuer = self.number, material.issuer
        _NUMBER.set(self._in_use)

    async def pull(self, session: PeerSession, number: int) -> None:
        """Ask the node of *session* for its list, which has the *number*.

        Raises:
          RootsError: it is not to be believed.
          NetworkError: it did not answer.
          StorageFailedError: it cannot be kept; it is not in use.
        """
        certificates = self._security.certificates
        if number <= self.number:
            return
        if certificates.joined is None:
            if certificates.holds_authority:
                raise SecurityError(
                    "this node knows less of its own authority than its peers",
                    why=f"they trust list {number}, and here is {self.number}: its pki/ is older than "
                    "they are, as after a restore from an old backup",
                    remedy="where the backup is from within the rotation, take the next steps again "
                    "(`novacron pki rotate status`); else restore pki/ and secrets/ from the newest "
                    "one; see the runbook authority-key",
                )
            return
        data = await session.request(ROOTS, b"", within=ASK_TIMEOUT)
        try:
            newer = await trio.to_thread.run_sync(certificates.joined.install_roots, data)
        except SecurityError:
            _OFFERED.inc("refused")
            raise
        _OFFERED.inc("taken" if newer else "known")
        if newer:
            await self._security.renew_certificate(force=False)
            await self._applied(session)

    async def give(self, session: PeerSession, body: bytes) -> bytes:
        """Handles :data:`~novacron.trust.messages.ROOTS`."""
        document = self._security.certificates.material.document
        return document.block() if document is not None else b""

    async def look(self) -> None:
        """See what ``novacron pki rotate`` has changed on disk, and what has been renewed. Costs a
        ``stat``.

        Raises:
          SecurityError: what is on disk cannot be used.
        """
        certificates = self._security.certificates
        if certificates.holds_authority:
            stamp = documents.stamp(certificates.material.authority)
            if stamp != self._stamp:
                await self._security.renew_certificate(force=False)
                self._stamp = stamp
        await self._applied(None)

    async def _applied(self, source: PeerSession | None) -> None:
        certificates = self._security.certificates
        document, issuer = certificates.material.document, certificates.material.issuer
        if issuer != self._issuer:
            self._issuer = issuer
            self._changed()
        if document is None or document.number == self._in_use:
            return
        self._in_use = document.number
        _NUMBER.set(document.number)
        logger.info(
            "another list of trusted authorities is in use",
            extra={
                "number": document.number,
                "stage": document.stage,
                "authorities": list(certificates.authority_hashes()),
                "source": source.node_id if source is not None else "this node",
            },
        )
        expelled = self._network.expel_revoked()
        self._changed()
        for node_id, why in expelled:
            logger.warning("node %s is not served any more: %s", node_id, why)
        try:
            await trio.to_thread.run_sync(certificates.revocations.remember_blocking)
        except RevocationListError:
            # Of the authority that is gone; the newer one comes from the same peer, next.
            logger.debug("the present list of revoked certificates is of a former authority")
        try:
            await self._security.audit.append(
                "authority.trust",
                f"node:{certificates.material.node_id}",
                f"authorities:{document.number}",
                details={
                    "stage": document.stage,
                    "authorities": list(certificates.authority_hashes()),
                    "expelled": [node_id for node_id, _ in expelled],
                },
            )
        except SecurityError as exc:
            logger.error("a new list of authorities is not in the audit log: %s", exc)

    # --- Sessions -------------------------------------------------------------------------------

    @property
    def _issuing(self) -> str:
        return self._security.certificates.authority_hashes()[0]

    def _is_old(self, session: PeerSession) -> bool:
        return not session.issuer == session.own_issuer == self._issuing

    def unsettled(self) -> bool:
        """Whether a session is left that ends when the old authority is trusted no more."""
        return any(map(self._is_old, self._network.sessions()))

    def outdated(self, session: PeerSession, state: State) -> bool:
        """Whether *session* is to be made anew, now that its peer has said *state*."""
        last = self._redialled.get((session.node_id, self._issuing), -AGAIN_AFTER)
        return (
            session.role is Role.INITIATOR
            and session.outcome is None
            and self._security.certificates.material.issuer == self._issuing == state.issuer
            and self._is_old(session)
            and trio.current_time() - last >= AGAIN_AFTER
        )

    async def make_anew(self, session: PeerSession) -> None:
        now = trio.current_time()
        self._redialled = {key: at for key, at in self._redialled.items() if now - at < AGAIN_AFTER}
        self._redialled[session.node_id, self._issuing] = now
        try:
            await self._network.renew_session(session)
        except NovaCronError as exc:
            # It ends once the old authority is trusted no more, and is dialled again then.
            logger.debug("the session with %s is not made anew: %s", session.node_id, exc)
