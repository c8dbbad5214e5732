"""Revision and owner of a PostgreSQL database, read with an operator's own connection."""

from __future__ import annotations

from novacron.database.copies.tables import STAMP_TABLE, Owner, quoted
from novacron.database.postgresql_session import Session
from novacron.database.schema import revisions, seal
from novacron.database.store import DatabaseCorruptError, DatabaseSchemaError

OWNER_TABLE = "cluster_identity"


def has_table(session: Session, name: str) -> bool:
    return session.one("SELECT to_regclass(%s) IS NOT NULL", (quoted(name),)) is True


def read_revision(session: Session, place: str) -> str:
    """Raises:
    DatabaseSchemaError: nothing of NovaCron's is there, or it is newer than the code.
    DatabaseCorruptError: the revision is unreadable.
    """
    rows = (
        session.fetch(f"SELECT version_num FROM {STAMP_TABLE}")
        if has_table(session, STAMP_TABLE)
        else []
    )
    if not rows:
        raise DatabaseSchemaError(
            f"there is nothing of NovaCron's in {place}",
            why="it has no table that holds the schema's version",
            remedy="start a node on it, or run novacron database migrate",
            key="database.postgresql.name",
        )
    revision = rows[0][0]
    if len(rows) > 1 or not revision.isdigit():
        raise DatabaseCorruptError(
            f"the database {place} is damaged",
            why="the schema's version is unreadable",
            remedy="restore a backup: novacron database restore",
        )
    known = revisions()
    if revision not in known:
        raise DatabaseSchemaError(
            f"the database {place} is newer than this NovaCron",
            why=f"its schema is version {revision}, this NovaCron knows up to {known[-1]}",
            remedy="use the NovaCron that migrated it or a later one, or restore a backup from "
            "before the upgrade",
        )
    return str(revision)


def read_owner(session: Session, place: str = "") -> Owner | None:
    """Raises:
    DatabaseCorruptError: the seal is broken.
    """
    if not has_table(session, OWNER_TABLE):
        return None
    rows = session.fetch(f"SELECT authority, created, seal FROM {OWNER_TABLE}")
    if not rows:
        return None
    authority, created, sealed = rows[0]
    if sealed != seal(authority, created):
        raise DatabaseCorruptError(
            f"the database {place} is damaged",
            why="the record of its owner does not match its seal",
            remedy="restore a backup: novacron database restore",
        )
    return Owner("cluster", authority)


def write_owner(session: Session, authority: str, created: float) -> None:
    session.execute(
        f"INSERT INTO {OWNER_TABLE} (slot, authority, created, seal) VALUES (1, %s, %s, %s)"
        " ON CONFLICT (slot) DO UPDATE SET authority = excluded.authority,"
        " created = excluded.created, seal = excluded.seal",
        (authority, created, seal(authority, created)),
    )
