"""What SQLite's store does beyond the contract."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from novacron.database import sqlite as module
from novacron.database.connection import open_reader, open_writer
from novacron.database.sqlite import SqliteStore
from novacron.database.store import (
    DatabaseFullError,
    DatabaseLimitError,
    DatabaseTransientError,
    DatabaseUnavailableError,
)
from tests.database.support import rows

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await new_store(tmp_path / "test.db")
    yield store
    await store.close()


async def new_store(
    path: Path, *, busy_timeout: float = 1.0, query_timeout: float = 10.0, readers: int = 2
) -> SqliteStore:
    path.touch()
    store = SqliteStore(
        path, readers=readers, busy_timeout=busy_timeout, query_timeout=query_timeout
    )
    await store.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, text TEXT)")
    return store


async def test_a_cancelled_read_is_interrupted_and_its_connection_serves_again(
    store: SqliteStore,
) -> None:
    for _ in range(5):
        with trio.fail_after(10), trio.move_on_after(0.02) as scope:
            await store.fetch_one(ENDLESS)
        assert scope.cancelled_caught
        assert await store.fetch_one("SELECT 1") == (1,)
    assert store.statistics().errors == 0, "a cancellation is not an error of the database"


async def test_a_cancelled_write_keeps_nothing(store: SqliteStore) -> None:
    with trio.fail_after(10), trio.move_on_after(0.05) as scope:
        await store.execute(f"INSERT INTO item (text) {ENDLESS}")
    assert scope.cancelled_caught
    with trio.fail_after(10), trio.move_on_after(0.05) as scope:
        async with store.transaction() as tx:
            await tx.execute("INSERT INTO item (id) VALUES (1)")
            await tx.execute(f"INSERT INTO item (text) {ENDLESS}")
    assert scope.cancelled_caught
    assert await store.fetch_all("SELECT id FROM item") == []
    await store.execute("INSERT INTO item (id) VALUES (1)")


async def test_a_statement_past_its_deadline_is_interrupted_and_named(store: SqliteStore) -> None:
    with trio.fail_after(10), pytest.raises(DatabaseLimitError) as caught:
        await store.fetch_one(ENDLESS, within=0.05)
    assert "ran longer than 0.05 s" in str(caught.value)
    assert caught.value.key == "database.query_timeout"
    assert await store.fetch_one("SELECT 1") == (1,)


async def test_a_deadline_in_a_transaction_ends_it_and_frees_the_writer(
    store: SqliteStore,
) -> None:
    with trio.fail_after(10), pytest.raises(DatabaseLimitError):
        async with store.transaction() as tx:
            await tx.execute("INSERT INTO item (id) VALUES (1)")
            await tx.fetch_one(ENDLESS, within=0.05)
    assert await store.fetch_all("SELECT id FROM item") == []
    await store.execute("INSERT INTO item (id) VALUES (2)")


async def test_no_connection_is_ever_used_by_two_threads_at_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    users: dict[int, int] = {}
    clashes: list[int] = []
    lock = threading.Lock()
    plain = module.Connection.run

    def watched(self: module.Connection, *args: object, **options: object) -> object:
        with lock:
            users[id(self)] = users.get(id(self), 0) + 1
            if users[id(self)] > 1:
                clashes.append(id(self))
        try:
            return plain(self, *args, **options)  # type: ignore[arg-type]
        finally:
            with lock:
                users[id(self)] -= 1

    monkeypatch.setattr(module.Connection, "run", watched)

    async def impatient(number: int) -> None:
        for step in range(10):
            with trio.move_on_after(0.001 * ((number + step) % 5)):
                if number % 3 == 0:
                    await store.fetch_one(ENDLESS)
                elif number % 3 == 1:
                    await store.execute("INSERT INTO item (text) VALUES ('x')")
                else:
                    async with store.transaction() as tx:
                        await tx.execute("INSERT INTO item (text) VALUES ('y')")
                        await tx.fetch_one("SELECT count(*) FROM item")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(impatient, number)
    assert users
    assert clashes == []
    assert not store._writer.in_transaction()
    await store.execute("INSERT INTO item (text) VALUES ('last')")


async def test_readers_run_in_parallel_up_to_their_number(store: SqliteStore) -> None:
    # Both block in SQLite until the other is there too.
    barrier = threading.Barrier(2, timeout=10)
    for reader in store._readers:
        raw = open_reader(store.path)
        raw.create_function("meet", 0, lambda: int(barrier.wait() >= 0))
        reader.adopt(raw)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.fetch_one, "SELECT meet()")
            nursery.start_soon(store.fetch_one, "SELECT meet()")


async def test_connections_are_opened_when_needed(tmp_path: Path) -> None:
    store = await new_store(tmp_path / "lazy.db", readers=8)
    assert store.statistics().connections == 1
    for _ in range(20):
        await store.fetch_one("SELECT 1")
    assert store.statistics().connections == 2
    await store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lazy.db"], "the log was folded in"


async def test_the_line_of_waiting_calls_is_bounded(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    refused: list[DatabaseLimitError] = []

    async def write() -> None:
        try:
            await store.execute("INSERT INTO item (text) VALUES ('x')")
        except DatabaseLimitError as error:
            refused.append(error)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, store.transaction():
            for _ in range(5):
                nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            assert store.statistics().waiting == 3
    assert len(refused) == 2
    assert "3 calls wait" in str(refused[0])
    assert await store.fetch_one("SELECT count(*) FROM item") == (3,)


async def test_a_lock_of_another_process_is_waited_for(tmp_path: Path) -> None:
    store = await new_store(tmp_path / "test.db", busy_timeout=10.0)
    other = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    async def let_go() -> None:
        await trio.sleep(0.1)
        other.execute("ROLLBACK")

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_go)
            await store.execute("INSERT INTO item (id) VALUES (1)")
    other.close()
    assert await store.fetch_all("SELECT id FROM item") == [(1,)]
    await store.close()


async def test_a_lock_that_another_process_keeps_is_a_transient_error(tmp_path: Path) -> None:
    store = await new_store(tmp_path / "test.db", busy_timeout=0.05)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with trio.fail_after(10):
        with pytest.raises(DatabaseTransientError) as caught:
            await store.execute("INSERT INTO item (id) VALUES (1)")
        assert caught.value.retryable
        assert caught.value.key == "database.busy_timeout"
        assert "fuser" in caught.value.remedy
        with pytest.raises(DatabaseTransientError):
            async with store.transaction() as tx:
                await tx.execute("INSERT INTO item (id) VALUES (1)")
        with trio.move_on_after(0.01) as scope:
            await store.execute("INSERT INTO item (id) VALUES (1)")
        assert scope.cancelled_caught
    other.close()
    await store.execute("INSERT INTO item (id) VALUES (1)")
    await store.close()


async def test_closing_interrupts_what_is_still_running(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_GRACE", 0.2)
    ended: list[str] = []

    async def forgotten() -> None:
        with pytest.raises(DatabaseUnavailableError):
            await store.fetch_one(ENDLESS)
        ended.append("read")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forgotten)
            await trio.sleep(0.02)
            await store.close()
            assert store.statistics().connections == 0
    assert ended == ["read"]


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import sys, trio\n"
        "from pathlib import Path\n"
        "from novacron.database.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1]), readers=1, busy_timeout=1, query_timeout=9)\n"
        "    number = 0\n"
        "    while True:\n"
        "        number += 1\n"
        "        await store.execute('INSERT INTO item VALUES (:n, :t)',"
        " {'n': number, 't': 'x' * 500})\n"
        "        print(number, flush=True)\n"
        "trio.run(main)\n"
    )
    store = await new_store(tmp_path / "test.db")
    await store.close()

    def write_and_die() -> int:
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(store.path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        with child, child.stdout:
            for line in child.stdout:
                if int(line) == 50:
                    break
            child.kill()
            last = 50
            for line in child.stdout:
                last = int(line)
        return last

    with trio.fail_after(60):
        acknowledged = await trio.to_thread.run_sync(write_and_die)
    found = [row[0] for row in rows(store.path, "SELECT id FROM item ORDER BY id")]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= acknowledged


async def test_a_full_disk_is_named_and_nothing_is_lost(small_disk: Path) -> None:
    store = await new_store(small_disk / "test.db")
    written = 0
    with trio.fail_after(30):
        with pytest.raises(DatabaseFullError) as caught:
            while True:
                await store.execute("INSERT INTO item (text) VALUES (:t)", {"t": "x" * 10_000})
                written += 1
        assert "no space is left" in str(caught.value)
        assert caught.value.key == "database.path"
        with pytest.raises(DatabaseFullError):
            async with store.transaction() as tx:
                await tx.execute("INSERT INTO item (text) VALUES (:t)", {"t": "x" * 300_000})
        assert await store.fetch_one("SELECT count(*) FROM item") == (written,)
        assert not store.damaged
    await store.close()
    assert rows(store.path, "SELECT count(*) FROM item") == [(written,)]


def test_a_reader_leaves_file_and_log_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.touch()
    writer = open_writer(path)
    writer.execute("CREATE TABLE item (id)")
    writer.execute("INSERT INTO item VALUES (1)")
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    writer.close()
    before = [Path(f"{copy}{suffix}").read_bytes() for suffix in ("", "-wal")]
    assert all(before)
    reader = open_reader(copy)
    assert reader.execute("SELECT id FROM item").fetchall() == [(1,)]
    reader.close()
    assert [Path(f"{copy}{suffix}").read_bytes() for suffix in ("", "-wal")] == before


async def test_the_writer_is_durable_and_checks_foreign_keys(store: SqliteStore) -> None:
    async with store.transaction() as tx:
        assert await tx.fetch_one("PRAGMA synchronous") == (2,)
        assert await tx.fetch_one("PRAGMA foreign_keys") == (1,)
        assert await tx.fetch_one("PRAGMA journal_mode") == ("wal",)


async def test_statements_are_measured(store: SqliteStore) -> None:
    before = module.STATEMENTS.values.get(("read",), 0.0)
    failed = module.ERRORS.values.get(("database.invalid",), 0.0)
    await store.fetch_one("SELECT 1")
    with pytest.raises(Exception, match="refused"):
        await store.fetch_one("SELECT")
    assert module.STATEMENTS.values[("read",)] == before + 1
    assert module.ERRORS.values[("database.invalid",)] == failed + 1
    counts, seconds = module.SECONDS.values[("read",)]
    assert sum(counts) >= 1
    assert 0 < seconds < time.monotonic()
