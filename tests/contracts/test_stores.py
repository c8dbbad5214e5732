"""The store contract on every engine."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from novacron.database.sqlite import SqliteStore
from novacron.database.store import Store
from tests.contracts.check_store import CASES, TABLE, Case

Opener = Callable[[Path], AbstractAsyncContextManager[Store]]


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


ENGINES: dict[str, Opener] = {"sqlite": sqlite}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_store(engine: str, case: Case, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with ENGINES[engine](tmp_path) as store:
            await store.execute(TABLE)
            await case(store)
