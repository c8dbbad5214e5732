"""Certificate requests (PKCS #10, RFC 2986): what a node asks its authority for, and what the
authority makes of it.

Of a request only the proof of possession, the node's name, and host names count. Everything else in
it is the asker's wish: the certificate's other content is the authority's (RFC 2986 says as much).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from novacron.environment.identity import UUID
from novacron.record import Record
from novacron.security.errors import RequestRefusedError
from novacron.security.inspection import NODE_URI, faults, key_hash
from novacron.security.names import MOST_NAMES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

MOST_BYTES = 16 * 1024
"""A request with sixteen names has 1 KiB."""
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
"""Names that every node may have: each means itself by them."""
_HOST = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
)
"""RFC 1123 with underscores, which host names in the wild have; no wildcard, which is no name of a
node."""


class Request(Record):
    """What was asked for, checked."""

    node_id: str
    names: tuple[str, ...]
    key: EllipticCurvePublicKey
    key_hash: str


def make_request(
    key: CertificateIssuerPrivateKeyTypes, node_id: str, names: Sequence[str]
) -> bytes:
    """A request for *key* as PEM; the key itself is not in it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(NODE_URI + node_id)]
    for name in names[:MOST_NAMES]:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"NovaCron node {node_id}")])
        )
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def check_request(data: bytes) -> Request:
    """What the PEM text *data* asks for.

    Keys are ECDSA on P-256 or P-384, which every TLS library takes; Ed25519 and RSA would only add
    algorithms that a cluster then has to rely on as well.

    Raises:
      RequestRefusedError: it is damaged, its signature is not its key's, or it asks for more than
        one node's name and up to sixteen hosts'.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    unreadable: tuple[type[Exception], ...] = (InvalidSignature, *faults())
    if len(data) > MOST_BYTES:
        raise _refused(f"it is larger than {MOST_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(data)
        key = request.public_key()
        signed = request.is_signature_valid
    except unreadable as exc:
        raise _refused("it is no PEM certificate request") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in (
        "secp256r1",
        "secp384r1",
    ):
        raise _refused("its key is not ECDSA on the curve P-256 or P-384")
    if not signed:
        raise _refused("it is not signed by the key it is for")
    try:
        alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except unreadable as exc:
        raise _refused("it names nobody") from exc
    uris: list[str] = []
    names: list[str] = []
    for name in alternatives:
        if isinstance(name, x509.UniformResourceIdentifier):
            uris.append(name.value)
        elif isinstance(name, x509.IPAddress) and isinstance(
            name.value, ipaddress.IPv4Address | ipaddress.IPv6Address
        ):
            # As IPv4 also where it is written as IPv6: one address has one name here.
            mapped = getattr(name.value, "ipv4_mapped", None)
            names.append(str(mapped or name.value))
        elif isinstance(name, x509.DNSName):
            host = name.value.lower()
            if _is_address(host):
                # It would become an address in the certificate, and one in another spelling is not
                # recognised as another node's.
                raise _refused(f"{host[:80]!r} is an address, and asked for as a host's name")
            names.append(host)
        else:
            raise _refused("it asks for a name that is neither a host's nor a node's")
    node_id = uris[0].removeprefix(NODE_URI) if len(uris) == 1 else ""
    if not uris or uris[0] == node_id or UUID.fullmatch(node_id) is None:
        raise _refused(f"it has not exactly one name {NODE_URI}<UUID>")
    if len(names) > MOST_NAMES:
        raise _refused(f"it asks for {len(names)} host names, and {MOST_NAMES} are the most")
    for name in names:
        if not _is_address(name) and _HOST.fullmatch(name) is None:
            raise _refused(f"{name[:80]!r} is no host's name, nor an address")
    return Request(node_id, tuple(dict.fromkeys(names)), key, key_hash(key))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refused(why: str) -> RequestRefusedError:
    return RequestRefusedError("the certificate request is refused", why=why)
