"""TLS contexts with this node's certificate, and whom a peer's certificate makes it.

A context lives as long as the node: a renewed certificate is loaded into it, so that every new
handshake uses it and nobody who holds the context has to know. Between nodes: TLS 1.3 only
(RFC 8446), both sides with a certificate, no session tickets, since a resumed session would skip
the checks of dates.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.observe import Counter, Gauge
from novacron.security import documents
from novacron.security.errors import CertificateError, PeerRejectedError
from novacron.security.keyring import Keyring
from novacron.security.material import Material, MaterialSource
from novacron.security.revocations import Revocations

if TYPE_CHECKING:
    from cryptography import x509

    from novacron.security.joined_material import JoinedMaterial

_EXPIRY = Gauge(
    "novacron_certificate_expiry_timestamp_seconds",
    "When this node's certificate expires, in seconds since the epoch.",
)
_RENEWALS = Counter(
    "novacron_certificate_renewals_total", "Certificates taken into use after the first one."
)


_MOST_PRESENTED = 4
"""Certificates of a peer's chain that are looked at; a handover is the second."""


class PeerIdentity:
    """Whom a certificate names."""

    __slots__ = ("authority", "node_id", "not_after", "serial")

    def __init__(self, node_id: str, serial: str, not_after: float, authority: str = "") -> None:
        self.node_id = node_id
        self.serial = serial
        """Hexadecimal."""
        self.not_after = not_after
        """Seconds since the epoch."""
        self.authority = authority
        """Hash of the key that has issued the certificate."""

    def __repr__(self) -> str:
        return f"PeerIdentity({self.node_id}, serial {self.serial})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PeerIdentity):
            return NotImplemented
        return (self.node_id, self.serial, self.not_after) == (
            other.node_id,
            other.serial,
            other.not_after,
        )

    def __hash__(self) -> int:
        return hash((self.node_id, self.serial))


class ApiFiles:
    """Paths for a TLS library that takes files."""

    __slots__ = ("authority", "certificate", "private_key")

    def __init__(self, certificate: Path, private_key: Path, authority: Path) -> None:
        self.certificate = certificate
        self.private_key = private_key
        self.authority = authority


