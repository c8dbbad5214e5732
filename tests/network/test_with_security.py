"""The network on the real security component, not its stand-in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import trio

from novacron.component import HealthDepth, HealthState
from novacron.config.schema import NetworkSettings
from novacron.network import Network
from tests.network.authority import Authority, Identity, node_id
from tests.network.conftest import View, until
from tests.security.stand_ins import make_security


class RealNode:
    def __init__(self, number: int, root: Path, security: dict[str, Any], **network: Any) -> None:
        self.id = node_id(number)
        self.view = View(f"boot-{number}")
        root.mkdir(mode=0o700)
        self.security, _ = make_security(root, self.id, **security)
        self.network = Network(
            self.security,
            cast(Any, Identity(self.id)),
            NetworkSettings(port=network.pop("port", 0), **network),
            cast(Any, self.view),
        )

    async def start(self, nursery: trio.Nursery) -> None:
        await self.security.initialize(nursery)
        await self.network.initialize(nursery)

    async def stop(self) -> None:
        await self.network.drain()
        await self.network.shutdown()
        await self.security.shutdown()


async def test_a_node_on_its_own_authority_knows_itself(tmp_path: Path, reserved_port: int) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            node = RealNode(
                1, tmp_path / "a", {}, port=reserved_port, seeds=(f"localhost:{reserved_port}",)
            )
            await node.start(nursery)
            await until(lambda: node.view.warnings)
            assert "network.seeds names this node itself" in node.view.warnings[0]
            health = await node.network.health_check(HealthDepth.DEEP)
            assert health.state is HealthState.HEALTHY
            await node.stop()
            nursery.cancel_scope.cancel()


async def test_two_nodes_with_certificates_of_an_outside_authority_meet(
    tmp_path: Path, authority: Authority
) -> None:
    def files(number: int) -> dict[str, Any]:
        certificate, key = authority.issue(node_id(number))
        os.chmod(key, 0o600)
        return {
            "ca_certificate": str(authority.path),
            "certificate": str(certificate),
            "private_key": f"file:{key}",
        }

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            first = RealNode(1, tmp_path / "a", files(1))
            await first.start(nursery)
            second = RealNode(2, tmp_path / "b", files(2), seeds=(first.view.published["peer"],))
            await second.start(nursery)
            session = await until(lambda: second.network.session(first.id))
            await until(lambda: first.network.session(second.id))
            assert session.peer.boot_id == "boot-1"
            await second.stop()
            await first.stop()
            nursery.cancel_scope.cancel()


async def test_two_nodes_on_their_own_authorities_do_not_trust_each_other(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            first = RealNode(1, tmp_path / "a", {})
            await first.start(nursery)
            second = RealNode(2, tmp_path / "b", {}, seeds=(first.view.published["peer"],))
            await second.start(nursery)
            error = await until(lambda: second.network.statistics()["seeds"][0]["error"])
            assert "certificate is not accepted" in error
            assert first.network.statistics()["sessions"] == 0
            await second.stop()
            await first.stop()
            nursery.cancel_scope.cancel()
