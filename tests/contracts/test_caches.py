"""The cache contract on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from novacron.cache.memory import MemoryCache
from novacron.cache.store import CacheStore
from tests.contracts.check_cache import CASES, ROOM, TTL, Case, Pass

Opener = Callable[[], AbstractAsyncContextManager[tuple[CacheStore, Pass]]]


@asynccontextmanager
async def memory() -> AsyncIterator[tuple[CacheStore, Pass]]:
    now = 1000.0

    async def later(seconds: float) -> None:
        nonlocal now
        await trio.lowlevel.checkpoint()
        now += seconds

    yield MemoryCache(max_bytes=ROOM, ttl=TTL, clock=lambda: now), later


ENGINES: dict[str, Opener] = {"memory": memory}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_cache(engine: str, case: Case) -> None:
    with trio.fail_after(20):
        async with ENGINES[engine]() as (cache, later):
            await case(cache, later)
