"""SQLite behind the seam: one writer connection, a few readers, each with a thread of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import trio

from novacron.database import statements
from novacron.database.connection import (
    Connection,
    StatementInterruptedError,
    open_reader,
    open_writer,
)
from novacron.database.metrics import ERRORS, SECONDS, STATEMENTS, WAITING
from novacron.database.sqlite_calls import Call, Hold, Item
from novacron.database.sqlite_pool import ConnectionPool, ConnectionThread
from novacron.database.sqlite_reads import SqliteReads
from novacron.database.sqlite_stream import RowStream
from novacron.database.sqlite_transaction import SqliteTransaction
from novacron.database.store import (
    MAX_WAITING,
    DatabaseLimitError,
    DatabaseMisuseError,
    DatabaseUnavailableError,
    Parameters,
    Row,
    StoreStatistics,
    Transaction,
)
from novacron.errors import DatabaseError

T = TypeVar("T")

CLOSE_GRACE = 1.0
"""Seconds a running statement gets to end by itself when the store is closed: its callers were
stopped before, so anything still running is somebody's forgotten query."""


class SqliteStore(SqliteReads):
    """A :class:`~novacron.database.store.Store` on the SQLite file *path*, which must exist.

    Args:
      readers: connections that may read at once; each is opened when first needed.
      busy_timeout: seconds to wait for a lock another process holds.
      query_timeout: seconds a call may take, the wait for a connection included.
    """

    engine = "sqlite"

    def __init__(
        self, path: Path, *, readers: int, busy_timeout: float, query_timeout: float
    ) -> None:
        self.path = path
        self._query_timeout = query_timeout
        self._writer = Connection(
            partial(open_writer, path), path, read_only=False, busy_timeout=busy_timeout
        )
        self._readers = [
            Connection(partial(open_reader, path), path, read_only=True, busy_timeout=busy_timeout)
            for _ in range(readers)
        ]
        self._writing = ConnectionPool([self._writer])
        self._reading = ConnectionPool(self._readers)
        self._writer_task: trio.lowlevel.Task | None = None
        self._closed = False
        self._reads = 0
        self._writes = 0
        self._errors = 0

    def adopt(self, *, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        """Take over connections that the boot's check opened, so that none is opened twice."""
        self._writer.adopt(writer)
        self._readers[-1].adopt(reader)

    @property
    def damaged(self) -> bool:
        """Whether SQLite has met damaged bytes since the store was opened."""
        return self._writer.damaged or any(reader.damaged for reader in self._readers)

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        self._check_no_transaction()
        call = Call(
            partial(statements.execute, sql, parameters),
            self.seconds(within),
            joins=statements.is_change(sql),
        )
        return await self._run(self._writing, call, "database.query_timeout")

    @asynccontextmanager
    async def transaction(self, *, within: float | None = None) -> AsyncIterator[Transaction]:
        self._check_no_transaction()
        thread = await self._hold(self._writing, self.seconds(within), "database.query_timeout")
        self._writer_task = trio.lowlevel.current_task()
        transaction = SqliteTransaction(self, thread)
        try:
            try:
                yield transaction
                await transaction.commit()
            except BaseException:
                await transaction.roll_back()
                raise
        finally:
            self._writer_task = None
            self._writing.release(thread)

    async def run(
        self, work: Callable[[Transaction], Awaitable[T]], *, within: float | None = None
    ) -> T:
        async with self.transaction(within=within) as transaction:
            return await work(transaction)

    @asynccontextmanager
    async def stream(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        batch_rows: int = 256,
        within: float | None = None,
    ) -> AsyncIterator[AsyncIterator[Row]]:
        seconds = self.seconds(within)
        thread = await self._hold(self._reading, seconds, "database.readers")
        try:
            async with RowStream(self, thread, sql, parameters, batch_rows, seconds) as rows:
                yield rows
        finally:
            self._reading.release(thread)

    async def check(self, *, within: float | None = None) -> list[str]:
        rows = await self._read(
            partial(statements.fetch_all, "PRAGMA quick_check(20)", None, 100), within
        )
        return [row[0] for row in rows if row[0] != "ok"]

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(
            engine=self.engine,
            reads=self._reads,
            writes=self._writes,
            errors=self._errors,
            waiting=self._waiting,
            connections=sum(c.is_open for c in (self._writer, *self._readers)),
        )

    async def close(self) -> None:
        self._closed = True
        self._reading.refuse(_closed_error)
        self._writing.refuse(_closed_error)
        with trio.CancelScope(shield=True):
            if await self._close_when_idle():
                return
            for connection in (self._writer, *self._readers):
                connection.interrupt()
            # A thread that hangs in the kernel even now keeps its connection: the process is
            # about to end, and the log is replayed at the next boot.
            await self._close_when_idle()

    async def _close_when_idle(self) -> bool:
        with trio.move_on_after(CLOSE_GRACE) as scope:
            await self._reading.idle()
            await self._writing.idle()
        if scope.cancelled_caught:
            return False
        # The writer last: whoever closes last folds the log into the file, and readers cannot.
        await self._reading.close()
        await self._writing.close()
        return True

    # --- One call --------------------------------------------------------------------------------

    async def use(self, thread: ConnectionThread, call: Call[T]) -> T:
        """Run *call* on *thread*, which the caller holds.

        Raises what the statement does.
        """
        pool = self._writing if thread.connection is self._writer else self._reading
        await pool.use(thread, call)
        return await self._value(pool, call)

    async def finish(self, thread: ConnectionThread, item: Item) -> None:
        """Like :meth:`use` for what has no value and is not counted: a commit, a rollback.

        Raises:
          DatabaseError: it failed.
        """
        pool = self._writing if thread.connection is self._writer else self._reading
        await pool.use(thread, item)
        if item.error is not None:
            raise item.error

    async def _read(self, work: Callable[[sqlite3.Connection], T], within: float | None) -> T:
        return await self._run(self._reading, Call(work, self.seconds(within)), "database.readers")

    async def _run(self, pool: ConnectionPool, call: Call[T], key: str) -> T:
        if not pool.busy:
            await pool.run(call)
            return await self._value(pool, call)
        self._join_line(key)
        try:
            with trio.move_on_after(call.within):
                await pool.run(call)
                return await self._value(pool, call)
        finally:
            WAITING.set(self._waiting)
        raise self._busy(call.within, key)

    async def _hold(self, pool: ConnectionPool, seconds: float, key: str) -> ConnectionThread:
        hold = Hold()
        if not pool.busy:
            await pool.run(hold)
        else:
            self._join_line(key)
            try:
                with trio.move_on_after(seconds):
                    await pool.run(hold)
            finally:
                WAITING.set(self._waiting)
        if hold.error is not None:
            raise hold.error
        if hold.thread is None:
            raise self._busy(seconds, key)
        return hold.thread

    async def _value(self, pool: ConnectionPool, call: Call[T]) -> T:
        if call.error is not None:
            await self._raise(call)
        kind = "read"
        if pool is self._writing:
            kind = "write"
            self._writes += 1
        else:
            self._reads += 1
        STATEMENTS.inc(kind)
        SECONDS.observe(call.seconds, kind)
        return call.value

    async def _raise(self, call: Call[Any]) -> NoReturn:
        # What the error keeps alive through its traceback must not keep the error: parameters can be
        # large, and would stay until the garbage collector comes by.
        error, call.error = call.error, None
        assert error is not None
        try:
            if isinstance(error, StatementInterruptedError):
                await trio.lowlevel.checkpoint_if_cancelled()
                raise _closed_error() from error
            self._errors += 1
            if isinstance(error, DatabaseError):
                ERRORS.inc(error.code)
            raise error
        finally:
            del error

    def seconds(self, within: float | None) -> float:
        if self._closed:
            raise _closed_error()
        return self._query_timeout if within is None else within

    # --- Whose turn it is ------------------------------------------------------------------------

    @property
    def _waiting(self) -> int:
        return self._reading.waiting + self._writing.waiting

    def _check_no_transaction(self) -> None:
        if self._writer_task is trio.lowlevel.current_task():
            raise DatabaseMisuseError(
                "a task that is inside a transaction asked for the writer again",
                why="it would wait for itself",
                remedy="use the transaction object",
            )

    def _join_line(self, key: str) -> None:
        waiting = self._waiting
        if waiting >= MAX_WAITING:
            ERRORS.inc(DatabaseLimitError.code)
            raise DatabaseLimitError(
                "the database is busy",
                why=f"{MAX_WAITING} calls wait for a connection already",
                remedy="slow down and try again",
                key=key,
            )
        WAITING.set(waiting + 1)

    def _busy(self, seconds: float, key: str) -> DatabaseLimitError:
        ERRORS.inc(DatabaseLimitError.code)
        return DatabaseLimitError(
            "the database is busy",
            why=f"no connection became free within {seconds:g} s",
            remedy="slow down and try again, or raise the limit",
            key=key,
        )


def _closed_error() -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        "the database is closed",
        why="the node is stopping, or its database component is not running",
        remedy="try again when the node is ready",
    )
