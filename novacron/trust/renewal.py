"""A joined node's certificate is renewed by way of its peers, while the present one is valid.

The request proves by the present certificate's key whose it is, and carries nothing secret. So a peer
that does not hold the authority's key passes it on to one that does: a node that has no session with
the authority's node is renewed as well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import random
from typing import TYPE_CHECKING, Final

import trio

from novacron.boot.retry import Backoff, RetryPolicy
from novacron.component import Health, HealthState
from novacron.errors import NetworkError, NovaCronError
from novacron.network import Network
from novacron.network.session import PeerSession
from novacron.security import Security, documents
from novacron.security.errors import NotAuthorityError, RequestRefusedError
from novacron.trust.errors import RenewalError
from novacron.trust.messages import (
    SIGN,
    Sign,
    Signed,
    pack,
    proof_text,
    unpack_sign,
    unpack_signed,
)

if TYPE_CHECKING:
    from novacron.security.issuer import Grant
    from novacron.security.joined_material import JoinedMaterial

logger = logging.getLogger("novacron.trust")

SIGN_TIMEOUT: Final = 20.0
"""Seconds for a peer's answer, in which it may have to ask another."""
PASS_ON_TIMEOUT: Final = 12.0
"""Seconds for the answer to a request that is passed on; within the other."""
MOST_ASKED: Final = 8
"""Peers asked at one attempt."""
LOOK_EVERY: Final = 60.0
"""Seconds between looks at the clock, which may be set at any time."""
JITTER: Final = 0.1
"""Of the time between when a certificate is due and when it ends: a cluster that was set up in one
hour is not renewed in one."""
RETRY: Final = RetryPolicy(delay=30.0, factor=2.0, max_delay=3600.0, jitter=0.25, reset_after=0.0)
"""Thirty days of window hold many hours; and whoever comes back is asked at once, see
:meth:`Renewal.met`."""


