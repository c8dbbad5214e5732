"""One transaction on a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from novacron.database.postgresql_connection import (
    IN_TRANSACTION,
    Answer,
    Connection,
    LostError,
    OverdueError,
    Step,
)
from novacron.database.postgresql_errors import conflict
from novacron.database.postgresql_parameters import Bound, bind
from novacron.database.postgresql_target import milliseconds
from novacron.database.store import (
    FETCH_LIMIT,
    DatabaseConflictError,
    DatabaseMisuseError,
    Parameters,
    Row,
)
from novacron.errors import DatabaseError

if TYPE_CHECKING:
    from novacron.database.postgresql import PostgresqlStore

BATCH = 256
"""Statements of ``execute_many`` that are under way at once: some round trips fewer would not be
noticed, and their answers must fit into the buffers on the way."""
ROLLBACK_GRACE = 2.0
"""Seconds a rollback may take; then the connection is closed, which rolls back as well."""

_BEGIN = Step(Bound(b"BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE"), sync=False)
_COMMIT = Step(Bound(b"COMMIT"))
_ROLLBACK = Step(Bound(b"ROLLBACK"))


class PostgresqlTransaction:
    """BEGIN travels with the first statement, so that it costs no round trip of its own; until then
    no connection is held either."""

    def __init__(self, store: PostgresqlStore) -> None:
        self._store = store
        self._connection: Connection | None = None
        self._turn = trio.Semaphore(1, max_value=1)
        self._over = ""

    async def fetch_all(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        limit: int = FETCH_LIMIT,
        within: float | None = None,
    ) -> list[Row]:
        answer = await self._run([Step(bind(sql, parameters), limit)], within)
        return answer.rows

    async def fetch_one(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> Row | None:
        answer = await self._run([Step(bind(sql, parameters), 1, first=True)], within)
        return answer.rows[0] if answer.rows else None

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        answer = await self._run([Step(bind(sql, parameters))], within)
        return answer.changed

    async def execute_many(
        self, sql: str, parameters: Sequence[Parameters], *, within: float | None = None
    ) -> int:
        changed = 0
        deadline = trio.current_time() + self._store.seconds(within)
        for start in range(0, len(parameters), BATCH):
            batch = parameters[start : start + BATCH]
            steps = [Step(bind(sql, each), sync=False) for each in batch]
            steps[-1].sync = True
            answer = await self._run(steps, deadline - trio.current_time())
            changed += answer.changed
        return changed

    async def _run(self, steps: list[Step], within: float | None) -> Answer:
        async with self._turn:
            self._check_open()
            try:
                return await self._run_in_turn(steps, within)
            except BaseException as error:
                self._over = self._over or "a statement in it failed or was cancelled"
                if isinstance(error, DatabaseError):
                    self._store.count_error(error)
                raise

    async def _run_in_turn(self, steps: list[Step], within: float | None) -> Answer:
        store = self._store
        seconds = store.seconds(within)
        deadline = trio.current_time() + seconds
        if seconds > store.target.query_timeout:
            allowance = Bound(b"SET LOCAL statement_timeout = %d" % milliseconds(seconds))
            steps = [Step(allowance, sync=False), *steps]
        connection = self._connection
        if connection is None:
            connection = self._connection = await store.pool.take(None, deadline)
            steps = [_BEGIN, *steps]
        answer = await store.exchange(connection, steps, deadline, within=seconds)
        if connection.status != IN_TRANSACTION:
            self._over = "a statement ended it"
            raise DatabaseMisuseError(
                "a statement ended the transaction it was in",
                why="COMMIT or ROLLBACK was sent as a plain statement",
                remedy="leave the block instead",
            )
        return answer

    async def commit(self) -> None:
        """Commit durably. A cancellation is heard before the commit is sent, and not while it is
        under way: then it is known whether it happened.

        Raises:
          DatabaseConflictError: the transaction is over.
          DatabaseTransientError: it conflicts with another one; nothing was kept.
          DatabaseOutcomeUnknownError: the connection was lost before the answer came.
        """
        async with self._turn:
            self._check_open()
            await trio.lowlevel.checkpoint_if_cancelled()
            self._over = "it was committed"
            connection = self._connection
            if connection is None:
                return
            seconds = self._store.target.query_timeout
            try:
                with trio.CancelScope(shield=True):
                    answer = await self._store.exchange(
                        connection,
                        [_COMMIT],
                        trio.current_time() + seconds,
                        within=seconds,
                        commits=True,
                    )
            except DatabaseError as error:
                self._over = "its commit failed"
                self._store.count_error(error)
                raise
            if answer.tag != b"COMMIT":
                self._over = "its commit failed"
                raise conflict("the server rolled it back instead of committing it")

    async def roll_back(self) -> None:
        """Leave nothing of it, unless it was committed."""
        self._over = self._over or "it was rolled back"
        connection = self._connection
        if connection is None or not connection.usable or connection.status == 0:
            return
        with trio.CancelScope(shield=True):
            async with self._turn:
                try:
                    deadline = trio.current_time() + ROLLBACK_GRACE
                    answer = await connection.exchange([_ROLLBACK], deadline)
                    if answer.error is not None:
                        connection.close()
                except (LostError, OverdueError):
                    # The server rolls back what has lost its connection.
                    connection.close()

    def release(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._store.pool.give_back(connection)

    def _check_open(self) -> None:
        if self._over:
            raise DatabaseConflictError(
                "the transaction is over", why=self._over, remedy="repeat it from the start"
            )
