"""The steps of a join that outlive a crash: ``pki/joining.json``.

Two states. *asked*: the key for which a certificate is asked for, kept so that an answer that was
lost can be had again (the token is used up by that key). *granted*: everything that the node will
live by, in one file; from then on the join has happened, and putting the parts in their places is
repeated by whoever comes next, the command or a boot, until it is done. What the node had before is
set aside in ``quarantine/``, never removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from novacron.data_directory import DataDirectory
from novacron.durable import fsync_directory, remove_durably, write_durably
from novacron.record import Record
from novacron.security import documents
from novacron.security.errors import storage_failure
from novacron.security.joined_material import Joined
from novacron.security.references import register

if TYPE_CHECKING:
    from pathlib import Path


class Asked(Record):
    node_id: str
    authority: str
    """Hash of the authority's key, from the token."""
    key: str
    """The private key, PEM."""
    token: str = ""
    """Id of the join token it is shown with."""


class Granted(Record):
    """Texts are PEM."""

    asked: Asked
    certificate: str
    authority: str
    revocations: str
    """Empty where nothing was revoked yet."""
    source: str
    since: float
    left_out: tuple[str, ...]
    names: tuple[str, ...]
    """This and the next: see :class:`~novacron.security.joined_material.Joined`."""
    peer: str = ""


def journal(directory: DataDirectory) -> Path:
    return directory.pki / "joining.json"


def read_asked(directory: DataDirectory) -> Asked | None:
    """What an earlier attempt had begun to ask; None where there is nothing usable."""
    body = _read(directory)
    try:
        if body is None or body["state"] != "asked":
            return None
        asked = Asked(**body["asked"])
    except (KeyError, TypeError):
        return None
    register(asked.key)
    return asked


def write_asked(directory: DataDirectory, asked: Asked) -> None:
    """
    Raises:
      StorageFailedError: the disk refuses.
    """
    _write(directory, {"state": "asked", "asked": asked._asdict()})


def write_granted(directory: DataDirectory, granted: Granted) -> None:
    """After this the node has joined, whatever happens.

    Raises:
      StorageFailedError: the disk refuses; the same can be asked for again.
    """
    body = {**granted._asdict(), "asked": granted.asked._asdict()}
    _write(directory, {"state": "granted", "granted": body})


def finish(directory: DataDirectory) -> bool:
    """Put what was granted in its places; returns whether there was anything. Repeating it is
    harmless.

    Raises:
      StorageFailedError: the disk refuses; the next one goes on.
    """
    body = _read(directory)
    try:
        if body is None or body["state"] != "granted":
            return False
        fields = body["granted"]
        granted = Granted(
            **{
                **fields,
                "asked": Asked(**fields["asked"]),
                "left_out": tuple(fields["left_out"]),
                "names": tuple(fields["names"]),
            }
        )
    except (KeyError, TypeError):
        return False
    register(granted.asked.key)
    joined = Joined(
        granted.asked.authority,
        granted.since,
        granted.source,
        granted.left_out,
        granted.names,
        granted.asked.token,
        granted.peer,
    )
    pki = directory.pki
    new = {
        pki / "ca.pem": (granted.authority.encode(), 0o644),
        pki / "crl.pem": (granted.revocations.encode(), 0o644),
        pki / "node.pem": ((granted.asked.key + granted.certificate).encode(), 0o600),
        pki / "joined.json": (joined.encode(), 0o600),
    }
    try:
        for path in (
            pki / "ca.key",
            *pki.glob("ca-*.key"),
            pki / "issued.json",
            pki / "rotation.json",
            directory.secrets / "join-tokens.json",
        ):
            if path.exists():
                directory.quarantine(path)
        for path, (data, mode) in new.items():
            if path.exists() and path.read_bytes() != data:
                directory.quarantine(path)
            if data and not path.exists():
                write_durably(path, data, mode=mode)
        remove_durably(journal(directory))
        fsync_directory(pki)
    except OSError as exc:
        raise storage_failure("write", pki, exc) from exc
    return True


def _read(directory: DataDirectory) -> dict[str, Any] | None:
    path = journal(directory)
    try:
        return documents.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise storage_failure("read", path, exc) from exc
    except ValueError:
        # Written in one piece, so this is damage from outside; what it said can be asked again.
        return None


def _write(directory: DataDirectory, body: dict[str, Any]) -> None:
    path = journal(directory)
    try:
        write_durably(path, documents.encode({"version": 1, **body}), mode=0o600)
    except OSError as exc:
        raise storage_failure("write", path, exc) from exc
