"""What a PostgreSQL database says about itself: schema, owner, and whether it takes changes.

One round trip reads it all: the statements go out together, and the later ones may fail where there
is no table yet. A database belongs to a *cluster*, named by the first authority its nodes have
trusted: the SHA-256 of that authority's public key. Its certificate may be renewed and its key replaced;
the name stays, so that in the middle of that no node takes the database for another cluster's (ADR 131).
"""

from __future__ import annotations

import trio

from novacron.database.postgresql_connection import Connection, LostError, OverdueError, Step
from novacron.database.postgresql_errors import (
    UNDEFINED_TABLE,
    lost,
    map_result,
    read_only,
    sqlstate,
    timed_out,
)
from novacron.database.postgresql_lineage import LINEAGE, Lineage, read_lineage
from novacron.database.postgresql_parameters import Bound
from novacron.database.schema import PROBES, revisions, seal
from novacron.database.store import DatabaseCorruptError, DatabaseSchemaError
from novacron.record import Record

LOCK_KEY = int.from_bytes(b"NOVACRON", "big")
"""Of ``pg_advisory_lock``: who holds it migrates the database it is connected to. Whoever else works
on the schema by hand may hold it meanwhile: 5642823696420851534."""

_FACTS = Bound(
    b"SELECT to_regclass('alembic_version') IS NOT NULL,"
    b" to_regclass('cluster_identity') IS NOT NULL,"
    # Tables of others: views and what belongs to extensions are in every administrator's template.
    b" (SELECT min(relname::text) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    b" AND relkind IN ('r', 'p') AND relname <> 'alembic_version' AND NOT EXISTS"
    b" (SELECT 1 FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')),"
    b" pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'"
)
_STATE = Bound(
    b"SELECT (SELECT version_num FROM alembic_version), authority, created, seal"
    b" FROM (SELECT 1 AS slot) AS place LEFT JOIN cluster_identity USING (slot)"
)
_PROBES = Bound(
    b"SELECT "
    + b", ".join(
        b"EXISTS (" + probe.replace(" LIMIT 1", "").encode() + b" LIMIT 0)" for probe in PROBES
    )
)


class ClusterState(Record):
    """What :func:`read_state` found, checked as far as it can be without knowing who asks."""

    revision: str | None
    """None: no table of ours is there."""
    authority: str | None
    """None: not claimed yet."""
    lineage: Lineage | None = None


async def read_state(connection: Connection, within: float) -> ClusterState:
    """Read and check what the database says.

    Raises:
      DatabaseReadOnlyError: it takes no changes.
      DatabaseSchemaError: newer than this code, or another program's.
      DatabaseCorruptError: a table is gone, or the owner's seal is broken.
      DatabaseError: the connection was lost, or *within* seconds passed.
    """
    where = connection.where
    steps = [Step(LINEAGE, 1, optional=True)]
    steps += [Step(bound, 1, first=True) for bound in (_FACTS, _STATE, _PROBES)]
    try:
        answer = await connection.exchange(steps, trio.current_time() + within)
    except OverdueError:
        raise timed_out(within) from None
    except LostError as error:
        raise lost(where, error.why) from error
    if len(answer.rows) < 2:
        assert answer.error is not None
        raise map_result(answer.error, where, reading=True, within=within)
    lineage = read_lineage(answer.rows[0])
    has_version, has_owner, some_table, refuses = answer.rows[1]
    if refuses:
        raise read_only(where, "the database is in recovery, or its transactions are read-only")
    if not has_version:
        if some_table is not None:
            raise _foreign(where, f"it holds other tables, {some_table} among them")
        return ClusterState(None, None, lineage)
    if len(answer.rows) < 3:
        assert answer.error is not None
        if not has_owner and sqlstate(answer.error) == UNDEFINED_TABLE:
            if some_table is None:
                # Made by Alembic before it ran a migration, and then interrupted.
                return ClusterState(None, None, lineage)
            raise _foreign(where, "its alembic_version is another program's")
        raise map_result(answer.error, where, reading=True, within=within)
    revision, authority, created, sealed = answer.rows[2]
    _check_revision(revision, where)
    if authority is not None and sealed != seal(authority, created):
        raise _damaged(where, "the record of its owner does not match its seal")
    if revision == revisions()[-1] and answer.error is not None:
        raise _damaged(where, "a table of it is gone or has other columns")
    return ClusterState(revision, authority, lineage)


def _check_revision(revision: object, where: str) -> None:
    known = revisions()
    if not isinstance(revision, str) or not revision.isascii() or not revision.isdigit():
        raise _foreign(where, "the version of its schema is none of NovaCron's")
    if revision not in known:
        raise DatabaseSchemaError(
            f"the database at {where} is newer than this NovaCron",
            why=f"its schema is version {revision}, this NovaCron knows up to {known[-1]}",
            remedy="start the NovaCron that the other nodes run, or a later one",
            key="database.postgresql.name",
        )


def check_owner(authority: str | None, ours: tuple[str, ...], where: str) -> None:
    """Refuse the database of another cluster: two clusters with one state would both act on it.

    Args:
      authority: what the database says; None: nobody's yet.
      ours: this cluster's name, then the authorities it has now or had once.

    Raises:
      DatabaseSchemaError: it belongs to another authority.
    """
    if authority is not None and authority not in ours:
        raise DatabaseSchemaError(
            f"the database at {where} belongs to another cluster",
            why=f"it was made by nodes of the authority {authority}, this node trusts "
            f"{', '.join(ours)}",
            remedy="give this cluster its own database.postgresql.name, or have this node join "
            "the cluster the database belongs to",
            key="database.postgresql.name",
        )


def _foreign(where: str, why: str) -> DatabaseSchemaError:
    return DatabaseSchemaError(
        f"the database at {where} is not a NovaCron database",
        why=why,
        remedy="set database.postgresql.name to an empty database",
        key="database.postgresql.name",
    )


def _damaged(where: str, why: str) -> DatabaseCorruptError:
    return DatabaseCorruptError(
        f"the database at {where} is damaged",
        why=why,
        remedy="restore a backup (novacron database restore), see the runbook database-away",
        key="database.postgresql.name",
    )
