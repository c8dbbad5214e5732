"""Two PostgreSQL servers that change places below a store, and two that both take changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.proxy import Proxy
from bench.servers.postgresql import PostgreSQL
from bench.servers.postgresql_pair import PostgresqlPair
from novacron.component import HealthDepth, HealthState
from novacron.config.schema import PostgresqlSettings
from novacron.database import postgresql_dial, postgresql_lookout
from novacron.database.postgresql import PostgresqlStore, open_store
from novacron.database.postgresql_connection import Step
from novacron.database.postgresql_dial import dial
from novacron.database.postgresql_errors import away, read_only
from novacron.database.postgresql_lineage import Lineage, Lineages, read_lineage
from novacron.database.postgresql_parameters import Bound
from novacron.database.postgresql_session import open_session
from novacron.database.postgresql_target import Endpoint, Target
from novacron.database.store import (
    DatabaseOutcomeUnknownError,
    DatabaseReadOnlyError,
    DatabaseStaleError,
    DatabaseUnavailableError,
)
from novacron.errors import DatabaseError
from tests.contracts.check_store import INSERT, TABLE, item
from tests.database.support import Bench
from tests.servers import Cluster, postgresql_settings


class World:
    """Both servers, and stores that know of both."""

    def __init__(self, pair: PostgresqlPair) -> None:
        self.pair = pair
        self.password = Cluster(pair.primary).password
        self.servers = (pair.primary, pair.standby)

    def settings(self, *, reverse: bool = False, **changes: Any) -> PostgresqlSettings:
        hosts = tuple(server.address for server in self.servers)
        chosen = {"hosts": hosts[::-1] if reverse else hosts, **changes}
        return postgresql_settings(self.servers[0], self.password, **chosen)

    @asynccontextmanager
    async def opened(
        self, *, query_timeout: float = 10.0, **changes: Any
    ) -> AsyncIterator[PostgresqlStore]:
        with trio.fail_after(40):
            target = Target(self.settings(**changes), query_timeout=query_timeout)
            async with open_store(target) as store:
                yield store


@pytest.fixture(scope="module")
def servers() -> Iterator[PostgresqlPair]:
    with PostgresqlPair(synchronous=True, durable=False) as pair:
        yield pair


def mend(servers: PostgresqlPair) -> None:
    if not servers.primary.running:
        servers.primary.start()
    if servers.is_apart:
        servers.rejoin()


@pytest.fixture
def world(servers: PostgresqlPair) -> World:
    """One follows the other."""
    mend(servers)
    servers.primary.create_database()
    return World(servers)


@pytest.fixture
def divided(servers: PostgresqlPair) -> World:
    """Both take changes: what a test has left so is as good as new."""
    if not (servers.is_apart and servers.primary.running and servers.standby.running):
        mend(servers)
        servers.primary.kill()
        servers.promote()
        servers.return_alone()
    servers.primary.create_database()
    return World(servers)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_lookout, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(postgresql_lookout, "LOOK_PAUSE", 0.01)


async def in_thread(call: Callable[[], object]) -> None:
    await trio.to_thread.run_sync(call)


async def write_when_possible(store: PostgresqlStore, number: int) -> int:
    """Insert an item; which one was acknowledged. Each attempt is for another: of one that failed it
    may not be known whether it is there."""
    while True:
        try:
            await store.execute(INSERT, item(number))
            return number
        except DatabaseUnavailableError:
            number += 1
            await trio.sleep(0.02)


def items(server: PostgreSQL) -> set[int]:
    return {int(line) for line in server.psql("SELECT id FROM item").split()}


async def test_a_store_goes_on_with_the_promoted_server_and_never_with_the_one_it_replaced(
    world: World,
) -> None:
    pair = world.pair
    async with world.opened() as store:
        await store.execute(TABLE)
        await store.execute(INSERT, item(1))
        old = pair.primary
        await in_thread(old.kill)
        await in_thread(pair.promote)
        written = {1, await write_when_possible(store, 100)}
        assert store.pool.server == pair.primary.address
        # The old one takes changes again, and for a moment is the only one that does.
        await in_thread(pair.return_alone)
        await in_thread(pair.primary.stop)
        while True:
            with pytest.raises(DatabaseError) as caught:
                await store.execute(INSERT, item(2))
            if isinstance(caught.value, DatabaseStaleError):
                break
            await trio.sleep(0.02)
        assert f"{old.address} was replaced" in str(caught.value)
        assert "pg_rewind" in str(caught.value)
        assert items(old) == {1}
        await in_thread(pair.primary.start)
        written.add(await write_when_possible(store, 200))
    assert written <= items(pair.primary)


async def test_a_node_that_boots_takes_the_newest_of_two_and_says_that_there_is_another(
    divided: World, tmp_path: Path, often: None
) -> None:
    pair = divided.pair
    for reverse in (False, True):
        async with divided.opened(reverse=reverse) as store:
            assert store.pool.server == pair.primary.address
        # An operator's command, too: a backup of the other one would lack what is acknowledged.
        target = Target(divided.settings(reverse=reverse), query_timeout=10.0)
        for changing in (False, True):
            with open_session(target, 10.0, changing=changing) as session:
                assert session.where == pair.primary.address
    bench = Bench(tmp_path, engine="postgresql", postgresql=divided.settings())
    async with bench.booted() as database:
        while (
            health := await database.health_check(HealthDepth.DEEP)
        ).state is HealthState.HEALTHY:
            await trio.sleep(0.02)
        assert health.state is HealthState.DEGRADED
        assert f"{pair.standby.address} was replaced" in health.message
        assert pair.standby.psql("SELECT to_regclass('node_heartbeat') IS NULL") == "t"
        await in_thread(pair.standby.kill)
        while (await database.health_check(HealthDepth.DEEP)).state is not HealthState.HEALTHY:
            await trio.sleep(0.02)


async def test_a_node_moves_by_itself_to_a_server_that_was_promoted_beside_a_living_one(
    world: World, often: None
) -> None:
    pair = world.pair
    async with world.opened() as store:
        await store.execute(TABLE)
        await in_thread(pair.part)

        async def write_to_the_old_one() -> None:
            with pytest.raises(DatabaseOutcomeUnknownError):
                await store.execute(INSERT, item(1), within=30.0)

        async with trio.open_nursery() as nursery:
            # Waits for the standby; what is not known of it is said when the node moves.
            nursery.start_soon(write_to_the_old_one)
            await in_thread(pair.promote)
        assert store.pool.server == pair.primary.address
        await store.execute(INSERT, item(2))
    assert items(pair.primary) == {2}


async def test_a_commit_that_no_standby_confirms_is_not_acknowledged_and_has_the_node_look_around(
    world: World,
) -> None:
    pair = world.pair
    async with world.opened(query_timeout=0.5) as store:
        await store.execute(TABLE)
        await in_thread(pair.part)
        with pytest.raises(DatabaseOutcomeUnknownError, match="its standby has not"):
            await store.execute(INSERT, item(1))
        with pytest.raises(DatabaseOutcomeUnknownError, match="its standby has not"):
            async with store.transaction() as tx:
                await tx.execute(INSERT, item(2))
        with pytest.raises(DatabaseOutcomeUnknownError), trio.move_on_after(0.2):
            await store.execute(INSERT, item(3), within=10.0)
        assert await store.fetch_one("SELECT count(*) FROM item") == (3,)
        # Nothing of it is where the standby takes over; the node has found that out by itself.
        await in_thread(pair.promote)
        written = await write_when_possible(store, 100)
        assert items(pair.primary) == {written}
        assert store.pool.server == pair.primary.address


async def test_a_server_that_is_named_twice_is_not_taken_for_two(
    world: World, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = trio.Semaphore(0)
    plain = postgresql_lookout.Lookout._look

    async def watched(self: postgresql_lookout.Lookout, present: Endpoint) -> None:
        await plain(self, present)
        looks.release()

    monkeypatch.setattr(postgresql_lookout.Lookout, "_look", watched)
    server = world.pair.primary
    with Proxy(("127.0.0.1", server.port)) as proxy:
        hosts = (server.address, proxy.address)
        async with world.opened(hosts=hosts) as store:
            for _ in range(2):
                await looks.acquire()
                assert store.pool.lookout.rival is None
            # As after a restart that the node has not noticed yet.
            newest = store.target.lineages.newest
            assert newest is not None
            store.target.lineages.newest = newest._replace(started=0.0)
            await looks.acquire()
            assert store.pool.lookout.rival is None


def promote_once_more(server: PostgreSQL) -> None:
    """Have a server begin a timeline of its own."""
    server.stop()
    server.write(server.data / "standby.signal", b"")
    server.start()
    server.promote()


async def test_two_servers_that_were_both_promoted_are_told_to_the_operator(
    world: World, often: None
) -> None:
    pair = world.pair
    async with world.opened() as store:
        await in_thread(pair.part)
        await in_thread(pair.promote)
        while store.pool.server != pair.primary.address:
            await trio.sleep(0.02)
        await in_thread(lambda: promote_once_more(pair.standby))
        while "takes changes beside the one in use" not in str(store.pool.lookout.rival):
            await trio.sleep(0.02)
        assert store.pool.server == pair.primary.address
        await store.execute(TABLE)
        # Nothing but a third timeline brings them together again.
        await in_thread(lambda: promote_once_more(pair.primary))


async def test_a_server_may_refuse_a_statement_that_is_optional(world: World) -> None:
    async with world.opened() as store:
        deadline = trio.current_time() + 5.0
        steps = [Step(Bound(b"SELECT nothing()"), 1, optional=True), Step(Bound(b"SELECT 1"), 1)]
        async with store.pool.connection(None, deadline) as connection:
            answer = await connection.exchange(steps, deadline)
        assert (answer.rows, answer.error) == ([(), (1,)], None)
        assert read_lineage(answer.rows[0]) is None


async def test_of_a_name_that_stands_for_several_servers_each_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str | None] = []

    async def addresses(endpoint: Endpoint) -> list[str | None]:
        return ["192.0.2.1", "192.0.2.2", "192.0.2.3"]

    async def refuse(target: Target, endpoint: Endpoint, address: str | None) -> None:
        tried.append(address)
        raise {
            "192.0.2.1": away("db:1", "nobody listens"),
            "192.0.2.2": read_only("db:1", "it is a standby"),
            "192.0.2.3": away("db:1", "it does not answer"),
        }[str(address)]

    monkeypatch.setattr(postgresql_dial, "_addresses", addresses)
    monkeypatch.setattr(postgresql_dial, "_open", refuse)
    with pytest.raises(DatabaseReadOnlyError, match="it is a standby"):
        await dial(Target(PostgresqlSettings(hosts=("db:1",)), query_timeout=1.0))
    assert tried == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_a_timeline_is_older_only_than_a_later_one_of_the_same_system() -> None:
    assert Lineage(7, 1, 5.0).is_older(Lineage(7, 2, 4.0))
    assert not Lineage(7, 2, 5.0).is_older(Lineage(7, 2, 6.0))
    assert not Lineage(7, 1, 5.0).is_older(Lineage(8, 2, 6.0))
    assert not Lineage(7, 1, 5.0).is_older(None)


def test_two_servers_are_beside_each_other_only_on_the_same_timeline() -> None:
    assert Lineage(7, 2, 5.0).is_beside(Lineage(7, 2, 6.0))
    for other in (Lineage(7, 2, 5.0), Lineage(7, 1, 6.0), Lineage(8, 2, 6.0)):
        assert not Lineage(7, 2, 5.0).is_beside(other)


def test_the_newest_timeline_is_remembered_and_another_system_begins_anew() -> None:
    known = Lineages()
    for found in (Lineage(7, 1, 5.0), Lineage(7, 3, 6.0), None):
        known.check(found, "db:1")
    with pytest.raises(DatabaseStaleError, match="timeline 2"):
        known.check(Lineage(7, 2, 9.0), "db:1")
    # Restored into a new server, or upgraded: nothing compares them.
    known.check(Lineage(8, 1, 9.0), "db:1")
    assert known.newest == Lineage(8, 1, 9.0)


async def test_a_standby_whose_primary_does_not_answer_is_not_all_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(target: Target, endpoint: Endpoint) -> None:
        if endpoint.host == "primary":
            raise away("primary:1", "nobody listens")
        raise read_only("standby:1", "it is a standby")

    monkeypatch.setattr(postgresql_dial, "_dial_one", refuse)
    with pytest.raises(DatabaseReadOnlyError) as caught:
        await dial(Target(PostgresqlSettings(hosts=("primary:1", "standby:1")), query_timeout=1.0))
    assert caught.value.why == ("it is a standby; PostgreSQL at primary:1 is away: nobody listens")
    assert "promote it" in caught.value.remedy
