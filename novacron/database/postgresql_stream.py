"""Rows of any number, a batch for each round trip, through a cursor on the server."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import trio

from novacron.database.postgresql_connection import Connection, LostError, OverdueError, Step
from novacron.database.postgresql_parameters import Bound
from novacron.database.postgresql_target import milliseconds
from novacron.database.store import Row
from novacron.errors import DatabaseError

if TYPE_CHECKING:
    from novacron.database.postgresql import PostgresqlStore

END_GRACE = 2.0
"""Seconds the end of a stream may take; then the connection is closed."""

_BEGIN = Bound(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
_END = Step(Bound(b"ROLLBACK"))


class RowStream:
    """Iterates over a cursor. Its transaction begins with the first batch and in one round trip
    with it; all rows are of one snapshot."""

    def __init__(
        self,
        store: PostgresqlStore,
        connection: Connection,
        bound: Bound,
        batch_rows: int,
        within: float,
    ) -> None:
        self._store = store
        self._connection = connection
        declare = b"DECLARE novacron_stream NO SCROLL CURSOR FOR " + bound.sql
        self._declare = Bound(declare, bound.oids, bound.values)
        self._fetch = Bound(b"FETCH FORWARD %d FROM novacron_stream" % batch_rows)
        self._batch_rows = batch_rows
        self._within = within
        self._begun = False
        self._exhausted = False
        self._batch: list[Row] = []

    async def __aenter__(self) -> RowStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exhausted = True
        self._batch = []
        connection = self._connection
        if not self._begun or not connection.usable:
            return
        with trio.CancelScope(shield=True):
            try:
                answer = await connection.exchange([_END], trio.current_time() + END_GRACE)
                if answer.error is not None:
                    connection.close()
            except (LostError, OverdueError):
                connection.close()

    def __aiter__(self) -> RowStream:
        return self

    async def __anext__(self) -> Row:
        if not self._batch:
            if not self._exhausted:
                await self._next_batch()
            if not self._batch:
                raise StopAsyncIteration
        return self._batch.pop()

    async def _next_batch(self) -> None:
        steps = [Step(self._fetch, self._batch_rows)]
        if not self._begun:
            self._begun = True
            before = [_BEGIN, self._declare]
            usual = self._store.target.query_timeout
            if self._within > usual:
                timeout = milliseconds(self._within)
                before.insert(1, Bound(b"SET LOCAL statement_timeout = %d" % timeout))
            steps = [*(Step(bound, sync=False) for bound in before), *steps]
        try:
            answer = await self._store.exchange(
                self._connection,
                steps,
                trio.current_time() + self._within,
                within=self._within,
                reading=True,
            )
        except DatabaseError as error:
            self._exhausted = True
            self._store.count_error(error)
            raise
        self._exhausted = len(answer.rows) < self._batch_rows
        self._batch = answer.rows
        self._batch.reverse()
