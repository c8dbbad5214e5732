"""Snapshots made of nothing but values, and ways to compare databases."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from novacron.database import schema
from novacron.database.copies.reading import BackupFile
from novacron.database.copies.sqlite_tables import SqliteSnapshot
from novacron.database.copies.tables import Column, Owner, Row, Table
from novacron.database.copies.writing import Backup, write_backup

MIGRATION = '''"""Adds a table that counts, one that refers to it and sorts before it, a column, and rows."""

import sqlalchemy as sa
from alembic import op

revision = "{after}"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("second", sa.Column("id", sa.Integer, primary_key=True))
    op.add_column("node_registration", sa.Column("zone", sa.Text, nullable=True))
    op.execute("INSERT INTO second (id) VALUES (7)")
    op.create_table(
        "a_third",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("mark", sa.Text, unique=True),
        sa.Column("second", sa.Integer, sa.ForeignKey("second.id"), nullable=True),
        sa.Column("content", sa.LargeBinary, nullable=True),
        sa.Column("big", sa.BigInteger, nullable=True),
    )
    op.create_index("a_third_by_big", "a_third", ["big", "name"])
    op.execute("INSERT INTO a_third (name, second) VALUES ('made by the migration', 7)")
'''


def add_migration(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the code one more migration, which no database has yet; its revision."""
    shutil.copytree(schema.MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    newest = schema.revisions()[-1]
    after = f"{int(newest) + 1:04}"
    text = MIGRATION.format(newest=newest, after=after)
    (scripts / "versions" / f"{after}_one_more.py").write_text(text)
    monkeypatch.setattr(schema, "MIGRATIONS", scripts)
    return after


def quiet(step: str, rows: int, total: int, size: int) -> None:
    """A report nobody reads."""


class Values:
    """A snapshot of rows in memory."""

    place = "memory"
    engine = "sqlite"

    def __init__(
        self,
        content: Mapping[str, tuple[Sequence[str], Sequence[Row]]],
        revision: str = "0001",
        owner: Owner | None = None,
    ) -> None:
        self.revision = revision
        self.owner = owner
        self.content = content
        self.tables = tuple(
            Table(name, tuple(Column(f"c{n}", kind) for n, kind in enumerate(kinds)), len(rows))
            for name, (kinds, rows) in content.items()
        )

    def rows(self, table: Table) -> Iterator[Row]:
        return iter(self.content[table.name][1])

    def close(self) -> None:
        return


def read_all(path: Path) -> dict[str, list[Row]]:
    """Everything in a backup, which is verified first."""
    with BackupFile(path) as backup:
        backup.verify(quiet)
        return {table.name: [list(row) for row in backup.rows(table)] for table in backup.tables}


def back_up(database: Path, target: Path) -> Backup:
    with contextlib.closing(SqliteSnapshot(database, busy_timeout=5.0)) as snapshot:
        return write_backup(snapshot, target, "1.2.3", quiet)


def content(database: Path) -> dict[str, list[Any]]:
    """All rows of a SQLite database, sorted."""
    with contextlib.closing(SqliteSnapshot(database, busy_timeout=5.0)) as snapshot:
        return {table.name: sorted(map(list, snapshot.rows(table))) for table in snapshot.tables}
