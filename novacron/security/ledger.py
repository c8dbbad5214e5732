"""Which certificates an authority has issued to other nodes, and taken back: ``pki/issued.json``.

By it a node's id stays one node's, a repeated request gets the certificate it got before, and what
was issued can be revoked. The node's own certificate is not in it: that is in its own file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Self

from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.record import Record
from novacron.security import documents
from novacron.security.errors import CertificateError, storage_failure
from novacron.security.filelock import held

KEEP_EXPIRED = 30 * 86400.0
"""Seconds an entry outlives its certificate, so that an operator still finds it."""


class Issued(Record):
    """One certificate. Times are seconds since the epoch."""

    serial: str
    node_id: str
    key: str
    """Hash of its public key."""
    names: tuple[str, ...]
    issued: float
    not_after: float
    certificate: str
    """PEM."""
    token: str | None = None
    """Id of the join token it was issued for; None for a renewal."""
    revoked: float | None = None
    reason: str = ""
    authority: str = ""
    """Hash of the key that has issued it; empty where that was the cluster's first, before it could be
    replaced."""

    def live(self, now: float) -> bool:
        return self.revoked is None and now < self.not_after

    def state(self, now: float, former: Collection[str] = ()) -> str:
        if self.revoked is not None:
            return "revoked"
        if now >= self.not_after:
            return "expired"
        return "replaced" if self.authority in former else "valid"

    def describe(self, now: float, former: Collection[str] = ()) -> dict[str, Any]:
        """For people and the API.

        Args:
          former: authorities that are trusted no more, as :attr:`authority` names them.
        """
        return {
            "serial": self.serial,
            "node_id": self.node_id,
            "state": self.state(now, former),
            "authority": self.authority or None,
            "issued": documents.to_text(self.issued),
            "not_after": documents.to_text(self.not_after),
            "names": list(self.names),
            "token": self.token,
            "revoked": None if self.revoked is None else documents.to_text(self.revoked),
            "reason": self.reason or None,
        }

    @classmethod
    def from_document(cls, entry: Any) -> Self:
        """
        Raises:
          ValueError: a field is missing or wrong.
        """
        try:
            return cls(
                str(entry["serial"]),
                str(entry["node_id"]),
                str(entry["key"]),
                tuple(str(name) for name in entry["names"]),
                float(entry["issued"]),
                float(entry["not_after"]),
                str(entry["certificate"]),
                None if entry["token"] is None else str(entry["token"]),
                None if entry["revoked"] is None else float(entry["revoked"]),
                str(entry["reason"]),
                str(entry.get("authority", "")),
            )
        except (KeyError, TypeError) as exc:
            raise ValueError("a field is missing or wrong") from exc


class Ledger:
    """Every method blocks on the disk."""

    def __init__(self, directory: DataDirectory, *, now: Callable[[], float] = time.time) -> None:
        self.path = directory.pki / "issued.json"
        self._lock_path = directory.pki / "issued.lock"
        self._now = now

    @contextlib.contextmanager
    def changing(self) -> Iterator[list[Issued]]:
        """What is on disk, with nobody else changing it meanwhile; hand changes to :meth:`write`.

        Raises as :meth:`read`, and LockedError.
        """
        with held(self._lock_path):
            yield self.read()

    def read(self) -> list[Issued]:
        """Oldest first.

        Raises:
          CertificateError: it is damaged.
          StorageFailedError: it cannot be read.
        """
        try:
            body = documents.decode(self.path.read_bytes())
            if body.get("version") != 1:
                raise ValueError("its version is not 1")
            return [Issued.from_document(entry) for entry in body.get("issued", ())]
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        except ValueError as exc:
            # Going on without would give a node's id away a second time.
            raise CertificateError(
                f"cannot read the list of issued certificates {self.path}",
                why=str(exc),
                remedy="restore it from a backup; without one, move it away: ids of nodes are then "
                "no longer protected from being joined a second time",
            ) from exc

    def write(self, entries: Sequence[Issued]) -> None:
        """
        Raises:
          StorageFailedError: it is as it was.
        """
        horizon = self._now() - KEEP_EXPIRED
        body = {
            "version": 1,
            "issued": [entry._asdict() for entry in entries if entry.not_after > horizon],
        }
        try:
            write_durably(self.path, documents.encode(body), mode=0o600)
        except OSError as exc:
            raise storage_failure("write", self.path, exc) from exc
