"""The cache on Redis, beyond the contract: what is kept in memory, and what is told to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio

from bench.servers.redis import RedisServer
from novacron.cache import redis, redis_debts
from novacron.cache.redis_link import now
from novacron.cache.store import CacheFrozenError, CacheFullError
from tests.cache.redis_nodes import Node, deadline, new_prefix

BOTH = pytest.mark.parametrize("publishing", [False, True], ids=["tracking", "pubsub"])


class Cluster:
    """Nodes on one server that are in no doubt unless a test wants it."""

    def __init__(self, nursery: trio.Nursery, server: RedisServer) -> None:
        self._nursery = nursery
        self.server = server
        self.prefix = new_prefix()

    async def node(self, **options: Any) -> Node:
        node = Node(
            self.prefix, self.server.port, **{"max_staleness": 60, "timeout": 20, **options}
        )
        await node.start(self._nursery)
        return node

    def name(self, key: str) -> str:
        """What the value of *key* is called in the server."""
        return f"{self.prefix}v:{key}"


@pytest.fixture
def cluster(redis_server: RedisServer, nursery: trio.Nursery) -> Cluster:
    nursery.start_soon(deadline)
    return Cluster(nursery, redis_server)


@pytest.fixture
def own_cluster(nursery: trio.Nursery) -> Iterator[Callable[..., Cluster]]:
    """Makes one whose server the test may do anything to."""
    nursery.start_soon(deadline)
    with ExitStack() as stack:

        def make(*config: str) -> Cluster:
            return Cluster(nursery, stack.enter_context(RedisServer(config=config)))

        yield make


async def answer(value: bytes = b"loaded") -> bytes:
    return value


# What is in memory ----------------------------------------------------------------------------------


@BOTH
async def test_only_what_was_read_is_in_memory_until_somebody_changes_it(
    cluster: Cluster, publishing: bool
) -> None:
    one, other = [await cluster.node(publishing=publishing) for _ in range(2)]
    await one.cache.set("key", b"1")
    assert one.cache.get_nowait("key") is None
    await one.all_heard()
    await other.all_heard()
    for node in (one, other):
        assert await node.cache.get("key") == b"1"
        assert node.cache.get_nowait("key") == b"1"
    for change in (one.cache.set("key", b"2"), other.cache.delete("key"), one.cache.clear()):
        await change
        await one.all_heard()
        await other.all_heard()
        assert one.cache.get_nowait("key") is None
        assert other.cache.get_nowait("key") is None
        await one.cache.set("key", b"3")
        await one.all_heard()
        await other.all_heard()
        for node in (one, other):
            assert await node.cache.get("key") == b"3"
            assert node.cache.get_nowait("key") == b"3"


async def test_what_anybody_does_to_the_server_is_noticed(cluster: Cluster) -> None:
    node = await cluster.node()
    name = cluster.name("key")
    for change in (("SET", name, "x"), ("DEL", name), ("EXPIRE", name, "1"), ("FLUSHALL",)):
        await node.cache.set("key", b"1")
        assert await node.cache.get("key") == b"1"
        cluster.server.command(*change)
        await node.all_heard()
        assert node.cache.get_nowait("key") is None


async def test_what_the_server_evicts_for_our_own_values_is_noticed(
    own_cluster: Callable[..., Cluster],
) -> None:
    """With NOLOOP it would not be."""
    cluster = own_cluster("maxmemory 4mb", "maxmemory-policy allkeys-random")
    server = cluster.server
    node = await cluster.node(max_bytes=1 << 24)
    for number in range(200):
        await node.cache.set(f"key {number}", b"x" * 16384)
        await node.cache.get(f"key {number}")
    there = {
        number for number in range(200) if server.command("EXISTS", cluster.name(f"key {number}"))
    }
    await node.all_heard()  # also of what was evicted for these questions
    assert 0 < len(there) < 200
    kept = {n for n in range(200) if node.cache.get_nowait(f"key {n}") is not None}
    assert kept <= there


async def test_a_value_that_changes_while_it_is_read_is_not_kept(cluster: Cluster) -> None:
    one, other = await cluster.node(), await cluster.node()
    await one.cache.set("key", b"1")
    calls = one.link.calls

    async def late(*commands: Any, within: float) -> list[Any]:
        found = await calls(*commands, within=within)
        await other.cache.set("key", b"2")
        await calls((b"ROLE",), within=within)
        return found

    one.link.calls = late  # type: ignore[method-assign]
    assert await one.cache.get("key") == b"1", "which it was when it was asked for"
    assert one.cache.get_nowait("key") is None
    one.link.calls = calls  # type: ignore[method-assign]
    assert await one.cache.get("key") == b"2"


async def test_memory_is_not_asked_once_nothing_was_heard_for_the_bound(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await cluster.node()
    await node.cache.set("key", b"1")
    await node.cache.get("key")
    assert node.cache.get_nowait("key") == b"1"
    monkeypatch.setattr(redis, "now", lambda: now() + 61)
    assert node.cache.get_nowait("key") is None
    monkeypatch.undo()
    assert node.cache.get_nowait("key") == b"1", "it was not wrong, only unproven"
    monkeypatch.setattr(redis, "now", lambda: now() + 61)
    assert await node.cache.get("key") == b"1", "from Redis"


async def test_a_value_without_an_end_gets_the_usual_one(cluster: Cluster) -> None:
    node = await cluster.node(ttl=5.0)
    cluster.server.command("SET", cluster.name("key"), "x")
    assert await node.cache.get("key") == b"x"
    assert node.cache.get_nowait("key") == b"x"
    node.lifetimes.shift += 6
    assert node.cache.get_nowait("key") is None


async def test_what_something_else_keeps_under_the_name_is_a_miss_and_is_replaced(
    cluster: Cluster,
) -> None:
    node = await cluster.node()
    cluster.server.command("RPUSH", cluster.name("key"), "x")
    assert await node.cache.get("key") is None
    assert await node.cache.get_or_load("key", answer) == b"loaded"
    assert node.cache.reading
    await node.cache.set("key", b"1")
    assert await node.cache.get("key") == b"1"


# Changes --------------------------------------------------------------------------------------------


async def test_a_server_without_room_forgets_what_it_cannot_replace(
    own_cluster: Callable[..., Cluster],
) -> None:
    cluster = own_cluster("maxmemory-policy noeviction")
    server, node = cluster.server, await cluster.node()
    await node.cache.set("key", b"old")
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    await node.cache.set("key", b"new")
    assert await node.cache.get("key") is None
    assert await node.cache.get_or_load("key", answer) == b"loaded"
    assert isinstance(node.cache.trouble, CacheFullError)
    assert node.cache.reading
    assert node.cache.shared
    server.command("CONFIG", "SET", "maxmemory", "0")
    await node.cache.set("key", b"new")
    assert await node.cache.get("key") == b"new"
    assert node.cache.trouble is None


@pytest.mark.parametrize("how", ["set", "delete", "clear"])
async def test_what_a_server_that_takes_no_changes_still_has_is_owed_and_not_read(
    own_cluster: Callable[..., Cluster], how: str
) -> None:
    """NOREPLICAS, as MISCONF where the disk is full: not even a value's removal is taken."""
    cluster = own_cluster()
    server, node = cluster.server, await cluster.node(max_staleness=0.4)
    other = await cluster.node(max_staleness=0.4)
    await node.cache.set("key", b"old")
    assert await node.cache.get("key") == b"old"
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    match how:
        case "set":
            await node.cache.set("key", b"new")
        case "delete":
            await node.cache.delete("key")
        case _:
            await node.cache.clear()
    assert await node.cache.get("key") in (None, b"new")
    assert not node.cache.shared
    assert not node.cache.reading
    while node.keeper.error is None:
        await trio.sleep(0.01)
    assert isinstance(node.keeper.error, CacheFrozenError)
    assert node.keeper.connections == 1, "the connection stands"
    server.command("CONFIG", "SET", "min-replicas-to-write", "0")
    await node.wait_reading()
    assert node.keeper.error is None
    assert node.cache.trouble is None
    assert node.cache.shared
    await other.wait_reading()
    assert await node.cache.get("key") is None
    assert await other.cache.get("key") is None


