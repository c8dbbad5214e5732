"""Changes that wait at the same time share a transaction, and keep what each would have alone."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from novacron.database.sqlite import SqliteStore
from novacron.database.sqlite_calls import MAX_TOGETHER
from novacron.database.statements import is_change
from novacron.database.store import (
    DatabaseConflictError,
    DatabaseFullError,
    DatabaseInvalidError,
    DatabaseLimitError,
    DatabaseTransientError,
    DatabaseUnavailableError,
)
from tests.database.support import rows
from tests.database.test_sqlite import ENDLESS, new_store

INSERT = "INSERT INTO item (id, text) VALUES (:id, 'x')"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await new_store(tmp_path / "test.db")
    yield store
    await store.close()


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with something else must not tear apart what goes together here."""
    monkeypatch.setattr("novacron.database.sqlite_calls.TOGETHER_SECONDS", 1000.0)


@contextmanager
def watched(store: SqliteStore) -> Iterator[list[str]]:
    """What the writer's connection is asked for."""
    said: list[str] = []
    raw = store._writer._raw
    assert raw is not None
    raw.set_trace_callback(said.append)
    yield said
    raw.set_trace_callback(None)


async def all_at_once(store: SqliteStore, *works: Callable[[], Awaitable[object]]) -> list[object]:
    """What each of *works* returned or raised, where all of them had to wait for the writer."""
    found: list[object] = [None] * len(works)

    async def one(place: int) -> None:
        try:
            found[place] = await works[place]()
        except Exception as error:
            found[place] = error

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, store.transaction():
            for place in range(len(works)):
                nursery.start_soon(one, place)
                await trio.testing.wait_all_tasks_blocked()
    return found


def insert(store: SqliteStore, number: int) -> Callable[[], Awaitable[object]]:
    return partial(store.execute, INSERT, {"id": number})


def threads() -> int:
    return sum(thread.name == "novacron sqlite" for thread in threading.enumerate())


async def ids(store: SqliteStore) -> list[int]:
    return [row[0] for row in await store.fetch_all("SELECT id FROM item ORDER BY id")]


async def test_what_waits_is_committed_together(store: SqliteStore) -> None:
    with watched(store) as said:
        found = await all_at_once(store, *[insert(store, n) for n in range(5)])
    assert found == [1] * 5
    assert [text.split()[0] for text in said] == ["BEGIN", *["INSERT"] * 5, "COMMIT"]
    assert await ids(store) == list(range(5))
    statistics = store.statistics()
    assert statistics.writes == 1 + 5, "each is counted, and so is the table"


async def test_one_alone_is_no_transaction_of_several(store: SqliteStore) -> None:
    with watched(store) as said:
        await store.execute(INSERT, {"id": 1})
    assert [text.split()[0] for text in said] == ["INSERT"]


async def test_there_is_an_end_to_what_goes_together(store: SqliteStore) -> None:
    many = MAX_TOGETHER + 3
    with watched(store) as said:
        found = await all_at_once(store, *[insert(store, n) for n in range(many)])
    assert found == [1] * many
    assert said.count("COMMIT") == 2


async def test_one_that_fails_fails_alone(store: SqliteStore) -> None:
    await store.execute(INSERT, {"id": 3})
    works = [insert(store, n) for n in range(6)]
    works.append(lambda: store.execute("INSERT INTO nothing VALUES (1)"))
    works.append(lambda: store.execute("INSERT INTO item (id) VALUES (:id)"))
    works.append(insert(store, 9))
    found = await all_at_once(store, *works)
    assert [type(each) for each in found] == [
        *[int] * 3,
        DatabaseConflictError,
        *[int] * 2,
        DatabaseInvalidError,
        DatabaseInvalidError,
        int,
    ]
    assert await ids(store) == [0, 1, 2, 3, 4, 5, 9]
    assert store.statistics().errors == 3


async def test_a_change_that_takes_back_its_transaction_takes_back_nobody_elses(
    store: SqliteStore,
) -> None:
    await store.execute(INSERT, {"id": 2})
    works = [insert(store, 0), insert(store, 1)]
    works.append(lambda: store.execute("INSERT OR ROLLBACK INTO item (id) VALUES (2)"))
    works += [insert(store, 3), insert(store, 4)]
    found = await all_at_once(store, *works)
    assert isinstance(found.pop(2), DatabaseConflictError)
    assert found == [1] * 4
    assert await ids(store) == [0, 1, 2, 3, 4]


async def test_what_only_the_commit_refuses_is_refused_alone(store: SqliteStore) -> None:
    await store.execute(
        "CREATE TABLE part (id INTEGER PRIMARY KEY,"
        " whole INTEGER REFERENCES item (id) DEFERRABLE INITIALLY DEFERRED)"
    )
    works = [insert(store, 1)]
    part = "INSERT INTO part (whole) VALUES (:whole)"
    works += [partial(store.execute, part, {"whole": whole}) for whole in (1, 7)]
    works.append(insert(store, 2))
    found = await all_at_once(store, *works)
    assert isinstance(found.pop(2), DatabaseConflictError)
    assert found == [1] * 3
    assert await ids(store) == [1, 2]
    assert await store.fetch_all("SELECT whole FROM part") == [(1,)]


