"""What the authority's node knows of the others while its key is replaced: ``pki/rotation.json``.

Each node reports, by its own signature, which list of authorities it trusts and with which
certificate it does so. Only what is newer counts: a report that somebody repeats changes nothing.
"""

from __future__ import annotations

from novacron.data_directory import DataDirectory
from novacron.durable import remove_durably, write_durably
from novacron.record import Record
from novacron.security import documents
from novacron.security.errors import storage_failure
from novacron.security.filelock import held


class Holding(Record):
    number: int
    """Of the document that the node has taken."""
    issuer: str
    """Hash of the key that issued the certificate with which it said so."""
    at: float
    """Seconds since the epoch."""


class Holdings:
    """Every method blocks on the disk."""

    def __init__(self, directory: DataDirectory) -> None:
        self.path = directory.pki / "rotation.json"
        self._lock_path = directory.pki / "rotation.lock"

    def read(self) -> dict[str, Holding]:
        """By node. What is damaged counts as never said: a node that is asked says it again.

        Raises:
          StorageFailedError: it cannot be read.
        """
        try:
            body = documents.decode(self.path.read_bytes())
            return {
                str(node): Holding(int(number), str(issuer), float(at))
                for node, (number, issuer, at) in body["nodes"].items()
            }
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    def note(self, node_id: str, found: Holding, issuing: str) -> None:
        """
        Args:
          issuing: Hash of the key that issues now; who has said something with a certificate of it
            has not gone back.

        Raises:
          StorageFailedError: it is not kept.
        """
        with held(self._lock_path):
            known = self.read()
            before = known.get(node_id)
            if before is not None and (
                found.number < before.number
                # Said again, by the node or by somebody who has kept it: worth no write.
                or (found.number == before.number and before.issuer in (found.issuer, issuing))
            ):
                return
            known[node_id] = found
            body = {"version": 1, "nodes": {node: list(each) for node, each in known.items()}}
            try:
                write_durably(self.path, documents.encode(body), mode=0o600)
            except OSError as exc:
                raise storage_failure("write", self.path, exc) from exc

    def forget(self) -> None:
        """The rotation is over."""
        try:
            remove_durably(self.path)
        except OSError as exc:
            raise storage_failure("remove", self.path, exc) from exc
