"""The values that the cache's bench reads are there for its nodes to read."""

from __future__ import annotations

from typing import Any

from bench.cache import _PREFIX, COHERENCIES, fill
from bench.harness import run_worker
from bench.servers.redis import RedisServer


def test_nodes_find_what_was_filled_in_for_them() -> None:
    with RedisServer(config=["enable-debug-command local"]) as server:
        request: dict[str, Any] = {
            "engine": "redis",
            "address": server.address,
            "prefix": _PREFIX,
            "coherency": COHERENCIES[0],
            "tasks": 1,
            "seconds": 0.05,
        }
        fill(server, {**request, "subject": "redis_writes"})
        for _ in range(2):
            found = run_worker(
                "bench.cache_worker", {**request, "subject": "redis_hits"}, timeout=60
            )
            assert found["rate"] > 0
