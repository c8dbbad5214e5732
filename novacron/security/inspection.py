"""What a certificate says, and everything that can be wrong with it, each said in its own words.

Chain building follows RFC 5280 as far as a closed cluster needs it: signature, basic constraints,
dates. TLS checks the same again during each handshake; this is for the operator's message.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from novacron.security import documents
from novacron.security.errors import CertificateError, ClockSetBackError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import (
        PrivateKeyTypes,
        PublicKeyTypes,
    )

AUTHORITY_NAME = "NovaCron authority "
"""Before the cluster's name in the authority's certificate."""
NODE_URI = "urn:novacron:node:"
AUTHORITY_URI = "urn:novacron:authority"
"""In the certificate of the node that holds the authority's key, and in no other."""
_LONGEST_CHAIN = 8


def faults() -> tuple[type[Exception], ...]:
    """What the library raises for bytes that are no certificate, request or list, or one it cannot
    read. It parses a field when that is asked for, so any look at a stranger's may raise one."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    return (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    )


def look_through(certificate: x509.Certificate) -> None:
    """Raise one of :func:`faults` now, if a field that everybody goes by cannot be read."""
    _ = certificate.issuer, certificate.subject
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc


def load_certificates(data: bytes, where: str, key: str) -> list[x509.Certificate]:
    """Every certificate in the PEM text *data*, in order.

    Raises:
      CertificateError: there is none, or one of them is damaged.
    """
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(data)
        for each in found:
            look_through(each)
    except faults() as exc:
        raise CertificateError(
            f"cannot read the certificate {where}",
            why="it is not valid PEM" if data.strip() else "the file is empty",
            remedy="restore the file, or export the certificate again as PEM",
            key=key,
        ) from exc
    if not found:
        raise CertificateError(
            f"cannot read the certificate {where}",
            why="the file holds no certificate",
            remedy="restore the file, or export the certificate again as PEM",
            key=key,
        )
    return found


def as_pem(certificate: x509.Certificate) -> bytes:
    """*certificate*, and nothing else that stood beside it where it was read."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def load_private_key(data: bytes, where: str, key: str) -> PrivateKeyTypes:
    """The private key in the PEM text *data*.

    Raises:
      CertificateError: there is none, it is damaged, or it needs a pass phrase.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        return serialization.load_pem_private_key(data, None)
    except TypeError:
        why, remedy = "it is protected by a pass phrase", "store it without one, with mode 0600"
    except (ValueError, UnsupportedAlgorithm):
        why, remedy = "it is not a valid PEM private key", "restore it from where it was made"
    # Raised here, not above: the library's exception could quote the key.
    raise CertificateError(f"cannot read the private key {where}", why=why, remedy=remedy, key=key)


def key_hash(key: PublicKeyTypes) -> str:
    """SHA-256 of the public *key* (SubjectPublicKeyInfo, DER) in hexadecimal, by which an authority
    is known: unlike that of its certificate, it stays when the certificate is renewed (RFC 7469)."""
    from cryptography.hazmat.primitives import serialization

    data = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(data).hexdigest()


def _uris(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)
    except faults():
        return []


def holds_authority(certificate: x509.Certificate) -> bool:
    """Whether it names the node that holds the authority's key."""
    return AUTHORITY_URI in _uris(certificate)


def node_name(certificate: x509.Certificate) -> str | None:
    """The node id in the certificate's ``urn:novacron:node:`` name."""
    uris = _uris(certificate)
    ids = [uri.removeprefix(NODE_URI) for uri in uris if uri.startswith(NODE_URI)]
    # Two node names in one certificate would let it be whichever suits.
    return ids[0] if len(ids) == 1 else None