async def test_what_works_outside_of_transactions_alone_shares_none(store: SqliteStore) -> None:
    works = [insert(store, 1), lambda: store.execute("VACUUM"), insert(store, 2)]
    works.append(lambda: store.execute("PRAGMA foreign_keys=ON"))
    with watched(store) as said:
        found = await all_at_once(store, *works, insert(store, 3), insert(store, 4))
    assert not [each for each in found if isinstance(each, Exception)]
    assert said.count("COMMIT") == 1, "of the last two"
    assert await ids(store) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("sql", "change"),
    [
        ("  insert into item values (1)", True),
        ("UPDATE item SET id = 1", True),
        ("DELETE FROM item", True),
        ("COMMIT", False),
        ("PRAGMA user_version = 3", False),
        ("WITH x AS (SELECT 1) INSERT INTO item SELECT * FROM x", False),
        ("", False),
    ],
)
def test_what_is_a_change(sql: str, change: bool) -> None:
    assert is_change(sql) is change


async def test_the_line_keeps_its_order(store: SqliteStore) -> None:
    async def block() -> object:
        async with store.transaction() as tx:
            row = await tx.fetch_one("SELECT count(*) FROM item")
            await tx.execute(INSERT, {"id": 100})
            return row

    works: list[Callable[[], Awaitable[object]]] = [
        insert(store, 1),
        insert(store, 2),
        block,
        insert(store, 3),
    ]
    with watched(store) as said:
        found = await all_at_once(store, *works)
    assert found == [1, 1, (2,), 1]
    assert [text.split()[0] for text in said].count("BEGIN") == 2


# --- Cut short -----------------------------------------------------------------------------------


async def test_a_cancelled_one_is_cut_and_the_others_stay(store: SqliteStore) -> None:
    done: list[int] = []

    async def write(number: int) -> None:
        await store.execute(INSERT, {"id": number})
        done.append(number)

    scope = trio.CancelScope()

    async def endless() -> None:
        with scope:
            await store.execute(f"INSERT INTO item (text) {ENDLESS}")

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            async with store.transaction():
                for number in (1, 2):
                    nursery.start_soon(write, number)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(endless)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(write, 3)
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.1)
            assert done == []
            scope.cancel()
    assert scope.cancelled_caught
    assert sorted(done) == [1, 2, 3]
    assert await ids(store) == [1, 2, 3]


async def test_one_that_was_cancelled_in_the_line_is_not_done(store: SqliteStore) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, store.transaction():
            nursery.start_soon(store.execute, INSERT, {"id": 1})
            with trio.move_on_after(0.02) as scope:
                await _in_a_task(lambda: store.execute(INSERT, {"id": 2}))
            assert scope.cancelled_caught
            assert store.statistics().waiting == 1
    assert await ids(store) == [1]


async def _in_a_task(work: Callable[[], Awaitable[object]]) -> None:
    async def run() -> None:
        await work()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)


async def test_a_deadline_cuts_one_and_names_it(store: SqliteStore) -> None:
    works = [insert(store, 1)]
    works.append(lambda: store.execute(f"INSERT INTO item (text) {ENDLESS}", within=0.1))
    works.append(insert(store, 2))
    found = await all_at_once(store, *works)
    assert isinstance(found.pop(1), DatabaseLimitError)
    assert found == [1, 1]
    assert await ids(store) == [1, 2]


async def test_the_line_has_a_deadline_though_the_thread_hangs(store: SqliteStore) -> None:
    # As a disk that answers nothing: SQLite cannot be interrupted in it.
    let_go = threading.Event()
    raw = store._writer._raw
    assert raw is not None
    raw.create_function("hang", 0, lambda: int(let_go.wait(20)))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.execute, "INSERT INTO item (id) VALUES (hang())")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(DatabaseLimitError) as caught:
                await store.execute(INSERT, {"id": 5}, within=0.05)
            assert "no connection became free within 0.05 s" in str(caught.value)
            with pytest.raises(DatabaseLimitError):
                async with store.transaction(within=0.05):
                    raise AssertionError("not reached")
            assert store.statistics().waiting == 0
            let_go.set()
    assert await ids(store) == [1]


async def test_closing_answers_all_that_wait(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.database.sqlite.CLOSE_GRACE", 0.1)
    refused: list[Exception] = []

    async def forgotten(sql: str) -> None:
        try:
            await store.execute(sql)
        except DatabaseUnavailableError as error:
            refused.append(error)

    before = threads()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forgotten, f"INSERT INTO item (text) {ENDLESS}")
            await trio.sleep(0.02)
            for number in range(3):
                nursery.start_soon(forgotten, f"INSERT INTO item (id) VALUES ({number})")
            await trio.testing.wait_all_tasks_blocked()
            await store.close()
    assert len(refused) == 4
    assert store.statistics().connections == 0
    assert threads() == before - 1, "the writer's has ended; no other was started"
    assert rows(store.path, "SELECT id FROM item") == []


