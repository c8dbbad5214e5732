"""Whatever is cancelled, cut and ended at random: what was said of each change is what became of it."""

from __future__ import annotations

import random
from collections import Counter
from itertools import count

import pytest
import trio

from bench.proxy import Proxy
from novacron.database.postgresql import PostgresqlStore
from novacron.database.postgresql_connection import IDLE
from novacron.database.store import (
    DatabaseLimitError,
    DatabaseOutcomeUnknownError,
    Transaction,
)
from novacron.errors import DatabaseError
from tests.database.test_postgresql import opened
from tests.servers import Cluster

TABLE = "CREATE TABLE part (id BIGINT, number BIGINT, text TEXT, PRIMARY KEY (id, number))"
INSERT = "INSERT INTO part VALUES (:id, :number, :text)"
WORKERS, TURNS = 8, 30
MANY = 300


class Storm:
    def __init__(self, store: PostgresqlStore, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.allowed: dict[int, set[int]] = {}
        """By change: how many rows there may be of it."""
        self._ids = count(1)

    async def work(self) -> None:
        for _ in range(TURNS):
            kind = self.random.choice([self.one, self.several, self.block, self.read, self.stream])
            change, rows = next(self._ids), 0
            with trio.CancelScope() as scope:
                if self.random.random() < 0.6:
                    scope.deadline = trio.current_time() + self.random.uniform(0, 0.02)
                try:
                    # Nothing between the call and its result is a checkpoint.
                    rows = await kind(change)
                except DatabaseOutcomeUnknownError:
                    self.allowed[change] = {0, 1, 2, MANY}
                    continue
                except DatabaseError:
                    pass
                self.allowed[change] = {rows}
            self.allowed.setdefault(change, {0})
            while self.store.absence is not None:
                # Where every call fails at once, nothing would be tried.
                await trio.sleep(0.01)
            await trio.lowlevel.checkpoint()

    async def one(self, change: int) -> int:
        text = "x" * self.random.choice([1, 200_000])
        await self.store.execute(INSERT, {"id": change, "number": 0, "text": text})
        return 1

    async def several(self, change: int) -> int:
        async def insert(tx: Transaction) -> None:
            for number in range(2):
                await tx.execute(INSERT, {"id": change, "number": number, "text": ""})

        await self.store.run(insert)
        return 2

    async def block(self, change: int) -> int:
        rows = [{"id": change, "number": number, "text": ""} for number in range(MANY)]
        async with self.store.transaction() as tx:
            await tx.execute_many(INSERT, rows)
        return MANY

    async def read(self, change: int) -> int:
        sql = "SELECT :first + g FROM generate_series(0, :last) g"
        last = self.random.choice([0, 3000, 20_000])
        try:
            found = await self.store.fetch_all(sql, {"first": change, "last": last})
        except DatabaseLimitError:
            return 0
        assert [row[0] for row in found] == list(range(change, change + last + 1))
        return 0

    async def stream(self, change: int) -> int:
        async with self.store.stream("SELECT g FROM generate_series(1, 1000) g") as rows:
            found = [row[0] async for row in rows]
        assert found == list(range(1, 1001))
        return 0


async def trouble(proxy: Proxy, cluster: Cluster, name: str, chance: random.Random) -> None:
    end = (
        f"SELECT {{}}(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        " AND application_name = 'novacron' AND random() < 0.5"
    )
    while True:
        await trio.sleep(chance.uniform(0.02, 0.1))
        match chance.randrange(3):
            case 0:
                await trio.to_thread.run_sync(proxy.cut)
            case 1:
                await trio.to_thread.run_sync(
                    cluster.server.psql, end.format("pg_terminate_backend")
                )
            case _:
                await trio.to_thread.run_sync(cluster.server.psql, end.format("pg_cancel_backend"))


@pytest.mark.parametrize("seed", range(2))
async def test_what_was_said_of_each_change_is_what_became_of_it(
    cluster: Cluster, seed: int
) -> None:
    name = cluster.new_database()
    with Proxy(("127.0.0.1", cluster.server.port)) as proxy:
        async with opened(cluster, name, hosts=(proxy.address,), pool_max=4) as store:
            await store.execute(TABLE)
            storm = Storm(store, seed)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trouble, proxy, cluster, name, random.Random(seed))
                async with trio.open_nursery() as workers:
                    for _ in range(WORKERS):
                        workers.start_soon(storm.work)
                nursery.cancel_scope.cancel()
            while store.absence is not None:
                await trio.sleep(0.01)
            assert store.pool.waiting == 0
            assert store.pool._free.value == 4
            assert store.pool._used == set()
            assert all(each.status == IDLE and each.usable for each in store.pool._idle)
            rows = await store.fetch_all("SELECT id, count(*) FROM part GROUP BY id")
    found = Counter(dict(rows))
    wrong = {
        change: (found[change], allowed)
        for change, allowed in storm.allowed.items()
        if found[change] not in allowed
    }
    assert wrong == {}
    assert sum(found[change] > 0 for change in storm.allowed) > TURNS, "some went well"