def host_names(certificate: x509.Certificate) -> list[str]:
    """DNS names and addresses in the certificate."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except faults():
        return []
    return [
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]


def check_dates(certificate: x509.Certificate, where: str, key: str, now: float) -> None:
    """
    Raises:
      CertificateError: it has expired.
      ClockSetBackError: it is not valid yet.
    """
    not_before = certificate.not_valid_before_utc.timestamp()
    not_after = certificate.not_valid_after_utc.timestamp()
    if now < not_before:
        raise ClockSetBackError(
            f"cannot use {where}",
            why=f"it is not valid before {documents.to_text(not_before)}, and this machine's clock "
            f"says {documents.to_text(now)}",
            remedy="set the clock (timedatectl), or replace the certificate if the clock is right; "
            "see the runbook clock-set-back",
            key=key,
        )
    if now >= not_after:
        raise CertificateError(
            f"cannot use {where}",
            why=f"it expired at {documents.to_text(not_after)}, and this machine's clock says "
            f"{documents.to_text(now)}",
            remedy="have it renewed by whoever issued it, or set the clock (timedatectl) if that is "
            "wrong; see the runbook expired-certificate",
            key=key,
        )


def check_key(
    certificate: x509.Certificate, private_key: PrivateKeyTypes, where: str, key: str
) -> None:
    """
    Raises:
      CertificateError: *private_key* is not the one the certificate was issued for.
    """
    from cryptography.hazmat.primitives import serialization

    encoding = serialization.Encoding.DER
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    ours = private_key.public_key().public_bytes(encoding, form)
    if ours != certificate.public_key().public_bytes(encoding, form):
        raise CertificateError(
            f"cannot use {where}",
            why="the private key does not match the certificate",
            remedy="use the key the certificate was requested with",
            key=key,
        )


def check_name(certificate: x509.Certificate, node_id: str, where: str, key: str) -> None:
    """
    Raises:
      CertificateError: it names another node, or none.
    """
    name = node_name(certificate)
    if name != node_id:
        raise CertificateError(
            f"cannot use {where}",
            why=f"it names node {name}, and this is node {node_id}"
            if name
            else f"it has no name {NODE_URI}<id>",
            remedy=f"have one issued with the URI name {NODE_URI}{node_id}",
            key=key,
        )


def authority_name(certificate: x509.Certificate) -> str:
    """What people call the authority: the cluster's name, or the id of the node that made it."""
    from cryptography import x509

    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    text = names[0].value if names else ""
    return (text if isinstance(text, str) else "").removeprefix(AUTHORITY_NAME)


def is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except faults():
        return False
    return constraints.ca


def issued_by(
    certificate: x509.Certificate,
    roots: Sequence[x509.Certificate],
    intermediates: Sequence[x509.Certificate],
    now: float,
) -> bool:
    """Whether a chain of valid signatures leads from *certificate* to one of *roots*."""
    return issuer_of(certificate, roots, intermediates, now) is not None


def issuer_of(
    certificate: x509.Certificate,
    roots: Sequence[x509.Certificate],
    intermediates: Sequence[x509.Certificate],
    now: float,
) -> x509.Certificate | None:
    """What has issued *certificate*, where a chain of valid signatures leads from there to one of
    *roots*; None where none does."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    current, issuer = certificate, None
    for _ in range(_LONGEST_CHAIN):
        for candidate in (*roots, *intermediates):
            if candidate.subject != current.issuer or not is_authority(candidate):
                continue
            if not (
                candidate.not_valid_before_utc.timestamp()
                <= now
                < candidate.not_valid_after_utc.timestamp()
            ):
                continue
            try:
                current.verify_directly_issued_by(candidate)
            except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
                continue
            issuer = issuer or candidate
            if candidate in roots:
                return issuer
            current = candidate
            break
        else:
            return None
    return None


def is_handover(certificate: x509.Certificate) -> bool:
    """Whether it has the form of one authority's key certified by the one before it: both have the
    same name (RFC 5280 calls it self-issued, RFC 4210 "new with old")."""
    return certificate.subject == certificate.issuer and is_authority(certificate)


def check_chain(
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    where: str,
    key: str,
    now: float | None = None,
) -> None:
    """
    Raises:
      CertificateError: no signature leads from ``chain[0]`` to one of *roots*.
    """
    if not issued_by(chain[0], roots, chain[1:], time.time() if now is None else now):
        raise CertificateError(
            f"cannot use {where}",
            why="it was not signed by the certificate authority this node trusts",
            remedy="use certificate and authority that belong together, with every intermediate "
            "certificate in the certificate file",
            key=key,
        )
