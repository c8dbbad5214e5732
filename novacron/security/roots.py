"""Which authorities a cluster trusts, once its authority's key was replaced: a signed document.

It lies in ``pki/ca.pem`` behind the certificates it lists, as a PEM block of its own that TLS
libraries skip: what is trusted and by whose word is replaced in one piece, or not at all. Its number
only grows. It is signed by every key that is trusted before or after it, and taken only where every
root that is trusted so far has signed: from the moment a node trusts the new key as well, whoever has
stolen the old one can tell it nothing any more (ADR 131).

Reading it needs no X.509, so that boots do not import that (ADR 30).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from novacron.record import Record
from novacron.security.documents import canonical, to_text
from novacron.security.errors import CertificateError, RootsError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

BEGUN: Final = "begun"
"""Both authorities are trusted, the old one issues."""
ISSUING: Final = "issuing"
"""Both are trusted, the new one issues."""
SETTLED: Final = "settled"
"""One is trusted."""
STAGES: Final = (BEGUN, ISSUING, SETTLED)

MOST_BYTES: Final = 64 * 1024
"""Of a document; one with two roots and a handover has 4 KiB."""
MOST_FORMER: Final = 32
_BEGIN: Final = b"-----BEGIN NOVACRON ROOTS-----\n"
_END: Final = b"-----END NOVACRON ROOTS-----\n"
_MEANING: Final = b"novacron: the authorities that a cluster trusts\0"
"""Before what is signed, so that the signature means nothing else anywhere."""


class Roots(Record):
    number: int
    stage: str
    made: float
    """Seconds since the epoch."""
    cluster: str
    """Hash of the key of the cluster's first authority, which names the cluster for good: what is
    marked with it (databases, keys in a shared cache) stays the cluster's."""
    roots: tuple[str, ...]
    """Certificates as PEM, the one that issues first."""
    handover: str = ""
    """The present authority's key in a certificate by the one before it (PEM), which nodes show
    together with their own: one that has not heard of the new authority yet trusts it through this."""
    handover_ends: float = 0.0
    former: tuple[str, ...] = ()
    """Hashes of the keys that were trusted once, oldest first."""
    signatures: Mapping[str, str] = {}
    """Base64, by the hash of the key that made it (ECDSA, SHA-256)."""

    def forgotten(self) -> frozenset[str]:
        """The keys that are trusted no more, as the ledger has them: the first one is unnamed there."""
        return frozenset("" if hash == self.cluster else hash for hash in self.former) | frozenset(
            self.former
        )

    def chain(self, now: float) -> str:
        """What belongs behind a certificate of the issuing authority, as PEM; mostly nothing."""
        return self.handover if now < self.handover_ends else ""

    def signed_text(self) -> bytes:
        body = self._asdict()
        del body["signatures"]
        return _MEANING + canonical(body)

    def signed(self, keys: Mapping[str, EllipticCurvePrivateKey]) -> Roots:
        """The same with a signature by each of *keys* (by hash)."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        text = self.signed_text()
        return self._replace(
            signatures={
                hash: base64.b64encode(key.sign(text, ec.ECDSA(hashes.SHA256()))).decode()
                for hash, key in keys.items()
            }
        )

    def block(self) -> bytes:
        """What goes from node to node."""
        return _BEGIN + base64.encodebytes(canonical(self._asdict())) + _END

    def bundle(self) -> bytes:
        """The content of ``pki/ca.pem``."""
        return "".join(self.roots).encode() + self.block()


def read(data: bytes, where: str = "the list of authorities") -> Roots | None:
    """The document in *data*, which is as trustworthy as where it comes from; None where there is
    none.

    Raises:
      RootsError: it is damaged.
    """
    _, begin, rest = data.partition(_BEGIN)
    if not begin:
        if b"NOVACRON ROOTS" in data:
            raise _refused(where, "it was cut off")
        return None
    text, end, _ = rest.partition(_END)
    if not end:
        raise _refused(where, "it was cut off")
    try:
        body = json.loads(base64.b64decode(text.replace(b"\n", b""), validate=True))
        return _from_document(body)
    except (binascii.Error, ValueError, TypeError, KeyError, RecursionError):
        # Raised anew: the decoder's exception holds the whole document.
        pass
    raise _refused(where, "it is damaged")


def _from_document(body: Any) -> Roots:
    if type(body) is not dict or body.keys() != set(Roots._fields):
        raise ValueError
    # Strictly: what is signed is these bytes, and not what can be made of them.
    if not (
        type(body["roots"]) is type(body["former"]) is list and type(body["signatures"]) is dict
    ):
        raise ValueError
    found = Roots(
        **{
            **body,
            "roots": tuple(body["roots"]),
            "former": tuple(body["former"]),
            "signatures": dict(body["signatures"]),
        }
    )
    texts = (found.cluster, found.handover, *found.roots, *found.former, *found.signatures)
    numbers = (found.made, found.handover_ends)
    if (
        type(found.number) is not int
        or not 0 < found.number < 2**63
        or found.stage not in STAGES
        or not all(type(text) is str for text in (*texts, *found.signatures.values()))
        or not all(type(number) in (int, float) for number in numbers)
        or len(found.roots) != (1 if found.stage == SETTLED else 2)
        or len(found.former) > MOST_FORMER
        or len(found.signatures) > 4
    ):
        raise ValueError
    return found


def check(data: bytes, trusted: Sequence[x509.Certificate], now: float) -> Roots:
    """The document in *data*, once it is certain that every authority in *trusted* stands by it.

    Raises:
      RootsError: it is damaged, somebody has not signed, or it lists what is no authority.
    """
    where = "a list of the cluster's authorities"
    if len(data) > MOST_BYTES:
        raise _refused(where, "it is too large")
    found = read(data, where)
    if found is None:
        raise _refused(where, "there is none in what was sent")
    from novacron.security.inspection import key_hash

    for root in trusted:
        hash = key_hash(root.public_key())
        if not _signed_by(found, hash, root):
            raise _refused(
                where, f"the authority {hash[:16]}…, which this node trusts, has not signed"
            )
    _check_listed(found, now, lambda why: _refused(where, why))
    return found


def _signed_by(found: Roots, hash: str, root: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = root.public_key()
    if hash not in found.signatures or not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        signature = base64.b64decode(found.signatures[hash], validate=True)
        key.verify(signature, found.signed_text(), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _check_listed(found: Roots, now: float, refused: Callable[[str], RootsError]) -> None:
    from novacron.security import inspection

    try:
        roots = [inspection.load_certificates(pem.encode(), "it", "") for pem in found.roots]
        chain = (
            inspection.load_certificates(found.handover.encode(), "it", "")
            if found.handover
            else []
        )
    except CertificateError as exc:
        raise refused("a certificate in it is damaged") from exc
    for each in (*roots, chain or roots[0]):
        # Several in one entry would be trusted by TLS and missing from everything that counts them.
        if len(each) != 1 or not inspection.is_authority(each[0]):
            raise refused("what it lists is no authority")
    names = {inspection.key_hash(root.public_key()) for (root,) in roots}
    if len(names) != len(roots):
        raise refused("it lists an authority twice")
    for (root,) in roots:
        if not inspection.issued_by(root, [root], (), now):
            raise refused(
                "an authority in it is not valid now (by this machine's clock it is "
                f"{to_text(now)}), or has not signed its own certificate"
            )


def _refused(where: str, why: str) -> RootsError:
    return RootsError(
        f"refusing {where}",
        why=why,
        remedy="if it came from a peer, look at that node; if it is the file pki/ca.pem, restore it "
        "from a backup or join again",
    )
