"""SQLite behind the seam: one writer connection, a few readers, each statement one thread hop."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TypeVar

import trio

from novacron.database.connection import (
    Connection,
    StatementInterruptedError,
    open_reader,
    open_writer,
)
from novacron.database.store import (
    FETCH_LIMIT,
    MAX_WAITING,
    DatabaseConflictError,
    DatabaseLimitError,
    DatabaseMisuseError,
    DatabaseUnavailableError,
    Parameters,
    Row,
    StoreStatistics,
    Transaction,
)
from novacron.errors import DatabaseError
from novacron.observe import Counter, Gauge, Histogram

T = TypeVar("T")

STATEMENTS = Counter(
    "novacron_database_statements_total", "Statements run on the database.", ("kind",)
)
SECONDS = Histogram(
    "novacron_database_statement_seconds",
    "Time a statement took, thread hop included, wait for a connection apart.",
    ("kind",),
)
ERRORS = Counter("novacron_database_errors_total", "Statements that failed.", ("code",))
WAITING = Gauge("novacron_database_waiting", "Calls that wait for a connection.")

CLOSE_GRACE = 1.0
"""Seconds a running statement gets to end by itself when the store is closed: its callers were
stopped before, so anything still running is somebody's forgotten query."""


class SqliteStore:
    """A :class:`~novacron.database.store.Store` on the SQLite file *path*, which must exist.

    Args:
      readers: connections that may read at once; each is opened when first needed.
      busy_timeout: seconds to wait for a lock another process holds.
      query_timeout: seconds a statement may run, and seconds a call may wait for a connection.
    """

    engine = "sqlite"

    def __init__(
        self, path: Path, *, readers: int, busy_timeout: float, query_timeout: float
    ) -> None:
        self.path = path
        self._busy_timeout = busy_timeout
        self._query_timeout = query_timeout
        self._limiter = trio.CapacityLimiter(readers + 1)
        self._writer = Connection(partial(open_writer, path), path, read_only=False)
        self._readers = [
            Connection(partial(open_reader, path), path, read_only=True) for _ in range(readers)
        ]
        self._idle = list(self._readers)
        self._reader_free = trio.Semaphore(readers, max_value=readers)
        self._writer_free = trio.Semaphore(1, max_value=1)
        self._writer_task: trio.lowlevel.Task | None = None
        self._closed = False
        self._waiting = 0
        self._reads = 0
        self._writes = 0
        self._errors = 0

    def adopt(self, *, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        """Take over connections that the boot's check opened, so that none is opened twice."""
        self._writer.adopt(writer)
        self._idle[-1].adopt(reader)

    @property
    def damaged(self) -> bool:
        """Whether SQLite has met damaged bytes since the store was opened."""
        return self._writer.damaged or any(reader.damaged for reader in self._readers)

    async def fetch_all(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        limit: int = FETCH_LIMIT,
        within: float | None = None,
    ) -> list[Row]:
        return await self._read(partial(_fetch_all, sql, parameters, limit), within)

    async def fetch_one(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> Row | None:
        return await self._read(partial(_fetch_one, sql, parameters), within)

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        seconds = self.seconds(within)
        await self._take_writer(seconds)
        try:
            return await self.hop(self._writer, partial(_execute, sql, parameters), seconds)
        finally:
            self._release_writer()

    @asynccontextmanager
    async def transaction(self, *, within: float | None = None) -> AsyncIterator[Transaction]:
        await self._take_writer(self.seconds(within))
        transaction = _SqliteTransaction(self, self._writer)
        try:
            try:
                yield transaction
                await transaction.commit()
            except BaseException:
                await transaction.roll_back()
                raise
        finally:
            self._release_writer()

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
        reader = await self._take_reader(seconds)
        try:
            async with _RowStream(self, reader, sql, parameters, batch_rows, seconds) as rows:
                yield rows
        finally:
            self._release_reader(reader)

    async def check(self, *, within: float | None = None) -> list[str]:
        rows = await self._read(partial(_fetch_all, "PRAGMA quick_check(20)", None, 100), within)
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
        with trio.CancelScope(shield=True):
            if await self._close_when_idle():
                return
            for connection in (self._writer, *self._readers):
                connection.interrupt()
            # A thread that hangs in the kernel even now keeps its connection: the process is
            # about to end, and the log is replayed at the next boot.
            await self._close_when_idle()

    async def _close_when_idle(self) -> bool:
        taken: list[trio.Semaphore] = []
        try:
            with trio.move_on_after(CLOSE_GRACE):
                for free in (self._writer_free, *[self._reader_free] * len(self._readers)):
                    await free.acquire()
                    taken.append(free)
                await trio.to_thread.run_sync(self._close_connections, limiter=self._limiter)
                return True
        finally:
            for free in taken:
                free.release()
        return False

    def _close_connections(self) -> None:
        # The writer last: whoever closes last folds the log into the file, and readers cannot.
        for connection in (*self._readers, self._writer):
            connection.close()

    # --- One statement ---------------------------------------------------------------------------

    async def hop(
        self,
        connection: Connection,
        work: Callable[[sqlite3.Connection], T],
        within: float,
        *,
        keep_transaction: bool = False,
    ) -> T:
        """Run *work* in a worker thread with *connection*, which the caller holds."""
        kind = "write" if connection is self._writer else "read"
        started = time.perf_counter()
        try:
            result = await trio.to_thread.run_sync(
                partial(
                    connection.run,
                    work,
                    within,
                    self._busy_timeout,
                    keep_transaction=keep_transaction,
                ),
                limiter=self._limiter,
            )
        except StatementInterruptedError as error:
            await self._interrupted(error)
        except DatabaseError as error:
            self._errors += 1
            ERRORS.inc(error.code)
            raise
        if connection is self._writer:
            self._writes += 1
        else:
            self._reads += 1
        STATEMENTS.inc(kind)
        SECONDS.observe(time.perf_counter() - started, kind)
        return result

    async def finish(self, action: Callable[[], T]) -> T:
        """Run a commit or a rollback in a worker thread."""
        return await trio.to_thread.run_sync(action, limiter=self._limiter)

    async def _interrupted(self, error: StatementInterruptedError) -> NoReturn:
        await trio.lowlevel.checkpoint_if_cancelled()
        raise _closed_error() from error

    async def _read(self, work: Callable[[sqlite3.Connection], T], within: float | None) -> T:
        seconds = self.seconds(within)
        reader = await self._take_reader(seconds)
        try:
            return await self.hop(reader, work, seconds)
        finally:
            self._release_reader(reader)

    def seconds(self, within: float | None) -> float:
        if self._closed:
            raise _closed_error()
        return self._query_timeout if within is None else within

    # --- Whose turn it is ------------------------------------------------------------------------

    async def _take_reader(self, seconds: float) -> Connection:
        await self._take(self._reader_free, seconds, "database.readers")
        return self._idle.pop()

    def _release_reader(self, reader: Connection) -> None:
        self._idle.append(reader)
        self._reader_free.release()

    async def _take_writer(self, seconds: float) -> None:
        task = trio.lowlevel.current_task()
        if self._writer_task is task:
            raise DatabaseMisuseError(
                "a task that is inside a transaction asked for the writer again",
                why="it would wait for itself",
                remedy="use the transaction object",
            )
        await self._take(self._writer_free, seconds, "database.query_timeout")
        self._writer_task = task

    def _release_writer(self) -> None:
        self._writer_task = None
        self._writer_free.release()

    async def _take(self, free: trio.Semaphore, seconds: float, key: str) -> None:
        try:
            free.acquire_nowait()
        except trio.WouldBlock:
            await self._wait(free, seconds, key)
        if self._closed:
            free.release()
            raise _closed_error()

    async def _wait(self, free: trio.Semaphore, seconds: float, key: str) -> None:
        if self._waiting >= MAX_WAITING:
            ERRORS.inc(DatabaseLimitError.code)
            raise DatabaseLimitError(
                "the database is busy",
                why=f"{MAX_WAITING} calls wait for a connection already",
                remedy="slow down and try again",
                key=key,
            )
        self._waiting += 1
        WAITING.set(self._waiting)
        try:
            with trio.move_on_after(seconds) as scope:
                await free.acquire()
        finally:
            self._waiting -= 1
            WAITING.set(self._waiting)
        if scope.cancelled_caught:
            ERRORS.inc(DatabaseLimitError.code)
            raise DatabaseLimitError(
                "the database is busy",
                why=f"no connection became free within {seconds:g} s",
                remedy="slow down and try again, or raise the limit",
                key=key,
            )


class _SqliteTransaction:
    """BEGIN travels with the first statement, so that it costs no hop of its own."""

    def __init__(self, store: SqliteStore, connection: Connection) -> None:
        self._store = store
        self._connection = connection
        self._turn = trio.Semaphore(1, max_value=1)
        self._begun = False
        self._over = ""

    async def fetch_all(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        limit: int = FETCH_LIMIT,
        within: float | None = None,
    ) -> list[Row]:
        return await self._statement(partial(_fetch_all, sql, parameters, limit), within)

    async def fetch_one(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> Row | None:
        return await self._statement(partial(_fetch_one, sql, parameters), within)

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        return await self._statement(partial(_execute, sql, parameters), within)

    async def execute_many(
        self, sql: str, parameters: Sequence[Parameters], *, within: float | None = None
    ) -> int:
        return await self._statement(partial(_execute_many, sql, parameters), within)

    async def commit(self) -> None:
        async with self._turn:
            self._check_open()
            self._over = "it was committed"
            if self._begun:
                await self._store.finish(self._connection.commit)

    async def roll_back(self) -> None:
        self._over = self._over or "it was rolled back"
        if self._begun:
            with trio.CancelScope(shield=True):
                async with self._turn:
                    await self._store.finish(self._connection.rollback)

    def _check_open(self) -> None:
        if self._over:
            raise DatabaseConflictError(
                "the transaction is over", why=self._over, remedy="repeat it from the start"
            )

    async def _statement(self, work: Callable[[sqlite3.Connection], T], within: float | None) -> T:
        async with self._turn:
            self._check_open()
            try:
                result = await self._store.hop(
                    self._connection,
                    work if self._begun else partial(_begin, work),
                    self._store.seconds(within),
                    keep_transaction=True,
                )
            except BaseException:
                self._begun = True
                self._over = self._over or "a statement in it failed or was cancelled"
                raise
            self._begun = True
            if not self._connection.in_transaction():
                self._over = "a statement ended it"
                raise DatabaseMisuseError(
                    "a statement ended the transaction it was in",
                    why="COMMIT or ROLLBACK was sent as a plain statement",
                    remedy="leave the block instead",
                )
            return result


class _RowStream:
    """Iterates over a cursor, one thread hop for each batch."""

    def __init__(
        self,
        store: SqliteStore,
        connection: Connection,
        sql: str,
        parameters: Parameters | None,
        batch_rows: int,
        within: float,
    ) -> None:
        self._store = store
        self._connection = connection
        self._sql = sql
        self._parameters = parameters
        self._batch_rows = batch_rows
        self._timeout = within
        self._cursor: sqlite3.Cursor | None = None
        self._batch: list[Row] = []
        self._exhausted = False

    async def __aenter__(self) -> _RowStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exhausted = True
        self._batch = []
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            with trio.CancelScope(shield=True):
                await self._store.finish(cursor.close)

    def __aiter__(self) -> _RowStream:
        return self

    async def __anext__(self) -> Row:
        if not self._batch:
            if not self._exhausted:
                self._batch = await self._store.hop(self._connection, self._fetch, self._timeout)
                self._batch.reverse()
            if not self._batch:
                raise StopAsyncIteration
        return self._batch.pop()

    def _fetch(self, raw: sqlite3.Connection) -> list[Row]:
        cursor = self._cursor
        if cursor is None:
            cursor = self._cursor = raw.execute(self._sql, self._parameters or {})
        batch = cursor.fetchmany(self._batch_rows)
        if len(batch) < self._batch_rows:
            self._exhausted = True
            self._cursor = None
            cursor.close()
        return batch


def _begin(work: Callable[[sqlite3.Connection], T], raw: sqlite3.Connection) -> T:
    # IMMEDIATE: the lock is taken here, where waiting for it is harmless, and not at the first
    # change, where SQLite could only fail.
    raw.execute("BEGIN IMMEDIATE")
    return work(raw)


def _fetch_all(
    sql: str, parameters: Parameters | None, limit: int, raw: sqlite3.Connection
) -> list[Row]:
    cursor = raw.execute(sql, parameters or {})
    rows: list[Row] = cursor.fetchmany(limit + 1)
    if len(rows) > limit:
        cursor.close()
        raise DatabaseLimitError(
            "a query has too many rows",
            why=f"more than {limit}",
            remedy="stream it, or narrow it",
        )
    return rows


def _fetch_one(sql: str, parameters: Parameters | None, raw: sqlite3.Connection) -> Row | None:
    cursor = raw.execute(sql, parameters or {})
    try:
        row: Row | None = cursor.fetchone()
        return row
    finally:
        cursor.close()


def _execute(sql: str, parameters: Parameters | None, raw: sqlite3.Connection) -> int:
    cursor = raw.execute(sql, parameters or {})
    changed = cursor.rowcount
    # A statement with RETURNING has rows to give; they are not wanted, and an open cursor would
    # keep the implicit transaction open.
    cursor.close()
    return max(changed, 0)


def _execute_many(sql: str, parameters: Sequence[Parameters], raw: sqlite3.Connection) -> int:
    return max(raw.executemany(sql, parameters).rowcount, 0)


def _closed_error() -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        "the database is closed",
        why="the node is stopping, or its database component is not running",
        remedy="try again when the node is ready",
    )
