"""Rows of any number, a batch for each hand-over to the thread."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from novacron.database.sqlite_calls import Action, Call
from novacron.database.store import Parameters, Row

if TYPE_CHECKING:
    from novacron.database.sqlite import SqliteStore
    from novacron.database.sqlite_pool import ConnectionThread


class RowStream:
    """Iterates over a cursor, one hand-over for each batch."""

    def __init__(
        self,
        store: SqliteStore,
        thread: ConnectionThread,
        sql: str,
        parameters: Parameters | None,
        batch_rows: int,
        within: float,
    ) -> None:
        self._store = store
        self._thread = thread
        self._sql = sql
        self._parameters = parameters
        self._batch_rows = batch_rows
        self._timeout = within
        self._cursor: sqlite3.Cursor | None = None
        self._batch: list[Row] = []
        self._exhausted = False
        self._turn = trio.Semaphore(1, max_value=1)

    async def __aenter__(self) -> RowStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exhausted = True
        # Its turn first: the thread is given back next, and another task may be in the middle of a
        # batch.
        with trio.CancelScope(shield=True):
            async with self._turn:
                self._batch = []
                cursor, self._cursor = self._cursor, None
                if cursor is not None:
                    await self._store.finish(self._thread, Action(cursor.close))

    def __aiter__(self) -> RowStream:
        return self

    async def __anext__(self) -> Row:
        if not self._batch:
            async with self._turn:
                if not self._batch and not self._exhausted:
                    await self._next_batch()
            if not self._batch:
                raise StopAsyncIteration
        return self._batch.pop()

    async def _next_batch(self) -> None:
        batch = await self._store.use(self._thread, Call(self._fetch, self._timeout))
        batch.reverse()
        self._batch = batch

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
