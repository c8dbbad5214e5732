"""Nodes that share a database and a cache, with hands on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from novacron.api.cluster_tokens import ClusterTokens
from novacron.cache.memory import MemoryCache
from novacron.database.opening import fill
from novacron.database.sqlite import SqliteStore
from novacron.database.store import DatabaseUnavailableError, Parameters, Row
from novacron.units import NodeId

BOUND = 15.0


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


class Shared:
    """A database of several nodes, which can be away, slow, and counts how often it is asked."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.away = False
        self.asked = 0
        self.gate: trio.Event | None = None

    async def _reach(self) -> None:
        self.asked += 1
        if self.away:
            raise DatabaseUnavailableError("PostgreSQL is away", why="connection refused")
        if self.gate is not None:
            await self.gate.wait()

    async def fetch_one(
        self, sql: str, parameters: Parameters | None = None, **options: Any
    ) -> Row | None:
        await self._reach()
        return await self.store.fetch_one(sql, parameters, **options)

    async def fetch_all(
        self, sql: str, parameters: Parameters | None = None, **options: Any
    ) -> list[Row]:
        await self._reach()
        return await self.store.fetch_all(sql, parameters, **options)

    async def execute(self, sql: str, parameters: Parameters | None = None, **options: Any) -> int:
        await self._reach()
        return await self.store.execute(sql, parameters, **options)


class Cluster:
    """Nodes that share a database and, unless told otherwise, a cache."""

    def __init__(self, store: SqliteStore) -> None:
        self.database = Shared(store)
        self.clock = Clock()
        self.cache = self.new_cache()
        self.first, self.second = self.node(), self.node()

    def new_cache(self) -> MemoryCache:
        return MemoryCache(max_bytes=1 << 20, ttl=300.0, clock=self.clock)

    def node(self, cache: Any = ...) -> ClusterTokens:
        return ClusterTokens(
            self.database,
            self.cache if cache is ... else cache,
            BOUND,
            now=self.clock,
            clock=self.clock,
        )

    async def token(self, role: str = "operator", **options: Any) -> tuple[str, str]:
        made = await self.first.create("ci", role, created_by="token:admin", **options)
        return made.id, made.secret


@asynccontextmanager
async def shared_cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    path = tmp_path / "shared.db"
    path.touch()
    await trio.to_thread.run_sync(fill, path, NodeId("11111111-1111-4111-8111-111111111111"))
    store = SqliteStore(path, readers=2, busy_timeout=5.0, query_timeout=30.0)
    with trio.fail_after(60):
        yield Cluster(store)
        await store.close()
