"""What a token that is narrowed to resources sees and may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from novacron.security import Role
from tests.api.calling import calling, records
from tests.api.conftest import Node
from tests.api.test_transfers import request, requests

FULL_ID = "ab54" + "0" * 28


@pytest.fixture
def inside(node: Node) -> Path:
    assert node.dwcp is not None
    first, second = node.dwcp.known
    first.tenant, first.paths = "acme", [f"{node.dwcp.directory}/acme/a"]
    second.tenant, second.paths = "other", [f"{node.dwcp.directory}/other/b"]
    return node.dwcp.directory


@asynccontextmanager
async def narrowed(
    node: Node, *resources: str, role: Role = Role.OPERATOR
) -> AsyncIterator[httpx.AsyncClient]:
    created = await node.security.tokens.create("narrowed", role, None, resources)
    async with calling(node) as client:
        client.headers["authorization"] = f"Bearer {created.secret}"
        yield client


async def listed(client: httpx.AsyncClient) -> list[str]:
    answer = await client.get("/api/v1/transfers")
    return [transfer["id"][:4] for transfer in answer.json()["transfers"]]


async def test_it_is_made_over_the_interface_listed_and_known_by(node: Node) -> None:
    wanted = {"name": "acme", "role": "operator", "resources": ["tenant:acme"]}
    async with calling(node, Role.ADMIN) as client:
        made = (await client.post("/api/v1/tokens", json=wanted)).json()
        tokens = (await client.get("/api/v1/tokens")).json()["tokens"]
        client.headers["authorization"] = f"Bearer {made['secret']}"
        known = (await client.get("/api/v1/whoami")).json()
    assert made["resources"] == known["resources"] == ["tenant:acme"]
    assert [token["resources"] for token in tokens if token["name"] == "acme"] == [["tenant:acme"]]


async def test_a_resource_that_is_none_is_refused(node: Node) -> None:
    async with calling(node, Role.ADMIN) as client:
        for resources in (["acme"], [], ["tenant:a"] * 33):
            wanted = {"name": "x", "role": "viewer", "resources": resources}
            assert (await client.post("/api/v1/tokens", json=wanted)).status_code == 422


async def test_it_sees_its_own_transfers_alone(node: Node, inside: Path) -> None:
    async with narrowed(node, "tenant:acme") as client:
        assert await listed(client) == ["ab54"]
        assert (await client.get("/api/v1/transfers/ab54")).status_code == 200
        other = await client.get("/api/v1/transfers/ab53")
    assert other.status_code == 403
    assert "tenant:acme, which tenant:other is not among" in other.json()["detail"]
    assert "not narrowed" in other.json()["remedy"]
    async with narrowed(node, f"directory:{inside}/other") as client:
        assert await listed(client) == ["ab53"]
    async with narrowed(node, "tenant:acme", f"directory:{inside}/other") as client:
        assert await listed(client) == []


async def test_a_transfer_whose_tenant_nobody_said_is_nobodys(node: Node, inside: Path) -> None:
    assert node.dwcp is not None
    node.dwcp.known[0].tenant = ""
    async with narrowed(node, "tenant:*") as client:
        assert await listed(client) == ["ab53"]


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "limit"])
async def test_it_steers_its_own_transfers_alone(node: Node, inside: Path, verb: str) -> None:
    assert node.dwcp is not None
    body = {"limit_bps": 7}
    async with narrowed(node, "tenant:acme") as client:
        assert (await client.post(f"/api/v1/transfers/ab54/{verb}", json=body)).status_code == 200
        told = list(node.dwcp.told)
        refused = await client.post(f"/api/v1/transfers/ab53/{verb}", json=body)
    assert refused.status_code == 403
    assert node.dwcp.told == told
    *_, before, after = records(node)
    assert (before["action"], before["outcome"]) == (f"transfer.{verb}", "started")
    assert (after["action"], after["outcome"]) == (f"transfer.{verb}", "denied")
    assert after["target"].startswith("ab53")


async def test_it_starts_transfers_of_its_own_tenant_alone(node: Node, inside: Path) -> None:
    async with narrowed(node, "tenant:acme") as client:
        for tenant, status in (("acme", 201), ("other", 403), (None, 403)):
            body = request(paths=[f"{inside}/a"], tenant=tenant)
            assert (await client.post("/api/v1/transfers", json=body)).status_code == status
    assert [started.tenant for started in requests(node)] == ["acme"]


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
async def test_it_moves_files_of_its_own_directory_alone(
    node: Node, inside: Path, role: Role
) -> None:
    async with narrowed(node, f"directory:{inside}/acme", role=role) as client:
        for path, status in (
            (f"{inside}/acme/a", 201),
            (f"{inside}/acme", 201),
            (f"{inside}/acme-2/a", 403),
            (f"{inside}/acme/../other/a", 403),
            ("/etc/hosts", 403),
        ):
            for body in (
                request(paths=[path]),
                request(direction="receive", paths=["x"], path=path),
            ):
                answer = await client.post("/api/v1/transfers", json=body)
                assert (path, answer.status_code) == (path, status)
    assert not any(started.anywhere for started in requests(node))


async def test_one_narrowed_to_directories_stays_in_those_for_transfers_whatever_its_role(
    node: Node, inside: Path
) -> None:
    async with narrowed(node, "directory:/etc", role=Role.ADMIN) as client:
        refused = await client.post("/api/v1/transfers", json=request(paths=["/etc/hosts"]))
    assert refused.status_code == 403
    assert refused.json()["key"] == "dwcp.amst.directories"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "status", 200),
        ("GET", "peers", 200),
        ("GET", "configuration", 403),
        ("GET", "tokens", 403),
        ("POST", "tokens", 403),
        ("POST", "environment/refresh", 403),
    ],
)
async def test_it_looks_at_what_any_viewer_may_and_changes_nothing_of_the_node(
    node: Node, method: str, path: str, status: int
) -> None:
    async with narrowed(node, "tenant:acme", role=Role.ADMIN) as client:
        answer = await client.request(method, f"/api/v1/{path}", json={})
    assert answer.status_code == status
    if status == 403:
        denied: dict[str, Any] = records(node)[-1]
        assert denied["outcome"] == "denied"
        assert denied["action"] != "api.call"
        assert "narrowed to tenant:acme" in denied["details"]["why"]
