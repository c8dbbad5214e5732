"""A PostgreSQL database as a snapshot to read from and as a destination to fill."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

import psycopg

from novacron.database.copies.tables import (
    OWNER_TABLES,
    STAMP_TABLE,
    BackupInvalidError,
    Column,
    Row,
    Table,
    column_list,
    ordered,
    quoted,
)
from novacron.database.postgresql_migrating import Migrator
from novacron.database.postgresql_owner import read_owner, read_revision, write_owner
from novacron.database.postgresql_session import Session
from novacron.database.store import DatabaseInvalidError, DatabaseSchemaError
from novacron.errors import DatabaseError

KINDS_OF_TYPES: Final = {
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "real": "real",
    "double precision": "real",
    "text": "text",
    "character varying": "text",
    "bytea": "blob",
}
"""What the migrations use. The seam stores truth values as integers and instants as reals."""

SNAPSHOT_MODE: Final = "ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""One snapshot for all statements; a standby gives it too, which SERIALIZABLE would not."""


class PostgresqlSnapshot:
    """A PostgreSQL database as it is at this moment, while nodes go on. The session becomes the
    snapshot's and is closed with it, unless it is *within* a transaction of the caller's."""

    engine = "postgresql"

    def __init__(self, session: Session, place: str, *, within: bool = False) -> None:
        """
        Raises:
          DatabaseError: nothing of NovaCron's is there, or it cannot be read.
        """
        self.place = place
        self._session = session
        self._within = within
        try:
            if not within:
                session.begin(SNAPSHOT_MODE)
            self.revision: str = read_revision(session, place)
            self.owner = read_owner(session)
            self.tables = postgresql_tables(session)
        except BaseException:
            self.close()
            raise

    def rows(self, table: Table) -> Iterator[Row]:
        yield from copy_out(self._session, table)

    def close(self) -> None:
        if not self._within:
            self._session.close()


class PostgresqlDestination:
    """The schema of an open transaction, for :func:`~novacron.database.copies.loading.load`: what
    was there is dropped, and it is seen by others when the caller commits."""

    engine = "postgresql"

    def __init__(self, session: Session, migrator: Migrator, place: str) -> None:
        self.place = place
        self._session = session
        self._migrator = migrator

    def prepare(self, revision: str) -> dict[str, Table]:
        there = ", ".join(map(quoted, table_names(self._session)))
        if there:
            # Without CASCADE: what others made of these tables is not ours to drop.
            try:
                self._session.execute(f"DROP TABLE {there}")
            except DatabaseInvalidError as error:
                if not isinstance(error.__cause__, psycopg.errors.DependentObjectsStillExist):
                    raise
                raise DatabaseSchemaError(
                    f"the tables in {self.place} cannot be replaced",
                    why=f"something else was made of them: {error.why}",
                    remedy="drop it (psql names it after DROP TABLE), and make it again afterwards",
                ) from error
        self._migrator.upgrade(revision)
        tables = postgresql_tables(self._session, count=False)
        # A migration may have put rows into tables it made, which refer to each other.
        self._session.execute(f"TRUNCATE {', '.join(quoted(table.name) for table in tables)}")
        return {table.name: table for table in tables}

    def load(self, table: Table, rows: Iterable[Row]) -> None:
        copy_in(self._session, table, rows)

    def rows(self, table: Table) -> Iterator[Row]:
        yield from copy_out(self._session, table)

    def finish(self, authority: str) -> None:
        """Set the sequences, migrate to the newest revision and note the owner.

        Raises:
          DatabaseError: a migration failed; nothing of the transaction can be kept.
        """
        self._migrator.upgrade()
        for table, column in self._session.fetch(
            "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'"
            " AND a.attnum > 0 AND NOT a.attisdropped AND"
            " pg_get_serial_sequence(quote_ident(c.relname), a.attname) IS NOT NULL"
        ):
            self._session.fetch(
                "SELECT setval(pg_get_serial_sequence(%s, %s)::regclass,"
                f" COALESCE((SELECT max({quoted(column)}) FROM {quoted(table)}), 0) + 1, false)",
                (quoted(table), column),
            )
        write_owner(self._session, authority, time.time())


