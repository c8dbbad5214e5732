"""Calls through the whole application, without a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from novacron.api.application import build
from novacron.api.gate import Gate
from novacron.api.probes import Front
from novacron.security import Role
from tests.api.conftest import Node


@asynccontextmanager
async def calling(
    node: Node, role: Role | None = None, *, certificate: bytes | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    api = node.api(**settings)
    front = Front(node.view)
    front.inner = Gate(
        build(api._services),
        node.security,
        api._buckets,
        max_request_bytes=api._settings.max_request_bytes,
        request_timeout=api._settings.request_timeout,
        cluster_tokens=api._services.cluster_tokens,
    )

    async def connection(scope: Any, receive: Any, send: Any) -> None:
        await front({**scope, "state": {"client_certificate": certificate}}, receive, send)

    headers = {"authorization": f"Bearer {await node.token(role)}"} if role else {}
    transport = httpx.ASGITransport(connection, client=("192.0.2.7", 5000))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://node", headers=headers
    ) as client:
        yield client


def records(node: Node) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for path in sorted(node.directory.audit.glob("audit*.jsonl*")) or sorted(
        path for path in node.directory.audit.iterdir() if path.is_file()
    ):
        for line in path.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and "action" in entry:
                lines.append(entry)
    return lines
