"""SQLite behind the seam: one writer connection, a few readers, each statement one thread hop."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import trio

from novacron.database import statements
from novacron.database.connection import (
    Connection,
    StatementInterruptedError,
    open_reader,
    open_writer,
)
from novacron.database.metrics import ERRORS, SECONDS, STATEMENTS, WAITING
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

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        seconds = self.seconds(within)
        await self._take_writer(seconds)
        try:
            return await self.hop(
                self._writer, partial(statements.execute, sql, parameters), seconds
            )
        finally:
            self._release_writer()

    @asynccontextmanager
    async def transaction(self, *, within: float | None = None) -> AsyncIterator[Transaction]:
        await self._take_writer(self.seconds(within))
        transaction = SqliteTransaction(self, self._writer)
        try:
            try:
                yield transaction
                await transaction.commit()
            except BaseException:
                await transaction.roll_back()
                raise
        finally:
            self._release_writer()

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
        reader = await self._take_reader(seconds)
        try:
            async with RowStream(self, reader, sql, parameters, batch_rows, seconds) as rows:
                yield rows
        finally:
            self._release_reader(reader)

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


def _closed_error() -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        "the database is closed",
        why="the node is stopping, or its database component is not running",
        remedy="try again when the node is ready",
    )