class Certificates:
    """This node's certificates. :meth:`open` and :meth:`renew` block; the rest does not."""

    def __init__(
        self,
        directory: DataDirectory,
        settings: SecuritySettings,
        keyring: Keyring,
        names: Sequence[str],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._keyring = keyring
        self._names = tuple(names)
        self._now = now
        self._source: MaterialSource | None = None
        self._material: Material | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._roots: tuple[list[x509.Certificate], list[x509.Certificate]] | None = None
        self._mutex = threading.Lock()
        self.revocations = Revocations(directory)

    def __repr__(self) -> str:
        return f"Certificates({self._material!r})"

    def open(self, node_id: str) -> list[str]:
        """Check what is there, issue what is missing; returns warnings for the operator.

        Raises:
          CertificateError: a certificate cannot be used; the message says which of its parts.
          ClockSetBackError: it is not valid yet.
          KeyringError: the authority's key does not open.
        """
        self.close()
        settings = self._settings
        if settings.certificate or settings.ca_certificate or settings.private_key:
            from novacron.security.outside_material import OutsideMaterial

            self._source = OutsideMaterial(self._directory, settings, node_id, self._now)
        else:
            self._source = self._kept_source(node_id)
        self._material = self._source.material()
        _EXPIRY.set(self._material.not_after)
        self._context("server")
        warnings = self._take_warnings()
        return warnings + self.revocations.open_blocking(
            self._material.authorities, lambda: self._trusted()[0]
        )

    def _kept_source(self, node_id: str) -> MaterialSource:
        if (self._directory.pki / "joining.json").exists():
            # A join that was cut short after it was granted is finished here.
            from novacron.security.joining import finish

            finish(self._directory)
        if (self._directory.pki / "joined.json").exists():
            from novacron.security.joined_material import JoinedMaterial, read_joined

            joined = read_joined(self._directory)
            assert joined is not None
            return JoinedMaterial(
                self._directory, self._settings, node_id, self._names, joined, self._now
            )
        from novacron.security.own_material import OwnMaterial

        return OwnMaterial(
            self._directory, self._settings, node_id, self._keyring, self._names, self._now
        )

    def close(self) -> None:
        """Forget everything; contexts that were given out go on working."""
        if self._source is not None:
            self._source.close()
        self._source = self._material = self._roots = None
        self._contexts = {}

    # --- Renewal --------------------------------------------------------------------------------

    def examine(self, *, force: bool = False) -> tuple[Material | None, list[str]]:
        """Issue or find newer material, if there should be or is any; and warnings. Blocks.

        Hand the result to :meth:`adopt` on the event loop.
        """
        source = self._opened_source()
        current = self.material
        found = source.material(force=force)
        changed = found.digest != current.digest
        return (found if changed else None), self._take_warnings()

    def adopt(self, material: Material) -> None:
        """Have every context use *material* from the next handshake on.

        Takes about a millisecond. Not in a thread: a handshake that began between the certificate
        and its key would fail.
        """
        before = self.material
        if not set(before.authorities) <= set(material.authorities):
            # A context cannot be made to forget a root. These two are asked for anew with each
            # connection; of the REST listener's clients identify decides.
            self._contexts.pop("server", None)
            self._contexts.pop("client", None)
        for context in self._contexts.values():
            _load(context, material)
        self._material = material
        self._roots = None
        self.revocations.rely_on(material.authorities)
        _EXPIRY.set(material.not_after)
        _RENEWALS.inc()

    def _take_warnings(self) -> list[str]:
        source = self._opened_source()
        warnings, source.warnings = source.warnings, []
        return warnings

    # --- Use ------------------------------------------------------------------------------------

    @property
    def material(self) -> Material:
        if self._material is None:
            raise CertificateError("cannot use the node's certificate", why="it is not loaded")
        return self._material

    @property
    def holds_authority(self) -> bool:
        """Whether this node holds the key of the authority it trusts, and may issue to others."""
        return self._source is not None and self._source.own

    @property
    def joined(self) -> JoinedMaterial | None:
        """What renews this node's certificate, where it has joined another node's authority."""
        source = self._source
        if source is None or source.kind != "joined":
            return None
        return cast("JoinedMaterial", source)

    def authority_hashes(self) -> tuple[str, ...]:
        """SHA-256 (hexadecimal) of the public key of each trusted root, the one that issues first.
        Imports nothing."""
        return self.material.authorities

    def issuer(self) -> str:
        """The same of what has issued this node's certificate."""
        return self.material.issuer

    def cluster_hashes(self) -> tuple[str, ...]:
        """What names the cluster: the hash of its first authority's key, whatever has become of that
        authority; then of all others it has now or had once. Imports nothing."""
        document = self.material.document
        if document is None:
            return self.material.authorities
        return tuple(
            dict.fromkeys((document.cluster, *self.material.authorities, *document.former))
        )

    def replaced(self, authority: str) -> bool:
        """Whether the authority with that key's hash is one the cluster had once, and trusts no
        more. Imports nothing."""
        document = self.material.document
        return (
            document is not None
            and authority in document.former
            and authority not in self.material.authorities
        )

    def succeeded_by(self, authority: str) -> bool:
        """Whether the authority with that key's hash, of a peer's certificate, issues in the place of
        the one that this node's certificate is of. Imports nothing."""
        material = self.material
        return (
            self.joined is not None
            and authority != material.issuer
            and (authority == material.authorities[0] or authority not in material.authorities)
        )

    def server_context(self) -> ssl.SSLContext:
        """For the peer listener. The peer's certificate is required; see :meth:`identify`."""
        return self._context("server")

    def client_context(self) -> ssl.SSLContext:
        """For sessions to peers. Host names are not checked, since a node is its id: whoever
        connects must hand the peer's certificate to :meth:`identify`."""
        return self._context("client")

    def api_context(self) -> ssl.SSLContext:
        """For the REST listener: TLS 1.2 or 1.3, a client's certificate optional."""
        return self._context("api")

    def api_files(self) -> ApiFiles:
        """The same as files. A renewed certificate is in the same place."""
        material = self.material
        return ApiFiles(material.certificate, material.private_key, material.authority)

    def identify(self, der: bytes, presented: Sequence[bytes] = ()) -> PeerIdentity:
        """Whom the certificate *der* names, after checking it once more.

        TLS has checked chain and dates when the session began; a session outlives both. The first
        call imports the X.509 library (30 ms): make it in a worker thread. Intermediate
        certificates must be among those this node has itself; of those the peer has *presented*
        (DER) only a handover counts, by which an authority of this cluster certifies its successor.

        Raises:
          PeerRejectedError: not signed by the authority we trust, outside its dates, revoked, or
            without a node's name.
        """
        from cryptography import x509

        from novacron.security import inspection

        try:
            certificate = x509.load_der_x509_certificate(der)
            inspection.look_through(certificate)
            not_before = certificate.not_valid_before_utc.timestamp()
            not_after = certificate.not_valid_after_utc.timestamp()
        except inspection.faults() as exc:
            raise _rejected("it is no certificate") from exc
        now = self._now()
        if now < not_before:
            raise _rejected(
                f"it is not valid before {documents.to_text(not_before)}; one of the two clocks is "
                "wrong"
            )
        if now >= not_after:
            raise _rejected(f"it expired at {documents.to_text(not_after)}")
        roots, intermediates = self._trusted()
        issuer = inspection.issuer_of(certificate, roots, intermediates, now)
        if issuer is None and presented and self._opened_source().kind != "outside":
            handovers = [
                found
                for found in map(_loaded, presented[:_MOST_PRESENTED])
                if found is not None and inspection.is_handover(found)
            ]
            issuer = inspection.issuer_of(certificate, roots, handovers, now)
        if issuer is None:
            raise _rejected(
                "it was not signed by the certificate authority this node trusts"
                + self._former(certificate, roots)
            )
        node_id = inspection.node_name(certificate)
        if node_id is None:
            raise _rejected(f"it has not exactly one name {inspection.NODE_URI}<id>")
        serial = f"{certificate.serial_number:x}"
        revoked = self.revocations.find(serial)
        if revoked is not None:
            raise _rejected(
                f"the certificate {serial} of node {node_id} was revoked at "
                f"{documents.to_text(revoked.at)}"
                + (f" ({revoked.reason})" if revoked.reason else ""),
                "see the runbook certificate-revoked",
            )
        return PeerIdentity(node_id, serial, not_after, inspection.key_hash(issuer.public_key()))

    def _former(self, certificate: x509.Certificate, roots: list[x509.Certificate]) -> str:
        document = self.material.document
        if document is None or not document.former or certificate.issuer != roots[0].subject:
            return ""
        return (
            ", but perhaps by one that this cluster had before: a node that was away while the "
            "authority's key was replaced has to join again"
        )

    def status(self) -> dict[str, Any]:
        material = self.material
        return {
            "own_authority": self._opened_source().own,
            "authorities": list(material.authorities),
            "issued_by": material.issuer,
            "roots": material.roots_number,
            "revocation_list": self.revocations.current.number,
            "certificate": str(material.certificate),
            "authority": str(material.authority),
            "node_id": material.node_id,
            "serial": material.serial,
            "names": list(material.names),
            "not_before": documents.to_text(material.not_before),
            "not_after": documents.to_text(material.not_after),
            "authority_not_after": documents.to_text(material.ca_not_after),
            "days_left": round((material.not_after - self._now()) / 86400, 1),
        }

    def _opened_source(self) -> MaterialSource:
        if self._source is None:
            raise CertificateError("cannot use the node's certificate", why="it is not loaded")
        return self._source

    def _trusted(self) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
        with self._mutex:
            if self._roots is None:
                from novacron.security.inspection import load_certificates

                material = self.material
                ca_data, data = material.trusted
                roots = load_certificates(ca_data, str(material.authority), "")
                chain = load_certificates(data, str(material.certificate), "")
                self._roots = (roots, chain[1:])
            return self._roots

    def _context(self, kind: str) -> ssl.SSLContext:
        context = self._contexts.get(kind)
        if context is None:
            context = ssl.SSLContext(
                ssl.PROTOCOL_TLS_CLIENT if kind == "client" else ssl.PROTOCOL_TLS_SERVER
            )
            if kind == "client":
                context.check_hostname = False
            else:
                context.num_tickets = 0
            context.minimum_version = (
                ssl.TLSVersion.TLSv1_2 if kind == "api" else ssl.TLSVersion.TLSv1_3
            )
            context.verify_mode = ssl.CERT_OPTIONAL if kind == "api" else ssl.CERT_REQUIRED
            _load(context, self.material)
            self._contexts[kind] = context
        return context


def _load(context: ssl.SSLContext, material: Material) -> None:
    try:
        context.load_cert_chain(material.certificate, material.private_key, password=_no_password)
        context.load_verify_locations(material.authority)
    except (ssl.SSLError, OSError) as exc:
        raise CertificateError(
            f"cannot load the certificate {material.certificate}",
            why=getattr(exc, "reason", None) or exc.strerror or type(exc).__name__,
            remedy="see `novacron certificate show`",
            key="security.certificate",
        ) from exc


def _loaded(der: bytes) -> x509.Certificate | None:
    from cryptography import x509

    from novacron.security import inspection

    try:
        found = x509.load_der_x509_certificate(der)
        inspection.look_through(found)
    except inspection.faults():
        return None
    return found


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal, and a boot would wait for an answer.
    return ""


def _rejected(
    why: str, remedy: str = "give the peer a certificate of this cluster's authority"
) -> PeerRejectedError:
    return PeerRejectedError(
        "refusing a peer's certificate",
        why=why,
        remedy=remedy,
        key="security.ca_certificate",
    )