async def test_closing_again_is_harmless_and_waits_for_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.database.sqlite.CLOSE_GRACE", 1000.0)
    await store.fetch_one("SELECT 1")
    before = threads()
    with trio.fail_after(10):
        for _ in range(3):
            await store.close()
    assert threads() == before - 2


# --- Nothing acknowledged is lost ----------------------------------------------------------------


async def test_a_lock_of_another_process_is_waited_for_by_each(tmp_path: Path) -> None:
    store = await new_store(tmp_path / "test.db", busy_timeout=0.05)
    other = sqlite3.connect(store.path, isolation_level=None)
    found: list[type] = []

    async def write(number: int) -> None:
        try:
            await store.execute(INSERT, {"id": number})
        except DatabaseTransientError as error:
            found.append(type(error))

    with trio.fail_after(20):
        # The block has the writer's turn and no lock yet: it has said nothing.
        async with trio.open_nursery() as nursery, store.transaction():
            for number in (1, 2):
                nursery.start_soon(write, number)
            await trio.testing.wait_all_tasks_blocked()
            other.execute("BEGIN IMMEDIATE")
    assert found == [DatabaseTransientError] * 2
    other.execute("ROLLBACK")
    other.close()
    await store.execute(INSERT, {"id": 3})
    assert await ids(store) == [3]
    await store.close()


async def test_a_disk_that_fills_loses_nothing_that_was_acknowledged(small_disk: Path) -> None:
    store = await new_store(small_disk / "test.db")
    kept: list[int] = []
    full: list[Exception] = []

    async def write(place: int) -> None:
        number = place
        while not full:
            try:
                await store.execute(
                    "INSERT INTO item (id, text) VALUES (:id, :t)", {"id": number, "t": "x" * 9000}
                )
            except DatabaseFullError as error:
                full.append(error)
            else:
                kept.append(number)
            number += 8

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for place in range(8):
                nursery.start_soon(write, place)
    assert full
    await store.close()
    assert [row[0] for row in rows(store.path, "SELECT id FROM item ORDER BY id")] == sorted(kept)


async def test_what_many_were_told_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import sys, trio\n"
        "from pathlib import Path\n"
        "from novacron.database.sqlite import SqliteStore\n"
        "async def write(store, number):\n"
        "    while True:\n"
        "        await store.execute('INSERT INTO item VALUES (:n, :t)',"
        " {'n': number, 't': 'x' * 500})\n"
        "        print(number, flush=True)\n"
        "        number += 16\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1]), readers=1, busy_timeout=1, query_timeout=9)\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        for number in range(16):\n"
        "            nursery.start_soon(write, store, number)\n"
        "trio.run(main)\n"
    )
    store = await new_store(tmp_path / "test.db")
    await store.close()

    def write_and_die() -> list[int]:
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(store.path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        told: list[int] = []
        with child, child.stdout:
            for line in child.stdout:
                if len(told) == 300:
                    child.kill()
                told.append(int(line))
        return told

    with trio.fail_after(60):
        told = await trio.to_thread.run_sync(write_and_die)
    found = {row[0] for row in rows(store.path, "SELECT id FROM item")}
    assert len(told) >= 300
    assert set(told) <= found


@pytest.mark.parametrize("seed", range(4))
async def test_any_mixture_keeps_what_was_acknowledged_and_nothing_that_failed(
    store: SqliteStore, seed: int
) -> None:
    chance = random.Random(seed)
    kept: set[int] = set()
    refused: set[int] = set()
    plans = [(number, chance.randrange(6), chance.random()) for number in range(240)]

    async def one(number: int, kind: int, patience: float) -> None:
        with trio.move_on_after(0.03 * patience if kind == 0 else 20):
            try:
                if kind == 1:
                    async with store.transaction() as tx:
                        await tx.execute(INSERT, {"id": number})
                        if patience < 0.3:
                            raise KeyError
                elif kind == 2 and patience < 0.5:
                    await store.execute("INSERT OR ROLLBACK INTO item (id) VALUES (-1)")
                elif kind == 3 and patience < 0.2:
                    with trio.move_on_after(0.002):
                        await store.execute(f"INSERT INTO item (text) {ENDLESS}")
                    return
                else:
                    await store.execute(INSERT, {"id": number})
            except (KeyError, DatabaseConflictError):
                refused.add(number)
            else:
                kept.add(number)

    await store.execute("INSERT INTO item (id) VALUES (-1)")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for plan in plans:
                nursery.start_soon(one, *plan)
                if chance.random() < 0.2:
                    await trio.sleep(0.001)
    found = set(await ids(store)) - {-1}
    assert kept <= found
    assert not refused & found
    # Whoever was cancelled is in one or the other state; nobody else is missing.
    assert found - kept <= {number for number, kind, _ in plans if kind == 0}
