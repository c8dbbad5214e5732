"""The node that holds an authority, without a process: what commands beside it work on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.security.inspection import key_hash
from novacron.security.issuer import Issuer
from novacron.security.join_tokens import JoinTokens
from novacron.security.keyring import Keyring
from novacron.security.own_material import OwnMaterial
from novacron.security.revocations import Revocations
from novacron.security.rotation import Rotation
from tests.network.authority import node_id
from tests.security.stand_ins import prepared

NODE = node_id(1)
NOW = 1_800_000_000.0
NAMES = ("localhost", "127.0.0.1")


class Node:
    """The authority's node as a command sees it."""

    def __init__(
        self, root: Path, node: str = NODE, now: Callable[[], float] = lambda: NOW
    ) -> None:
        self.directory: DataDirectory = prepared(root)
        self.settings = SecuritySettings()
        self.keyring = Keyring(self.directory, "file:", 90, now=now)
        self.keyring.open()
        self.own = OwnMaterial(self.directory, self.settings, node, self.keyring, NAMES, now)
        self.own.material()
        self.tokens = JoinTokens(self.directory, now=now)
        revocations = Revocations(self.directory)
        self.issuer = Issuer(
            self.directory,
            self.settings,
            self.keyring,
            self.tokens,
            revocations,
            node,
            now=now,
        )
        self.authority = self.issuer.authority
        present = self.authority.certificates()
        hashes = [key_hash(root.public_key()) for root in present]
        revocations.open_blocking(hashes, lambda: self.authority.certificates())
        self.revocations = revocations
        self.rotation = Rotation(self.directory, self.settings, self.issuer, self.tokens, now=now)

    def step(self, name: str) -> None:
        if name == "finish":
            self.rotation.finish(lambda: self.own.material() and None, force=True)
        else:
            getattr(self.rotation, name)()

    @property
    def hashes(self) -> list[str]:
        """Of the trusted authorities' keys, the one that issues first."""
        return [key_hash(root.public_key()) for root in self.authority.certificates()]

    def presented(self) -> list[bytes]:
        """What its listeners show, DER."""
        from cryptography.hazmat.primitives.serialization import Encoding

        from novacron.security.inspection import load_certificates

        chain = load_certificates(self.own.material().trusted[1], "", "")
        if len(chain) == 1:
            # OpenSSL adds what it finds among the trusted ones where a chain was not given.
            chain.append(self.authority.certificate())
        return [each.public_bytes(Encoding.DER) for each in chain]
