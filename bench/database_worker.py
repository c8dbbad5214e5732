"""One subject of ``bench database`` in a process of its own: a request on standard input, latencies
and a rate on standard output.

The component is booted as a node boots it, around it only what it asks for. The driver does the same
statements with nothing between; *hopping*, each operation is done in one of Trio's worker threads, which
is the least a program on Trio pays for a driver that blocks.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import trio

from bench.harness import percentile
from novacron.component import NodeView, Progress, UndoLog
from novacron.config.schema import DatabaseSettings, PostgresqlSettings
from novacron.data_directory import DataDirectory
from novacron.database import Database, Parameters, Transaction
from novacron.environment import Identity
from novacron.security import Security

ROWS = 10_000
TABLE = "CREATE TABLE item (id BIGINT PRIMARY KEY, name TEXT NOT NULL, size BIGINT NOT NULL)"
INSERT = "INSERT INTO item (id, name, size) VALUES (:id, :name, :size)"
READ = "SELECT id, name, size FROM item WHERE id = :id"
WRITE = "UPDATE item SET size = size + 1 WHERE id = :id"

Operation = Callable[[int], object]
_WARM_UP = 0.15
"""Share of the time that is not counted: statements are prepared in it, connections opened."""


class _Around:
    """What the component asks of a node."""

    boot_id = "bench"
    node_id = "11111111-1111-4111-8111-111111111111"
    certificates: _Around

    def cluster_hashes(self) -> tuple[str, ...]:
        return ("b" * 64,)

    def warn(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")

    def advance(self, component: str, message: str, *, extend: float = 5.0) -> None:
        pass


def component(request: dict[str, Any]) -> Database:
    around = _Around()
    around.certificates = around
    if request["engine"] == "sqlite":
        settings = DatabaseSettings(path=request["path"])
    else:
        changes = {**request["postgresql"], "hosts": tuple(request["postgresql"]["hosts"])}
        settings = DatabaseSettings(engine="postgresql", postgresql=PostgresqlSettings(**changes))
    return Database(
        cast(Security, around),
        cast(Identity, around),
        settings,
        DataDirectory(Path(request["directory"])),
        cast(NodeView, around),
        cast(UndoLog, around),
        cast(Progress, around),
    )


class Clock:
    """Counts what happens after the warm-up and until the end."""

    def __init__(self, seconds: float) -> None:
        self.begin = time.perf_counter() + seconds * _WARM_UP
        self.end = self.begin + seconds
        self.latencies: list[float] = []

    def note(self, started: float) -> bool:
        """Note an operation; whether another one is to be made."""
        now = time.perf_counter()
        if started >= self.begin and now <= self.end:
            self.latencies.append(now - started)
        return now < self.end

    def figures(self) -> dict[str, float]:
        seconds = self.end - self.begin
        return {
            "rate": len(self.latencies) / seconds,
            "p50_us": percentile(self.latencies, 0.50) * 1e6,
            "p99_us": percentile(self.latencies, 0.99) * 1e6,
        }


# --- Through the component ----------------------------------------------------------------------


async def through_component(request: dict[str, Any]) -> dict[str, float]:
    database = component(request)
    async with trio.open_nursery() as nursery:
        await database.initialize(nursery)
        if request["work"] == "fill":
            await database.execute(TABLE)
            async with database.transaction() as transaction:
                rows: list[Parameters] = [
                    {"id": n, "name": f"item {n}", "size": n} for n in range(ROWS)
                ]
                await transaction.execute_many(INSERT, rows)
            figures: dict[str, float] = {}
        else:
            clock = Clock(request["seconds"])
            operation = component_operation(database, request["work"])
            async with trio.open_nursery() as tasks:
                for number in range(request["tasks"]):
                    tasks.start_soon(_repeat, operation, clock, number)
            figures = clock.figures()
        await database.shutdown()
        nursery.cancel_scope.cancel()
    return figures


async def _repeat(operation: Callable[[int], Awaitable[object]], clock: Clock, number: int) -> None:
    chance = random.Random(number)
    while True:
        row = chance.randrange(ROWS)
        started = time.perf_counter()
        await operation(row)
        if not clock.note(started):
            return


def component_operation(database: Database, work: str) -> Callable[[int], Awaitable[object]]:
    async def read(row: int) -> object:
        return await database.fetch_one(READ, {"id": row})

    async def write(row: int) -> object:
        return await database.execute(WRITE, {"id": row})

    async def both(transaction: Transaction, row: int) -> None:
        await transaction.fetch_one(READ, {"id": row})
        await transaction.execute(WRITE, {"id": row})

    async def transact(row: int) -> object:
        async with database.transaction() as transaction:
            await both(transaction, row)
        return None

    async def run(row: int) -> object:
        return await database.run(lambda transaction: both(transaction, row))

    return {"read": read, "write": write, "transaction": transact, "run": run}[work]


# --- The bare driver ----------------------------------------------------------------------------


def through_driver(request: dict[str, Any]) -> dict[str, float]:
    """In one thread and on one connection, or in as many of both as there are tasks."""
    clock = Clock(request["seconds"])
    threads = request["tasks"]

    def loop(number: int) -> None:
        chance = random.Random(number)
        with driver(request) as operation:
            while True:
                row = chance.randrange(ROWS)
                started = time.perf_counter()
                operation(row)
                if not clock.note(started):
                    return

    if threads == 1:
        loop(0)
    else:
        group = [threading.Thread(target=loop, args=(number,)) for number in range(threads)]
        for thread in group:
            thread.start()
        for thread in group:
            thread.join()
    return clock.figures()


async def through_hops(request: dict[str, Any]) -> dict[str, float]:
    """As many connections as may be used at once: one that writes to SQLite, else one a task."""
    alone = request["engine"] == "sqlite" and request["work"] != "read"
    with contextlib.ExitStack() as stack:
        free = [
            stack.enter_context(driver(request)) for _ in range(1 if alone else request["tasks"])
        ]
        turns = trio.Semaphore(len(free))
        clock = Clock(request["seconds"])

        async def operation(row: int) -> object:
            async with turns:
                work = free.pop()
                try:
                    return await trio.to_thread.run_sync(work, row)
                finally:
                    free.append(work)

        async with trio.open_nursery() as tasks:
            for number in range(request["tasks"]):
                tasks.start_soon(_repeat, operation, clock, number)
    return clock.figures()


@contextlib.contextmanager
def driver(request: dict[str, Any]) -> Iterator[Operation]:
    opened = _sqlite_driver if request["engine"] == "sqlite" else _postgresql_driver
    with opened(request) as operation:
        yield operation


@contextlib.contextmanager
def _sqlite_driver(request: dict[str, Any]) -> Iterator[Operation]:
    from novacron.database.connection import open_reader, open_writer

    # Opened as the store does: the same journal, the same waits for the disk.
    opener = open_reader if request["work"] == "read" else open_writer
    raw = opener(Path(request["path"]))
    # Of several that open at once one looks through the log, and the others wait, as in the store.
    raw.execute("PRAGMA busy_timeout=5000").close()

    def read(row: int) -> object:
        return raw.execute(READ, {"id": row}).fetchone()

    def write(row: int) -> object:
        return raw.execute(WRITE, {"id": row}).rowcount

    def transact(row: int) -> object:
        raw.execute("BEGIN IMMEDIATE")
        raw.execute(READ, {"id": row}).fetchone()
        raw.execute(WRITE, {"id": row})
        return raw.execute("COMMIT")

    with contextlib.closing(raw):
        yield {"read": read, "write": write, "transaction": transact}[request["work"]]


@contextlib.contextmanager
def _postgresql_driver(request: dict[str, Any]) -> Iterator[Operation]:
    import psycopg

    read_sql, write_sql = (sql.replace(":id", "%(id)s") for sql in (READ, WRITE))
    connection = psycopg.connect(request["dsn"], autocommit=True)

    def read(row: int) -> object:
        return connection.execute(read_sql, {"id": row}).fetchone()

    def write(row: int) -> object:
        return connection.execute(write_sql, {"id": row}).rowcount

    def transact(row: int) -> object:
        with connection.transaction():
            connection.execute(read_sql, {"id": row}).fetchone()
            return connection.execute(write_sql, {"id": row})

    operations = {"read": read, "write": write, "transaction": transact, "run": transact}
    with contextlib.closing(connection):
        yield operations[request["work"]]


def main() -> None:
    request = json.loads(sys.stdin.read())
    if request["subject"] == "driver":
        figures = through_driver(request)
    elif request["subject"] == "hops":
        figures = trio.run(through_hops, request)
    else:
        figures = trio.run(through_component, request)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
