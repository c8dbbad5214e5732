"""``novacron pki init``: what the first node of a cluster needs before its first boot."""

from __future__ import annotations

import time
from collections.abc import Callable

from novacron.boot.lock import DataDirectoryLock
from novacron.config.schema import Settings
from novacron.data_directory import DataDirectory
from novacron.environment.identity import decode_identity
from novacron.security.authority import Authority
from novacron.security.errors import NotAuthorityError
from novacron.security.inspection import authority_name, key_hash, load_certificates
from novacron.security.issuer import Issuer, holds_authority
from novacron.security.join_tokens import JoinTokens
from novacron.security.keyring import Keyring
from novacron.security.module_options import ModuleOptions
from novacron.security.revocations import Revocations
from novacron.security.rotation import Rotation
from novacron.trust.errors import LivedNodeError
from novacron.trust.joining import identity, make_directories


def found(
    directory: DataDirectory,
    settings: Settings,
    name: str,
    *,
    now: Callable[[], float] = time.time,
) -> bool:
    """Make identity, master key, keyring and authority, where they are not there yet; returns
    whether the authority was made. Blocks. In the order in which a first boot makes them, so that
    whatever is cut short here is gone on with there.

    Args:
      name: Of the cluster, for people; empty for the node's id.

    Raises:
      LivedNodeError: this node trusts another authority, or its own has another name.
      DataDirectoryBusyError: the node runs, and has no authority yet.
      KeyringError, CertificateError, StorageFailedError: of what is there.
    """
    security = settings.security
    if security.ca_certificate or (directory.pki / "joined.json").exists():
        raise LivedNodeError(
            "this node makes no authority",
            why="it trusts one from outside, as configured"
            if security.ca_certificate
            else "it has joined the authority of another node",
            remedy="run this on the node that is to hold the authority; `novacron pki show` tells "
            "which one this node trusts",
            key="security.ca_certificate" if security.ca_certificate else "",
        )
    path = directory.pki / "ca.pem"
    if path.exists():
        _check_name(load_certificates(path.read_bytes(), str(path), "")[0], name)
        return False
    lock = DataDirectoryLock(directory, "novacron pki init")
    try:
        make_directories(directory)
        node_id = identity(directory, settings.system.node_id, now())
        keyring = Keyring(
            directory,
            security.master_key,
            security.key_rotation_days,
            # Somebody is asking: a PIN that was refused before is tried once more.
            options=ModuleOptions.of(security, directory, insist=True),
            now=now,
        )
        keyring.open()
        Authority(directory, keyring, security.ca_days).ensure(
            node_id, now(), 0.0, security.clock_tolerance, name=name
        )
        keyring.close()
    finally:
        lock.release()
    return True


def _check_name(certificate: object, name: str) -> None:
    present = authority_name(certificate)  # type: ignore[arg-type]
    if name and present != name:
        raise LivedNodeError(
            "the authority is not renamed",
            why=f"it is called {present}, in a certificate that others may trust",
            remedy="leave --name out to go on with it; for a new authority, move pki/ca.key and "
            "pki/ca.pem away first, after which every node has to join again",
        )


def open_issuer(
    directory: DataDirectory, settings: Settings, keyring: Callable[[], Keyring]
) -> Issuer:
    """What issues and revokes, for a command beside or without the running node. Blocks.

    Args:
      keyring: Opens it; asked only where there is an authority.

    Raises:
      NotAuthorityError: this node holds no authority.
      KeyringError, CertificateError, StorageFailedError: of what is there.
    """
    if not holds_authority(directory, settings.security):
        raise NotAuthorityError(
            "this node issues and revokes nothing",
            why="it does not hold an authority's key",
            remedy="do this on the node where `novacron pki init` was run; `novacron pki show` tells "
            "which authority this one trusts",
        )
    revocations = Revocations(directory)
    issuer = Issuer(
        directory,
        settings.security,
        keyring(),
        JoinTokens(directory),
        revocations,
        str(decode_identity(directory.identity.read_bytes())),
    )
    roots = issuer.authority.certificates()
    hashes = tuple(dict.fromkeys(key_hash(root.public_key()) for root in roots))
    revocations.open_blocking(hashes, lambda: roots)
    return issuer


def open_rotation(
    directory: DataDirectory, settings: Settings, keyring: Callable[[], Keyring]
) -> Rotation:
    """What replaces the authority's key, beside or without the running node. As
    :func:`open_issuer`."""
    issuer = open_issuer(directory, settings, keyring)
    return Rotation(directory, settings.security, issuer, JoinTokens(directory))


def in_the_way(settings: Settings) -> list[str]:
    """What will keep others from joining this node, as sentences for the operator."""
    api = settings.api
    loopback = api.listen_address in ("localhost", "::1") or api.listen_address.startswith("127.")
    if api.tls == "off" or (api.tls == "auto" and loopback):
        return [
            "nobody can join yet: the REST interface has no TLS"
            + (" and listens on loopback alone" if loopback else "")
            + "; set api.listen_address to an address that others reach, or api.tls to on"
        ]
    return []
