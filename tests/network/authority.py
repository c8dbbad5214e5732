"""A small certificate authority for tests, and the security component's stand-in on top of it."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from novacron.errors import RemoteProtocolError, SecurityError

NODE_URI = "urn:novacron:node:"


def node_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


class RejectedError(SecurityError, RemoteProtocolError):
    pass


class Authority:
    def __init__(self, directory: Path, name: str = "test") -> None:
        self.directory = directory
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.path = directory / f"{name}-ca.pem"
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, node: str, *, expired: bool = False, named: bool = True) -> tuple[Path, Path]:
        """Certificate and key files of *node*."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now - day / 2 if expired else now + day)
        )
        if named:
            uri = x509.UniformResourceIdentifier(NODE_URI + node)
            builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        stem = f"{node}-{certificate.serial_number:x}"
        certificate_path = self.directory / f"{stem}.pem"
        key_path = self.directory / f"{stem}.key"
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate_path, key_path


class Identity:
    def __init__(self, node: str, serial: str = "") -> None:
        self.node_id = node
        self.serial = serial
        self.authority = ""


class Revocations:
    """What a test has revoked, by serial."""

    def __init__(self) -> None:
        self.serials: set[str] = set()

    def find(self, serial: str) -> str | None:
        return serial if serial in self.serials else None


class Certificates:
    def __init__(
        self, authority: Authority, node: str, *, expired: bool = False, named: bool = True
    ) -> None:
        self.authority = authority
        self.paths = authority.issue(node, expired=expired, named=named)
        self.revocations = Revocations()
        self._server = self._context(ssl.PROTOCOL_TLS_SERVER)
        self._client = self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(self.authority.path)
        context.load_cert_chain(*self.paths)
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        return context

    def server_context(self) -> ssl.SSLContext:
        return self._server

    def client_context(self) -> ssl.SSLContext:
        return self._client

    @property
    def der(self) -> bytes:
        pem = self.paths[0].read_text()
        return ssl.PEM_cert_to_DER_cert(pem)

    def issuer(self) -> str:
        return ""

    def replaced(self, authority: str) -> bool:
        return False

    def succeeded_by(self, authority: str) -> bool:
        return False

    def identify(self, der: bytes, presented: Sequence[bytes] = ()) -> Identity:
        certificate = x509.load_der_x509_certificate(der)
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            raise RejectedError("the certificate names no node") from None
        (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        return Identity(uri.removeprefix(NODE_URI), f"{certificate.serial_number:x}")


class Audit:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    async def append(self, **record: Any) -> None:
        self.records.append(record)

    async def append_denied(
        self, action: str, actor: str, target: str, source: str, details: dict[str, Any]
    ) -> None:
        await self.append(
            action=action,
            actor=actor,
            target=target,
            outcome="denied",
            source=source,
            details=details,
        )


class Security:
    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.audit = Audit()
