"""Who may use a connection's thread, when, and what becomes of whoever waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from novacron.database.sqlite import SqliteStore
from novacron.database.sqlite_calls import Hold
from tests.database.test_sqlite import new_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await new_store(tmp_path / "test.db")
    yield store
    await store.close()


def hanging(store: SqliteStore) -> threading.Event:
    """What lets the SQL function ``hang()`` return: SQLite cannot be interrupted in it, as by a disk
    that answers nothing."""
    let_go = threading.Event()
    raw = store._writer._raw
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
