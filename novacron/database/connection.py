"""One ``sqlite3`` connection as its thread sees it: deadline, cancellation, clean hand-back.

Cancellation needs no watcher task. The loop marks a call whose caller was cancelled, and SQLite calls
the progress handler every few thousand steps of its virtual machine; the handler looks. So a statement
costs one hand-over and nothing else, and the caller gets control back only after the thread has let go
of the connection: no two ever share it.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from novacron.database.sqlite_errors import is_busy, is_damage, map_error
from novacron.database.store import DatabaseLimitError, DatabaseMisuseError
from novacron.units import MIB

if TYPE_CHECKING:
    from novacron.database.sqlite_calls import Call

T = TypeVar("T")

PROGRESS_STEPS = 4000
"""Virtual machine steps between two looks at the deadline: some 50 to 200 µs, which makes the look
(under 1 µs) free and a cancellation prompt."""

BUSY_PAUSE = 0.005
"""Seconds between two tries for a lock that another process holds. SQLite's own busy handler
sleeps without looking at a cancellation, so it is switched off and this is used."""

_FAILURES = (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError, MemoryError)
"""What the driver raises for a statement or a value. MemoryError is SQLite's own, SQLITE_NOMEM."""

WAL_LIMIT_BYTES = 16 * MIB


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that changes *path*, which must exist. Raises :class:`sqlite3.Error`."""
    raw = _open(path, "rw")
    try:
        # FULL: a commit is on the disk when the call returns, also after a power cut. The size
        # limit keeps a burst of writes from leaving a huge log behind for good.
        raw.execute("PRAGMA journal_mode=WAL").close()
        raw.executescript(
            f"PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
            f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}; PRAGMA cell_size_check=ON"
        )
    except BaseException:
        raw.close()
        raise
    return raw


def open_scratch(path: Path) -> sqlite3.Connection:
    """For filling *path*, which nothing reads before its writer has synced and renamed it: no
    statement waits for the disk, and a crash may ruin the file. Raises :class:`sqlite3.Error`."""
    raw = _open(path, "rw")
    try:
        # Not a log: one that cannot be put back into the file when it is closed stays behind
        # without a word.
        raw.executescript("PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY")
    except BaseException:
        raw.close()
        raise
    return raw


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot change *path*: opening and closing it leaves the file and its log
    as they were, byte for byte, even when the log needs recovery. Raises :class:`sqlite3.Error`."""
    raw = _open(path, "ro")
    try:
        raw.execute("PRAGMA cell_size_check=ON").close()
    except BaseException:
        raw.close()
        raise
    return raw


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        # 0: waiting for another process's lock is done in Connection.run, where it can be cut.
        timeout=0,
        # None: transactions begin and end where this package says so, never by themselves.
        isolation_level=None,
        # The boot's check opens it in another thread than the one that will use it.
        check_same_thread=False,
        cached_statements=256,
    )


class StatementInterruptedError(Exception):
    """The statement ended because its caller was cancelled or the store is closing."""


