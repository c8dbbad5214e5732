"""TLS material that the node issues to itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.security.authority import Authority
from novacron.security.errors import CertificateError, ClockSetBackError, storage_failure
from novacron.security.keyring import Keyring
from novacron.security.material import Material, MaterialSource, without_key
from novacron.security.references import read_secret_file, register

_DAY = 86400.0


class OwnMaterial(MaterialSource):
    """Issued by the node's own authority: ``pki/node.pem`` holds key and certificate, in one file
    so that a renewal replaces both at once."""

    kind = "own"

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
            found = self._recorded(files, self._digest(data, ca_data), (ca_data, without_key(data)))
            if (
                found is not None
                and found.not_before <= now
                and now < found.not_after - self.renew_before
                and now < found.ca_not_after - self.renew_before
                and set(self.wanted) <= set(found.names)
                and found.issuer == found.authorities[0]
                and data.endswith(self._chain(found, now))
            ):
                return found
        return self._examine(files, now, force)

    def _chain(self, found: Material, now: float) -> bytes:
        # Without a document there is no chain; only with one is the file read once more.
        return self.authority.chain(now).encode() if found.document is not None else b""

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
            (ca_data, without_key(data)),
            certificate,
            roots,
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
        chosen = self.authority.chain(now).encode()
        try:
            if now < chain[0].not_valid_before_utc.timestamp():
                inspection.check_dates(chain[0], where, "", now)
            inspection.check_key(chain[0], private_key, where, "")
            inspection.check_name(chain[0], self.node_id, where, "")
            if self._of_a_former_authority(chain[0], roots, now):
                return False
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
        return (
            now < not_after - self.renew_before
            and set(self.wanted) <= names
            and inspection.issued_by(chain[0], roots[:1], (), now)
            and data.endswith(chosen)
            and len(chain) == 1 + chosen.count(b"-----BEGIN CERTIFICATE")
            # One from before nodes could join does not say that this node holds the authority.
            and inspection.holds_authority(chain[0])
        )

    def _of_a_former_authority(self, certificate: Any, roots: Any, now: float) -> bool:
        """Whether it was issued before the authority's key was replaced, which left the name."""
        from novacron.security import inspection

        document = self.authority.document()
        return (
            document is not None
            and bool(document.former)
            and certificate.issuer == roots[0].subject
            and not inspection.issued_by(certificate, roots, (), now)
        )

    def close(self) -> None:
        """Nothing stays open."""
