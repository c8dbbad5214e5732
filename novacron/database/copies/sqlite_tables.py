"""A SQLite file as a snapshot to read from and as a destination to fill."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from novacron.database.backup import SIDE_FILES, sync_file
from novacron.database.connection import open_reader, open_scratch
from novacron.database.copies.tables import (
    OWNER_TABLES,
    STAMP_TABLE,
    BackupInvalidError,
    Column,
    Owner,
    Row,
    Table,
    column_list,
    ordered,
    quoted,
)
from novacron.database.integrity import check_header, check_pages, is_damage
from novacron.database.schema import apply_snapshot, read_state, revisions, write_owner
from novacron.database.sqlite_errors import is_busy, map_error
from novacron.database.store import DatabaseCorruptError, DatabaseSchemaError
from novacron.errors import DatabaseError
from novacron.units import NodeId

ROWS_AT_ONCE: Final = 256

_HIDDEN_GENERATED: Final = (2, 3)
"""In ``table_xinfo``: a column that is computed, kept or not. Its value is not carried along."""


class SqliteSnapshot:
    """A SQLite database as it is at this moment, also while a node writes to it.

    A read transaction: in WAL mode nobody waits for it, and what is committed meanwhile is not seen.
    """

    engine = "sqlite"

    def __init__(self, path: Path, *, busy_timeout: float) -> None:
        """Open *path* and begin to read.

        Args:
          busy_timeout: seconds to wait for a lock that another process holds.

        Raises:
          DatabaseError: it is damaged, not NovaCron's, newer than the code, empty, or unreadable.
        """
        self.place = str(path)
        self._path = path
        try:
            check_header(path)
            self._raw = _begin_patiently(path, busy_timeout)
        except OSError as error:
            raise _unreadable(path, error) from error
        except sqlite3.Error as error:
            raise explain(error, path) from error
        try:
            state = read_state(self._raw, path, revisions())
            if state.revision is None:
                raise DatabaseSchemaError(
                    f"there is nothing to copy in {path}",
                    why="it holds no tables",
                    remedy="name the database of a node that has booted",
                )
            self.revision: str = state.revision
            self.owner = None if state.node_id is None else Owner("node", state.node_id)
            self.tables = sqlite_tables(self._raw)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._raw.close()
            raise explain(error, path) from error
        except BaseException:
            self._raw.close()
            raise

    def verify(self) -> None:
        """Check every page, and every index against its table.

        Raises:
          DatabaseCorruptError: with the first findings.
        """
        try:
            check_pages(self._raw, self._path, full=True, progress=None)
        except DatabaseCorruptError as error:
            raise DatabaseCorruptError(
                error.what, why=error.why, remedy="take another file; this one stays as it is"
            ) from error
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise explain(error, self._path) from error

    def rows(self, table: Table) -> Iterator[Row]:
        yield from _rows(self._raw, table, self._path)

    def close(self) -> None:
        self._raw.close()


class SqliteDestination:
    """A new SQLite file at *path*, for :func:`~novacron.database.copies.loading.load`.

    Nothing reads the file before :meth:`finish` has returned; close it in any case.
    """

    engine = "sqlite"

    def __init__(self, path: Path, node_id: NodeId) -> None:
        self.place = str(path)
        self._path = path
        self._node_id = node_id
        self._raw: sqlite3.Connection | None = None
        self._revision = ""

    def prepare(self, revision: str) -> dict[str, Table]:
        for suffix in ("", "-journal", *SIDE_FILES):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY
        os.close(os.open(self._path, flags, 0o600))
        try:
            self._raw = raw = open_scratch(self._path)
            self._revision = revision
            newest = revision == revisions()[-1]
            if not newest or not apply_snapshot(raw, self._node_id, time.time()):
                raw.close()
                from novacron.database.migrate import upgrade

                upgrade(self._path, revision)
                self._raw = raw = open_scratch(self._path)
            raw.execute("BEGIN IMMEDIATE").close()
            tables = sqlite_tables(raw)
            for table in tables:
                # A migration may have put rows into a table it made.
                raw.execute(f"DELETE FROM {quoted(table.name)}").close()
            return {table.name: table for table in tables}
        except sqlite3.Error as error:
            raise map_error(error, self._path) from error

    def load(self, table: Table, rows: Iterable[Row]) -> None:
        raw = self._open
        values = ", ".join("?" * len(table.columns))
        insert = f"INSERT INTO {quoted(table.name)} ({column_list(table)}) VALUES ({values})"
        try:
            pending = iter(rows)
            while batch := list(islice(pending, ROWS_AT_ONCE)):
                raw.executemany(insert, batch).close()
        except sqlite3.IntegrityError as error:
            raise BackupInvalidError(
                f"rows of {table.name} do not fit into the schema",
                why=str(error),
                remedy="this backup was not made of a sound database; take another one",
            ) from error
        except (sqlite3.Error, OverflowError) as error:
            raise map_error(error, self._path) from error

    def rows(self, table: Table) -> Iterator[Row]:
        yield from _rows(self._open, table, self._path)

    def finish(self) -> None:
        """Commit, migrate to the newest revision, note the owner, and wait for the disk.

        Raises:
          DatabaseError: references do not fit, a migration failed, or there is no space.
        """
        raw = self._open
        try:
            raw.execute("COMMIT").close()
            broken = raw.execute("PRAGMA foreign_key_check").fetchone()
            if broken is not None:
                raise BackupInvalidError(
                    f"rows of {broken[0]} refer to rows of {broken[2]} that are not there",
                    why="the backup was not made of a sound database",
                    remedy="take another one",
                )
            if self._revision != revisions()[-1]:
                raw.close()
                from novacron.database.migrate import upgrade

                upgrade(self._path)
                self._raw = raw = open_scratch(self._path)
            write_owner(raw, self._node_id, time.time())
            raw.execute("PRAGMA journal_mode=WAL").close()
            raw.close()
            self._raw = None
            sync_file(self._path)
        except sqlite3.Error as error:
            raise map_error(error, self._path) from error

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._raw is not None, "prepare() comes first"
        return self._raw


def sqlite_tables(raw: sqlite3.Connection) -> tuple[Table, ...]:
    """Every table whose rows are carried along, from the schema itself."""
    names = [
        str(name)
        for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if not name.startswith("sqlite_") and name != STAMP_TABLE and name not in OWNER_TABLES
    ]
    tables, refers = [], {}
    for name in names:
        columns = tuple(
            Column(str(column), affinity(str(declared)))
            for _cid, column, declared, _notnull, _default, _pk, hidden in raw.execute(
                f"PRAGMA table_xinfo({quoted(name)})"
            )
            if hidden not in _HIDDEN_GENERATED
        )
        (rows,) = raw.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()
        tables.append(Table(name, columns, rows))
        refers[name] = [row[2] for row in raw.execute(f"PRAGMA foreign_key_list({quoted(name)})")]
    return ordered(tables, refers)


def affinity(declared: str) -> str:
    """The kind of a column declared so (https://sqlite.org/datatype3.html, section 3.1)."""
    declared = declared.upper()
    if "INT" in declared:
        return "integer"
    if any(part in declared for part in ("CHAR", "CLOB", "TEXT")):
        return "text"
    if not declared or "BLOB" in declared:
        return "blob"
    if any(part in declared for part in ("REAL", "FLOA", "DOUB")):
        return "real"
    return "number"


def explain(error: Exception, path: Path) -> DatabaseError:
    """What to raise for *error*, met while *path* was opened or read; nothing of it is quoted."""
    if isinstance(error, UnicodeDecodeError):
        return DatabaseCorruptError(
            f"the database {path} is damaged",
            why="it holds text that cannot be read",
            remedy="see the runbook database-corrupt",
        )
    mapped = map_error(error, path)
    if is_damage(error) and not isinstance(mapped, DatabaseCorruptError):
        return DatabaseCorruptError(
            f"the database {path} is damaged",
            why=f"SQLite says “{error}”",
            remedy="see the runbook database-corrupt",
        )
    return mapped


def _rows(raw: sqlite3.Connection, table: Table, path: Path) -> Iterator[Row]:
    try:
        cursor = raw.execute(f"SELECT {column_list(table)} FROM {quoted(table.name)}")
        while batch := cursor.fetchmany(ROWS_AT_ONCE):
            yield from batch
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise explain(error, path) from error


def _begin_patiently(path: Path, busy_timeout: float) -> sqlite3.Connection:
    return _patiently(lambda: _begin(path), busy_timeout)


def _begin(path: Path) -> sqlite3.Connection:
    raw = open_reader(path)
    try:
        raw.execute("BEGIN").close()
        # The transaction begins here, with the first read.
        raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        raw.close()
        raise
    return raw


def _patiently(
    open_it: Callable[[], sqlite3.Connection], busy_timeout: float
) -> sqlite3.Connection:
    give_up = time.monotonic() + busy_timeout
    while True:
        try:
            return open_it()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= give_up:
                raise
            time.sleep(0.01)


def _unreadable(path: Path, error: OSError) -> DatabaseError:
    from novacron.database.copies.reading import unreadable

    return unreadable(path, error)
