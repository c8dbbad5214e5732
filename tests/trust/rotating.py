"""What ``novacron pki rotate`` does, beside nodes that run in this process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import trio

from novacron.security.inspection import key_hash
from novacron.security.join_tokens import JoinTokens
from novacron.security.own_material import OwnMaterial
from novacron.security.revocations import Revocations
from novacron.security.rotation import Progress, Rotation
from tests.network.conftest import until
from tests.trust.cluster import TrustNode


def rotation_of(node: TrustNode) -> Rotation:
    """With a state of its own, as a command has: what it shares with the node is on disk."""
    issuer = node.security.issuer()
    revocations = Revocations(node.directory)
    roots = issuer.authority.certificates()
    hashes = [key_hash(root.public_key()) for root in roots]
    revocations.open_blocking(hashes, lambda: roots)
    issuer._revocations = revocations
    return Rotation(node.directory, node.security._settings, issuer, JoinTokens(node.directory))


async def step(node: TrustNode, name: str, **options: Any) -> Progress:
    """Take the step *name* of a rotation on *node*."""

    def take() -> Progress:
        rotation = rotation_of(node)
        if name == "finish":
            return rotation.finish(functools.partial(_renew_own, node), **options)[0]
        taken: Callable[[], Progress] = getattr(rotation, name)
        return taken()

    return await trio.to_thread.run_sync(take)


def _renew_own(node: TrustNode) -> None:
    OwnMaterial(
        node.directory,
        node.security._settings,
        node.id,
        node.security.keyring,
        ("localhost", "127.0.0.1", "::1"),
    ).material()


async def ready(node: TrustNode) -> Progress:
    """Once every node has said that it is ready for the next step."""
    found: list[Progress] = []

    async def look() -> bool:
        found[:] = [await trio.to_thread.run_sync(lambda: rotation_of(node).progress())]
        return not found[0].behind

    with trio.fail_after(20):
        while not await look():
            await trio.sleep(0.05)
    return found[0]


async def trusting(number: int, *nodes: TrustNode) -> tuple[str, ...]:
    """Once each of *nodes* goes by the list *number*; the authorities that it lists."""
    await until(lambda: all(n.security.certificates.material.roots_number == number for n in nodes))
    return nodes[0].security.certificates.authority_hashes()
