"""``novacron join``: what the machine that joins does, before its node runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from novacron.boot.lock import DataDirectoryLock
from novacron.config.schema import Settings
from novacron.data_directory import DataDirectory
from novacron.durable import fsync_directory, write_durably
from novacron.environment.identity import decode_identity, encode_identity, new_node_id
from novacron.record import Record
from novacron.security import documents, inspection, joining
from novacron.security import roots as trust_roots
from novacron.security.errors import CertificateError, RequestRefusedError, storage_failure
from novacron.security.join_token import JoinTokenText
from novacron.security.joined_material import check_granted, read_joined
from novacron.security.joining import Asked, Granted
from novacron.security.ledger import Ledger
from novacron.security.names import MOST_NAMES, canonical_name, certificate_names, is_usable
from novacron.security.requests import make_request
from novacron.security.revocations import check_list
from novacron.trust.authority_client import ask
from novacron.trust.errors import JoinAnswerError, LivedNodeError
from novacron.units import NodeId

CLOCKS_APART: Final = 60.0
"""Seconds two clocks may differ before the operator is told."""


class Outcome(Record):
    """A join that has happened."""

    node_id: str
    authority: str
    """Hash of the authority's key."""
    serial: str
    not_after: float
    """Seconds since the epoch."""
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    peer: str
    """``host:port`` of the peer listener of the authority's node; empty where it did not say."""
    set_aside: bool
    """Whether an authority of this node's own lies in ``quarantine/`` now."""
    clocks_apart: float | None
    """Seconds by which the other clock is ahead of this one's, where that is worth a word."""


def join(
    directory: DataDirectory,
    settings: Settings,
    address: tuple[str, int],
    token: JoinTokenText,
    *,
    names: Sequence[str] = (),
    force: bool = False,
    now: Callable[[], float] = time.time,
) -> Outcome:
    """Have the authority at *address* issue this node's certificate. Blocks.

    Cut short anywhere, the same command goes on where it was: until the answer is on disk the same
    key asks again, and from then on what is left is done by the next command or boot.

    Args:
      names: Host names and addresses beyond those that the configuration tells.
      force: Also where this node's own authority has issued certificates to others, or it has
        joined another authority before.

    Raises:
      LivedNodeError: *force* is needed, or the node's certificates come from outside.
      RequestRefusedError: *names* are too many, or none of a host.
      DataDirectoryBusyError: the node runs.
      CertificateError, StorageFailedError: of what is on this machine.
      See also :func:`novacron.trust.authority_client.ask`.
    """
    security = settings.security
    if security.certificate or security.ca_certificate or security.private_key:
        raise LivedNodeError(
            "this node does not join an authority",
            why="its certificate comes from outside, as configured",
            remedy="remove security.certificate, private_key and ca_certificate to have a node's "
            "authority issue it",
            key="security.certificate",
        )
    lock = DataDirectoryLock(directory, "novacron join")
    try:
        make_directories(directory)
        had_authority = (directory.pki / "ca.key").exists()
        joining.finish(directory)
        done = _already(directory, token, now())
        if done is not None:
            return done._replace(set_aside=had_authority)
        _check_life(directory, force, now())
        node_id = identity(directory, settings.system.node_id, now())
        wanted = certificate_names(
            settings.network.listen_address,
            settings.network.advertise_address,
            settings.api.listen_address,
        )
        more = tuple(map(canonical_name, names))
        every = _askable((*wanted, *more))
        asked = _asked(directory, node_id, token)
        key = inspection.load_private_key(asked.key.encode(), str(joining.journal(directory)), "")
        request = make_request(key, node_id, every)  # type: ignore[arg-type]

        def agree(presented: Sequence[Any]) -> None:
            _check_left(directory, token.authority, presented, force, now())

        answer, authority = ask(*address, token, request, now=now, agree=agree)
        granted = _granted(asked, answer, authority, address, more, now())
        joining.write_granted(directory, granted)
        joining.finish(directory)
        done = _already(directory, token, now())
        assert done is not None
        return done._replace(
            set_aside=had_authority, clocks_apart=_clocks_apart(answer.get("time"), now())
        )
    finally:
        lock.release()


def _already(directory: DataDirectory, token: JoinTokenText, now: float) -> Outcome | None:
    """What has come of a join with *token*, where that has happened and is of use still."""
    joined = read_joined(directory)
    if joined is None or (joined.token, joined.authority) != (token.id, token.authority):
        return None
    path = directory.pki / "node.pem"
    try:
        certificate = inspection.load_certificates(path.read_bytes(), str(path), "")[0]
    except (OSError, CertificateError):
        return None
    not_after = certificate.not_valid_after_utc.timestamp()
    if now >= not_after:
        return None
    return Outcome(
        inspection.node_name(certificate) or "",
        joined.authority,
        f"{certificate.serial_number:x}",
        not_after,
        tuple(inspection.host_names(certificate)),
        joined.left_out,
        joined.peer,
        False,
        None,
    )


def make_directories(directory: DataDirectory) -> None:
    """Those that a node's security needs.

    Raises:
      StorageFailedError: the disk refuses.
    """
    for path in (directory.secrets, directory.pki, directory.audit):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise storage_failure("create", path, exc) from exc
    fsync_directory(directory.root)