class Connection:
    """Owned by one caller at a time; every method except :meth:`interrupt` runs in the connection's
    thread.

    Args:
      opener: called when the connection is first needed.
      busy_timeout: seconds to wait for a lock another process holds.
    """

    def __init__(
        self,
        opener: Callable[[], sqlite3.Connection],
        path: Path,
        *,
        read_only: bool,
        busy_timeout: float,
    ) -> None:
        self._opener = opener
        self._path = path
        self._read_only = read_only
        self._busy_timeout = busy_timeout
        self._raw: sqlite3.Connection | None = None
        self._call: Call[Any] | None = None
        self._deadline = 0.0
        self._late = False
        self._closing = False
        self.damaged = False
        """Set once SQLite reported damaged bytes through this connection."""

    @property
    def is_open(self) -> bool:
        return self._raw is not None

    def adopt(self, raw: sqlite3.Connection) -> None:
        """Use *raw*, opened already, instead of opening one on first use."""
        self._prepare(raw)

    def in_transaction(self) -> bool:
        return self._raw is not None and self._raw.in_transaction

    def run(self, call: Call[T]) -> T:
        """Do the work of *call* under its deadline. Afterwards no transaction is open unless the call
        keeps it.

        Raises:
          DatabaseError: mapped from what SQLite reported, or the deadline.
          StatementInterruptedError: the caller was cancelled.
        """
        began = time.monotonic()
        self._begin(call)
        try:
            while True:
                raw = self._raw
                try:
                    if raw is None:
                        raw = self._prepare(self._opener())
                    result = call.work(raw)
                    break
                except sqlite3.OperationalError as error:
                    if not is_busy(error) or (raw is not None and raw.in_transaction):
                        raise
                    if time.monotonic() - began >= self._busy_timeout or self._should_stop():
                        raise
                    time.sleep(BUSY_PAUSE)
            if not call.keep_transaction and raw.in_transaction:
                raise DatabaseMisuseError(
                    "a statement left a transaction open",
                    why="BEGIN was sent as a plain statement",
                    remedy="use transaction()",
                )
            return result
        except _FAILURES as error:
            raise self._explain(error, call) from error
        finally:
            self._call = None
            if not call.keep_transaction:
                self._leave_transaction()

    def run_together(self, calls: Iterable[Call[Any]], until: float) -> bool:
        """Do the work of all *calls*, each a single change, in one transaction, and note in each its
        value or error. A change that fails takes back itself alone, as it would outside a transaction.
        Any but the first is interrupted at *until* (monotonic seconds): those before it wait.

        Returns:
          False if nothing was kept, so that each that was taken from *calls* has to be run by itself:
          the lock was not to be had, the commit failed, or SQLite took back everything with one of
          them (no space, interrupted).
        """
        raw = self._raw
        if raw is None:
            return False
        try:
            raw.execute("BEGIN IMMEDIATE")
            latest = math.inf
            for call in calls:
                try:
                    self._begin(call, latest)
                    call.value = call.work(raw)
                except _FAILURES as error:
                    call.error = self._explain(error, call)
                except Exception as error:
                    # Before SQLite began with it: cancelled, or a value that raised of itself.
                    call.error = error
                if self._late or not raw.in_transaction:
                    return False
                latest = until
            self._call = None
            raw.execute("COMMIT")
        except sqlite3.Error:
            return False
        finally:
            self._call = None
            self._leave_transaction()
        return True

    def commit(self) -> None:
        """Make the transaction durable; not interruptible, so that its outcome is always known."""
        if self._raw is None or not self._raw.in_transaction:
            return
        try:
            self._raw.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._explain(error, None) from error
        finally:
            self._leave_transaction()

    def rollback(self) -> None:
        self._leave_transaction()

    def interrupt(self) -> None:
        """From any thread: make the running statement end, if there is one, and each that follows."""
        self._closing = True
        raw = self._raw
        if raw is not None:
            # Its thread may be closing it at this very moment.
            with contextlib.suppress(sqlite3.ProgrammingError):
                raw.interrupt()

    def close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()

    def _prepare(self, raw: sqlite3.Connection) -> sqlite3.Connection:
        raw.set_progress_handler(self._should_stop, PROGRESS_STEPS)
        self._raw = raw
        return raw

    def _begin(self, call: Call[Any], latest: float = math.inf) -> None:
        self._late = False
        if self._closing or call.cancelled:
            raise StatementInterruptedError
        self._call = call
        self._deadline = min(call.deadline, latest)

    def _should_stop(self) -> bool:
        """Whether SQLite is to interrupt what it does; never outside a call, so that the outcome of a
        commit or a rollback is known."""
        call = self._call
        if call is None:
            return False
        self._late = time.monotonic() >= self._deadline
        return self._late or self._closing or call.cancelled

    def _explain(self, error: Exception, call: Call[Any] | None) -> Exception:
        if isinstance(error, sqlite3.OperationalError) and call is not None:
            # Lateness first: at its deadline a caller in the line is cancelled, too.
            if self._late:
                return DatabaseLimitError(
                    "a database statement was interrupted",
                    why=f"it ran longer than {call.within:g} s",
                    remedy="ask for less at once, or raise the limit",
                    key="database.query_timeout",
                )
            if self._closing or call.cancelled:
                return StatementInterruptedError()
        if is_damage(error):
            self.damaged = True
        return map_error(error, self._path, read_only=self._read_only)

    def _leave_transaction(self) -> None:
        raw = self._raw
        if raw is None or not raw.in_transaction:
            return
        try:
            raw.execute("ROLLBACK")
        except sqlite3.Error:
            # A connection that cannot even roll back is not used again; closing it rolls back.
            self.close()
