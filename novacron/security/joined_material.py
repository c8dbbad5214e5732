"""TLS material that the authority of another node has issued to this one.

``pki/node.pem`` holds key and certificate, as with an authority of one's own; ``pki/ca.pem`` is the
authority that was found behind the join token; ``pki/joined.json`` says since when and from where.
It is renewed by asking a peer while the node runs (:mod:`novacron.trust`); once it has expired no
peer listens any more, and the node has to join again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.record import Record
from novacron.security import documents
from novacron.security import roots as trust_roots
from novacron.security.errors import CertificateError, NotAuthorityError, storage_failure
from novacron.security.material import Material, MaterialSource, without_key
from novacron.security.names import MOST_NAMES, canonical_name
from novacron.security.references import read_secret_file, register

JOIN_AGAIN = (
    "join again: make a token on the authority's node with `novacron token create --role node "
    "--node-id {node_id}`, then `novacron join HOST:PORT --token …` here; see the runbook "
    "join-refused"
)
_DAY = 86400.0


class Joined(Record):
    """What ``joined.json`` says."""

    authority: str
    """Hash of the authority's key that the join token named."""
    since: float
    """Seconds since the epoch."""
    source: str
    """``host:port`` of the REST interface that answered."""
    left_out: tuple[str, ...]
    """Names that were asked for and are another node's; asking again would change nothing."""
    names: tuple[str, ...] = ()
    """Names beyond those of the configuration, from ``novacron join --names``."""
    token: str = ""
    """Id of the join token: the same command once more has nothing left to do."""
    peer: str = ""
    """``host:port`` of the peer listener of the authority's node; empty where it did not say."""

    def encode(self) -> bytes:
        return documents.encode({"version": 1, **self._asdict()})


def read_joined(directory: DataDirectory) -> Joined | None:
    """
    Raises:
      CertificateError: the file is damaged.
      StorageFailedError: it cannot be read.
    """
    path = directory.pki / "joined.json"
    try:
        body = documents.decode(path.read_bytes())
        return Joined(
            str(body["authority"]),
            float(body["since"]),
            str(body["source"]),
            tuple(str(name) for name in body["left_out"]),
            tuple(str(name) for name in body["names"]),
            str(body["token"]),
            str(body["peer"]),
        )
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise storage_failure("read", path, exc) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise CertificateError(
            f"cannot read {path}",
            why=str(exc) if isinstance(exc, ValueError) else "a field is missing or wrong",
            remedy="restore it from a backup, or join again",
        ) from exc