async def test_clearing_leaves_what_is_not_the_clusters(cluster: Cluster) -> None:
    node = await cluster.node()
    # The first differs in what a pattern would take for a wildcard.
    others = [cluster.name("key").replace("*", "x"), "elsewhere:v:key"]
    for name in others:
        cluster.server.command("SET", name, "1")
    for number in range(2500):
        cluster.server.command("SET", cluster.name(str(number)), "1")
    await node.cache.clear()
    assert cluster.server.command("EXISTS", *others) == len(others)
    assert await node.cache.get("1") is None
    assert await node.cache.get("2499") is None


@pytest.mark.parametrize("most", [2, 10_000])
async def test_what_changed_while_alone_is_deleted_in_redis_before_anything_is_read(
    cluster: Cluster, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_debts, "MOST_OWED", most)
    await cluster.node()  # has the server's keys taken for what they are
    node = Node(cluster.prefix, cluster.server.port, max_staleness=60)
    for number in range(10):
        cluster.server.command("SET", cluster.name(str(number)), "old")
    for number in range(5):
        await node.cache.set(str(number), b"new")
        assert await node.cache.get(str(number)) == b"new"
    assert not await node.cache.delete("5")
    assert not node.cache.shared
    async with node.connected():
        assert node.cache.shared
        assert [await node.cache.get(str(number)) for number in range(6)] == [None] * 6
        left = [await node.cache.get(str(number)) for number in range(6, 10)]
        assert left == [None if most == 2 else b"old"] * 4