def _check_left(
    directory: DataDirectory, authority: str, presented: Sequence[Any], force: bool, now: float
) -> None:
    """Refuse to leave a cluster for another. That of an authority which this node's own has certified
    as its successor is the same: it comes back to it."""
    joined = read_joined(directory)
    if force or joined is None or joined.authority == authority:
        return
    path = directory.pki / "ca.pem"
    try:
        roots = inspection.load_certificates(path.read_bytes(), str(path), "")
    except (OSError, CertificateError):
        roots = []
    for each in (*roots, *presented):
        if inspection.key_hash(each.public_key()) == authority and (
            each in roots or inspection.issued_by(each, roots, (), now)
        ):
            return
    raise LivedNodeError(
        "this node has joined already",
        why=f"it is of the authority {joined.authority[:16]}…, and the token is of {authority[:16]}…",
        remedy="add --force to leave that cluster; its nodes will not know this one any more",
    )


def _check_life(directory: DataDirectory, force: bool, now: float) -> None:
    if not (directory.pki / "ca.key").exists():
        return
    others = {entry.node_id for entry in Ledger(directory).read() if entry.live(now)}
    if others and not force:
        raise LivedNodeError(
            "this node holds an authority that others live by",
            why=f"it has issued certificates to {len(others)} nodes, which nobody could renew or "
            "revoke any more",
            remedy="have the other machines join this one instead; or add --force, which sets the "
            "authority aside in quarantine/",
        )


def identity(directory: DataDirectory, configured: str | None, now: float) -> str:
    """The node's id: the one it has, the *configured* one, or a new one, as at a first boot.

    Raises:
      LivedNodeError: it has another id than the *configured* one.
      CertificateError: the one it has is damaged.
      StorageFailedError: the disk refuses.
    """
    path = directory.identity
    try:
        stored = str(decode_identity(path.read_bytes()))
    except FileNotFoundError:
        node_id = NodeId(configured or new_node_id())
        try:
            write_durably(path, encode_identity(node_id, round(now, 3)))
        except OSError as exc:
            raise storage_failure("write", path, exc) from exc
        return str(node_id)
    except OSError as exc:
        raise storage_failure("read", path, exc) from exc
    except ValueError as exc:
        raise CertificateError(
            f"cannot read the node's identity {path}",
            why=str(exc),
            remedy="restore it from a backup, or join with an empty data directory",
            key="system.node_id",
        ) from exc
    if configured is not None and configured != stored:
        raise LivedNodeError(
            f"this data directory belongs to node {stored}",
            why=f"the configuration asks for node {configured}",
            remedy="remove system.node_id, or name an empty data directory",
            key="system.node_id",
        )
    return stored


def _askable(names: Sequence[str]) -> tuple[str, ...]:
    every = tuple(dict.fromkeys(names))
    bad = next((name for name in every if not is_usable(name)), None)
    if bad is not None or len(every) > MOST_NAMES:
        raise RequestRefusedError(
            "this node does not ask for a certificate",
            why=f"{bad[:80]!r} is no host name, nor an address"
            if bad is not None
            else f"it would be for {len(every)} names, and {MOST_NAMES} are the most",
            remedy="correct --names; the certificate needs names for the REST interface alone",
        )
    return every


def _asked(directory: DataDirectory, node_id: str, token: JoinTokenText) -> Asked:
    """The key to ask with: that of an attempt that was cut short, or a new one, which is on disk
    before anybody hears of it."""
    found = joining.read_asked(directory)
    if found is not None and (found.node_id, found.authority) == (node_id, token.authority):
        asked = found._replace(token=token.id)
        if asked != found:
            joining.write_asked(directory, asked)
        return asked
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    asked = Asked(node_id, token.authority, key.decode(), token.id)
    joining.write_asked(directory, asked)
    return asked


def _granted(
    asked: Asked,
    answer: dict[str, Any],
    authority: Any,
    address: tuple[str, int],
    names: tuple[str, ...],
    now: float,
) -> Granted:
    """What was granted, none of it believed before it was held against the token and the key."""
    where = _written(*address)
    try:
        certificate, offered = str(answer["certificate"]), str(answer["authority"])
        revocations = str(answer["revocations"])
        left_out = tuple(str(name) for name in answer["left_out"])
    except (KeyError, TypeError) as exc:
        raise JoinAnswerError(
            f"cannot understand the answer of {where}",
            why="a part of it is missing",
            remedy="check that both nodes run the same version",
        ) from exc
    document = trust_roots.read(offered.encode(), f"the list of authorities of {where}")
    if document is not None:
        # As every node takes it: by the word of the authority that is trusted, here for its token.
        document = trust_roots.check(document.block(), [authority], now)
        offered = document.bundle().decode()
    roots = [
        root
        for root in inspection.load_certificates(offered.encode(), f"the authority of {where}", "")
        if document is not None or inspection.key_hash(root.public_key()) == asked.authority
    ] or [authority]
    check_granted(
        certificate.encode(),
        asked.key.encode(),
        roots,
        asked.node_id,
        f"the certificate that {where} has issued",
        now,
    )
    if revocations:
        check_list(revocations.encode(), roots)
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = "".join(root.public_bytes(Encoding.PEM).decode() for root in roots)
    if document is not None:
        pem = offered
    peer = _peer(str(answer.get("peer") or ""), address[0])
    return Granted(asked, certificate, pem, revocations, where, now, left_out, names, peer)


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _peer(said: str, host: str) -> str:
    """A node that listens on every address says only the port; where it was reached now it will be
    reached again."""
    if not said.startswith(":"):
        return said
    return f"[{host}]{said}" if ":" in host else f"{host}{said}"


def _clocks_apart(said: Any, now: float) -> float | None:
    try:
        apart = documents.from_text(said) - now
    except ValueError:
        return None
    return apart if abs(apart) > CLOCKS_APART else None
