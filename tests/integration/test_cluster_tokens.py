"""Tokens of two nodes that share a real PostgreSQL and a real Redis, either of which is killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from bench.servers.redis import RedisServer
from novacron.api.cluster_tokens import ClusterTokens
from novacron.api.token_table import ClusterTokensUnavailableError
from tests.api.cluster import postgresql_store, table_of_tokens
from tests.cache.redis_nodes import Node, new_prefix
from tests.servers import Cluster, postgresql_cluster

HERE = "192.0.2.7"
STALENESS = 1.0
"""Of the caches, in seconds."""


@pytest.fixture
def database() -> Iterator[Cluster]:
    with postgresql_cluster() as servers:
        yield servers


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Nodes:
    def __init__(self, caches: list[Node], tokens: list[ClusterTokens]) -> None:
        self.caches = caches
        self.tokens = tokens
        self.first, self.second = tokens


@asynccontextmanager
async def two_nodes(database: Cluster, redis: RedisServer, *, bound: float) -> AsyncIterator[Nodes]:
    settings = database.settings(name=database.new_database())
    prefix = new_prefix()
    caches, tokens = [], []
    async with AsyncExitStack() as stack:
        for number in range(2):
            store = await stack.enter_async_context(postgresql_store(settings))
            if number == 0:
                await store.execute(table_of_tokens())
            node = Node(prefix, redis.port, max_staleness=STALENESS)
            cache = await stack.enter_async_context(node.connected())
            caches.append(node)
            tokens.append(ClusterTokens(store, cache, bound))
        yield Nodes(caches, tokens)


async def refused(tokens: ClusterTokens, secret: str) -> bool:
    return await tokens.authenticate(secret, HERE) is None


async def until_refused(tokens: ClusterTokens, secret: str) -> None:
    while not await refused(tokens, secret):
        await trio.sleep(0.01)


async def test_a_revocation_reaches_the_other_node_by_redis_long_before_the_bound(
    database: Cluster, redis: RedisServer
) -> None:
    with trio.fail_after(60):
        # The bound is longer than the test may take: only Redis can have told.
        async with two_nodes(database, redis, bound=3600.0) as nodes:
            made = await nodes.first.create("ci", "operator", created_by="token:admin")
            for tokens in nodes.tokens:
                assert not await refused(tokens, made.secret)
            await nodes.first.revoke(made.id)
            assert await refused(nodes.first, made.secret)
            await until_refused(nodes.second, made.secret)


async def test_a_rotation_is_taken_by_the_other_node_at_once(
    database: Cluster, redis: RedisServer
) -> None:
    with trio.fail_after(60):
        async with two_nodes(database, redis, bound=3600.0) as nodes:
            made = await nodes.first.create("ci", "operator", created_by="token:admin")
            assert not await refused(nodes.second, made.secret)
            await trio.sleep(1.0)  # a token is read again once a second at most
            new = await nodes.first.rotate(made.id, 60.0)
            for secret in (new.secret, made.secret):
                assert not await refused(nodes.second, secret)


async def test_without_postgresql_known_tokens_work_and_others_are_answered_and_all_return(
    database: Cluster, redis: RedisServer
) -> None:
    with trio.fail_after(120):
        async with two_nodes(database, redis, bound=60.0) as nodes:
            known = await nodes.first.create("known", "operator", created_by="token:admin")
            other = await nodes.first.create("other", "operator", created_by="token:admin")
            assert not await refused(nodes.second, known.secret)
            await trio.to_thread.run_sync(database.server.kill)
            assert not await refused(nodes.second, known.secret)
            with pytest.raises(ClusterTokensUnavailableError):
                await nodes.second.authenticate(other.secret, HERE)
            with pytest.raises(ClusterTokensUnavailableError):
                await nodes.second.revoke(known.id)
            await trio.to_thread.run_sync(database.server.start)
            while True:
                try:
                    assert not await refused(nodes.second, other.secret)
                    break
                except ClusterTokensUnavailableError:
                    await trio.sleep(0.05)
            await nodes.second.revoke(known.id)
            await until_refused(nodes.first, known.secret)


async def test_without_redis_tokens_work_and_a_revocation_takes_no_longer_than_the_bound(
    database: Cluster, redis: RedisServer
) -> None:
    with trio.fail_after(120):
        async with two_nodes(database, redis, bound=5.0) as nodes:
            made = await nodes.first.create("ci", "operator", created_by="token:admin")
            for tokens in nodes.tokens:
                assert not await refused(tokens, made.secret)
            await trio.to_thread.run_sync(redis.kill)
            for node in nodes.caches:
                await node.wait_alone()
            for tokens in nodes.tokens:
                assert not await refused(tokens, made.secret)
            await nodes.first.revoke(made.id)
            assert await refused(nodes.first, made.secret)
            await until_refused(nodes.second, made.secret)
