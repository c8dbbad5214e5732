"""The files TLS is made of: this node's certificate, its key, and the authority that is trusted.

Three sources: the node's own authority, whose certificates are issued and renewed here, that of a
node it has joined, and files from outside; the last two are only checked. Checking takes an X.509 library whose import costs more than
everything else a boot does here. So what was checked is remembered by digest in
``pki/verified.json``: while the files are the same, only the dates are looked at again. That record
protects nothing: who can write it can write the key beside it.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.durable import write_atomically
from novacron.security import documents
from novacron.security.errors import storage_failure
from novacron.security.roots import Roots
from novacron.security.roots import read as read_roots

_DAY = 86400.0


class Material:
    """Checked files, and what the certificate says."""

    __slots__ = (
        "authorities",
        "authority",
        "ca_not_after",
        "certificate",
        "digest",
        "document",
        "issuer",
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
        authorities: Sequence[str],
        issuer: str,
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
        self.authorities = tuple(authorities)
        """SHA-256 of the public key of each trusted root, the one that issued first; see
        :func:`novacron.security.inspection.key_hash`."""
        self.issuer = issuer
        """The same of what has issued the certificate."""
        self.document: Roots | None = read_roots(trusted[0], str(self.authority))
        """What says which roots are trusted; None in a cluster whose authority was never replaced."""

    @property
    def roots_number(self) -> int:
        """Of :attr:`document`; 0 for none."""
        return self.document.number if self.document is not None else 0

    def __repr__(self) -> str:
        return f"Material({self.certificate}, serial {self.serial})"


class MaterialSource(ABC):
    """Where the material comes from. Every method blocks: call it in a worker thread."""

    kind: ClassVar[Literal["own", "outside", "joined"]]

    @property
    def own(self) -> bool:
        """Whether this node issues its certificate itself."""
        return self.kind == "own"

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
                files,
                digest,
                self.node_id,
                str(body["serial"]),
                validity,
                body["names"],
                trusted,
                # A record from before there was this is as good as none.
                [str(hash) for hash in body["authorities"]],
                str(body["issuer"]),
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
        roots: Sequence[Any],
    ) -> Material:
        from novacron.security.inspection import (
            host_names,
            issuer_of,
            key_hash,
            load_certificates,
        )

        chain = load_certificates(trusted[1], str(files[0]), "")
        issuer = issuer_of(certificate, roots, chain[1:], self.now())
        material = Material(
            files,
            digest,
            self.node_id,
            f"{certificate.serial_number:x}",
            (
                certificate.not_valid_before_utc.timestamp(),
                certificate.not_valid_after_utc.timestamp(),
                roots[0].not_valid_after_utc.timestamp(),
            ),
            host_names(certificate),
            trusted,
            tuple(dict.fromkeys(key_hash(root.public_key()) for root in roots)),
            key_hash(issuer.public_key()) if issuer is not None else "",
        )
        body = {
            "version": 1,
            "digest": digest,
            "serial": material.serial,
            "not_before": documents.to_text(material.not_before),
            "not_after": documents.to_text(material.not_after),
            "ca_not_after": documents.to_text(material.ca_not_after),
            "names": list(material.names),
            "authorities": list(material.authorities),
            "issuer": material.issuer,
        }
        try:
            # Worth no wait for the disk: lost in a power cut, it is found out once more.
            write_atomically(self._record_path, documents.encode(body))
        except OSError as exc:
            raise storage_failure("write", self._record_path, exc) from exc
        return material


def without_key(data: bytes) -> bytes:
    """The certificates in a PEM text that may hold a key before them."""
    _, begin, rest = data.partition(b"-----BEGIN CERTIFICATE-----")
    return (begin + rest).partition(b"-----BEGIN PRIVATE KEY")[0]
