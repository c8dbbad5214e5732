"""Certificates of a private server, in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.authority import Authority

NAMES = ("localhost", "127.0.0.1")


class Tls:
    """An authority and what it issued, below *directory*.

    :attr:`ca_certificate`, :attr:`certificate` and :attr:`private_key` are PEM files; the latter two
    are the server's, for :data:`NAMES`, good for a day.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._authority = Authority()
        self.ca_certificate = directory / "ca.pem"
        self.ca_certificate.write_bytes(self._authority.certificate)
        self.certificate, self.private_key = self.issue("server")

    def issue(
        self, name: str, *, names: Sequence[str] = NAMES, days: float = 1.0
    ) -> tuple[Path, Path]:
        """Write ``NAME.pem`` and ``NAME.key`` for the host *names* (addresses too), or over them.
        Negative *days* make one that expired that long ago."""
        certificate, key = self._authority.issue_names(names, common_name=name, days=days)
        paths = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        paths[0].write_bytes(certificate)
        paths[1].touch(mode=0o600)
        paths[1].write_bytes(key)
        return paths
