"""How often, how large, how long: calls through the whole application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from novacron.api.application import build
from novacron.api.gate import Gate
from novacron.api.rate import Buckets
from novacron.security import Role
from novacron.security.audit_denials import PER_SOURCE
from tests.api.calling import calling, records
from tests.api.conftest import Node


async def test_a_caller_above_the_rate_is_told_when_to_come_back(node: Node) -> None:
    async with calling(node, Role.VIEWER, rate_limit=0.001, rate_burst=2) as client:
        assert [(await client.get("/api/v1/version")).status_code for _ in range(3)] == [
            200,
            200,
            429,
        ]
        refused = await client.get("/api/v1/version")
        assert int(refused.headers["retry-after"]) > 100
        assert refused.json()["key"] == "api.rate_limit"
        other = {"authorization": f"Bearer {await node.token(Role.VIEWER)}"}
        assert (await client.get("/api/v1/version", headers=other)).status_code == 200


async def test_guessing_tokens_is_slowed_ten_times_and_each_guess_is_counted(node: Node) -> None:
    async with calling(node, rate_limit=0.001, rate_burst=20) as client:
        guess = {"authorization": "Bearer nct_0_0"}
        codes = [(await client.get("/api/v1/status", headers=guess)).status_code for _ in range(30)]
    assert codes == [401, 401, *[429] * 28]
    assert sum(r["outcome"] == "denied" for r in records(node)) == PER_SOURCE
    await trio.to_thread.run_sync(node.security.audit.flush_denials_blocking)
    summary = records(node)[-1]
    assert summary["action"] == "audit.denials"
    assert summary["details"]["sources"] == {"192.0.2.7": 30 - PER_SOURCE}


async def test_a_body_above_the_limit_is_refused_by_its_announced_length(node: Node) -> None:
    async with calling(node, Role.ADMIN, max_request_bytes=1024) as client:
        answer = await client.post("/api/v1/tokens", content=b"x" * 1025)
    assert answer.status_code == 413
    assert answer.json()["key"] == "api.max_request_bytes"


async def test_a_chunked_body_is_refused_while_it_is_read(node: Node) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1024 * 1024:
            sent += 512
            yield b"x" * 512

    async with calling(node, Role.ADMIN, max_request_bytes=1024) as client:
        answer = await client.post("/api/v1/tokens", content=chunks())
    assert answer.status_code == 413
    assert not any(r["action"] == "token.create" for r in records(node)), "nothing was started"


async def test_an_unauthenticated_body_is_not_read_at_all(node: Node) -> None:
    read = 0

    async def counting() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x"

    async with calling(node) as client:
        assert (await client.post("/api/v1/tokens", content=counting())).status_code == 401
    assert read == 0


async def test_a_call_that_takes_too_long_is_ended(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.environment, "refresh", trio.sleep_forever)
    async with calling(node, Role.OPERATOR, request_timeout=0.1) as client:
        answer = await client.post("/api/v1/environment/refresh")
    assert (answer.status_code, answer.json()["key"]) == (503, "api.request_timeout")
    assert records(node)[-1]["outcome"] == "failure"


async def test_a_body_that_does_not_arrive_is_a_request_timeout(node: Node) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield b"{"
        await trio.sleep_forever()

    async with calling(node, Role.ADMIN, request_timeout=0.1) as client:
        answer = await client.post("/api/v1/tokens", content=stalling())
    assert (answer.status_code, answer.json()["code"]) == (408, "api.slow_body")


async def test_a_client_that_leaves_in_its_body_is_nobody_to_answer(node: Node) -> None:
    api = node.api()
    gate = Gate(
        build(api._services),
        node.security,
        Buckets(10, 10),
        max_request_bytes=100,
        request_timeout=5,
    )
    secret = await node.token(Role.ADMIN)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/tokens",
        "headers": [(b"authorization", f"Bearer {secret}".encode())],
        "query_string": b"",
        "client": ("192.0.2.7", 1),
    }
    messages = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    await gate(scope, receive, send)
