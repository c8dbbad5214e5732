"""What every :class:`novacron.database.store.Store` must do. Each case gets an empty store that
has one table, ``item (id, name unique, size >= 0)``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from novacron.database.store import (
    DatabaseConflictError,
    DatabaseInvalidError,
    DatabaseLimitError,
    DatabaseMisuseError,
    DatabaseUnavailableError,
    Store,
    Transaction,
)

Case = Callable[[Store], Awaitable[None]]

TABLE = (
    "CREATE TABLE item (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " size BIGINT NOT NULL CHECK (size >= 0))"
)
INSERT = "INSERT INTO item (id, name, size) VALUES (:id, :name, :size)"


def item(number: int, size: int = 0) -> dict[str, int | str]:
    return {"id": number, "name": f"item {number}", "size": size}


async def count(store: Store) -> int:
    row = await store.fetch_one("SELECT count(*) FROM item")
    assert row is not None
    return int(row[0])


async def what_is_written_is_read(store: Store) -> None:
    assert await store.execute(INSERT, item(1, 5)) == 1
    assert await store.fetch_all("SELECT id, name, size FROM item") == [(1, "item 1", 5)]
    assert await store.fetch_one("SELECT size FROM item WHERE id = :id", {"id": 1}) == (5,)
    assert await store.fetch_one("SELECT size FROM item WHERE id = :id", {"id": 2}) is None
    assert await store.execute("UPDATE item SET size = 6 WHERE id = :id", {"id": 2}) == 0


async def every_value_type_survives(store: Store) -> None:
    await store.execute(
        "CREATE TABLE kinds (i BIGINT, f DOUBLE PRECISION, t TEXT, n TEXT)",
    )
    values = {"i": 2**63 - 1, "f": 0.1, "t": "snow ☃ and 'quotes'; --", "n": None}
    await store.execute("INSERT INTO kinds VALUES (:i, :f, :t, :n)", values)
    assert await store.fetch_one("SELECT i, f, t, n FROM kinds") == tuple(values.values())


async def a_transaction_commits_on_exit(store: Store) -> None:
    async with store.transaction() as tx:
        assert await tx.execute_many(INSERT, [item(n) for n in range(10)]) == 10
        assert await tx.fetch_one("SELECT count(*) FROM item") == (10,)
        assert len(await tx.fetch_all("SELECT id FROM item")) == 10
        assert await count(store) == 0, "others do not see it before"
    assert await count(store) == 10


async def a_transaction_rolls_back_on_an_exception(store: Store) -> None:
    with pytest.raises(KeyError):
        async with store.transaction() as tx:
            await tx.execute(INSERT, item(1))
            raise KeyError
    assert await count(store) == 0
    await store.execute(INSERT, item(1))


async def a_transaction_rolls_back_when_cancelled(store: Store) -> None:
    with trio.CancelScope() as scope:
        async with store.transaction() as tx:
            await tx.execute(INSERT, item(1))
            scope.cancel()
            await tx.execute(INSERT, item(2))
    assert scope.cancelled_caught
    assert await count(store) == 0
    await store.execute(INSERT, item(1))


async def a_cancelled_commit_keeps_nothing(store: Store) -> None:
    with trio.CancelScope() as scope:
        async with store.transaction() as tx:
            await tx.execute(INSERT, item(1))
            scope.cancel()
    assert scope.cancelled_caught
    assert await count(store) == 0


async def an_error_ends_the_transaction(store: Store) -> None:
    with pytest.raises(DatabaseConflictError) as caught:
        async with store.transaction() as tx:
            await tx.execute(INSERT, item(1))
            with pytest.raises(DatabaseConflictError):
                await tx.execute(INSERT, item(1))
            await tx.execute(INSERT, item(2))
    assert "the transaction is over" in str(caught.value)
    assert await count(store) == 0


async def an_error_that_was_caught_does_not_commit(store: Store) -> None:
    with pytest.raises(DatabaseConflictError):
        async with store.transaction() as tx:
            await tx.execute(INSERT, item(1))
            with pytest.raises(DatabaseConflictError):
                await tx.execute(INSERT, item(1))
    assert await count(store) == 0


async def a_transaction_is_useless_after_its_block(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.execute(INSERT, item(1))
    with pytest.raises(DatabaseConflictError):
        await tx.execute(INSERT, item(2))
    assert await count(store) == 1


async def an_empty_transaction_is_fine(store: Store) -> None:
    async with store.transaction():
        pass
    await store.execute(INSERT, item(1))


async def a_task_cannot_wait_for_itself(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.execute(INSERT, item(1))
        with pytest.raises(DatabaseMisuseError):
            await store.execute(INSERT, item(2))
        with pytest.raises(DatabaseMisuseError):
            async with store.transaction():
                raise AssertionError("not reached")
    assert await count(store) == 1


async def writers_take_turns_and_lose_nothing(store: Store) -> None:
    await store.execute(INSERT, item(1))

    async def add() -> None:
        async with store.transaction() as tx:
            row = await tx.fetch_one("SELECT size FROM item WHERE id = 1")
            assert row is not None
            await trio.lowlevel.checkpoint()
            await tx.execute("UPDATE item SET size = :size WHERE id = 1", {"size": row[0] + 1})

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(add)
    assert await store.fetch_one("SELECT size FROM item") == (20,)


async def work_that_may_be_repeated_loses_nothing(store: Store) -> None:
    await store.execute(INSERT, item(1))

    async def add(tx: Transaction) -> int:
        row = await tx.fetch_one("SELECT size FROM item WHERE id = 1")
        assert row is not None
        await trio.lowlevel.checkpoint()
        await tx.execute("UPDATE item SET size = :size WHERE id = 1", {"size": row[0] + 1})
        return int(row[0])

    seen: list[int] = []

    async def run() -> None:
        seen.append(await store.run(add))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(run)
    assert await store.fetch_one("SELECT size FROM item") == (20,)
    assert sorted(seen) == list(range(20))


async def work_that_fails_leaves_nothing(store: Store) -> None:
    async def fail(tx: Transaction) -> None:
        await tx.execute(INSERT, item(1))
        raise KeyError

    with pytest.raises(KeyError):
        await store.run(fail)
    assert await count(store) == 0


async def readers_go_on_while_a_transaction_is_open(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.execute(INSERT, item(1))
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(count, store)


async def the_wait_for_the_writer_has_a_deadline(store: Store) -> None:
    async def late() -> None:
        with pytest.raises(DatabaseLimitError) as caught:
            await store.execute(INSERT, item(2), within=0.05)
        assert caught.value.key == "database.query_timeout"

    async with store.transaction(), trio.open_nursery() as nursery:
        nursery.start_soon(late)


async def a_duplicate_is_a_conflict(store: Store) -> None:
    await store.execute(INSERT, item(1))
    with pytest.raises(DatabaseConflictError):
        await store.execute(INSERT, item(1))


async def a_value_out_of_range_is_invalid(store: Store) -> None:
    with pytest.raises(DatabaseInvalidError):
        await store.execute(INSERT, item(1, size=-1))
    with pytest.raises(DatabaseInvalidError):
        await store.execute(INSERT, item(1, size=2**70))
    assert await count(store) == 0


async def a_bad_statement_is_invalid(store: Store) -> None:
    with pytest.raises(DatabaseInvalidError):
        await store.execute("INSERT INTO nowhere VALUES (1)")
    with pytest.raises(DatabaseInvalidError):
        await store.fetch_all("SELEKT 1")
    with pytest.raises(DatabaseInvalidError):
        await store.fetch_all("SELECT id FROM item WHERE id = :id", {"other": 1})


async def no_error_repeats_a_parameter(store: Store) -> None:
    secret = "hunter2-hunter2"
    await store.execute(INSERT, {"id": 1, "name": secret, "size": 0})
    for parameters in (
        {"id": 2, "name": secret, "size": 0},
        {"id": 2, "name": secret, "size": -1},
        {"id": secret, "name": None, "size": 0},
    ):
        with pytest.raises((DatabaseConflictError, DatabaseInvalidError)) as caught:
            await store.execute(INSERT, parameters)
        assert secret not in str(caught.value)


async def reads_are_bounded(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.execute_many(INSERT, [item(n) for n in range(11)])
    assert len(await store.fetch_all("SELECT id FROM item", limit=11)) == 11
    with pytest.raises(DatabaseLimitError):
        await store.fetch_all("SELECT id FROM item", limit=10)


async def a_read_cannot_write(store: Store) -> None:
    with pytest.raises(DatabaseInvalidError):
        await store.fetch_all(INSERT + " RETURNING id", item(1))
    assert await count(store) == 0


async def a_transaction_can_return_what_it_writes(store: Store) -> None:
    async with store.transaction() as tx:
        assert await tx.fetch_one(INSERT + " RETURNING name", item(1)) == ("item 1",)
    assert await count(store) == 1


async def a_stream_gives_every_row_in_order(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.execute_many(INSERT, [item(n) for n in range(1000)])
    for batch_rows in (1, 7, 1000, 5000):
        seen = []
        async with store.stream(
            "SELECT id FROM item WHERE id >= :least ORDER BY id",
            {"least": 10},
            batch_rows=batch_rows,
        ) as stream:
            async for row in stream:
                seen.append(row[0])
                if batch_rows == 1 and len(seen) == 50:
                    break
        assert seen == list(range(10, 60 if batch_rows == 1 else 1000))


async def a_stream_left_early_gives_its_connection_back(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.execute_many(INSERT, [item(n) for n in range(100)])
    for _ in range(50):
        async with store.stream("SELECT id FROM item", batch_rows=2) as stream:
            async for _row in stream:
                break
    for _ in range(50):
        with trio.CancelScope() as scope:
            async with store.stream("SELECT id FROM item", batch_rows=2) as stream:
                async for _row in stream:
                    scope.cancel()
    assert await count(store) == 100


async def a_stream_that_is_over_gives_nothing(store: Store) -> None:
    await store.execute(INSERT, item(1))
    async with store.stream("SELECT id FROM item") as stream:
        pass
    with pytest.raises(StopAsyncIteration):
        await stream.__anext__()


async def a_stray_begin_is_refused_and_leaves_no_transaction(store: Store) -> None:
    with pytest.raises(DatabaseMisuseError):
        await store.execute("BEGIN")
    await store.execute(INSERT, item(1))
    with pytest.raises(DatabaseMisuseError):
        async with store.transaction() as tx:
            await tx.execute(INSERT, item(2))
            await tx.execute("ROLLBACK")
    assert await count(store) == 1


async def a_sound_store_passes_its_own_check(store: Store) -> None:
    assert await store.check() == []


async def what_happens_is_counted(store: Store) -> None:
    before = store.statistics()
    await store.execute(INSERT, item(1))
    await count(store)
    with pytest.raises(DatabaseConflictError):
        await store.execute(INSERT, item(1))
    after = store.statistics()
    assert after.writes == before.writes + 1
    assert after.reads == before.reads + 1
    assert after.errors == before.errors + 1
    assert after.waiting == 0
    assert after.connections >= 1


async def a_closed_store_refuses_everything(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(DatabaseUnavailableError):
        await store.fetch_one("SELECT 1")
    with pytest.raises(DatabaseUnavailableError):
        await store.execute(INSERT, item(1))
    with pytest.raises(DatabaseUnavailableError):
        async with store.transaction():
            raise AssertionError("not reached")
    with pytest.raises(DatabaseUnavailableError):
        async with store.stream("SELECT 1"):
            raise AssertionError("not reached")
    assert store.statistics().connections == 0


CASES: tuple[Case, ...] = (
    what_is_written_is_read,
    every_value_type_survives,
    a_transaction_commits_on_exit,
    a_transaction_rolls_back_on_an_exception,
    a_transaction_rolls_back_when_cancelled,
    a_cancelled_commit_keeps_nothing,
    an_error_ends_the_transaction,
    an_error_that_was_caught_does_not_commit,
    a_transaction_is_useless_after_its_block,
    an_empty_transaction_is_fine,
    a_task_cannot_wait_for_itself,
    writers_take_turns_and_lose_nothing,
    work_that_may_be_repeated_loses_nothing,
    work_that_fails_leaves_nothing,
    readers_go_on_while_a_transaction_is_open,
    the_wait_for_the_writer_has_a_deadline,
    a_duplicate_is_a_conflict,
    a_value_out_of_range_is_invalid,
    a_bad_statement_is_invalid,
    no_error_repeats_a_parameter,
    reads_are_bounded,
    a_read_cannot_write,
    a_transaction_can_return_what_it_writes,
    a_stream_gives_every_row_in_order,
    a_stream_left_early_gives_its_connection_back,
    a_stream_that_is_over_gives_nothing,
    a_stray_begin_is_refused_and_leaves_no_transaction,
    a_sound_store_passes_its_own_check,
    what_happens_is_counted,
    a_closed_store_refuses_everything,
)