async def test_a_cancelled_change_is_owed(cluster: Cluster) -> None:
    node = await cluster.node()
    await node.cache.get("key")
    with trio.CancelScope() as scope:
        scope.cancel()
        await node.cache.set("key", b"1")
    assert scope.cancelled_caught
    assert not node.cache.shared
    await node.cache.debts.pay(node.link)
    assert node.cache.shared
    assert await node.cache.get("key") is None


async def test_a_connection_that_was_given_up_executes_nothing_afterwards(
    own_cluster: Callable[..., Cluster],
) -> None:
    """Its commands lie in the server's socket, and the server may come to the new one's first."""
    cluster = own_cluster()
    server, node = cluster.server, await cluster.node(timeout=0.2, max_staleness=0.4)
    for _ in range(5):
        old = node.link
        server.pause()
        await node.cache.set("key", b"from the old connection")
        old.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0.1)
            nursery.start_soon(node.wait_alone)
        server.resume()
        await node.wait_reading()
        assert node.link is not old
        await node.cache.set("key", b"new")
        await trio.sleep(0.05)
        assert await node.cache.get("key") == b"new"


async def test_a_server_that_is_only_slow_keeps_its_connection(
    own_cluster: Callable[..., Cluster],
) -> None:
    cluster = own_cluster()
    server, node = cluster.server, await cluster.node(timeout=0.1, max_staleness=4)
    await node.cache.set("key", b"1")
    server.pause()
    await node.wait_alone()
    assert node.keeper.error is not None
    assert await node.cache.get("key") is None, "at once, and not after the timeout"
    server.resume()
    while not node.cache.shared:
        await trio.sleep(0.005)
    assert node.keeper.connections == 1
    assert node.keeper.error is None


# Loading --------------------------------------------------------------------------------------------


class Slow:
    """A loader that waits until it is let go."""

    def __init__(self, value: bytes = b"loaded") -> None:
        self.value = value
        self.runs = 0
        self.began = trio.Event()
        self.go = trio.Event()

    async def __call__(self) -> bytes:
        self.runs += 1
        self.began.set()
        await self.go.wait()
        return self.value


async def asked(nursery: trio.Nursery, node: Node, loader: Callable[[], Any]) -> list[bytes]:
    """What *node* gets from here on."""
    got: list[bytes] = []

    async def ask() -> None:
        got.append(await node.cache.get_or_load("key", loader))

    nursery.start_soon(ask)
    return got


@BOTH
async def test_one_node_loads_for_all(cluster: Cluster, publishing: bool) -> None:
    nodes = [await cluster.node(publishing=publishing) for _ in range(3)]
    loader = Slow()
    async with trio.open_nursery() as nursery:
        got = [await asked(nursery, node, loader) for node in nodes]
        await loader.began.wait()
        for node in nodes:
            await node.all_heard()
        loader.go.set()
    assert got == [[b"loaded"]] * 3
    assert loader.runs == 1
    assert sum(node.cache.statistics().loads for node in nodes) == 1