def copy_out(session: Session, table: Table) -> Iterator[Row]:
    """All rows of *table*, one at a time: the server waits for who takes them."""
    types = _types(session, table)
    statement = (
        f"COPY (SELECT {column_list(table)} FROM {quoted(table.name)}) TO STDOUT (FORMAT BINARY)"
    )
    with (
        session.guarded() as watch,
        session.raw.cursor() as cursor,
        cursor.copy(statement.encode()) as copy,
    ):
        copy.set_types(types)
        for row in copy.rows():
            watch.alive()
            yield row
            watch.alive()


def copy_in(session: Session, table: Table, rows: Iterable[Row]) -> None:
    """Add *rows* to the table of that name.

    Raises:
      BackupInvalidError: a row does not fit; nothing of the transaction can be kept.
    """
    statement = f"COPY {quoted(table.name)} ({column_list(table)}) FROM STDIN"
    number = 0
    try:
        with (
            session.guarded() as watch,
            session.raw.cursor() as cursor,
            cursor.copy(statement.encode()) as copy,
        ):
            for row in rows:
                number += 1
                copy.write_row(row)
                watch.alive()
    except DatabaseError as error:
        cause = error.__cause__
        if not isinstance(cause, psycopg.DataError | psycopg.IntegrityError):
            raise
        where = (cause.diag.context or "").partition(":")[0]
        raise BackupInvalidError(
            f"a row of {table.name} does not fit into PostgreSQL",
            # The server's own words would quote the value.
            why=f"{type(cause).__name__} in {where or f'row {number}'}",
            remedy="correct that row where the backup was made, and make it again",
        ) from error


def postgresql_tables(session: Session, *, count: bool = True) -> tuple[Table, ...]:
    """Every table whose rows are carried along, from the catalogue itself.

    Raises:
      DatabaseSchemaError: a column has a type that NovaCron does not use.
    """
    names = [
        name for name in table_names(session) if name != STAMP_TABLE and name not in OWNER_TABLES
    ]
    columns: dict[str, list[Column]] = {name: [] for name in names}
    for name, column, kind in session.fetch(
        "SELECT c.relname, a.attname, format_type(a.atttypid, NULL)"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"
        " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
        " ORDER BY c.relname, a.attnum"
    ):
        if name not in columns:
            continue
        if kind not in KINDS_OF_TYPES:
            raise DatabaseSchemaError(
                f"the table {name} cannot be copied",
                why=f"its column {column} is of type {kind}, which NovaCron does not use",
                remedy="move what is not NovaCron's to a schema of its own",
            )
        columns[name].append(Column(column, KINDS_OF_TYPES[kind]))
    refers: dict[str, list[str]] = {}
    for name, other in session.fetch(
        "SELECT t.relname, p.relname FROM pg_constraint JOIN pg_class t ON t.oid = conrelid"
        " JOIN pg_class p ON p.oid = confrelid"
        " WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"
    ):
        refers.setdefault(name, []).append(other)
    tables = []
    for name in names:
        rows = session.one(f"SELECT count(*) FROM {quoted(name)}") if count else 0
        tables.append(Table(name, tuple(columns[name]), rows))
    return ordered(tables, refers)


def table_names(session: Session) -> list[str]:
    """Every table in the schema but those of extensions, and of the parts of others."""
    return [
        name
        for (name,) in session.fetch(
            "SELECT relname FROM pg_class c WHERE relnamespace = current_schema()::regnamespace"
            " AND relkind IN ('r', 'p') AND NOT relispartition AND NOT EXISTS (SELECT 1 FROM"
            " pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid"
            " AND d.deptype = 'e') ORDER BY relname"
        )
    ]


def _types(session: Session, table: Table) -> list[str]:
    found = dict(
        session.fetch(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (quoted(table.name),),
        )
    )
    return [found[column.name] for column in table.columns]
