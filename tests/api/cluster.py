"""Nodes that share a database and a cache, with hands on both."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from novacron.api.cluster_tokens import ClusterTokens
from novacron.cache.memory import MemoryCache
from novacron.config.schema import PostgresqlSettings
from novacron.database.postgresql import PostgresqlStore
from novacron.database.postgresql_target import Target
from novacron.database.schema import SQLITE_SNAPSHOT
from novacron.database.sqlite import SqliteStore
from novacron.database.store import DatabaseUnavailableError, Parameters, Row, Store

BOUND = 15.0


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


class Shared:
    """A database of several nodes, which can be away, slow, and counts how often it is asked."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away = False
        self.asked = 0
        self.gate: trio.Event | None = None
        self.changes: trio.Event | None = None

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
        if self.changes is not None:
            await self.changes.wait()
        return await self.store.execute(sql, parameters, **options)


class Cluster:
    """Nodes that share a database and, unless told otherwise, a cache."""

    def __init__(self, store: Store) -> None:
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


def table_of_tokens() -> str:
    """The statement that makes the table, for either engine: what the migrations made on SQLite."""
    script = SQLITE_SNAPSHOT.read_text()
    found = re.search(r"CREATE TABLE api_token \(.*?\n\);", script, re.DOTALL)
    assert found is not None
    return found.group().rstrip(";").replace("DOUBLE", "DOUBLE PRECISION")


@asynccontextmanager
async def postgresql_store(settings: PostgresqlSettings) -> AsyncIterator[PostgresqlStore]:
    """A store on the database that *settings* name."""
    store = PostgresqlStore(Target(settings, query_timeout=10.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.keep)
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def sqlite_store(directory: Path) -> AsyncIterator[SqliteStore]:
    path = directory / "shared.db"
    path.touch()
    store = SqliteStore(path, readers=2, busy_timeout=5.0, query_timeout=30.0)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def shared_cluster(directory: Path) -> AsyncIterator[Cluster]:
    """One whose database is a file, which no test can tell from a server that is up."""
    async with sqlite_store(directory) as store:
        await store.execute(table_of_tokens())
        yield Cluster(store)
