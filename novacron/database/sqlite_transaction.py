"""One transaction on the writer connection of a SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from novacron.database import statements
from novacron.database.sqlite_calls import Action, Call
from novacron.database.sqlite_reads import SqliteReads
from novacron.database.store import (
    DatabaseConflictError,
    DatabaseMisuseError,
    Parameters,
)

if TYPE_CHECKING:
    from novacron.database.sqlite import SqliteStore
    from novacron.database.sqlite_pool import ConnectionThread

T = TypeVar("T")


class SqliteTransaction(SqliteReads):
    """BEGIN travels with the first statement, so that it costs no hop of its own."""

    def __init__(self, store: SqliteStore, thread: ConnectionThread) -> None:
        self._store = store
        self._thread = thread
        self._connection = thread.connection
        self._turn = trio.Semaphore(1, max_value=1)
        self._begun = False
        self._over = ""

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        return await self._read(partial(statements.execute, sql, parameters), within)

    async def execute_many(
        self, sql: str, parameters: Sequence[Parameters], *, within: float | None = None
    ) -> int:
        return await self._read(partial(statements.execute_many, sql, parameters), within)

    async def commit(self) -> None:
        async with self._turn:
            self._check_open()
            if self._begun:
                await self._store.finish(self._thread, Action(self._connection.commit))
            self._over = "it was committed"

    async def roll_back(self) -> None:
        self._over = self._over or "it was rolled back"
        # Its turn first, whatever was begun: the thread is given back next, and another task may be
        # in the middle of the first statement.
        with trio.CancelScope(shield=True):
            async with self._turn:
                if self._begun:
                    await self._store.finish(self._thread, Action(self._connection.rollback))

    def _check_open(self) -> None:
        if self._over:
            raise DatabaseConflictError(
                "the transaction is over", why=self._over, remedy="repeat it from the start"
            )

    async def _read(self, work: Callable[[sqlite3.Connection], T], within: float | None) -> T:
        async with self._turn:
            self._check_open()
            try:
                call = Call(
                    work if self._begun else partial(statements.begin, work),
                    self._store.seconds(within),
                    keep_transaction=True,
                )
                result = await self._store.use(self._thread, call)
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
