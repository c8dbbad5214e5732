"""Tokens over the REST interface of nodes that share a database, and of one that does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from novacron.api.rate import Buckets
from novacron.security import Role
from tests.api.calling import calling, records
from tests.api.cluster import Cluster, shared_cluster
from tests.api.conftest import Node


@pytest.fixture
async def cluster(node: Node, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with shared_cluster(tmp_path) as made:
        node.cluster_tokens = made.first
        yield made


async def test_a_token_of_the_cluster_is_made_used_and_revoked_and_all_of_it_is_audited(
    node: Node, cluster: Cluster
) -> None:
    wanted = {"name": "ci", "role": "operator", "resources": ["tenant:acme"]}
    async with calling(node, Role.ADMIN) as admin:
        made = await admin.post("/api/v1/tokens", json=wanted)
        assert made.status_code == 201
        assert made.json()["scope"] == "cluster"
        id, secret = made.json()["id"], made.json()["secret"]
        bearer = {"authorization": f"Bearer {secret}"}
        who = (await admin.get("/api/v1/whoami", headers=bearer)).json()
        assert who == {
            "kind": "token",
            "name": id,
            "role": "operator",
            "resources": ["tenant:acme"],
        }
        listed = (await admin.get("/api/v1/tokens")).json()["tokens"]
        revoked = await admin.delete(f"/api/v1/tokens/{id}")
        assert revoked.json() == {"id": id, "state": "revoked", "scope": "cluster"}
        assert (await admin.get("/api/v1/whoami", headers=bearer)).status_code == 401
    assert secret not in str(listed)
    scopes = {entry["id"]: entry["scope"] for entry in listed}
    assert scopes.pop(id) == "cluster"
    assert set(scopes.values()) == {"node"}
    (shared,) = [entry for entry in listed if entry["id"] == id]
    admin_id = next(entry["id"] for entry in listed if entry["name"] == "for a test")
    assert shared["created_by"] == f"token:{admin_id}"
    done = [(entry["action"], entry["target"], entry["outcome"]) for entry in records(node)]
    for action in ("token.create", "token.revoke"):
        assert (action, id, "success") in done


async def test_a_token_of_this_node_alone_is_made_when_asked_for(
    node: Node, cluster: Cluster
) -> None:
    wanted = {"name": "here", "role": "viewer", "scope": "node"}
    async with calling(node, Role.ADMIN) as admin:
        made = (await admin.post("/api/v1/tokens", json=wanted)).json()
        assert made["secret"].startswith("nct_")
        cluster.database.away = True
        bearer = {"authorization": f"Bearer {made['secret']}"}
        assert (await admin.get("/api/v1/whoami", headers=bearer)).status_code == 200
        revoked = await admin.delete(f"/api/v1/tokens/{made['id']}")
        assert revoked.json()["scope"] == "node"


async def test_while_the_database_is_away_calls_are_answered_at_once(
    node: Node, cluster: Cluster
) -> None:
    _, known = await cluster.token()
    _, unknown = await cluster.token()
    async with calling(node, Role.ADMIN) as admin:

        async def whoami(secret: str) -> int:
            bearer = {"authorization": f"Bearer {secret}"}
            return (await admin.get("/api/v1/whoami", headers=bearer)).status_code

        assert await whoami(known) == 200
        cluster.database.away = True
        assert await whoami(known) == 200
        bearer = {"authorization": f"Bearer {unknown}"}
        refused = await admin.get("/api/v1/whoami", headers=bearer)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["code"] == "api.cluster_tokens"
        assert "PostgreSQL is away" in refused.json()["detail"]
        made = await admin.post("/api/v1/tokens", json={"name": "x", "role": "viewer"})
        assert made.status_code == 503
        listed = (await admin.get("/api/v1/tokens")).json()
        assert {entry["scope"] for entry in listed["tokens"]} == {"node"}
        assert "PostgreSQL is away" in listed["cluster_unavailable"]
        gone = await admin.delete("/api/v1/tokens/0123456789abcdef")
        assert gone.status_code == 503


async def test_guessing_tokens_of_the_cluster_is_limited(node: Node, cluster: Cluster) -> None:
    async with calling(node, rate_limit=1e6, rate_burst=1_000_000) as client:
        statuses = set()
        for number in range(200):
            bearer = {"authorization": f"Bearer ncc_{number:016x}_x"}
            answer = await client.get("/api/v1/status", headers=bearer)
            statuses.add(answer.status_code)
        assert statuses == {401, 429}
        assert answer.headers["retry-after"]


async def test_a_node_that_shares_no_database_says_so_and_knows_its_own_alone(node: Node) -> None:
    async with calling(node, Role.ADMIN) as admin:
        refused = await admin.post(
            "/api/v1/tokens", json={"name": "x", "role": "viewer", "scope": "cluster"}
        )
        assert refused.status_code == 503
        assert refused.json()["key"] == "database.engine"
        made = (await admin.post("/api/v1/tokens", json={"name": "x", "role": "viewer"})).json()
        assert made["scope"] == "node"
        assert (await admin.delete("/api/v1/tokens/0123456789abcdef")).status_code == 404
        bearer = {"authorization": "Bearer ncc_0123456789abcdef_x"}
        assert (await admin.get("/api/v1/whoami", headers=bearer)).status_code == 401


async def test_a_token_of_the_cluster_gets_a_new_secret(node: Node, cluster: Cluster) -> None:
    id, old = await cluster.token()
    async with calling(node, Role.ADMIN) as admin:
        answer = await admin.post(f"/api/v1/tokens/{id}/rotate", json={"grace": 0})
        new = answer.json()["secret"]
        for secret, status in ((old, 401), (new, 200)):
            bearer = {"authorization": f"Bearer {secret}"}
            assert (await admin.get("/api/v1/whoami", headers=bearer)).status_code == status


async def test_guesses_that_are_not_looked_up_any_more_are_denials_too(
    node: Node, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.first, "_lookups", Buckets(0.001, 2))
    async with calling(node) as client:
        codes = [
            (
                await client.get(
                    "/api/v1/status", headers={"authorization": f"Bearer ncc_{number:016x}_x"}
                )
            ).status_code
            for number in range(4)
        ]
    assert codes == [401, 401, 429, 429]
    reasons = [r["details"]["reason"] for r in records(node) if r["outcome"] == "denied"]
    assert reasons == ["api.unauthenticated"] * 2 + ["api.lookups"] * 2