@BOTH
async def test_another_node_takes_over_from_one_whose_load_fails_or_is_cancelled(
    cluster: Cluster, publishing: bool
) -> None:
    one, other = [await cluster.node(publishing=publishing) for _ in range(2)]

    async def fail() -> bytes:
        began.set()
        await go.wait()
        raise KeyError("nothing there")

    for cancels in (False, True):
        began, go = trio.Event(), trio.Event()
        loader = Slow()
        loader.go.set()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as doomed:

                    async def ask() -> None:
                        with pytest.raises(KeyError):
                            await one.cache.get_or_load("key", fail)

                    doomed.start_soon(ask)
                    await began.wait()
                    got = await asked(nursery, other, loader)
                    await one.all_heard()
                    await other.all_heard()
                    assert loader.runs == 0
                    if cancels:
                        scope.cancel()
                    else:
                        go.set()
        assert got == [b"loaded"]
        await one.cache.delete("key")


async def test_a_node_that_died_while_it_loaded_is_not_waited_for_long(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(redis, "LOAD_WAIT", 0.5)
    one, other = await cluster.node(), await cluster.node()
    loader = Slow()
    async with trio.open_nursery() as nursery:
        await asked(nursery, one, loader)
        await loader.began.wait()
        assert await other.cache.get_or_load("key", answer) == b"loaded"
        loader.go.set()


async def test_beats_keep_the_lease_of_a_long_load(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "LEASE_SECONDS", 1.0)
    node = await cluster.node(max_staleness=0.4)
    loader = Slow()
    async with trio.open_nursery() as nursery:
        await asked(nursery, node, loader)
        await loader.began.wait()
        await trio.sleep(1.5)
        loader.go.set()
    assert cluster.server.command("GET", cluster.name("key")) == b"loaded"


@BOTH
async def test_what_another_node_changed_during_a_load_wins(
    cluster: Cluster, publishing: bool
) -> None:
    one, other = [await cluster.node(publishing=publishing) for _ in range(2)]
    for value in (b"newer", None):
        loader = Slow(b"older")
        async with trio.open_nursery() as nursery:
            got = await asked(nursery, one, loader)
            await loader.began.wait()
            if value is None:
                await other.cache.delete("key")
            else:
                await other.cache.set("key", value)
            loader.go.set()
        assert got == [b"older"]
        assert await one.cache.get("key") == value
        assert await other.cache.get("key") == value
        await other.cache.delete("key")


async def test_who_asks_long_after_a_load_began_does_not_get_what_it_brings(
    cluster: Cluster,
) -> None:
    """It may have been replaced since; but two loads at once there are not."""
    node = Node(cluster.prefix, cluster.server.port, max_staleness=0.2)
    loader = Slow(b"older")
    async with trio.open_nursery() as nursery:
        early = await asked(nursery, node, loader)
        await trio.sleep(0.3)
        late = await asked(nursery, node, lambda: answer(b"newer"))
        await trio.testing.wait_all_tasks_blocked()
        assert not late
        loader.go.set()
    assert (early, late) == ([b"older"], [b"newer"])


async def test_alone_a_value_lives_for_the_bound_from_when_its_load_began() -> None:
    node = Node(new_prefix(), 1, max_staleness=0.3)

    async def load() -> bytes:
        await trio.sleep(0.2)
        return b"loaded"

    assert await node.cache.get_or_load("key", load) == b"loaded"
    node.lifetimes.shift += 0.15
    assert node.cache.get_nowait("key") is None
    await node.cache.set("key", b"1", ttl=60)
    assert node.cache.get_nowait("key") == b"1"
    node.lifetimes.shift += 0.31
    assert node.cache.get_nowait("key") is None


async def test_hits_of_both_levels_are_counted(cluster: Cluster) -> None:
    node = await cluster.node()
    await node.cache.get("key")
    await node.cache.set("key", b"1")
    for _ in range(3):
        await node.cache.get("key")
    await node.cache.get_or_load("key", answer)
    await node.cache.get_or_load("other", answer)
    figures = node.cache.statistics()
    assert (figures.hits, figures.misses, figures.sets, figures.loads) == (4, 2, 1, 1)
    assert figures.entries == 1
