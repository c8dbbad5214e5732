"""What a join token may call, and what it may not."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from novacron.api.policy import ACTIONS
from novacron.security import Role
from tests.api.calling import calling, records
from tests.api.conftest import Node
from tests.security.stand_ins import OTHER_ID
from tests.trust.cluster import request_for

JOIN = "/api/v1/join"


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def ask(client: httpx.AsyncClient, secret: str, **body: Any) -> httpx.Response:
    content = body or {"csr": request_for(OTHER_ID).decode()}
    return await client.post("https://node" + JOIN, json=content, headers=bearer(secret))


async def test_a_join_token_is_good_for_a_certificate_and_that_is_on_record(node: Node) -> None:
    id, secret = node.security.join_tokens.create_blocking()
    async with calling(node) as client:
        answer = await ask(client, secret)
        again = await ask(client, secret)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["node_id"] == OTHER_ID
    assert found["certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert "PRIVATE" not in answer.text
    # Another key, though for the same node.
    assert again.status_code in (403, 409)
    started, made = [entry for entry in records(node) if entry["action"] == "node.join"][:2]
    assert (started["actor"], started["outcome"]) == (f"join:{id}", "started")
    assert (made["target"], made["outcome"]) == (f"node:{OTHER_ID}", "success")
    assert secret not in str(records(node))


async def test_it_may_call_nothing_else(node: Node) -> None:
    _, secret = node.security.join_tokens.create_blocking()
    async with calling(node) as client:
        for method, path in ACTIONS:
            if path != JOIN:
                answer = await client.request(method, path, headers=bearer(secret))
                assert answer.status_code == 403, (method, path)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
async def test_nobody_else_may_join(node: Node, role: Role) -> None:
    async with calling(node, role) as client:
        answer = await client.post("https://node" + JOIN, json={"csr": "x"})
    assert answer.status_code == 403


async def test_a_token_that_came_in_clear_is_refused_and_revoked(node: Node) -> None:
    _, secret = node.security.join_tokens.create_blocking()
    async with calling(node) as client:
        csr = {"csr": request_for(OTHER_ID).decode()}
        answer = await client.post(JOIN, json=csr, headers=bearer(secret))
        assert answer.status_code == 422
        assert answer.json()["key"] == "api.tls"
        refused = await ask(client, secret)
    assert refused.status_code == 401
    assert "it was revoked" in refused.json()["detail"]
    assert node.security.issuer().ledger.read() == []


@pytest.mark.parametrize(
    "secret", ["ncj_x", "ncj_0123456789abcdef_" + "x" * 43, "ncj_" + "y" * 400]
)
async def test_a_guess_is_refused_and_on_record(node: Node, secret: str) -> None:
    async with calling(node) as client:
        answer = await ask(client, secret)
    assert answer.status_code == 401
    # The start of the node is recorded beside this, and may come after it.
    assert "denied" in [entry.get("outcome") for entry in records(node)]
    assert secret not in answer.text


async def test_a_request_that_is_refused_does_not_use_the_token_up(node: Node) -> None:
    _, secret = node.security.join_tokens.create_blocking()
    async with calling(node) as client:
        assert (await ask(client, secret, csr="nothing")).status_code == 422
        assert (await ask(client, secret, key="x")).status_code == 422
        assert (await ask(client, secret)).status_code == 200


async def test_a_revoked_node_may_not_call_either(node: Node) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    _, secret = node.security.join_tokens.create_blocking()
    async with calling(node) as client:
        text = (await ask(client, secret)).json()["certificate"]
    der = x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)
    async with calling(node, certificate=der) as client:
        assert (await client.get("/api/v1/status")).status_code == 200
        node.security.issuer().revoke(OTHER_ID)
        refused = await client.get("/api/v1/status")
    assert refused.status_code == 401
    assert "was revoked" in refused.json()["detail"]
