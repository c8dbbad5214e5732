"""While the authority's key is replaced, each node tells the authority's node how far it is.

A report is signed by the key of the node's present certificate: it says which list of authorities the
node trusts, and proves which certificate it uses. So a peer may pass it on, once, as with a renewal,
and the node that holds the key knows of nodes that it has no session with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import random
from typing import TYPE_CHECKING, Final

import trio

from novacron.boot.retry import Backoff, RetryPolicy
from novacron.errors import NetworkError, NovaCronError
from novacron.network import Network
from novacron.network.session import PeerSession
from novacron.security import Security
from novacron.security.errors import NotAuthorityError, RequestRefusedError
from novacron.security.roots import ISSUING, SETTLED
from novacron.trust.messages import REPORT, Report, pack, report_text, unpack_report

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("novacron.trust")

REPORT_TIMEOUT: Final = 15.0
"""Seconds for a peer's answer, in which it may have to ask another."""
PASS_ON_TIMEOUT: Final = 8.0
MOST_ASKED: Final = 8
SETTLING: Final = 5.0
"""Seconds that a node waits for its peers to have new certificates, too; one that has not renewed by
then is itself what the operator is told of."""
RETRY: Final = RetryPolicy(delay=1.0, factor=2.0, max_delay=60.0, jitter=0.25, reset_after=0.0)
"""Somebody waits for it who runs ``novacron pki rotate status``; and each peer that comes is asked at
once, see :meth:`Reports.met`."""


class Reports:
    """
    Args:
      issuers: Ids of nodes that are known to hold the authority's key, to be asked first.
      unsettled: Whether a session of this node is still to be made anew with new certificates.
    """

    def __init__(
        self,
        security: Security,
        network: Network,
        issuers: set[str],
        unsettled: Callable[[], bool],
    ) -> None:
        self._unsettled = unsettled
        self._security = security
        self._network = network
        self._issuers = issuers
        self._met = trio.Event()
        self._told: tuple[int, str] = (0, "")

    def met(self) -> None:
        """Something has changed: a peer came, or this node has more to tell."""
        self._met.set()

    async def run(self) -> None:
        """Report whenever there is something to, until cancelled."""
        backoff = Backoff(RETRY, random)
        while True:
            self._met = trio.Event()
            material = self._security.certificates.material
            document, told = material.document, (material.roots_number, material.serial)
            if document is None or document.stage == SETTLED or told == self._told:
                await self._met.wait()
                continue
            if document.stage == ISSUING and material.issuer == material.authorities[0]:
                # What this says ends the operator's wait, and the next step then ends sessions that
                # are left from before.
                with trio.move_on_after(SETTLING):
                    while self._unsettled():
                        await self._network.wait_sessions_changed()
            try:
                await self._report(material.certificate, document.number)
            except NovaCronError as exc:
                logger.debug("what this node trusts is not reported yet: %s", exc)
                with trio.move_on_after(backoff.next_delay(trio.current_time())):
                    await self._met.wait()
            else:
                self._told = told
                backoff = Backoff(RETRY, random)

    async def _report(self, path: Path, number: int) -> None:
        body = pack(await trio.to_thread.run_sync(_prepare, path, number))
        failure: NovaCronError = NotAuthorityError("there is no session with any other node")
        sessions = self._network.sessions()
        sessions.sort(key=lambda session: session.node_id not in self._issuers)
        for session in sessions[:MOST_ASKED]:
            try:
                await session.request(REPORT, body, within=REPORT_TIMEOUT)
                return
            except NetworkError as exc:
                failure = exc
        raise failure

    # --- Of others ------------------------------------------------------------------------------

    async def answer(self, session: PeerSession, body: bytes) -> bytes:
        """Handles :data:`~novacron.trust.messages.REPORT`."""
        report = unpack_report(body)
        if self._security.certificates.holds_authority:
            await trio.to_thread.run_sync(self._note, report)
            return b""
        if report.passed_on:
            raise NotAuthorityError("this node does not hold the authority's key")
        passed = pack(report._replace(passed_on=True))
        for other in self._network.sessions():
            if other.node_id in self._issuers and other.node_id != session.node_id:
                return await other.request(REPORT, passed, within=PASS_ON_TIMEOUT)
        raise NotAuthorityError("this node has no session with the one that holds the key")

    def _note(self, report: Report) -> None:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        from novacron.security.holdings import Holding

        peer = self._security.certificates.identify(report.certificate)
        key = x509.load_der_x509_certificate(report.certificate).public_key()
        try:
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            key.verify(report.proof, report_text(report.number), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise RequestRefusedError(
                f"it is not signed by the key of node {peer.node_id}"
            ) from None
        document = self._security.issuer().authority.document()
        if document is None or report.number > document.number:
            raise RequestRefusedError(f"there is no list of authorities {report.number} yet")
        if document.stage != SETTLED:
            holding = Holding(report.number, peer.authority, self._security.now())
            issuing = self._security.certificates.authority_hashes()[0]
            self._security.holdings().note(peer.node_id, holding, issuing)


def _prepare(path: Path, number: int) -> Report:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from novacron.security import inspection

    present = path.read_bytes()
    certificate = inspection.load_certificates(present, str(path), "")[0]
    key = inspection.load_private_key(present, str(path), "")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RequestRefusedError("nothing is reported", why="the node's key is no ECDSA key")
    return Report(
        number,
        certificate.public_bytes(serialization.Encoding.DER),
        key.sign(report_text(number), ec.ECDSA(hashes.SHA256())),
        False,
    )
