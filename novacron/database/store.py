"""The database seam: what every engine offers, and the errors it maps its own to.

Portable SQL is the contract. Statements are written once and run on SQLite and PostgreSQL:

* Parameters are named, ``:name``, and passed as a mapping. An engine whose driver wants another
  style translates. A type is cast with ``CAST(x AS t)``, never ``x::t``.
* Rows are tuples in the order of the select list. Values are ``None``, ``int``, ``float``,
  ``str`` and ``bytes``; booleans are stored as 0 and 1, instants as seconds since the epoch,
  JSON as text.
* Reads outside a transaction may run at the same time, each on a consistent snapshot. Writers
  take turns: one transaction at a time in this process. Whatever else writes at the same time
  (on PostgreSQL: other nodes), the result is that of some order one after the other. Where another
  node was faster, a transaction fails with :class:`DatabaseTransientError` and nothing of it is
  kept; :meth:`Store.run` repeats it. On SQLite, whose file belongs to one node, that does not
  happen.
* An error inside a transaction ends it, whatever the engine: nothing of it is kept, and every
  later use of it raises :class:`DatabaseConflictError`.
* A cancelled call interrupts its statement and returns when the engine has let go of it. Whether
  a cancelled commit happened is known: the call returns if it did, and raises if it did not.
* A server may be lost between a commit and its answer. Then nobody knows, and the error says so:
  :class:`DatabaseOutcomeUnknownError`. No change is ever repeated after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from novacron.errors import (
    ConflictError,
    DatabaseError,
    InvalidError,
    LimitError,
    LocalProtocolError,
    TransientError,
    UnavailableError,
)
from novacron.record import Record

T = TypeVar("T")

Value = None | int | float | str | bytes
Parameters = Mapping[str, Value]
Row = tuple[Any, ...]

FETCH_LIMIT = 10_000
"""Rows :meth:`Reader.fetch_all` returns at most by default: what a caller may hold in memory
without having thought about it. More is streamed, or asked for with ``limit``."""

MAX_WAITING = 1024
"""Calls that may wait for a connection. Past it a caller is told to slow down at once, since it
would only add to a queue that is already longer than a statement deadline."""


class DatabaseTransientError(DatabaseError, TransientError):
    """Another process held the lock too long, or the connection was lost: try again."""

    code = "database.transient"


class DatabaseConflictError(DatabaseError, ConflictError):
    """A unique or foreign key forbids it, or the transaction is already over."""

    code = "database.conflict"


class DatabaseInvalidError(DatabaseError, InvalidError):
    """The statement or a value is wrong; it will fail again."""

    code = "database.invalid"


class DatabaseLimitError(DatabaseError, LimitError):
    """A deadline, a row limit, the waiting line, or memory ran out."""

    code = "database.limit"


class DatabaseUnavailableError(DatabaseError, UnavailableError):
    """The database cannot be used now: closed, not permitted, read-only, disk error."""

    code = "database.unavailable"


class DatabaseFullError(DatabaseUnavailableError):
    """No space is left where the database lies. Nothing of the change was kept."""

    code = "database.full"


class DatabaseCorruptError(DatabaseUnavailableError):
    """The stored bytes are not what was written."""

    code = "database.corrupt"


class DatabaseAwayError(DatabaseUnavailableError):
    """The server does not answer, or is starting or stopping. Nothing was changed; it is looked
    for in the background, and until it is found every call fails at once."""

    code = "database.away"
    retryable = True


class DatabaseReadOnlyError(DatabaseUnavailableError):
    """The server takes no changes: it is a standby, perhaps about to be promoted, or was made
    read-only. Nothing was changed."""

    code = "database.read_only"
    retryable = True


class DatabaseStaleError(DatabaseUnavailableError):
    """The server takes changes, and another one has been promoted in its place: what is written to it
    would be lost. Nothing was changed; the other one is looked for in the background."""

    code = "database.stale"
    retryable = True


class DatabaseCredentialsError(DatabaseUnavailableError):
    """The server does not let this node in."""

    code = "database.credentials"


class DatabaseTlsError(DatabaseUnavailableError):
    """The server's certificate does not prove that it is the server that was asked for, or there is
    no agreement on TLS."""

    code = "database.tls"


class DatabaseConnectionsError(DatabaseUnavailableError):
    """The server has as many connections as it takes."""

    code = "database.connections"
    retryable = True


class DatabaseOutcomeUnknownError(DatabaseUnavailableError):
    """The connection was lost after a commit was sent and before its answer came: the change is
    there whole, or not at all. Never repeated by itself; read before repeating."""

    code = "database.outcome_unknown"


class DatabaseSchemaError(DatabaseConflictError):
    """The database belongs to newer code, to another node, or to another program."""

    code = "database.schema"


class DatabaseMisuseError(DatabaseError, LocalProtocolError):
    """Our bug: the store was used in a way its contract forbids."""

    code = "database.misuse"


class StoreStatistics(Record):
    """Counted since the store was opened."""

    engine: str
    reads: int
    writes: int
    errors: int
    waiting: int
    """Calls that wait for a connection at this moment."""
    connections: int
    """Connections that are open at this moment."""


class Reader(Protocol):
    """Where rows can be read. All *within* values are seconds and include the wait for a
    connection; ``None`` takes the configured ``database.query_timeout``."""

    async def fetch_all(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        limit: int = FETCH_LIMIT,
        within: float | None = None,
    ) -> list[Row]:
        """All rows, :class:`DatabaseLimitError` if there are more than *limit*."""
        ...

    async def fetch_one(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> Row | None:
        """The first row, or None."""
        ...


class Transaction(Reader, Protocol):
    """Statements that happen together or not at all. One task at a time runs a statement;
    others that share the transaction wait for their turn."""

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        """Run one statement; the number of rows it changed."""
        ...

    async def execute_many(
        self, sql: str, parameters: Sequence[Parameters], *, within: float | None = None
    ) -> int:
        """Run one statement for each element; the number of rows changed in all."""
        ...


class Store(Reader, Protocol):
    """One database. Whoever opened it calls :meth:`close`."""

    @property
    def engine(self) -> str:
        """``sqlite`` or ``postgresql``."""
        ...

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        """Run one changing statement durably, as a transaction of its own; the rows changed."""
        ...

    def transaction(
        self, *, within: float | None = None
    ) -> AbstractAsyncContextManager[Transaction]:
        """The single writer's turn. Committed durably on a normal exit, rolled back on any
        exception. *within* bounds the wait for the turn; each statement has its own.

        Raises:
          DatabaseLimitError: the turn did not come in time.
          DatabaseMisuseError: this task is inside a transaction already.
        """
        ...

    async def run(
        self, work: Callable[[Transaction], Awaitable[T]], *, within: float | None = None
    ) -> T:
        """What *work* returns, called in a transaction that is committed when it returns.

        For work that may be called again: it is, in a new transaction, when another node's
        transaction was in the way or the connection broke before the commit, for as long as
        ``database.postgresql.retry_for`` allows. So whatever it does besides the database must bear
        being done twice. *within* bounds it all.

        Raises what :meth:`transaction` does, and what *work* raises.
        """
        ...

    def stream(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        batch_rows: int = 256,
        within: float | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[Row]]:
        """Rows of any number in bounded memory: *batch_rows* at a time. Holds one connection until
        the block is left, so leave it soon; *within* is for each batch."""
        ...

    async def check(self, *, within: float | None = None) -> list[str]:
        """What the engine finds wrong with its own storage; empty if nothing."""
        ...

    def statistics(self) -> StoreStatistics: ...

    async def close(self) -> None:
        """Refuse new calls, let running statements end for a moment, interrupt the rest, close
        every connection. Harmless when repeated."""
        ...
