"""TLS material that was issued elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.security import documents
from novacron.security.errors import CertificateError
from novacron.security.material import Material, MaterialSource, without_key
from novacron.security.references import read_secret, secret_path


class OutsideMaterial(MaterialSource):
    """Files named by ``ca_certificate``, ``certificate`` and ``private_key``."""

    kind = "outside"

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
        found = self._recorded(files, digest, (ca_data, without_key(data)))
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
        return self._record(files, digest, (data[1], without_key(data[0])), chain[0], roots)

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
