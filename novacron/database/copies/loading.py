"""Moves every row from a snapshot into a destination, and compares afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from novacron.database.copies.tables import (
    BackupInvalidError,
    Destination,
    Report,
    Row,
    Snapshot,
    Sum,
    Table,
)
from novacron.database.schema import revisions
from novacron.database.store import DatabaseCorruptError, DatabaseSchemaError
from novacron.record import Record

_EVERY: int = 256
"""Rows between two reports."""


class Loaded(Record):
    """One table that arrived whole."""

    table: str
    rows: int
    checksum: str
    """Of its rows in any order, see :class:`~novacron.database.copies.tables.Sum`."""


def check_revision(snapshot: Snapshot) -> None:
    """Refuse what newer code wrote, before anything is touched.

    Raises:
      DatabaseSchemaError: *snapshot* is newer than this NovaCron.
    """
    known = revisions()
    if snapshot.revision not in known:
        raise DatabaseSchemaError(
            f"{snapshot.place} is newer than this NovaCron",
            why=f"its schema is version {snapshot.revision}, this NovaCron knows {known[0]} to "
            f"{known[-1]}",
            remedy="use the NovaCron that wrote it, or a later one",
        )


def load(snapshot: Snapshot, destination: Destination, report: Report) -> list[Loaded]:
    """Fill *destination* with everything in *snapshot*, read it back, and compare.

    Nothing is committed here.

    Raises:
      BackupInvalidError: the tables are not those of the schema, or rows do not fit into them.
      DatabaseCorruptError: what was read back is not what was written.
    """
    report("making the tables", 0, sum(table.rows for table in snapshot.tables), 0)
    theirs = destination.prepare(snapshot.revision)
    for table in snapshot.tables:
        _compare(snapshot, table, theirs.get(table.name))
    total = 2 * sum(table.rows for table in snapshot.tables)
    done = 0
    sums: list[tuple[Table, Sum]] = []
    for table in snapshot.tables:
        # The kinds are the destination's, so that both sides are read in the same way.
        found = Sum(_kinds(table, theirs[table.name]))
        rows = _reported(
            found.over(snapshot.rows(table)), f"filling {table.name}", done, total, report
        )
        destination.load(table, rows)
        done += found.rows
        sums.append((table, found))
    for table, written in sums:
        back = Sum(_kinds(table, theirs[table.name]))
        steps = _reported(destination.rows(table), f"comparing {table.name}", done, total, report)
        for row in steps:
            back.add(row)
        done += back.rows
        if (back.rows, back.value) != (written.rows, written.value):
            raise DatabaseCorruptError(
                f"{destination.place} does not keep what is written to it",
                why=f"{table.name} was given {written.rows} rows with checksum {written.text}, and "
                f"has {back.rows} with {back.text}",
                remedy="nothing was changed; look at the disk and the memory below it",
            )
    return [Loaded(table.name, found.rows, found.text) for table, found in sums]


def _kinds(table: Table, theirs: Table) -> list[str]:
    kinds = {column.name: column.kind for column in theirs.columns}
    return [kinds[column.name] for column in table.columns]


def _compare(snapshot: Snapshot, table: Table, theirs: Table | None) -> None:
    if theirs is None:
        why = f"it has a table {table.name}, which is not NovaCron's"
        remedy = "move that table to a database of its own and make the backup again"
    else:
        names = {column.name for column in theirs.columns}
        strange = [column.name for column in table.columns if column.name not in names]
        if not strange:
            return
        why = f"its table {table.name} has a column {strange[0]}, which is not NovaCron's"
        remedy = "take that column away where the backup was made and make it again"
    raise BackupInvalidError(
        f"{snapshot.place} does not fit into a database of version {snapshot.revision}",
        why=why,
        remedy=remedy,
    )


def _reported(
    rows: Iterator[Row], step: str, done: int, total: int, report: Report
) -> Iterator[Row]:
    count = 0
    for row in rows:
        count += 1
        if count % _EVERY == 0:
            report(step, done + count, total, 0)
        yield row
    report(step, done + count, total, 0)
