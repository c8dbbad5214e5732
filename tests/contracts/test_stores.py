"""The store contract on every engine."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from novacron.config.schema import PostgresqlSettings
from novacron.database.postgresql import PostgresqlStore
from novacron.database.postgresql_target import Target
from novacron.database.sqlite import SqliteStore
from novacron.database.store import Store
from tests.contracts.check_store import CASES, TABLE, Case
from tests.servers import Cluster, postgresql_cluster


@asynccontextmanager
async def sqlite(directory: Path) -> AsyncIterator[Store]:
    path = directory / "contract.db"
    sqlite3.connect(path).close()
    path.touch()
    store = SqliteStore(path, readers=3, busy_timeout=1.0, query_timeout=10.0)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def postgresql(settings: PostgresqlSettings) -> AsyncIterator[Store]:
    store = PostgresqlStore(Target(settings, query_timeout=10.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.keep)
        try:
            yield store
        finally:
            await store.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with postgresql_cluster() as cluster:
        yield cluster


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_a_store_on_sqlite(case: Case, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with sqlite(tmp_path) as store:
            await store.execute(TABLE)
            await case(store)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_a_store_on_postgresql(case: Case, cluster: Cluster) -> None:
    settings = cluster.settings(name=cluster.new_database())
    with trio.fail_after(20):
        async with postgresql(settings) as store:
            await store.execute(TABLE)
            await case(store)
