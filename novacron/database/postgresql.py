"""PostgreSQL behind the seam: a pool of connections, each statement one round trip.

How the contract of :mod:`novacron.database.store` is kept by a server that several nodes share:

* Everything that writes runs at isolation level SERIALIZABLE (Cahill, Fekete and Röhm, “Serializable
  isolation for snapshot databases”, SIGMOD 2008; PostgreSQL: Ports and Grittner, VLDB 2012). Whatever
  nodes write at once, the result is that of some order one after the other, as in SQLite. Where two
  cannot be ordered, one of them fails and has changed nothing.
* Within this process :meth:`PostgresqlStore.transaction` blocks take turns as they do in SQLite, so
  that they never fail for one another. Against another node they may: with
  :class:`DatabaseTransientError`. Work that may be called again goes through
  :meth:`PostgresqlStore.run`, which repeats it; a block cannot be repeated from outside.
* Single statements run side by side. What fails for a conflict is repeated by the store: nothing of it
  was kept. A *read* is repeated after a lost connection too; a change is not, since it may have been
  committed: that is :class:`DatabaseOutcomeUnknownError`.
* Reads outside a transaction run at READ COMMITTED and read only: each sees one snapshot, and none
  makes a writer fail.

A lock that made all nodes' writers take turns would need no repetition, and was not taken: a node that
stops in the middle of a transaction would stop the writers of the whole cluster.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from novacron.database.metrics import ERRORS, SECONDS, STATEMENTS
from novacron.database.postgresql_connection import (
    IDLE,
    Answer,
    Connection,
    LostError,
    OverdueError,
    Step,
)
from novacron.database.postgresql_dial import dial, look_at_lineage
from novacron.database.postgresql_errors import (
    ConflictingTransactionsError,
    ConnectionLostError,
    SchemaChangedError,
    lost,
    map_result,
    outcome_unknown,
    schema_changed,
    timed_out,
    unreplicated,
)
from novacron.database.postgresql_mode import Mode
from novacron.database.postgresql_parameters import Bound, bind
from novacron.database.postgresql_pool import Absence, Pool
from novacron.database.postgresql_stream import RowStream
from novacron.database.postgresql_target import Target, milliseconds
from novacron.database.postgresql_transaction import PostgresqlTransaction
from novacron.database.store import (
    FETCH_LIMIT,
    DatabaseLimitError,
    DatabaseMisuseError,
    DatabaseReadOnlyError,
    Parameters,
    Row,
    StoreStatistics,
    Transaction,
)
from novacron.database.turns import Turns
from novacron.errors import DatabaseError
from novacron.observe import Counter

T = TypeVar("T")

REPEATS = Counter(
    "novacron_database_repeats_total",
    "Times that work was repeated after a conflict or a lost connection.",
    ("what",),
)

CLOSE_GRACE = 1.0
"""Seconds a running statement gets to end by itself when the store is closed, as for SQLite."""
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.25
"""Seconds between two attempts of work that is repeated, doubled and varied by chance: those that
met once must not meet again."""

ROLLBACK = Step(Bound(b"ROLLBACK"))
_REPEATABLE = (
    ConflictingTransactionsError,
    ConnectionLostError,
    SchemaChangedError,
    DatabaseReadOnlyError,
)


class PostgresqlStore:
    """A :class:`~novacron.database.store.Store` on a PostgreSQL database.

    :meth:`keep` must run in a task as long as the store is used: it finds the server again.
    """

    engine = "postgresql"

    def __init__(self, target: Target) -> None:
        self.target = target
        self.pool = Pool(target)
        self._turns = Turns()
        self._query_timeout = target.query_timeout
        timeout = milliseconds(target.query_timeout)
        self._reading = Mode(False, timeout)
        self._writing = Mode(True, timeout)
        self._closed = False
        self._reads = 0
        self._writes = 0
        self._errors = 0

    async def keep(self) -> None:
        """Look after connections, and look for a server that is away, until the store is closed."""
        await self.pool.keep()

    @property
    def absence(self) -> Absence | None:
        """Since when the server is away; None while it is there."""
        return self.pool.absence

    # --- Reading ---------------------------------------------------------------------------------

    async def fetch_all(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        limit: int = FETCH_LIMIT,
        within: float | None = None,
    ) -> list[Row]:
        answer = await self._read(Step(bind(sql, parameters), limit), within)
        return answer.rows

    async def fetch_one(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> Row | None:
        answer = await self._read(Step(bind(sql, parameters), 1, first=True), within)
        return answer.rows[0] if answer.rows else None

    async def _read(self, step: Step, within: float | None) -> Answer:
        seconds = self.seconds(within)
        mode = self._mode(self._reading, seconds)

        async def once(deadline: float) -> Answer:
            connection = await self.pool.take(mode, deadline)
            try:
                answer = await self.exchange(
                    connection, [step], deadline, mode, within=seconds, reading=True
                )
                await self._check_idle(connection)
                return answer
            finally:
                self.pool.give_back(connection)

        return await self._repeat(once, "read", seconds)

    # --- Writing ---------------------------------------------------------------------------------

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        answer = await self._write(Step(bind(sql, parameters)), within)
        return answer.changed

    async def execute_for_row(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> Row | None:
        """Run one changing statement as :meth:`execute` does; the first row it returns."""
        answer = await self._write(Step(bind(sql, parameters), 1, first=True), within)
        return answer.rows[0] if answer.rows else None

    async def _write(self, step: Step, within: float | None) -> Answer:
        seconds = self.seconds(within)
        mode = self._mode(self._writing, seconds)

        async def once(deadline: float) -> Answer:
            if not self._turns.share_nowait():
                await self._wait_for_turn(self._turns.share, deadline)
            try:
                connection = await self.pool.take(mode, deadline)
                try:
                    answer = await self.exchange(
                        connection, [step], deadline, mode, within=seconds, commits=True
                    )
                    await self._check_idle(connection)
                    return answer
                finally:
                    self.pool.give_back(connection)
            finally:
                self._turns.leave()

        return await self._repeat(once, "write", seconds)

    @asynccontextmanager
    async def transaction(self, *, within: float | None = None) -> AsyncIterator[Transaction]:
        await self._counted(self._wait_for_turn, self._turns.take, self._deadline(within))
        try:
            async with self._open_transaction() as transaction:
                yield transaction
        finally:
            self._turns.give_back()

    async def run(
        self, work: Callable[[Transaction], Awaitable[T]], *, within: float | None = None
    ) -> T:
        seconds = self.seconds(within)
        alone = False

        async def once(deadline: float) -> T:
            nonlocal alone
            if alone:
                async with self.transaction(within=deadline - trio.current_time()) as transaction:
                    return await work(transaction)
            # Side by side first; after a conflict with its turn, so that of those in this process
            # one after the other gets through.
            alone = True
            if not self._turns.share_nowait():
                await self._wait_for_turn(self._turns.share, deadline)
            try:
                async with self._open_transaction() as transaction:
                    return await work(transaction)
            finally:
                self._turns.leave()

        return await self._repeat(once, "transaction", seconds, counted=False)

    @asynccontextmanager
    async def _open_transaction(self) -> AsyncIterator[PostgresqlTransaction]:
        transaction = PostgresqlTransaction(self)
        try:
            yield transaction
            await transaction.commit()
        except BaseException:
            await transaction.roll_back()
            raise
        finally:
            transaction.release()

    @asynccontextmanager
    async def stream(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        batch_rows: int = 256,
        within: float | None = None,
    ) -> AsyncIterator[AsyncIterator[Row]]:
        bound = bind(sql, parameters)
        seconds = self.seconds(within)
        connection = await self._counted(
            self.pool.take, self._reading, trio.current_time() + seconds
        )
        try:
            async with RowStream(self, connection, bound, batch_rows, seconds) as rows:
                yield rows
        finally:
            self.pool.give_back(connection)

    # --- The whole -------------------------------------------------------------------------------

    async def check(self, *, within: float | None = None) -> list[str]:
        """Pages whose checksum did not match when they were read, as far as the server keeps
        checksums. Reading all of them is the server's own tool's work (``pg_amcheck``)."""
        row = await self.fetch_one(
            "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()",
            within=within,
        )
        failures = row[0] if row is not None else None
        if failures:
            return [f"{failures} pages did not match their checksums"]
        return []

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(
            engine=self.engine,
            reads=self._reads,
            writes=self._writes,
            errors=self._errors,
            waiting=self.pool.waiting,
            connections=self.pool.connections,
        )

    async def close(self) -> None:
        self._closed = True
        with trio.CancelScope(shield=True):
            await self.pool.close(CLOSE_GRACE)

    # --- One exchange ----------------------------------------------------------------------------

    async def exchange(
        self,
        connection: Connection,
        steps: Sequence[Step],
        deadline: float,
        mode: Mode | None = None,
        *,
        within: float,
        reading: bool = False,
        commits: bool = False,
    ) -> Answer:
        """Run *steps* on *connection*, which the caller holds, and map what goes wrong.

        Args:
          within: seconds allowed, for messages.
          reading: with these steps nothing may be changed.
          commits: with these steps something may be committed.
        """
        started = time.perf_counter()
        try:
            answer = await connection.exchange(steps, deadline, mode)
        except OverdueError:
            raise timed_out(within) from None
        except LostError as error:
            if commits and error.sent:
                raise outcome_unknown(connection.where) from error
            if reading:
                await trio.lowlevel.checkpoint_if_cancelled()
            raise lost(connection.where, error.why) from error
        if answer.stale:
            raise schema_changed()
        if answer.error is not None:
            mapped = map_result(answer.error, connection.where, reading=reading, within=within)
            if isinstance(mapped, DatabaseReadOnlyError):
                self.pool.note_read_only(connection)
            raise mapped
        if commits and answer.unreplicated:
            self.pool.lookout.hurry()
            raise unreplicated(connection.where)
        if answer.overflow:
            raise DatabaseLimitError(
                "a query has too many rows",
                why=f"more than {steps[-1].rows}",
                remedy="stream it, or narrow it",
            )
        if reading:
            self._reads += 1
            kind = "read"
        else:
            self._writes += 1
            kind = "write"
        STATEMENTS.inc(kind)
        SECONDS.observe(time.perf_counter() - started, kind)
        return answer

    async def _check_idle(self, connection: Connection) -> None:
        """A single statement leaves no transaction behind."""
        if connection.status == IDLE:
            return
        with trio.CancelScope(shield=True):
            try:
                await connection.exchange([ROLLBACK], trio.current_time() + 1.0)
            except (LostError, OverdueError):
                connection.close()
        raise DatabaseMisuseError(
            "a statement began a transaction",
            why="BEGIN was sent as a plain statement",
            remedy="use transaction()",
        )

    def count_error(self, error: DatabaseError) -> None:
        self._errors += 1
        ERRORS.inc(error.code)

    def seconds(self, within: float | None) -> float:
        """What a call may take. Raises what it would fail with at once."""
        self.pool.check()
        return self._query_timeout if within is None else within

    def _deadline(self, within: float | None) -> float:
        return trio.current_time() + self.seconds(within)

    def _mode(self, usual: Mode, seconds: float) -> Mode:
        if seconds <= self._query_timeout:
            return usual
        return Mode(usual.writing, milliseconds(seconds))

    async def _wait_for_turn(self, acquire: Callable[[], Awaitable[None]], deadline: float) -> None:
        if self._turns.owner is trio.lowlevel.current_task():
            raise DatabaseMisuseError(
                "a task that is inside a transaction asked for the writer again",
                why="it would wait for itself",
                remedy="use the transaction object",
            )
        await self.pool.wait(acquire, deadline, "database.query_timeout")

    async def _counted(self, call: Callable[..., Awaitable[T]], *arguments: object) -> T:
        try:
            return await call(*arguments)
        except DatabaseError as error:
            self.count_error(error)
            raise

    # --- Repetition ------------------------------------------------------------------------------

    async def _repeat(
        self,
        once: Callable[[float], Awaitable[T]],
        what: str,
        seconds: float,
        *,
        counted: bool = True,
    ) -> T:
        """Call *once* until it does not fail for a conflict or a connection; it raises these two
        only where nothing was done."""
        now = trio.current_time()
        deadline, until = now + seconds, now + self.target.settings.retry_for
        pause = FIRST_PAUSE
        while True:
            try:
                return await once(deadline)
            except DatabaseError as error:
                now = trio.current_time() + pause
                if (
                    not isinstance(error, _REPEATABLE)
                    or self.pool.absence is not None
                    or now >= min(deadline, until)
                ):
                    if counted:
                        self.count_error(error)
                    raise
            REPEATS.inc(what)
            await trio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE)


@asynccontextmanager
async def open_store(target: Target) -> AsyncIterator[PostgresqlStore]:
    """A store that looks after itself while the block lasts, for those who have no nursery.

    Raises:
      DatabaseError, SecretReferenceError: no server that takes changes could be reached.
    """
    connection = await dial(target)
    try:
        await look_at_lineage(connection, target.query_timeout)
        target.lineages.check(connection.lineage, connection.where)
    except BaseException:
        connection.close()
        raise
    store = PostgresqlStore(target)
    store.pool.adopt(connection)
    # Not in a nursery around the block: what the block raises would come out in a group.
    trio.lowlevel.spawn_system_task(store.keep)
    try:
        yield store
    finally:
        await store.close()
