"""The node's own certificate authority: ECDSA P-256, its key sealed by the keyring.

On a cluster of one it issues this node's certificate, and those of the nodes that join it. An
authority that is kept elsewhere is configured with ``security.ca_certificate``. While its key is
replaced (:mod:`novacron.security.rotation`) there are two keys; the one of the first certificate in
``pki/ca.pem`` issues, so that replacing that file goes over from one to the other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.security.errors import CertificateError, NotAuthorityError, storage_failure
from novacron.security.filelock import held
from novacron.security.inspection import (
    AUTHORITY_NAME,
    AUTHORITY_URI,
    NODE_URI,
    check_dates,
    key_hash,
    load_certificates,
)
from novacron.security.keyring import Keyring
from novacron.security.roots import ISSUING, Roots
from novacron.security.roots import read as read_roots

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

_DAY = 86400.0
_KEY_CONTEXT = b"novacron certificate authority key"
_HASH_DIGITS = 16
"""Of a key's hash in the name of its file; two authorities of a cluster do not share 64 bits."""


class Authority:
    """``pki/ca.key`` (sealed) and ``pki/ca.pem``. Every method blocks, on disk and on arithmetic.

    The key of a new authority is ``pki/ca-<hash>.key`` until the rotation is over.
    """

    def __init__(self, directory: DataDirectory, keyring: Keyring, days: int) -> None:
        self.key_path = directory.pki / "ca.key"
        self.path = directory.pki / "ca.pem"
        self.lock_path = directory.pki / "ca.lock"
        self._keyring = keyring
        self._days = days

    def __repr__(self) -> str:
        return f"Authority({self.path})"

    def ensure(
        self,
        node_id: str,
        now: float,
        renew_before: float,
        backdate: float,
        *,
        force: bool = False,
        name: str = "",
    ) -> bytes:
        """The authority's certificate as PEM, made or renewed if need be; with *force*, also when
        it is not valid yet. A new one is called *name*, or after the node.

        A renewed one has the same key and name, so that what was issued before stays valid. The key
        is written first: a crash after it costs nothing but the certificate, made again here.

        Raises:
          CertificateError: the certificate is there and the key is not, or either is damaged.
          ClockSetBackError: it is not valid yet.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        if data:
            current = load_certificates(data, str(self.path), "security.ca_days")[0]
            early = now < current.not_valid_before_utc.timestamp()
            if early and not force:
                check_dates(current, str(self.path), "security.ca_days", now)
            if not early and current.not_valid_after_utc.timestamp() - now > renew_before:
                return data
            return self._renew(now, backdate)
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        if self.key_path.exists():
            key = self.open_key(self.key_path)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            self.write_key(self.key_path, key)
        common = AUTHORITY_NAME + (name or node_id)
        made = self.self_signed(
            key,
            x509.Name(
                [
                    x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "NovaCron"),
                    x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
                ]
            ),
            now,
            backdate,
        )
        _write(self.path, made.encode(), mode=0o644)
        return made.encode()

    def _renew(self, now: float, backdate: float) -> bytes:
        """A new certificate of the present key in place of the one that ends."""
        with held(self.lock_path):
            current, document = self.certificate(), self.document()
            made = self.self_signed(self._open_key(), current.subject, now, backdate)
            if document is None:
                _write(self.path, made.encode(), mode=0o644)
                return made.encode()
            # What the nodes trust is what the document lists: it goes to them as a newer one.
            renewed = document._replace(roots=(made, *document.roots[1:]), made=now)
            return self.publish(renewed).bundle()

    def issue(
        self, node_id: str, names: Sequence[str], days: float, now: float, backdate: float
    ) -> bytes:
        """A fresh key and a certificate for it, as one PEM text: private, not yet on disk. For the
        authority's own node: the certificate says so.

        Args:
          names: DNS names and addresses it is valid for besides its node name.
          backdate: Seconds its validity begins before *now*, so that a peer whose clock is a little
            behind takes it.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(
            key.public_key(), node_id, names, days, now, backdate, holder=True
        )
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ) + (certificate.public_bytes(serialization.Encoding.PEM) + self.chain(now).encode())

    def chain(self, now: float) -> str:
        """What this node shows behind its own certificate, as PEM; mostly nothing.

        While two authorities are trusted also the old one: a join token made before still names that,
        and leads over the handover to the new one.
        """
        document = self.document()
        if document is None:
            return ""
        chain = document.chain(now)
        return chain + document.roots[1] if chain and document.stage == ISSUING else chain

    def certify(
        self,
        key: CertificatePublicKeyTypes,
        node_id: str,
        names: Sequence[str],
        days: float,
        now: float,
        backdate: float,
        *,
        holder: bool = False,
    ) -> x509.Certificate:
        """A certificate for *key*, which whoever asks has proven to hold; see :meth:`issue`.

        Args:
          holder: Name it as the node that holds this authority, by which one that joins knows whom
            it may show its token. No request can ask for that name.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        ca = self.certificate()
        ca_key = self._open_key()
        not_after = min(now + days * _DAY, ca.not_valid_after_utc.timestamp())
        usage = x509.oid.ExtendedKeyUsageOID
        uris = [NODE_URI + node_id, *([AUTHORITY_URI] if holder else [])]
        return (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name(
                    [x509.NameAttribute(x509.NameOID.COMMON_NAME, f"NovaCron node {node_id}")]
                )
            )
            .issuer_name(ca.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now - backdate))
            .not_valid_after(_moment(not_after))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([usage.SERVER_AUTH, usage.CLIENT_AUTH]), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        *(x509.UniformResourceIdentifier(uri) for uri in uris),
                        *(_general_name(name) for name in names),
                    ]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(ca_key, hashes.SHA256())
        )

    def certificate(self) -> x509.Certificate:
        """The authority's own certificate.

        Raises:
          NotAuthorityError: this node has none.
          CertificateError: it is damaged.
        """
        return self.certificates()[0]

    def certificates(self) -> list[x509.Certificate]:
        """Of every authority that is trusted, the one that issues first. Raises as
        :meth:`certificate`."""
        return load_certificates(self._read(), str(self.path), "security.ca_days")

    def document(self) -> Roots | None:
        """What lists them; None where the authority's key was never replaced.

        Raises:
          NotAuthorityError: this node has no authority.
          RootsError: it is damaged.
        """
        return read_roots(self._read(), str(self.path))

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError as exc:
            raise NotAuthorityError(
                "this node cannot issue certificates",
                why=f"there is no authority {self.path}",
                remedy="do this on the node where `novacron pki init` was run",
            ) from exc
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc

    def publish(self, document: Roots) -> Roots:
        """Put *document* in the place of the present one, durably, with the next number and signed by
        every key that is trusted before or after; hold :attr:`lock_path` meanwhile.

        Raises:
          CertificateError: a key that has to sign is not there.
          StorageFailedError: the disk refuses; the present one stays.
        """
        before = self.document()
        present = self.certificates()
        listed = [load_certificates(pem.encode(), str(self.path), "")[0] for pem in document.roots]
        keys = {
            key_hash(root.public_key()): self.key_of(key_hash(root.public_key()))
            for root in (*present, *listed)
        }
        number = before.number + 1 if before is not None else 1
        signed = document._replace(number=number).signed(keys)
        _write(self.path, signed.bundle(), mode=0o644)
        return signed

    def sign_list(self, builder: x509.CertificateRevocationListBuilder) -> bytes:
        """The revocation list of *builder*, signed, as PEM."""
        from cryptography.hazmat.primitives import hashes, serialization

        signed = builder.issuer_name(self.certificate().subject).sign(
            self._open_key(), hashes.SHA256()
        )
        return signed.public_bytes(serialization.Encoding.PEM)

    def self_signed(
        self, key: EllipticCurvePrivateKey, name: x509.Name, now: float, backdate: float
    ) -> str:
        """A certificate for an authority with *key*, as PEM."""
        return self._certify(key.public_key(), key, name, now, backdate, now + self._days * _DAY)

    def handover(self, key: EllipticCurvePublicKey, now: float, backdate: float, end: float) -> str:
        """A certificate by the present authority for its successor's *key*, as PEM.

        It has the name of both: only so is it not counted where the old root allows no authority
        below itself (RFC 5280 6.1.4 l).
        """
        present = self.certificate()
        end = min(end, present.not_valid_after_utc.timestamp())
        return self._certify(key, self._open_key(), present.subject, now, backdate, end)

    def _certify(
        self,
        key: EllipticCurvePublicKey,
        by: EllipticCurvePrivateKey,
        name: x509.Name,
        now: float,
        backdate: float,
        end: float,
    ) -> str:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now - backdate))
            .not_valid_after(_moment(end))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )
        if key != by.public_key():
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
            )
        made = builder.sign(by, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    # --- Keys -----------------------------------------------------------------------------------

    def successor_path(self, hash: str) -> Path:
        """Where the key of a new authority lies until the old one's is gone."""
        return self.path.with_name(f"ca-{hash[:_HASH_DIGITS]}.key")

    def successors(self) -> Iterator[Path]:
        """Keys of new authorities that are there: one during a rotation."""
        return self.path.parent.glob("ca-*.key")

    def write_key(self, path: Path, key: EllipticCurvePrivateKey) -> None:
        """
        Raises:
          StorageFailedError: the disk refuses.
        """
        _write(path, self._keyring.encrypt(_private_der(key), _KEY_CONTEXT))

    def key_of(self, hash: str) -> EllipticCurvePrivateKey:
        """The key whose public half has the *hash*.

        Raises:
          CertificateError: it is not there.
          KeyringError: it cannot be opened.
        """
        successor = self.successor_path(hash)
        path = successor if successor.exists() else self.key_path
        key = self.open_key(path)
        if key_hash(key.public_key()) != hash:
            raise CertificateError(
                f"cannot use the authority's key {path}",
                why=f"it is not that of the authority {hash[:16]}… in {self.path}",
                remedy="restore both from one backup: secrets/ and pki/ belong together",
            )
        return key

    def _open_key(self) -> EllipticCurvePrivateKey:
        return self.key_of(key_hash(self.certificate().public_key()))

    def open_key(self, path: Path) -> EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            sealed = path.read_bytes()
        except FileNotFoundError as exc:
            raise CertificateError(
                f"cannot find the authority's key {path}",
                why="its certificate is there, and without the key nothing can be issued",
                remedy=f"restore it from a backup, or move {self.path} away to start a new "
                "authority that peers must then trust",
            ) from exc
        except OSError as exc:
            raise storage_failure("read", path, exc) from exc
        key = serialization.load_der_private_key(self._keyring.decrypt(sealed, _KEY_CONTEXT), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateError(
                f"cannot use the authority's key {path}", why="it is no ECDSA key"
            )
        return key


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    try:
        write_durably(path, data, mode=mode)
    except OSError as exc:
        raise storage_failure("write", path, exc) from exc


def _private_der(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(int(epoch), UTC)
