"""Which schema the code wants and which a database has, without importing Alembic.

The newest revision is the highest number among the migration files' names; a test holds that
Alembic agrees. What a database has is read with two small statements. So a boot with nothing
pending pays a directory listing and not the 300 ms that Alembic and SQLAlchemy take to import.
Nor does a new database: what all migrations together produce is kept as a snapshot.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from novacron.database.store import DatabaseCorruptError, DatabaseSchemaError
from novacron.record import Record
from novacron.units import NodeId

MIGRATIONS = Path(__file__).parent / "migrations"

SQLITE_SNAPSHOT = Path(__file__).parent / "sqlite_snapshot.sql"
"""What all migrations produce in an empty SQLite database, schema, rows and version;
``python -m novacron.database.snapshot`` writes it anew."""

PROBES = (
    "SELECT slot, node_id, created, seal FROM node_identity LIMIT 1",
    "SELECT node_id, boot_id, beat FROM node_heartbeat LIMIT 1",
    "SELECT node_id, boot_id, addresses, started, stopped FROM node_registration LIMIT 1",
    "SELECT id, name, role, hash, resources, created, created_by, expires, revoked"
    " FROM api_token LIMIT 1",
    "SELECT slot, authority, created, seal FROM cluster_identity LIMIT 1",
    "SELECT node_id, seq, hash, recorded FROM audit_anchor LIMIT 1",
)
"""What must run on a database of the newest schema. Where one fails, the stored schema text is
damaged in a way that SQLite's own check does not see."""


def revisions() -> tuple[str, ...]:
    """Every revision the code knows, oldest first."""
    names = os.listdir(MIGRATIONS / "versions")
    return tuple(
        sorted(
            name[:4]
            for name in names
            if name.endswith(".py") and name[:4].isdigit() and name[4:5] == "_"
        )
    )


class SchemaState(Record):
    """What a database says about itself."""

    revision: str | None
    """None: it has no table at all."""
    node_id: NodeId | None
    """None: not yet written, or older than the table that holds it."""


def read_state(raw: sqlite3.Connection, path: Path, known: tuple[str, ...]) -> SchemaState:
    """Read and cross-check revision and owner.

    Raises:
      DatabaseSchemaError: newer than *known*, or another program's database.
      DatabaseCorruptError: the two copies of the revision differ, a table is gone, or the owner's
        seal is broken.
      sqlite3.Error: damage that SQLite sees itself.
    """
    tables = {row[0] for row in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    stamp: int = raw.execute("PRAGMA user_version").fetchone()[0]
    if not tables and stamp == 0:
        return SchemaState(None, None)
    if "alembic_version" not in tables:
        if stamp == 0 and "node_identity" not in tables:
            raise DatabaseSchemaError(
                f"{path} is not a NovaCron database",
                why="it holds other tables: " + ", ".join(sorted(map(str, tables))[:3]),
                remedy="set database.path to another file",
                key="database.path",
            )
        raise _damaged(path, "the table that holds the schema's version is gone")
    rows = raw.execute("SELECT version_num FROM alembic_version").fetchall()
    if not rows and stamp == 0 and "node_identity" not in tables:
        return SchemaState(None, None)
    revision = rows[0][0] if len(rows) == 1 else None
    if not isinstance(revision, str) or not revision.isascii() or not revision.isdigit():
        raise _damaged(path, "the schema's version is unreadable")
    if int(revision) != stamp:
        raise _damaged(path, f"its two copies of the schema's version differ ({revision}, {stamp})")
    if revision not in known:
        raise DatabaseSchemaError(
            f"the database {path} is newer than this NovaCron",
            why=f"its schema is version {revision}, this NovaCron knows up to {known[-1]}",
            remedy="start the NovaCron that wrote it or a later one, or restore the backup from "
            f"before the upgrade (see {path.parent / 'backups'})",
            key="database.path",
        )
    if revision == known[-1]:
        for probe in PROBES:
            try:
                raw.execute(probe).fetchall()
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
                    raise
                raise _damaged(path, str(error)) from error
    return SchemaState(revision, _read_owner(raw, path))


def apply_snapshot(raw: sqlite3.Connection, node_id: NodeId, created: float) -> bool:
    """Fill the empty database open as *raw* and note its owner, in one transaction: a kill leaves
    it empty or whole.

    False, and nothing is changed, where the migrations have to do it: the database holds something
    already, or the snapshot is not of the newest revision.

    Raises:
      sqlite3.Error: nothing is changed.
      OSError: the snapshot cannot be read.
    """
    script = SQLITE_SNAPSHOT.read_text(encoding="utf-8")
    raw.execute("BEGIN IMMEDIATE")
    try:
        if raw.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            # Not executescript: that commits before it begins.
            for statement in _statements(script):
                raw.execute(statement)
            stamped = raw.execute("SELECT version_num FROM alembic_version").fetchone()
            if stamped == (revisions()[-1],):
                write_owner(raw, node_id, created)
                raw.execute("COMMIT")
                return True
        raw.execute("ROLLBACK")
        return False
    except BaseException:
        # SQLite rolls back by itself where the disk is full.
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def check_owner(state: SchemaState, path: Path, node_id: NodeId) -> None:
    """Refuse another node's database: two nodes with one state would both act on it.

    Raises:
      DatabaseSchemaError: it belongs to another node.
    """
    if state.node_id is not None and state.node_id != node_id:
        raise DatabaseSchemaError(
            f"the database {path} belongs to another node",
            why=f"it was made by node {state.node_id}, this is node {node_id}",
            remedy="give this node its own database.path, or bring back the identity.json that "
            "belongs to this database",
            key="database.path",
        )


def write_owner(raw: sqlite3.Connection, node_id: NodeId, created: float) -> None:
    """Note whose database this is, if that is not noted yet."""
    raw.execute(
        "INSERT INTO node_identity (slot, node_id, created, seal)"
        " VALUES (1, :node_id, :created, :seal) ON CONFLICT DO NOTHING",
        {"node_id": node_id, "created": created, "seal": seal(node_id, created)},
    )


def _read_owner(raw: sqlite3.Connection, path: Path) -> NodeId | None:
    row = raw.execute("SELECT node_id, created, seal FROM node_identity").fetchone()
    if row is None:
        return None
    node_id, created, sealed = row
    if sealed != seal(node_id, created):
        raise _damaged(path, "the record of its owner does not match its seal")
    return NodeId(node_id)


def seal(node_id: object, created: object) -> str:
    """Against bit rot, not against people: without it a flipped bit in the owner's id would look
    like another node's database, and the node would refuse to boot for good."""
    return hashlib.sha256(f"{node_id}\n{created!r}".encode("utf-8", "replace")).hexdigest()


def _damaged(path: Path, why: str) -> DatabaseCorruptError:
    return DatabaseCorruptError(
        f"the database {path} is damaged",
        why=why,
        remedy="restart the node: it sets the file aside, keeps it, and restores a backup",
        key="database.path",
    )