class JoinedMaterial(MaterialSource):
    kind = "joined"

    def __init__(
        self,
        directory: DataDirectory,
        settings: SecuritySettings,
        node_id: str,
        names: Sequence[str],
        joined: Joined,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(directory, settings, node_id, now)
        self.path = directory.pki / "node.pem"
        self.authority_path = directory.pki / "ca.pem"
        more = map(canonical_name, joined.names)
        # No more than a request can ask for: what is missing is asked for again at once.
        self.wanted = tuple(dict.fromkeys((*names, *more)))[:MOST_NAMES]
        self.joined = joined

    def material(self, *, force: bool = False) -> Material:
        """
        Raises:
          NotAuthorityError: with *force*; only a peer can issue.
          CertificateError: it cannot be used.
        """
        if force:
            raise NotAuthorityError(
                "this node cannot issue its certificate",
                why="it has joined the authority of another node",
                remedy="ask for a new one with `novacron certificate renew` while the node runs",
            )
        files = (self.path, self.path, self.authority_path)
        data, ca_data = self._read(self.path), self._read(self.authority_path)
        digest, trusted = self._digest(data, ca_data), (ca_data, without_key(data))
        found = self._recorded(files, digest, trusted)
        if found is None or not found.not_before <= self.now() < found.not_after:
            found = self._examine(files, digest, trusted, data)
        if self.now() > found.not_after - self._window(found) / 2:
            # Half of the time to renew it has passed, and nobody would.
            self.warnings.append(
                f"The node's certificate expires at {documents.to_text(found.not_after)}, and no peer "
                "has renewed it yet: the authority's node has to be reached, by way of network.seeds."
            )
        return found

    def due(self, material: Material) -> float:
        """When a new certificate is to be asked for, in seconds since the epoch; at once where
        names are missing, or another authority issues by now. The window is counted from the
        certificate's own validity, which is the authority's to choose."""
        missing = set(self.wanted) - set(material.names) - set(self.joined.left_out)
        if missing or material.issuer != material.authorities[0]:
            return 0.0
        return material.not_after - self._window(material)

    def _window(self, material: Material) -> float:
        return min(self.renew_before, (material.not_after - material.not_before) / 3)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as exc:
            raise CertificateError(
                f"cannot find {path}",
                why="this node has joined a cluster, and the file it got then is gone",
                remedy="restore it from a backup, or " + JOIN_AGAIN.format(node_id=self.node_id),
            ) from exc
        except OSError as exc:
            raise storage_failure("read", path, exc) from exc

    def _examine(
        self,
        files: tuple[Path, Path, Path],
        digest: str,
        trusted: tuple[bytes, bytes],
        data: bytes,
    ) -> Material:
        from novacron.security.inspection import load_certificates

        read_secret_file(self.path, key="system.data_dir")  # refuses a key that others can read
        roots = load_certificates(trusted[0], str(self.authority_path), "")
        try:
            certificate = check_granted(data, data, roots, self.node_id, str(self.path), self.now())
        except CertificateError as exc:
            raise CertificateError(
                exc.what,
                why=exc.why + self._replaced(trusted[0], data, roots),
                remedy=JOIN_AGAIN.format(node_id=self.node_id),
            ) from exc
        register(data.partition(b"-----BEGIN CERTIFICATE")[0])
        return self._record(files, digest, trusted, certificate, roots)

    def _replaced(self, ca_data: bytes, data: bytes, roots: Sequence[Any]) -> str:
        """What to add where the certificate is of an authority whose key was replaced since."""
        from novacron.security import inspection

        document = trust_roots.read(ca_data, str(self.authority_path))
        certificate = inspection.load_certificates(data, str(self.path), "")[0]
        if document is None or not document.former or certificate.issuer != roots[0].subject:
            return ""
        return (
            f": the cluster's authority was replaced, by {documents.to_text(document.made)}, before "
            "this node had a certificate of the new one"
        )

    def install(self, key: bytes, certificate: bytes) -> None:
        """Replace the node's key and certificate (PEM), which were just granted, durably.

        Raises:
          CertificateError, ClockSetBackError: they do not fit; what was there stays.
          StorageFailedError: the disk refuses; what was there stays.
        """
        from novacron.security.inspection import as_pem, is_handover, issued_by, load_certificates

        ca_data, where = self._read(self.authority_path), "the new certificate"
        roots = load_certificates(ca_data, str(self.authority_path), "")
        granted = check_granted(certificate, key, roots, self.node_id, where, self.now())
        # The authority before may be gone, which has signed it: then the list of authorities, that was
        # signed by all of them, has it. A false one would have old peers refuse this node.
        document = trust_roots.read(ca_data, str(self.authority_path))
        handover = document.handover.encode() if document is not None else b""
        shown = [
            each
            for each in load_certificates(certificate, where, "")[1:]
            if is_handover(each)
            and (as_pem(each) == handover or issued_by(each, roots, (), self.now()))
        ]
        register(key)
        try:
            # What was understood, written anew, and not what a peer has sent: a text may hold more,
            # that the checks pass over and TLS does not.
            data = b"".join(map(as_pem, (granted, *shown)))
            write_durably(self.path, key + data, mode=0o600)
        except OSError as exc:
            raise storage_failure("write", self.path, exc) from exc

    def leave_out(self, names: Sequence[str]) -> None:
        """Remember that *names* are another node's, so that they are not asked for again and again.

        Raises:
          StorageFailedError: the disk refuses.
        """
        joined = self.joined._replace(left_out=tuple(names))
        path = self.directory.pki / "joined.json"
        try:
            write_durably(path, joined.encode(), mode=0o600)
        except OSError as exc:
            raise storage_failure("write", path, exc) from exc
        self.joined = joined

    def install_roots(self, data: bytes) -> bool:
        """Take over which authorities are trusted from the signed document in *data*, durably, if it
        is newer than the present one; returns whether it was.

        Raises:
          RootsError: it is not to be believed; what was there stays.
          CertificateError, StorageFailedError: as :meth:`install`.
        """
        from novacron.security.inspection import load_certificates

        where = str(self.authority_path)
        before = self._read(self.authority_path)
        present = trust_roots.read(before, where)
        offered = trust_roots.check(data, load_certificates(before, where, ""), self.now())
        if present is not None and offered.number <= present.number:
            return False
        try:
            write_durably(self.authority_path, offered.bundle(), mode=0o644)
        except OSError as exc:
            raise storage_failure("write", self.authority_path, exc) from exc
        return True

    def install_authority(self, data: bytes) -> bool:
        """Take over a renewed certificate of the authority (PEM): the same key, a later end. Returns
        whether it is one. Once there is a document that lists the authorities, that alone counts.

        Raises:
          CertificateError, StorageFailedError: as :meth:`install`.
        """
        from novacron.security import inspection

        where = "the authority's new certificate"
        present = inspection.load_certificates(
            self._read(self.authority_path), str(self.authority_path), ""
        )
        offered = inspection.load_certificates(data, where, "")
        if trust_roots.read(self._read(self.authority_path)) is not None:
            return False
        if len(offered) != 1 or len(present) != 1 or offered[0] == present[0]:
            return False
        new, old = offered[0], present[0]
        same_key = inspection.key_hash(new.public_key()) == inspection.key_hash(old.public_key())
        if not same_key or new.subject != old.subject or not inspection.is_authority(new):
            raise CertificateError(
                f"refusing {where}", why="it is not of the authority that this node has joined"
            )
        inspection.check_dates(new, where, "", self.now())
        # A self-signature proves that the holder of the key made it, and not who relays it.
        inspection.check_chain([new], [new], where, "", self.now())
        if new.not_valid_after_utc <= old.not_valid_after_utc:
            return False
        try:
            write_durably(self.authority_path, inspection.as_pem(new), mode=0o644)
        except OSError as exc:
            raise storage_failure("write", self.authority_path, exc) from exc
        return True

    def close(self) -> None:
        """Nothing stays open."""


def check_granted(
    certificate: bytes, key: bytes, roots: Sequence[Any], node_id: str, where: str, now: float
) -> Any:
    """The certificate in the PEM text, once it was found to be one for *node_id* and the private
    *key*, issued by one of *roots*.

    Raises:
      CertificateError, ClockSetBackError: it is not; says in what.
    """
    from novacron.security import inspection

    chain = inspection.load_certificates(certificate, where, "")
    private_key = inspection.load_private_key(key, where, "")
    inspection.check_dates(chain[0], where, "", now)
    inspection.check_key(chain[0], private_key, where, "")
    inspection.check_name(chain[0], node_id, where, "")
    inspection.check_chain(chain, roots, where, "", now)
    return chain[0]