class Renewal:
    """*issuers*: ids of nodes that are known to hold the authority's key, to be asked first."""

    def __init__(self, security: Security, network: Network, issuers: set[str]) -> None:
        self._security = security
        self._network = network
        self._issuers = issuers
        self._asking = trio.Lock()
        self._key: bytes = b""
        self._met = trio.Event()
        self.failure = ""
        """Of the last attempt, until one succeeds."""
        self.attempts = 0

    # --- For this node --------------------------------------------------------------------------

    def met(self) -> None:
        """A peer is there that was not: if a renewal is overdue, it is tried now."""
        self._met.set()

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled. Returns where the node has not joined."""
        backoff = Backoff(RETRY, random)
        spread, serial = random(), ""
        while (joined := self._security.certificates.joined) is not None:
            material = self._security.certificates.material
            if material.serial != serial:
                serial, spread = material.serial, random()
                backoff = Backoff(RETRY, random)
            due = joined.due(material)
            if due > 0:
                due += spread * JITTER * max(0.0, material.not_after - due)
            left = due - self._security.now()
            wait = min(left, LOOK_EVERY)
            if left <= 0:
                try:
                    await self.renew()
                except NovaCronError as exc:
                    logger.warning("the node's certificate is not renewed yet: %s", exc)
                    wait = backoff.next_delay(trio.current_time())
                else:
                    continue
            self._met = trio.Event()
            with trio.move_on_after(wait):
                await self._met.wait()

    async def renew(self) -> None:
        """Have a peer issue a new certificate, and take it into use.

        Raises:
          RenewalError: no peer did; says what each has answered.
          NotAuthorityError: this node has not joined.
          StorageFailedError: the disk refuses.
        """
        async with self._asking:
            joined = self._security.certificates.joined
            if joined is None:
                raise NotAuthorityError(
                    "no certificate is asked for",
                    why="this node has not joined another's authority",
                )
            self.attempts += 1
            try:
                await self._renew(joined)
            except NovaCronError as exc:
                self.failure = str(exc)
                raise
            self.failure, self._key = "", b""

    async def _renew(self, joined: JoinedMaterial) -> None:
        sign, self._key = await trio.to_thread.run_sync(_prepare, joined, self._key)
        body = pack(sign)
        answers: list[str] = []
        for session in self._candidates():
            try:
                answer = unpack_signed(await session.request(SIGN, body, within=SIGN_TIMEOUT))
                await trio.to_thread.run_sync(joined.install, self._key, answer.certificate)
            except NovaCronError as exc:
                answers.append(f"{session.node_id}: {exc.why or exc.what}")
                continue
            if answer.left_out:
                await trio.to_thread.run_sync(joined.leave_out, answer.left_out)
            await self._security.renew_certificate(force=False)
            return
        raise RenewalError(
            "the node's certificate is not renewed",
            why="; ".join(answers) if answers else "there is no session with any other node",
            remedy="see that the authority's node runs and can be reached, by way of network.seeds; "
            "once the certificate has expired this node has to join again",
            key="network.seeds",
        )

    def _candidates(self) -> Sequence[PeerSession]:
        sessions = self._network.sessions()
        sessions.sort(key=lambda session: session.node_id not in self._issuers)
        return sessions[:MOST_ASKED]

    def health(self) -> Health | None:
        """None while nothing is amiss."""
        joined = self._security.certificates.joined
        if joined is None or not self.failure:
            return None
        material = self._security.certificates.material
        due, now = joined.due(material), self._security.now()
        # Right after it is due, a node that is down for maintenance is no news.
        if due > 0 and now < due + (material.not_after - due) / 2:
            return None
        return Health(
            HealthState.DEGRADED,
            f"the certificate, which ends at {documents.to_text(material.not_after)}, is not renewed: "
            f"{self.failure}",
        )

    # --- For others -----------------------------------------------------------------------------

    async def answer(self, session: PeerSession, body: bytes) -> bytes:
        """Handles :data:`~novacron.trust.messages.SIGN`."""
        sign = unpack_sign(body)
        if self._security.certificates.holds_authority:
            try:
                grant = await trio.to_thread.run_sync(self._issue, sign)
            except NovaCronError as exc:
                # A session carries the first part of an error alone.
                raise RequestRefusedError(f"{exc.why or exc.what}") from exc
            return pack(Signed(grant.certificate.encode(), grant.left_out))
        if sign.passed_on:
            raise NotAuthorityError("this node does not hold the authority's key")
        return await self._pass_on(session, sign)

    def _issue(self, sign: Sign) -> Grant:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        # Chain, dates, revocation: whoever may not open a session may not be renewed.
        peer = self._security.certificates.identify(sign.certificate)
        key = x509.load_der_x509_certificate(sign.certificate).public_key()
        try:
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            key.verify(sign.proof, proof_text(sign.request), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise RequestRefusedError(
                "the certificate request is refused",
                why=f"it is not signed by the key of node {peer.node_id}",
            ) from None
        return self._security.issuer().renew(peer.node_id, peer.serial, sign.request)

    async def _pass_on(self, source: PeerSession, sign: Sign) -> bytes:
        body = pack(sign._replace(passed_on=True))
        why = (
            "this node does not hold the authority's key, and has no session with the one that does"
        )
        for session in self._candidates():
            if session.node_id not in self._issuers or session.node_id == source.node_id:
                continue
            try:
                return await session.request(SIGN, body, within=PASS_ON_TIMEOUT)
            except NetworkError as exc:
                why = exc.why or exc.what
        raise RenewalError(why)


def _prepare(joined: JoinedMaterial, key: bytes) -> tuple[Sign, bytes]:
    """A request for a fresh key, or for the one of an attempt whose answer was lost."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from novacron.security import inspection
    from novacron.security.references import register
    from novacron.security.requests import make_request

    if not key:
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        register(key)
    fresh = inspection.load_private_key(key, "the new key", "")
    present = joined.path.read_bytes()
    where = str(joined.path)
    holder = inspection.load_private_key(present, where, "")
    certificate = inspection.load_certificates(present, where, "")[0]
    if not isinstance(holder, ec.EllipticCurvePrivateKey):
        raise RenewalError("the node's certificate is not renewed", why="its key is no ECDSA key")
    request = make_request(fresh, joined.node_id, joined.wanted)  # type: ignore[arg-type]
    return (
        Sign(
            request,
            certificate.public_bytes(serialization.Encoding.DER),
            holder.sign(proof_text(request), ec.ECDSA(hashes.SHA256())),
            False,
        ),
        key,
    )
