"""Who may use a connection's thread, when, and what becomes of whoever waits for it."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from novacron.database import sqlite as module
from novacron.database.connection import Connection
from novacron.database.sqlite import SqliteStore
from novacron.database.sqlite_calls import Hold, Item
from novacron.database.sqlite_pool import ConnectionThread
from novacron.database.store import (
    DatabaseConflictError,
    DatabaseInvalidError,
    DatabaseLimitError,
    DatabaseUnavailableError,
    Value,
)
from tests.database.test_sqlite import ENDLESS, new_store
from tests.database.test_sqlite_together import all_at_once, ids


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


async def test_closing_twice_at_once_waits_for_whoever_holds_a_thread(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_GRACE", 5.0)
    interrupted: list[Connection] = []
    monkeypatch.setattr(Connection, "interrupt", interrupted.append)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, store.stream("SELECT 1"):
            for _ in range(3):
                nursery.start_soon(store.close)
                await trio.testing.wait_all_tasks_blocked()
    assert interrupted == []
    assert store.statistics().connections == 0


async def test_no_thread_to_be_had_is_a_limit_and_costs_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test.db").touch()
    store = SqliteStore(tmp_path / "test.db", readers=1, busy_timeout=1.0, query_timeout=10.0)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with trio.fail_after(10):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(2):
                with pytest.raises(DatabaseLimitError) as caught:
                    await store.fetch_one("SELECT 1")
                assert "TasksMax" in caught.value.remedy
                with pytest.raises(DatabaseLimitError):
                    async with store.transaction():
                        raise AssertionError("not reached")
        assert await store.fetch_one("SELECT 1") == (1,)
        await store.close()


def test_a_store_serves_a_second_run_of_the_loop(tmp_path: Path) -> None:
    stores: list[SqliteStore] = []

    async def first() -> None:
        stores.append(await new_store(tmp_path / "test.db"))

    async def second() -> None:
        with trio.fail_after(10):
            await stores[0].execute("INSERT INTO item (id) VALUES (1)")
            assert await ids(stores[0]) == [1]
            await stores[0].close()

    def run() -> None:
        trio.run(first)
        trio.run(second)
        done.set()

    # In a thread: who waits for an answer that never comes cannot be cancelled.
    done = threading.Event()
    threading.Thread(target=run, daemon=True).start()
    assert done.wait(20)


# --- What a caller is told, and what is left of it -----------------------------------------------


async def test_one_that_waited_and_then_ran_too_long_is_told_so(store: SqliteStore) -> None:
    caught: list[str] = []
    let_go = hanging(store)

    async def endless() -> None:
        with pytest.raises(DatabaseLimitError) as error:
            await store.execute(f"INSERT INTO item (id) SELECT hang() + ({ENDLESS})", within=0.1)
        caught.append(str(error.value))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with store.transaction():
                nursery.start_soon(endless)
                await trio.testing.wait_all_tasks_blocked()
            # SQLite looks up only when the loop has told it to stop, too.
            await trio.sleep(0.15)
            let_go.set()
    assert "it ran longer than 0.1 s" in caught[0]


async def test_the_number_of_those_that_wait_is_right_after_a_cancellation(
    store: SqliteStore,
) -> None:
    with trio.fail_after(10):
        async with store.transaction(), trio.open_nursery() as nursery:
            nursery.start_soon(store.execute, "INSERT INTO item (id) VALUES (1)")
            nursery.start_soon(hold_the_writer, store)
            await trio.testing.wait_all_tasks_blocked()
            assert module.WAITING.values[()] == 2
            nursery.cancel_scope.cancel()
    assert module.WAITING.values[()] == 0


async def hold_the_writer(store: SqliteStore) -> None:
    async with store.transaction():
        raise AssertionError("not reached")


async def test_a_commit_that_was_cancelled_is_not_called_committed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = trio.CancelScope()
    plain = store.finish

    async def finish(thread: ConnectionThread, item: Item) -> None:
        scope.cancel()
        await plain(thread, item)

    monkeypatch.setattr(store, "finish", finish)
    with scope:
        async with store.transaction() as tx:
            await tx.execute("INSERT INTO item (id) VALUES (1)")
    assert scope.cancelled_caught
    with pytest.raises(DatabaseConflictError) as caught:
        await tx.fetch_one("SELECT 1")
    assert caught.value.why == "it was rolled back"
    assert await ids(store) == []


class Raising(dict[str, Value]):
    """Parameters of which one cannot be had."""

    def __getitem__(self, name: str) -> Value:
        raise RuntimeError(name)


async def test_a_value_that_raises_of_itself_fails_for_its_owner_alone(
    store: SqliteStore,
) -> None:
    insert = "INSERT INTO item (id) VALUES (:id)"
    found = await all_at_once(
        store,
        lambda: store.execute(insert, {"id": 1}),
        lambda: store.execute(insert, Raising(id=2)),
        lambda: store.execute(insert, {"id": 3}),
    )
    assert [type(each) for each in found] == [int, RuntimeError, int]
    assert await ids(store) == [1, 3]


async def test_no_memory_for_a_statement_is_a_limit(store: SqliteStore) -> None:
    def refuse() -> int:
        raise MemoryError

    raw = store._writer._raw
    assert raw is not None
    raw.create_function("huge", 0, refuse)
    with pytest.raises(DatabaseLimitError) as caught:
        await store.execute("INSERT INTO item (id) VALUES (huge())")
    assert "SQLITE_NOMEM" in caught.value.why
    found = await all_at_once(
        store,
        lambda: store.execute("INSERT INTO item (id) VALUES (1)"),
        lambda: store.execute("INSERT INTO item (id) VALUES (huge())"),
    )
    assert [type(each) for each in found] == [int, DatabaseLimitError]


async def test_an_error_keeps_its_parameters_no_longer_than_itself(store: SqliteStore) -> None:
    class Large(dict[str, Value]):
        pass

    parameters = Large(id="not a number", text="x" * 1000)
    left = weakref.ref(parameters)
    gc.disable()
    try:
        with contextlib.suppress(DatabaseInvalidError):
            await store.execute("INSERT INTO item VALUES (:id, :text)", parameters)
        del parameters
        # The thread lets go of what it did when it takes what is next.
        await store.execute("DELETE FROM item")
        assert left() is None
    finally:
        gc.enable()


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
