"""The cache contract on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from bench.servers.redis import RedisServer
from novacron.cache.memory import MemoryCache
from novacron.cache.store import CacheStore
from tests.cache.redis_nodes import Node, age_server, new_prefix
from tests.contracts.check_cache import CASES, ROOM, TTL, Case, Pass

Opener = Callable[[RedisServer], AbstractAsyncContextManager[tuple[CacheStore, Pass]]]


@asynccontextmanager
async def memory(server: RedisServer) -> AsyncIterator[tuple[CacheStore, Pass]]:
    now = 1000.0

    async def later(seconds: float) -> None:
        nonlocal now
        await trio.lowlevel.checkpoint()
        now += seconds

    yield MemoryCache(max_bytes=ROOM, ttl=TTL, clock=lambda: now), later


@asynccontextmanager
async def redis(
    server: RedisServer, *, publishing: bool = False
) -> AsyncIterator[tuple[CacheStore, Pass]]:
    # A machine that is busy with other tests must not put in doubt what is not tested here.
    node = Node(new_prefix(), server.port, publishing=publishing, max_staleness=60, timeout=20)

    async def later(seconds: float) -> None:
        node.lifetimes.shift += seconds
        age_server(server, seconds)
        await node.all_heard()

    async with node.connected() as cache:
        yield cache, later


@asynccontextmanager
async def redis_with_messages(server: RedisServer) -> AsyncIterator[tuple[CacheStore, Pass]]:
    async with redis(server, publishing=True) as opened:
        yield opened


@asynccontextmanager
async def redis_alone(server: RedisServer) -> AsyncIterator[tuple[CacheStore, Pass]]:
    """What serves while Redis does not."""
    node = Node(new_prefix(), server.port, max_staleness=2 * 3600)

    async def later(seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        node.lifetimes.shift += seconds

    yield node.cache, later


ENGINES: dict[str, Opener] = {
    "memory": memory,
    "redis": redis,
    "redis_with_messages": redis_with_messages,
    "redis_alone": redis_alone,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_cache(engine: str, case: Case, redis_server: RedisServer) -> None:
    with trio.fail_after(60):
        async with ENGINES[engine](redis_server) as (cache, later):
            await case(cache, later)
