"""A server may come back with keys as they were before what it acknowledged, or hold what is something
else's: neither is believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from bench.servers.redis import RedisServer
from novacron.cache.redis_link import Target
from tests.cache.redis_nodes import Node, deadline, new_prefix


@pytest.fixture
def server(nursery: trio.Nursery) -> Iterator[RedisServer]:
    nursery.start_soon(deadline)
    with RedisServer(config=["repl-diskless-sync-delay 0"]) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return new_prefix()


async def started(
    nursery: trio.Nursery, prefix: str, server: RedisServer, *, publishing: bool = False
) -> Node:
    node = Node(prefix, server.port, max_staleness=0.4, publishing=publishing)
    await node.start(nursery)
    return node


def value(server: RedisServer, prefix: str, key: str = "v:key") -> Any:
    return server.command("GET", f"{prefix}{key}")


async def test_a_server_that_comes_back_with_an_older_state_is_not_believed(
    server: RedisServer, prefix: str, nursery: trio.Nursery
) -> None:
    node = await started(nursery, prefix, server)
    await node.cache.set("key", b"old")
    server.command("SAVE")
    await node.cache.set("key", b"new")
    assert node.cache.shared, "it was acknowledged"
    await trio.to_thread.run_sync(server.restart)
    # One that knows of nothing, and the one that was there before.
    fresh = await started(nursery, prefix, server)
    assert await fresh.cache.get("key") is None
    await node.wait_reading()
    assert await node.cache.get("key") is None
    # What is written from now on is not thrown away by those who come later.
    await node.cache.set("key", b"newer")
    later = await started(nursery, prefix, server)
    assert await later.cache.get("key") == b"newer"


async def test_a_replica_that_was_promoted_is_not_believed(
    server: RedisServer, prefix: str, nursery: trio.Nursery
) -> None:
    node = await started(nursery, prefix, server)
    await node.cache.set("key", b"old")
    with RedisServer() as second:
        second.command("REPLICAOF", "127.0.0.1", server.port)
        while value(second, prefix) != b"old":
            await trio.sleep(0.01)
        # What comes last does not reach the replica any more.
        second.command("REPLICAOF", "NO", "ONE")
        await node.cache.set("key", b"new")
        node.target = Target("127.0.0.1", second.port)
        server.kill()
        await node.wait_alone()
        await node.wait_reading()
        assert node.link.target.port == second.port
        assert await node.cache.get("key") is None


async def test_the_mark_is_kept_and_set_again_where_somebody_removed_it(
    server: RedisServer, prefix: str, nursery: trio.Nursery
) -> None:
    node = await started(nursery, prefix, server)
    marked = value(server, prefix, "server")
    await node.cache.clear()
    assert value(server, prefix, "server") == marked
    server.command("FLUSHALL")
    while value(server, prefix, "server") != marked:
        await trio.sleep(0.01)


@pytest.mark.parametrize("publishing", [False, True], ids=["tracking", "pubsub"])
async def test_what_something_else_says_or_keeps_there_disturbs_nothing(
    server: RedisServer, prefix: str, nursery: trio.Nursery, publishing: bool
) -> None:
    node = await started(nursery, prefix, server, publishing=publishing)
    server.command("PUBLISH", f"{prefix}changed", b"12345678v\xff\xfe")
    server.command("SET", f"{prefix}v:".encode() + b"\xff\xfe", "x")
    server.command("DEL", f"{prefix}server")
    server.command("LPUSH", f"{prefix}server", "x")
    await node.cache.set("key", b"1")
    assert await node.cache.get("key") == b"1"
    while node.cache.trouble is None:
        await trio.sleep(0.01)
    with trio.CancelScope() as scope:
        scope.cancel()
        await node.cache.set("key", b"2")
    while not node.cache.shared:
        await trio.sleep(0.01)
    server.command("DEL", f"{prefix}server")
    while node.cache.trouble is not None:
        await trio.sleep(0.01)
    assert node.keeper.connections == 1
