"""The files TLS is made of: this node's certificate, its key, and the authority that is trusted.

Two sources: the node's own authority, whose certificates are issued and renewed here, and files
from outside, which are only checked. Checking takes an X.509 library whose import costs more than
everything else a boot does here. So what was checked is remembered by digest in
``pki/verified.json``: while the files are the same, only the dates are looked at again. That record
protects nothing: who can write it can write the key beside it.
"""

from __future__ import annotations

import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.security import documents
from novacron.security.authority import Authority
from novacron.security.errors import CertificateError, ClockSetBackError, storage_failure
from novacron.security.keyring import Keyring
from novacron.security.references import read_secret, read_secret_file, register, secret_path

_DAY = 86400.0


class Material:
    """Checked files, and what the certificate says."""

    __slots__ = (
        "authority",
        "ca_not_after",
        "certificate",
        "digest",
        "names",
        "node_id",
        "not_after",
        "not_before",
        "private_key",
        "serial",
        "trusted",
    )

    def __init__(
        self,
        files: tuple[Path, Path, Path],
        digest: str,
        node_id: str,
        serial: str,
        validity: tuple[float, float, float],
        names: Sequence[str],
        trusted: tuple[bytes, bytes],
    ) -> None:
        self.certificate, self.private_key, self.authority = files
        self.digest = digest
        self.node_id = node_id
        self.serial = serial
        self.not_before, self.not_after, self.ca_not_after = validity
        """Seconds since the epoch."""
        self.names = tuple(names)
        self.trusted = trusted
        """The authority's and the node's certificates as they were checked, without the key: what
        a file is replaced with does not count before it was checked, too."""

    def __repr__(self) -> str:
        return f"Material({self.certificate}, serial {self.serial})"


