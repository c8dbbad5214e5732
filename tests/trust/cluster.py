"""Nodes in one process, with real security, sessions and trust, that have joined one of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from novacron.config.schema import NetworkSettings
from novacron.data_directory import DataDirectory
from novacron.network import Network
from novacron.network.session import PeerSession
from novacron.security import joining
from novacron.security.issuer import Issuer
from novacron.security.joining import Asked, Granted
from novacron.security.requests import make_request
from novacron.trust import Trust
from tests.network.authority import Identity, node_id
from tests.network.conftest import View, until
from tests.security.stand_ins import make_security, prepared


def new_key() -> tuple[ec.EllipticCurvePrivateKey, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key, pem.decode()


def request_for(node: str, *names: str) -> bytes:
    return make_request(new_key()[0], node, names)


def join_directory(
    directory: DataDirectory, issuer: Issuer, token: str, node: str, *names: str
) -> None:
    """What ``novacron join`` does, without the way between the two."""
    key, pem = new_key()
    authority = issuer.authority.certificate()
    from novacron.security.inspection import key_hash

    asked = Asked(node, key_hash(authority.public_key()), pem)
    grant = issuer.join(token, make_request(key, node, ("localhost", "127.0.0.1", "::1", *names)))
    joining.write_granted(
        directory,
        Granted(asked, grant.certificate, grant.authority, "", "a test", 0.0, grant.left_out, ()),
    )
    assert joining.finish(directory)


class TrustNode:
    """Node *number*; :meth:`start` it after it has joined."""

    def __init__(self, number: int, root: Path, **settings: Any) -> None:
        self.id = node_id(number)
        self.directory = prepared(root)
        root.chmod(0o700)
        self.view = View(f"boot-{number}")
        self.settings = settings
        self.security, self.said = make_security(root, self.id, **settings)
        self.network = self.trust = cast(Any, None)

    async def start(self, nursery: trio.Nursery, *seeds: TrustNode) -> None:
        """Meet *seeds*, which run."""
        self.network = Network(
            self.security,
            cast(Any, Identity(self.id)),
            NetworkSettings(port=0, seeds=tuple(seed.address for seed in seeds)),
            cast(Any, self.view),
        )
        self.trust = Trust(self.security, self.network, cast(Any, self.view))
        await self.security.initialize(nursery)
        await self.network.initialize(nursery)
        await self.trust.initialize(nursery)

    @property
    def address(self) -> str:
        return str(self.network.address)

    @property
    def number(self) -> int:
        """Of the list of revoked certificates that it goes by."""
        return self.security.certificates.revocations.current.number

    @property
    def revoked(self) -> Collection[str]:
        """Serials on it."""
        return self.security.certificates.revocations.current.entries.keys()

    async def stop(self) -> None:
        await self.trust.shutdown()
        with trio.move_on_after(1):
            await self.network.drain()
        await self.network.shutdown()
        await self.security.shutdown()

    async def join(self, authority: TrustNode, *names: str) -> None:
        _, secret = await trio.to_thread.run_sync(
            authority.security.join_tokens.create_blocking, "a test", 600.0, self.id
        )
        await trio.to_thread.run_sync(
            lambda: join_directory(
                self.directory,
                authority.security.issuer(),
                secret.split("_")[1],
                self.id,
                *names,
            )
        )

    async def revoke(self, node: TrustNode) -> None:
        """As ``novacron certificate revoke`` does, beside the running node."""
        issuer = self.security.issuer()
        revocations = type(self.security.certificates.revocations)(self.directory)
        root = issuer.authority.certificate()
        revocations.open_blocking(self.security.certificates.authority_hashes(), lambda: (root,))
        issuer._revocations = revocations
        await trio.to_thread.run_sync(issuer.revoke, node.id, "key-compromise")

    async def session(self, other: TrustNode) -> PeerSession:
        found: PeerSession = await until(lambda: self.network.session(other.id))
        return found
