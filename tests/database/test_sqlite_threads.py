"""Who may use a connection's thread, when, and what becomes of whoever waits for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from novacron.database.connection import Connection
from novacron.database.sqlite import SqliteStore
from novacron.database.sqlite_calls import Hold
from novacron.database.store import DatabaseLimitError, DatabaseUnavailableError
from tests.database.test_sqlite import ENDLESS, new_store
from tests.database.test_sqlite_together import ids


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await new_store(tmp_path / "test.db")
    yield store
    await store.close()


def hanging(store: SqliteStore, connection: Connection | None = None) -> threading.Event:
    """What lets the SQL function ``hang()`` return: SQLite cannot be interrupted in it, as by a disk
    that answers nothing."""
    let_go = threading.Event()
    raw = (connection or store._writer)._raw
    assert raw is not None
    raw.create_function("hang", 0, lambda: int(let_go.wait(20)))
    return let_go


async def nobody_shares_the_writer(store: SqliteStore) -> None:
    """Two transactions at once: the second one waits for the first."""
    inside = 0

    async def one() -> None:
        nonlocal inside
        async with store.transaction():
            inside += 1
            await trio.testing.wait_all_tasks_blocked()
            assert inside == 1
            inside -= 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)


async def test_a_thread_that_is_given_back_while_it_hands_itself_over_is_nobodys_twice(
    store: SqliteStore,
) -> None:
    handed_over, given_back = threading.Event(), threading.Event()

    class Slow(deque[object]):
        """As if the thread were not scheduled for a while after it handed a hold over."""

        def append(self, item: object) -> None:
            super().append(item)
            if isinstance(item, Hold):
                handed_over.set()
                assert given_back.wait(10)

    thread = store._writing._threads[0]
    thread._done = Slow()  # type: ignore[assignment]

    async def hold() -> None:
        async with store.transaction():
            pass
        given_back.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            let_go = hanging(store)
            nursery.start_soon(store.execute, "INSERT INTO item (id) VALUES (hang())")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked()
            let_go.set()
            # The loop has other work until the thread is there.
            assert handed_over.wait(10)
        await nobody_shares_the_writer(store)


async def test_leaving_a_transaction_waits_for_a_first_statement_of_another_task(
    store: SqliteStore,
) -> None:
    let_go = hanging(store)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                with contextlib.suppress(KeyError):
                    async with store.transaction() as tx:
                        nursery.start_soon(tx.execute, "INSERT INTO item (id) VALUES (hang())")
                        await trio.testing.wait_all_tasks_blocked()
                        raise KeyError

            nursery.start_soon(leave)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(store.execute, "INSERT INTO item (id) VALUES (2)")
            await trio.testing.wait_all_tasks_blocked()
            let_go.set()
        assert await ids(store) == [2]
        await nobody_shares_the_writer(store)


async def test_leaving_a_stream_waits_for_a_first_batch_of_another_task(tmp_path: Path) -> None:
    store = await new_store(tmp_path / "one.db", readers=1)
    await store.fetch_one("SELECT 1")
    let_go = hanging(store, store._readers[0])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                async with store.stream("SELECT hang() UNION ALL SELECT 2") as rows:
                    nursery.start_soon(rows.__anext__)
                    await trio.testing.wait_all_tasks_blocked()

            nursery.start_soon(leave)
            await trio.testing.wait_all_tasks_blocked()
            assert store._reading.busy
            let_go.set()
        async with store.stream("SELECT 1"):
            assert store._reading.busy, "the thread is there once"
        await store.close()


async def test_two_tasks_that_share_a_stream_get_each_row_once(store: SqliteStore) -> None:
    async with store.transaction() as tx:
        insert = "INSERT INTO item (id) VALUES (:id)"
        await tx.execute_many(insert, [{"id": number} for number in range(100)])
    seen: list[int] = []
    with trio.fail_after(20):
        async with store.stream("SELECT id FROM item", batch_rows=7) as rows:

            async def read() -> None:
                async for row in rows:
                    seen.append(row[0])
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(read)
    assert sorted(seen) == list(range(100))


async def test_closing_while_a_thread_empties_the_line_answers_everybody(
    store: SqliteStore,
) -> None:
    let_go = hanging(store)

    class Slow(deque[object]):
        """As if the thread went on just when the loop has seen that somebody waits."""

        def __len__(self) -> int:
            found = super().__len__()
            if found and not let_go.is_set():
                let_go.set()
                for _ in range(20):
                    if super().__len__():
                        time.sleep(0.01)
            return found

    answered: list[int] = []

    async def insert(value: str) -> None:
        with contextlib.suppress(DatabaseUnavailableError):
            await store.execute(f"INSERT INTO item (id) VALUES ({value})")
        answered.append(1)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(insert, "hang()")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(insert, "2")
            await trio.testing.wait_all_tasks_blocked()
            store._writing._waiting = Slow(store._writing._waiting)  # type: ignore[assignment]
            await store.close()
    assert len(answered) == 2
    assert store.statistics().connections == 0


# --- What goes together does not wait for each other ---------------------------------------------


async def test_one_that_its_group_has_not_come_to_leaves_at_its_deadline(
    store: SqliteStore,
) -> None:
    let_go = hanging(store)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            async with store.transaction():
                nursery.start_soon(store.execute, "INSERT INTO item (id) VALUES (hang())")
                await trio.testing.wait_all_tasks_blocked()
                for within in (0.1, 0.2):
                    nursery.start_soon(refused_in_line, store, within)
                    await trio.testing.wait_all_tasks_blocked()
            while store.statistics().waiting:
                await trio.sleep(0.01)
            let_go.set()
    assert await ids(store) == [1]


async def refused_in_line(store: SqliteStore, within: float) -> None:
    with pytest.raises(DatabaseLimitError) as caught:
        await store.execute("INSERT INTO item (id) VALUES (5)", within=within)
    assert "no connection became free" in str(caught.value)


async def test_one_that_is_slow_does_not_keep_the_answers_of_others(store: SqliteStore) -> None:
    scope = trio.CancelScope()
    done: list[int] = []

    async def insert(number: int) -> None:
        await store.execute("INSERT INTO item (id) VALUES (:id)", {"id": number})
        done.append(number)

    async def endless() -> None:
        with scope:
            await store.execute(f"INSERT INTO item (text) {ENDLESS}")

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            async with store.transaction():
                nursery.start_soon(insert, 1)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(endless)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(insert, 2)
                await trio.testing.wait_all_tasks_blocked()
            while not done:
                await trio.sleep(0.01)
            assert done == [1], "the endless one runs by itself now"
            scope.cancel()
    assert scope.cancelled_caught
    assert await ids(store) == [1, 2]
