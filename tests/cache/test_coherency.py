"""The bound: no node serves what another replaced more than max_staleness ago.

Three nodes work on a few keys at random while server and connections fail at random. Each key has one
node that changes it, so that its versions have an order; the others read, in every way there is. A
version counts as replaced once the change that replaced it was acknowledged by Redis, and a read's
staleness is the time from then to when it was asked for: both are taken from events, on the clock the
cache lives by, so that a slow machine makes nothing look staler than it was.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from bench.proxy import Proxy
from bench.servers.redis import RedisServer
from novacron.cache.redis_link import now
from tests.cache.redis_nodes import Node, new_prefix

KEYS = 6
NODES = 3
BOUND = 0.4


class Truth:
    """What each key is, which version was acknowledged when, and how stale reads were."""

    def __init__(self) -> None:
        self.version: defaultdict[int, int] = defaultdict(int)
        self.replaced: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
        """By key: from a version on, everything older is replaced since that time."""
        self.worst = 0.0
        self.reads = self.old = self.acknowledged = 0

    def acknowledge(self, key: int, version: int) -> None:
        self.acknowledged += 1
        self.replaced[key].append((version, now()))

    def check(self, key: int, value: bytes | None, asked: float, how: str) -> None:
        self.reads += 1
        if value is None:
            return
        version = int(value)
        for newer, since in self.replaced[key]:
            if newer > version:
                if asked > since:
                    self.old += 1
                    self.worst = max(self.worst, asked - since)
                assert asked - since <= BOUND, f"{how}: {version} served {asked - since:.3f} s late"
                return


class Work:
    """What the nodes do."""

    def __init__(self, nodes: list[Node], seed: int) -> None:
        self.nodes = nodes
        self.truth = Truth()
        self.random = random.Random(seed)

    async def change(self, owner: int) -> None:
        cache, key = self.nodes[owner].cache, owner + NODES * self.random.randrange(KEYS // NODES)
        deletes = self.random.random() < 0.4
        self.truth.version[key] += 1
        version = self.truth.version[key]
        if deletes:
            await cache.delete(f"key {key}")
        else:
            await cache.set(f"key {key}", b"%d" % version, ttl=self.random.choice([0.3, 30.0]))
        if cache.shared:
            self.truth.acknowledge(key, version)

    async def read(self, reader: int) -> None:
        cache, key = self.nodes[reader].cache, self.random.randrange(KEYS)
        asked = now()
        match self.random.randrange(4):
            case 0:
                self.truth.check(key, cache.get_nowait(f"key {key}"), asked, "get_nowait")
            case 1 | 2:
                self.truth.check(key, await cache.get(f"key {key}"), asked, "get")
            case _:
                found = await cache.get_or_load(f"key {key}", lambda: self.load(key))
                self.truth.check(key, found, asked, "get_or_load")

    async def load(self, key: int) -> bytes:
        version = self.truth.version[key]
        await trio.sleep(self.random.random() * 0.02)
        return b"%d" % version

    async def keep_on(self, what: Callable[[int], Awaitable[None]], node: int) -> None:
        while True:
            await what(node)
            await trio.sleep(self.random.random() * 0.01)


async def faults(server: RedisServer, proxies: list[Proxy], chance: random.Random) -> None:
    """One of each kind in random order, some together."""
    kinds = ["pause", "short pause", "restart", "cut", "silent", "flush"]
    for kind in chance.sample(kinds, len(kinds)):
        await trio.sleep(chance.uniform(0.1, 0.5))
        proxy = chance.choice(proxies)
        match kind:
            case "pause" | "short pause":
                server.pause()
                await trio.sleep(chance.uniform(1.5, 2.0) if kind == "pause" else BOUND / 2)
                server.resume()
            case "restart":
                await trio.to_thread.run_sync(server.kill)
                await trio.sleep(chance.uniform(0.0, 0.6))
                await trio.to_thread.run_sync(server.start)
            case "cut":
                proxy.cut()
            case "silent":
                # Half open: the connection stands, and nothing comes through.
                proxy.mode("silent")
                await trio.sleep(chance.uniform(0.5, 1.5))
                proxy.mode("pass")
            case _:
                server.command("FLUSHALL")


@asynccontextmanager
async def cluster(
    *, publishing: bool
) -> AsyncIterator[tuple[RedisServer, list[Proxy], list[Node]]]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer(durable=True))
        proxies = [stack.enter_context(Proxy(("127.0.0.1", server.port))) for _ in range(NODES)]
        prefix = new_prefix()
        nodes = [
            Node(prefix, proxy.port, publishing=publishing, max_staleness=BOUND, timeout=0.15)
            for proxy in proxies
        ]
        for node in nodes:
            await stack.enter_async_context(node.connected())
        yield server, proxies, nodes


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("publishing", [False, True], ids=["tracking", "pubsub"])
async def test_no_node_serves_what_was_replaced_longer_ago_than_the_bound(
    publishing: bool, seed: int
) -> None:
    with trio.fail_after(120):
        async with cluster(publishing=publishing) as (server, proxies, nodes):
            work = Work(nodes, seed)
            async with trio.open_nursery() as nursery:
                for node in range(NODES):
                    nursery.start_soon(work.keep_on, work.change, node)
                    for _ in range(3):
                        nursery.start_soon(work.keep_on, work.read, node)
                await faults(server, proxies, random.Random(seed))
                for node in nodes:
                    await node.wait_reading()
                await trio.sleep(BOUND)
                nursery.cancel_scope.cancel()
            truth = work.truth
            print(f"worst {truth.worst:.3f} s, {truth.old} old of {truth.reads} reads")
            assert truth.worst <= BOUND
            assert truth.acknowledged > 20
            assert all(node.cache.statistics().hits > 20 for node in nodes)
            assert all(node.keeper.connections > 1 for node in nodes), "the faults were felt"


@pytest.mark.parametrize("publishing", [False, True], ids=["tracking", "pubsub"])
async def test_what_was_changed_while_redis_was_away_is_seen_by_all_when_it_is_back(
    publishing: bool,
) -> None:
    """None of these changes was acknowledged; Redis comes back with the old values."""
    with trio.fail_after(60):
        async with cluster(publishing=publishing) as (server, _proxies, nodes):
            for key in range(3):
                await nodes[0].cache.set(f"key {key}", b"old")
                for node in nodes:
                    assert await node.cache.get(f"key {key}") == b"old"
            server.pause()
            await nodes[0].cache.set("key 0", b"new")
            await nodes[1].cache.delete("key 1")
            assert not nodes[0].cache.shared
            assert await nodes[0].cache.get("key 0") == b"new", "seen by the node itself at once"
            for node in nodes:
                await node.wait_alone()
            await trio.sleep(2 * BOUND)  # longer than a connection is given without an answer
            server.resume()
            seen: list[bytes | None] = []
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(node.wait_reading)
                while not all(node.cache.reading for node in nodes):
                    for node in nodes:
                        if node.cache.reading:
                            seen += [await node.cache.get("key 0"), await node.cache.get("key 1")]
                    await trio.sleep(0.005)
            for node in nodes:
                seen += [await node.cache.get("key 0"), await node.cache.get("key 1")]
                assert await node.cache.get("key 2") == b"old", "and only that"
            assert b"old" not in seen
