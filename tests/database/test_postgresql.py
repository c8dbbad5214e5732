"""What is PostgreSQL's own behind the seam: several nodes, repetition, sessions, statements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from bench.proxy import Proxy
from novacron.database import postgresql_pool
from novacron.database.postgresql import PostgresqlStore, open_store
from novacron.database.postgresql_connection import MOST_PREPARED
from novacron.database.postgresql_target import Target
from novacron.database.store import (
    DatabaseInvalidError,
    DatabaseLimitError,
    DatabaseTransientError,
    Transaction,
)
from tests.contracts.check_store import INSERT, TABLE, count, item
from tests.servers import Cluster

ADD = "UPDATE item SET size = size + 1 WHERE id = 1"


@pytest.fixture
def name(cluster: Cluster) -> str:
    return cluster.new_database()


@asynccontextmanager
async def opened(
    cluster: Cluster, name: str, *, query_timeout: float = 10.0, **changes: Any
) -> AsyncIterator[PostgresqlStore]:
    settings = cluster.settings(name=name, **changes)
    with trio.fail_after(30):
        async with open_store(Target(settings, query_timeout=query_timeout)) as store:
            yield store


async def add_one(tx: Transaction) -> None:
    row = await tx.fetch_one("SELECT size FROM item WHERE id = 1")
    assert row is not None
    await trio.sleep(0.001)
    await tx.execute("UPDATE item SET size = :size WHERE id = 1", {"size": row[0] + 1})


# --- Several nodes ------------------------------------------------------------------------------


async def test_work_of_several_nodes_loses_nothing(cluster: Cluster, name: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(opened(cluster, name, retry_for=30.0)) for _ in range(3)
        ]
        await stores[0].execute(TABLE)
        await stores[0].execute(INSERT, item(1))
        async with trio.open_nursery() as nursery:
            for store in stores:
                for _ in range(5):
                    nursery.start_soon(store.run, add_one)
                    nursery.start_soon(store.execute, ADD)
        assert await stores[0].fetch_one("SELECT size FROM item") == (30,)


async def test_a_block_that_met_another_node_fails_and_keeps_nothing(
    cluster: Cluster, name: str
) -> None:
    async with opened(cluster, name) as one, opened(cluster, name) as other:
        await one.execute(TABLE)
        await one.execute(INSERT, item(1))
        with pytest.raises(DatabaseTransientError) as caught:
            async with one.transaction() as tx:
                await tx.fetch_one("SELECT size FROM item WHERE id = 1")
                await other.execute(ADD)
                await tx.execute(ADD)
        assert "conflicts with another" in str(caught.value)
        assert await one.fetch_one("SELECT size FROM item") == (1,)


async def test_two_nodes_cannot_both_act_on_what_the_other_has_not_done_yet(
    cluster: Cluster, name: str
) -> None:
    """Write skew: each reads that nobody is there and enters. One of them must fail."""
    async with opened(cluster, name, retry_for=0.0) as one, opened(cluster, name) as other:
        await one.execute(TABLE)
        with pytest.raises(DatabaseTransientError):
            async with one.transaction() as first:
                assert await first.fetch_one("SELECT count(*) FROM item") == (0,)
                async with other.transaction() as second:
                    assert await second.fetch_one("SELECT count(*) FROM item") == (0,)
                    await second.execute(INSERT, item(2))
                await first.execute(INSERT, item(1))
        assert await count(one) == 1


# --- Statements ---------------------------------------------------------------------------------


async def test_a_statement_that_fails_goes_on_failing_alike(cluster: Cluster, name: str) -> None:
    async with opened(cluster, name, pool_max=2) as store:
        await store.execute(TABLE)
        for _ in range(5):
            for sql in ("SELECT nothing FROM item", "SELECT id FROM nowhere WHERE id = :id"):
                with pytest.raises(DatabaseInvalidError):
                    await store.fetch_all(sql, {"id": 1})
            assert await store.fetch_all("SELECT id FROM item WHERE id = :id", {"id": 1}) == []


async def test_more_statements_than_are_kept_prepared_are_no_matter(
    cluster: Cluster, name: str
) -> None:
    async with opened(cluster, name, pool_max=2) as store:
        for _ in range(3):
            for number in range(MOST_PREPARED + 50):
                sql = f"SELECT {number} + :more"
                assert await store.fetch_one(sql, {"more": 1}) == (number + 1,)
        row = await store.fetch_one("SELECT count(*) FROM pg_prepared_statements")
        assert row is not None
        assert row[0] <= MOST_PREPARED


async def test_a_changed_table_is_no_matter_to_prepared_statements(
    cluster: Cluster, name: str
) -> None:
    async with opened(cluster, name, pool_max=2) as store:
        await store.execute(TABLE)
        await store.execute(INSERT, item(1))
        for _ in range(4):
            assert await store.fetch_all("SELECT * FROM item") == [(1, "item 1", 0)]
        await store.execute("ALTER TABLE item ADD COLUMN more BIGINT")
        for _ in range(4):
            assert await store.fetch_all("SELECT * FROM item") == [(1, "item 1", 0, None)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT sum(n) FROM (SELECT CAST(1 AS BIGINT) AS n UNION ALL SELECT 2) AS x", 3),
        ("SELECT avg(n) FROM (SELECT CAST(1 AS BIGINT) AS n UNION ALL SELECT 2) AS x", 1.5),
        ("SELECT 1 = 1", 1),
        ("SELECT ':not' || ':this'", ":not:this"),
        ("SELECT CAST(:n AS BIGINT) + 1", 2**62 + 1),
    ],
)
async def test_values_are_those_of_the_seam(
    cluster: Cluster, name: str, sql: str, expected: object
) -> None:
    async with opened(cluster, name) as store:
        assert await store.fetch_one(sql, {"n": 2**62}) == (expected,)


async def test_bytes_survive(cluster: Cluster, name: str) -> None:
    value = bytes(range(256)) * 1000
    async with opened(cluster, name) as store:
        await store.execute("CREATE TABLE box (data BYTEA)")
        await store.execute("INSERT INTO box VALUES (:data)", {"data": value})
        assert await store.fetch_one("SELECT data FROM box") == (value,)


async def test_many_rows_at_once_do_not_block_each_other(cluster: Cluster, name: str) -> None:
    """More than the buffers on the way hold, in both directions."""
    async with opened(cluster, name) as store:
        await store.execute("CREATE TABLE box (id BIGINT, data BYTEA)")
        sql = "INSERT INTO box VALUES (:id, :data) RETURNING data"
        rows = [{"id": n, "data": b"x" * 65536} for n in range(300)]
        async with store.transaction() as tx:
            assert await tx.execute_many(sql, rows) == 300


async def test_a_text_with_a_zero_byte_is_refused_and_not_cut_short(
    cluster: Cluster, name: str
) -> None:
    async with opened(cluster, name) as store:
        await store.execute(TABLE)
        with pytest.raises(DatabaseInvalidError):
            await store.execute(INSERT, {"id": 1, "name": "a\0b", "size": 0})
        assert await count(store) == 0


async def test_what_a_failed_conversion_quotes_is_not_repeated(cluster: Cluster, name: str) -> None:
    async with opened(cluster, name) as store:
        with pytest.raises(DatabaseInvalidError) as caught:
            await store.fetch_one("SELECT CAST(:x AS BIGINT)", {"x": "hunter2"})
        assert "hunter2" not in str(caught.value)


# --- Deadlines ----------------------------------------------------------------------------------


async def running(store: PostgresqlStore) -> int:
    row = await store.fetch_one(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%'"
        " AND pid <> pg_backend_pid()"
    )
    assert row is not None
    return int(row[0])


async def test_a_statement_has_its_deadline_and_ends_on_the_server(
    cluster: Cluster, name: str
) -> None:
    async with opened(cluster, name) as store:
        with pytest.raises(DatabaseLimitError):
            await store.fetch_one("SELECT pg_sleep(30)", within=0.2)
        with pytest.raises(DatabaseLimitError):
            async with store.transaction() as tx:
                await tx.fetch_one("SELECT pg_sleep(30)", within=0.2)
        assert await running(store) == 0
        assert store.statistics().connections <= 2, "the connections were kept"


async def test_a_cancelled_statement_ends_on_the_server(cluster: Cluster, name: str) -> None:
    async with opened(cluster, name) as store:
        with trio.move_on_after(0.2) as scope:
            await store.fetch_one("SELECT pg_sleep(30)")
        assert scope.cancelled_caught
        assert await running(store) == 0


async def test_the_server_keeps_the_deadline_where_the_node_does_not(
    cluster: Cluster, name: str
) -> None:
    async with opened(cluster, name, query_timeout=5.0) as store:
        assert await store.fetch_one("SHOW statement_timeout") == ("5s",)
        assert await store.fetch_one("SHOW statement_timeout", within=60.0) == ("1min",)
        assert await store.fetch_one("SHOW statement_timeout") == ("5s",)
        async with store.transaction() as tx:
            assert await tx.fetch_one("SHOW statement_timeout", within=60.0) == ("1min",)


async def test_a_full_pool_has_a_deadline_and_a_bounded_line(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_pool, "MAX_WAITING", 3)
    async with opened(cluster, name, pool_max=2) as store:
        refused: list[str] = []

        async def late() -> None:
            with pytest.raises(DatabaseLimitError) as caught:
                await store.fetch_one("SELECT 1", within=0.3)
            refused.append(str(caught.value))
            assert caught.value.key == "database.postgresql.pool_max"

        async with (
            store.stream("SELECT 1"),
            store.stream("SELECT 1"),
            trio.open_nursery() as nursery,
        ):
            for _ in range(4):
                nursery.start_soon(late)
        assert sum("3 calls wait" in each for each in refused) == 1
        assert await store.fetch_one("SELECT 1") == (1,)
        assert store.statistics().waiting == 0


async def test_one_round_trip_reads_and_writes(cluster: Cluster, name: str) -> None:
    with Proxy(("127.0.0.1", cluster.server.port)) as proxy:
        async with opened(cluster, name, hosts=(proxy.address,), pool_max=2) as store:
            await store.execute(TABLE)
            connection = await store.pool.take(None, trio.current_time() + 5)
            store.pool.give_back(connection)
            sent = []
            plain = connection._flush

            async def watched() -> None:
                sent.append(1)
                await plain()

            connection._flush = watched  # type: ignore[method-assign]
            await store.execute(INSERT, item(1))
            await store.fetch_one("SELECT 1")
            assert len(sent) == 2, "the change of the mode travels with the statement"
            async with store.transaction() as tx:
                await tx.execute(INSERT, item(2))
            assert len(sent) == 4, "BEGIN travels with the first statement"
