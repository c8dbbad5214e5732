"""One connection to PostgreSQL for an operator's command: blocking, and never for ever.

A command may run statements that take long for good reason, so no time limit fits them all. What
must not happen is to wait for a server that is gone. So where nothing has come for a while, a second
connection is tried: a server that takes it, or refuses it, is there, and is waited for; one that
does not answer is given up, and the first connection with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import psycopg

from novacron.database.postgresql_errors import (
    NO_NAME,
    away,
    first_line,
    lost,
    map_failed_login,
    map_result,
    outcome_unknown,
    read_only,
    wrong_encoding,
)
from novacron.database.postgresql_lineage import LINEAGE, Lineage, read_lineage
from novacron.database.postgresql_target import Endpoint, Target, conninfo, milliseconds
from novacron.database.store import (
    DatabaseAwayError,
    DatabaseInvalidError,
    DatabaseReadOnlyError,
    DatabaseTlsError,
)
from novacron.errors import DatabaseError

LEAST_TIMEOUT: Final = 2.0
"""Seconds; the driver takes no shorter one for a connection."""


class Session:
    """An open connection; a transaction begins where :meth:`begin` says so.

    Use it in ``with``: it is closed at the end, and what was not committed is undone.
    """

    def __init__(
        self,
        raw: psycopg.Connection[Any],
        endpoint: Endpoint,
        probe: Callable[[], None],
        silence: float,
    ) -> None:
        """
        Args:
          probe: raises :class:`DatabaseAwayError` if the server does not answer.
          silence: seconds without a sign of life after which it is asked.
        """
        self.raw = raw
        self.where = endpoint.address
        self._watch = Watch(raw, probe, silence)

    @property
    def is_standby(self) -> bool:
        return self.raw.info.parameter_status("in_hot_standby") == "on"

    @property
    def encoding(self) -> str:
        """Of the database."""
        return self.raw.info.parameter_status("server_encoding") or ""

    def fetch(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        with self.guarded():
            return self.raw.execute(statement.encode(), parameters or None).fetchall()

    def one(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        """The first column of the first row, or None."""
        rows = self.fetch(statement, parameters)
        return rows[0][0] if rows else None

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> int:
        """Run a statement; the number of rows it changed."""
        with self.guarded():
            return self.raw.execute(statement.encode(), parameters or None).rowcount

    def begin(self, mode: str) -> None:
        """Begin a transaction with this *mode*, for instance ``READ ONLY``."""
        self.execute(f"BEGIN {mode}")

    def commit(self) -> None:
        """Raises:
        DatabaseOutcomeUnknownError: the connection was lost meanwhile.
        """
        try:
            with self.guarded():
                self.raw.commit()
        except DatabaseError as error:
            if self.raw.closed or self.raw.broken:
                raise outcome_unknown(self.where, error.why) from error
            raise

    def rollback(self) -> None:
        with self.guarded():
            self.raw.rollback()

    @contextmanager
    def guarded(self) -> Iterator[Watch]:
        """For the use of :attr:`raw` itself: the server is watched and its errors are mapped. Tell
        the watch of every sign of life with :meth:`Watch.alive`."""
        try:
            with self._watch as watch:
                yield watch
        except psycopg.Error as error:
            raise self._explain(error) from error
        except OSError as error:
            raise lost(self.where, error.strerror or "") from error

    def close(self) -> None:
        self.raw.close()
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _explain(self, error: psycopg.Error) -> DatabaseError:
        if self._watch.failure is not None:
            return self._watch.failure
        if error.pgresult is not None:
            return map_result(error.pgresult, self.where, reading=False, within=0.0)
        if isinstance(error, psycopg.DataError):
            return DatabaseInvalidError("a value cannot be stored in PostgreSQL", why=str(error))
        return lost(self.where, first_line(str(error)))


class Watch:
    """Cuts the connection of a caller who waits for a server that is gone.

    A thread that sleeps while nobody waits. To cut is to shut the socket down: the caller's own
    thread then finds it closed, and alone touches the connection.
    """

    def __init__(
        self, raw: psycopg.Connection[Any], probe: Callable[[], None], silence: float
    ) -> None:
        self._raw = raw
        self._probe = probe
        self._silence = silence
        self._last = time.monotonic()
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.failure: DatabaseError | None = None
        """Why the connection was cut."""

    def alive(self) -> None:
        """The server has just said something. As cheap as a clock."""
        self._last = time.monotonic()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self.alive()
        with self._changed:
            self._waiting += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="postgresql-watch")
                self._thread.start()
            self._changed.notify()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._waiting -= 1

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                left = self._last + self._silence - time.monotonic()
                if not self._waiting or left > 0:
                    self._changed.wait(left if self._waiting else None)
                    continue
            failure: DatabaseError | None = None
            try:
                self._probe()
            except DatabaseAwayError as error:
                failure = error
            except Exception:
                pass
            with self._changed:
                if failure is not None and self._waiting and not self._closed:
                    self.failure = failure
                    self._cut()
                    return
            self.alive()

    def _cut(self) -> None:
        with contextlib.suppress(OSError, psycopg.Error):
            copy = socket.socket(fileno=os.dup(self._raw.fileno()))
            with contextlib.closing(copy):
                copy.shutdown(socket.SHUT_RDWR)


def open_session(target: Target, silence: float, *, changing: bool) -> Session:
    """Connect to the first server that takes changes; without *changing* to the first that answers. In
    either case not to one that takes changes though another was promoted in its place: so all of them
    are asked.

    Args:
      silence: see :class:`Session`.

    Raises:
      DatabaseReadOnlyError: with *changing*: servers answer, and none takes changes.
      DatabaseError: no server could be reached; says why.
    """
    failures: list[DatabaseError] = []
    found: list[Session] = []
    for endpoint in target.endpoints:
        try:
            raw = _connect(target, endpoint)
        except DatabaseError as error:
            failures.append(error)
            continue

        session = Session(raw, endpoint, partial(ask, target, endpoint), silence)
        unfit = changing and (
            read_only(session.where, "it is a standby that follows another server")
            if session.is_standby
            else wrong_encoding(session.where, target.settings.name, session.encoding)
        )
        if unfit:
            session.close()
            failures.append(unfit)
            continue
        found.append(session)
    chosen = _first_that_was_not_replaced(found)
    for session in found:
        if session is not chosen:
            session.close()
    if chosen is not None:
        return chosen
    for failure in failures:
        # Says more than a second server that is down.
        if isinstance(failure, DatabaseReadOnlyError):
            raise failure
    if isinstance(failures[0], DatabaseTlsError):
        _say_what_is_wrong(target)
    raise failures[0]


def _first_that_was_not_replaced(sessions: list[Session]) -> Session | None:
    if len(sessions) < 2:
        return sessions[0] if sessions else None
    lineages: dict[Session, Lineage | None] = {}
    for session in sessions:
        try:
            lineages[session] = read_lineage(session.fetch(LINEAGE.sql.decode())[0])
        except DatabaseError:
            # It does not say, or has just gone, which its first use will tell.
            lineages[session] = None
    for session, lineage in lineages.items():
        if lineage is None or not any(lineage.is_older(other) for other in lineages.values()):
            return session
    raise AssertionError("the newest is not older than any")


def ask(target: Target, endpoint: Endpoint) -> None:
    """A :class:`Watch`'s probe: connect once more.

    Raises:
      DatabaseError: it does not work; DatabaseAwayError: nobody answers.
    """
    _connect(target, endpoint).close()


def _connect(target: Target, endpoint: Endpoint) -> psycopg.Connection[Any]:
    timeout = max(LEAST_TIMEOUT, target.settings.connect_timeout)
    parameters = target.parameters(endpoint, None) | {"connect_timeout": str(round(timeout))}
    parameters["application_name"] = "novacron database"
    # What comes later holds. What takes long is watched instead, see above; and a standby has no
    # serializable transactions.
    parameters["options"] += (
        " -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
        f" -c lock_timeout={milliseconds(target.query_timeout)}"
        " -c default_transaction_isolation=read\\ committed"
    )
    try:
        return psycopg.Connection[Any].connect(
            conninfo(parameters).decode("utf-8", "surrogateescape"),
            autocommit=True,
            prepare_threshold=None,
        )
    except UnicodeError as error:
        raise away(endpoint.address, NO_NAME) from error
    except psycopg.Error as error:
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            raise away(endpoint.address, f"it did not answer within {timeout:g} s") from None
        # The driver's own exception holds the connection string; the password is in it.
        used = error.pgconn is not None and error.pgconn.used_password
        raise map_failed_login(
            str(error), endpoint.address, user=target.settings.user, used_password=used
        ) from None


def _say_what_is_wrong(target: Target) -> None:
    """The node's own way to connect finds out more about a certificate; raises its error."""
    import trio

    from novacron.database.postgresql_dial import dial

    async def look() -> None:
        (await dial(target)).close()

    trio.run(look)
