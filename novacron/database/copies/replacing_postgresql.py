"""Replaces everything in a PostgreSQL database, in one transaction."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from novacron.database.copies.loading import check_revision, load
from novacron.database.copies.outcome import Occupant, Restored
from novacron.database.copies.postgresql_tables import (
    PostgresqlDestination,
    PostgresqlSnapshot,
    postgresql_tables,
    table_names,
)
from novacron.database.copies.tables import (
    STAMP_TABLE,
    DatabaseInUseError,
    Report,
    Snapshot,
    quoted,
)
from novacron.database.copies.writing import write_backup
from novacron.database.postgresql_migrating import Migrator, lock_schema
from novacron.database.postgresql_owner import has_table, read_owner, read_revision
from novacron.database.postgresql_session import Session
from novacron.database.schema import revisions
from novacron.database.store import DatabaseLimitError, DatabaseSchemaError
from novacron.errors import DatabaseError

_NAMED = 5
"""Nodes that a message names."""


def check_nobody_runs(session: Session, what: str) -> None:
    """Refuse while nodes are registered as running.

    Raises:
      DatabaseInUseError: names them.
    """
    if not has_table(session, "node_registration"):
        return
    # No join: what is damaged may have one of the two tables only.
    beats = (
        dict(session.fetch("SELECT node_id, beat FROM node_heartbeat"))
        if has_table(session, "node_heartbeat")
        else {}
    )
    running = session.fetch(
        "SELECT node_id FROM node_registration WHERE stopped IS NULL ORDER BY node_id"
    )
    if not running:
        return
    now = time.time()
    names = [
        f"{node} (last heartbeat {max(0.0, now - beats[node]):.0f} s ago)"
        if node in beats
        else f"{node} (no heartbeat)"
        for (node,) in running[:_NAMED]
    ]
    more = len(running) - len(names)
    raise DatabaseInUseError(
        f"cannot {what} the database while nodes run on it",
        why=f"{len(running)} are registered as running: "
        + ", ".join(names)
        + (f" and {more} more" if more else ""),
        remedy="stop them first; add --force if they are gone without having said so, or are to "
        "find what is restored",
    )


def postgresql_occupant(session: Session, place: str) -> Occupant | None:
    """What is in the database; None if there is no table at all."""
    if not table_names(session):
        return None
    size = session.one("SELECT pg_database_size(current_database())")
    revision, owner, rows, fault = None, None, 0, ""
    try:
        revision = read_revision(session, place)
        rows = sum(table.rows for table in postgresql_tables(session))
        found = read_owner(session, place)
        owner = None if found is None else found.id
    except DatabaseError as error:
        fault = error.why or error.what
    return Occupant(revision, owner, rows, size, fault)


def restore_database(
    snapshot: Snapshot,
    session: Session,
    place: str,
    authority: str,
    keep: Callable[[], Path] | None,
    version: str,
    lock_timeout: float,
    report: Report,
    check: Callable[[], None],
) -> Restored:
    """Replace everything by *snapshot*, migrated to the newest revision, for *authority*'s cluster.

    Args:
      keep: where what is replaced is written, from within the same transaction; None: nowhere.
      lock_timeout: seconds to wait for others that use the tables, or migrate.
      check: raises if the database may not be replaced; called when nobody else can change it.

    Raises:
      DatabaseOutcomeUnknownError: the connection was lost during the commit: everything is
        restored, or nothing is changed.
      DatabaseError: nothing is changed.
    """
    check_revision(snapshot)
    migrator = Migrator(session)
    session.begin("ISOLATION LEVEL READ COMMITTED, READ WRITE")
    report("waiting for others to let go", 0, 0, 0)
    lock_schema(session, lock_timeout)
    names = table_names(session)
    if names and STAMP_TABLE not in names:
        raise DatabaseSchemaError(
            f"{place} is not a NovaCron database",
            why="it holds other tables: " + ", ".join(names[:3]),
            remedy="set database.postgresql.name to another database",
            key="database.postgresql.name",
        )
    kept = None
    if names:
        _lock_tables(session, names, lock_timeout)
        check()
        if keep is not None:
            kept = _keep(session, place, keep(), version, report)
    destination = PostgresqlDestination(session, migrator, place)
    tables = load(snapshot, destination, report)
    destination.finish(authority)
    report("committing", 1, 1, 0)
    session.commit()
    # Until the server finds the time for it, it would plan as for empty tables. What was asked for is
    # done, whatever becomes of this.
    with contextlib.suppress(DatabaseError):
        session.execute("ANALYZE")
    return Restored(tables, kept, revisions()[-1])


def _lock_tables(session: Session, names: list[str], seconds: float) -> None:
    try:
        session.execute(f"LOCK TABLE {', '.join(map(quoted, names))} IN ACCESS EXCLUSIVE MODE")
    except DatabaseLimitError as error:
        raise DatabaseLimitError(
            f"the tables of the database at {session.where} are in use",
            why=f"a transaction has kept them for {seconds:g} s",
            remedy="stop the nodes, or end it: SELECT pid, query FROM pg_stat_activity WHERE "
            "state LIKE 'idle in transaction%'",
        ) from error


def _keep(session: Session, place: str, path: Path, version: str, report: Report) -> Path | None:
    try:
        snapshot = PostgresqlSnapshot(session, place, within=True)
        if not sum(table.rows for table in snapshot.tables):
            return None
        return write_backup(snapshot, path, version, report).path
    except DatabaseError as error:
        raise type(error)(
            f"what is in {place} cannot be kept",
            why=str(error),
            remedy="nothing was changed; add --discard to replace it all the same",
        ) from error