class MaterialSource(ABC):
    """Where the material comes from. Every method blocks: call it in a worker thread."""

    own: bool

    def __init__(
        self,
        directory: DataDirectory,
        settings: SecuritySettings,
        node_id: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.node_id = node_id
        self.now = now
        self.renew_before = settings.renew_before_days * _DAY
        self.warnings: list[str] = []
        """Sentences for the operator that :meth:`material` has added."""

    @abstractmethod
    def material(self, *, force: bool = False) -> Material:
        """Usable material; with *force*, newly issued where that is possible."""

    @abstractmethod
    def close(self) -> None:
        """Release what :meth:`material` has opened."""

    # --- The record of what was checked ---------------------------------------------------------

    @property
    def _record_path(self) -> Path:
        return self.directory.pki / "verified.json"

    def _digest(self, *parts: bytes) -> str:
        sum = hashlib.sha256()
        for part in (self.node_id.encode(), *parts):
            sum.update(len(part).to_bytes(8, "big"))
            sum.update(part)
        return sum.hexdigest()

    def _recorded(
        self, files: tuple[Path, Path, Path], digest: str, trusted: tuple[bytes, bytes]
    ) -> Material | None:
        """What an earlier check of the same bytes has found; None when there was none."""
        try:
            body = documents.decode(self._record_path.read_bytes())
            if body["digest"] != digest:
                return None
            validity = (
                documents.from_text(body["not_before"]),
                documents.from_text(body["not_after"]),
                documents.from_text(body["ca_not_after"]),
            )
            return Material(
                files, digest, self.node_id, str(body["serial"]), validity, body["names"], trusted
            )
        except (OSError, ValueError, KeyError, TypeError):
            # Lost or damaged: checked and written anew, nothing depends on it.
            return None

    def _record(
        self,
        files: tuple[Path, Path, Path],
        digest: str,
        trusted: tuple[bytes, bytes],
        certificate: Any,
        ca: Any,
    ) -> Material:
        from novacron.security.inspection import host_names

        material = Material(
            files,
            digest,
            self.node_id,
            f"{certificate.serial_number:x}",
            (
                certificate.not_valid_before_utc.timestamp(),
                certificate.not_valid_after_utc.timestamp(),
                ca.not_valid_after_utc.timestamp(),
            ),
            host_names(certificate),
            trusted,
        )
        body = {
            "version": 1,
            "digest": digest,
            "serial": material.serial,
            "not_before": documents.to_text(material.not_before),
            "not_after": documents.to_text(material.not_after),
            "ca_not_after": documents.to_text(material.ca_not_after),
            "names": list(material.names),
        }
        try:
            write_durably(self._record_path, documents.encode(body))
        except OSError as exc:
            raise storage_failure("write", self._record_path, exc) from exc
        return material


class OwnMaterial(MaterialSource):
    """Issued by the node's own authority: ``pki/node.pem`` holds key and certificate, in one file
    so that a renewal replaces both at once."""

    own = True

    def __init__(
        self,
        directory: DataDirectory,
        settings: SecuritySettings,
        node_id: str,
        keyring: Keyring,
        names: Sequence[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(directory, settings, node_id, now)
        self.path = directory.pki / "node.pem"
        self.authority = Authority(directory, keyring, settings.ca_days)
        self.wanted = tuple(names)
        # A window as long as the validity itself would renew at every look.
        self.renew_before = min(
            self.renew_before,
            settings.certificate_days * _DAY / 3,
            settings.ca_days * _DAY / 3,
        )
        self._backdate = settings.clock_tolerance

    def material(self, *, force: bool = False) -> Material:
        files = (self.path, self.path, self.authority.path)
        now = self.now()
        if not force:
            data, ca_data = self._present()
            found = self._recorded(
                files, self._digest(data, ca_data), (ca_data, _without_key(data))
            )
            if (
                found is not None
                and found.not_before <= now
                and now < found.not_after - self.renew_before
                and now < found.ca_not_after - self.renew_before
                and set(self.wanted) <= set(found.names)
            ):
                return found
        return self._examine(files, now, force)

    def _present(self) -> tuple[bytes, bytes]:
        try:
            return self.path.read_bytes(), self.authority.path.read_bytes()
        except OSError:
            # Missing or unreadable: what that means is found out by the examination.
            return b"", b""

    def _examine(self, files: tuple[Path, Path, Path], now: float, force: bool) -> Material:
        from novacron.security.inspection import load_certificates

        ca_data = self.authority.ensure(
            self.node_id, now, self.renew_before, self._backdate, force=force
        )
        roots = load_certificates(ca_data, str(self.authority.path), "security.ca_days")
        try:
            data = read_secret_file(self.path, key="system.data_dir") if self.path.exists() else b""
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        if not data or force or not self._usable(data, roots, now):
            data = self.authority.issue(
                self.node_id, self.wanted, self.settings.certificate_days, now, self._backdate
            )
            try:
                write_durably(self.path, data, mode=0o600)
            except OSError as exc:
                raise storage_failure("write", self.path, exc) from exc
        register(data.partition(b"-----BEGIN CERTIFICATE")[0])
        certificate = load_certificates(data, str(self.path), "")[0]
        return self._record(
            files,
            self._digest(data, ca_data),
            (ca_data, _without_key(data)),
            certificate,
            roots[0],
        )

    def _usable(self, data: bytes, roots: Any, now: float) -> bool:
        """Whether the certificate on disk stays in use; False has another one issued.

        Raises:
          CertificateError: it is somebody else's. That is not repaired by overwriting it.
        """
        from novacron.security import inspection

        where = str(self.path)
        try:
            chain = inspection.load_certificates(data, where, "")
            private_key = inspection.load_private_key(data, where, "")
        except CertificateError as exc:
            aside = self.directory.quarantine(self.path)
            self.warnings.append(
                f"The node's certificate was damaged ({exc.why}); it lies in {aside} now and a new "
                "one was issued."
            )
            return False
        try:
            if now < chain[0].not_valid_before_utc.timestamp():
                inspection.check_dates(chain[0], where, "", now)
            inspection.check_key(chain[0], private_key, where, "")
            inspection.check_name(chain[0], self.node_id, where, "")
            inspection.check_chain(chain, roots, where, "", now)
        except ClockSetBackError:
            raise
        except CertificateError as exc:
            raise CertificateError(
                exc.what,
                why=exc.why,
                remedy=f"find out how it came there, then move it away (mv {where} {where}.old); "
                "the node issues a new one at its next start",
            ) from exc
        not_after = chain[0].not_valid_after_utc.timestamp()
        names = set(inspection.host_names(chain[0]))
        return now < not_after - self.renew_before and set(self.wanted) <= names

    def close(self) -> None:
        """Nothing stays open."""


class OutsideMaterial(MaterialSource):
    """Files named by ``ca_certificate``, ``certificate`` and ``private_key``."""

    own = False

    def __init__(
        self,
        directory: DataDirectory,
        settings: SecuritySettings,
        node_id: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(directory, settings, node_id, now)
        self._descriptor = -1
        self._descriptor_digest = ""

    def material(self, *, force: bool = False) -> Material:
        certificate, authority, reference = self._configured()
        data = _read(certificate, "security.certificate")
        ca_data = _read(authority, "security.ca_certificate")
        key_data = read_secret(reference, key="security.private_key")
        digest = self._digest(data, ca_data, key_data)
        files = (certificate, certificate, authority)
        found = self._recorded(files, digest, (ca_data, _without_key(data)))
        if found is None or not found.not_before <= self.now() < found.not_after:
            found = self._examine(certificate, authority, (data, ca_data, key_data), digest)
        found.private_key = self._key_path(reference, key_data, digest)
        if self.now() > found.not_after - self.renew_before:
            self.warnings.append(
                f"The certificate {certificate} expires at {documents.to_text(found.not_after)}; "
                "replace the file, the node takes the new one without a restart."
            )
        return found

    def _configured(self) -> tuple[Path, Path, str]:
        settings = self.settings
        names = ("ca_certificate", "certificate", "private_key")
        missing = [name for name in names if not getattr(settings, name)]
        if missing or not (
            settings.certificate and settings.ca_certificate and settings.private_key
        ):
            raise CertificateError(
                "cannot use certificates from outside",
                why=f"of the three settings they need, {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not set",
                remedy="set all three, or none for the node's own authority",
                key=f"security.{missing[0]}",
            )
        return Path(settings.certificate), Path(settings.ca_certificate), settings.private_key

    def _examine(
        self, certificate: Path, authority: Path, data: tuple[bytes, bytes, bytes], digest: str
    ) -> Material:
        from novacron.security import inspection

        where, key = str(certificate), "security.certificate"
        roots = inspection.load_certificates(data[1], str(authority), "security.ca_certificate")
        chain = inspection.load_certificates(data[0], where, key)
        private_key = inspection.load_private_key(
            data[2], self.settings.private_key or "", "security.private_key"
        )
        now = self.now()
        inspection.check_dates(chain[0], where, key, now)
        inspection.check_key(chain[0], private_key, where, "security.private_key")
        for root in roots:
            inspection.check_dates(root, str(authority), "security.ca_certificate", now)
        inspection.check_chain(chain, roots, where, "security.ca_certificate", now)
        inspection.check_name(chain[0], self.node_id, where, key)
        files = (certificate, certificate, authority)
        return self._record(files, digest, (data[1], _without_key(data[0])), chain[0], roots[0])

    def _key_path(self, reference: str, data: bytes, digest: str) -> Path:
        if not reference.startswith("env:"):
            return secret_path(reference, key="security.private_key")
        if digest != self._descriptor_digest:
            # OpenSSL takes keys from files alone. This one has no name and never touches a disk.
            descriptor = os.memfd_create("novacron-key", os.MFD_CLOEXEC)
            os.write(descriptor, data)
            self.close()
            self._descriptor, self._descriptor_digest = descriptor, digest
        return Path(f"/proc/self/fd/{self._descriptor}")

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._descriptor_digest = -1, ""


def _without_key(data: bytes) -> bytes:
    """The certificates in a PEM text that may hold a key before them."""
    _, begin, rest = data.partition(b"-----BEGIN CERTIFICATE-----")
    return (begin + rest).partition(b"-----BEGIN PRIVATE KEY")[0]


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise CertificateError(
            f"cannot read the certificate {path}",
            why=exc.strerror or type(exc).__name__,
            remedy="correct the path, or make the file readable for the user the node runs as",
            key=key,
        ) from exc
