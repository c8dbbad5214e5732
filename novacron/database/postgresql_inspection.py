"""What can be said about a PostgreSQL database without changing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from novacron.database.copies.postgresql_tables import (
    KINDS_OF_TYPES,
    SNAPSHOT_MODE,
    PostgresqlSnapshot,
    copy_out,
    postgresql_tables,
    table_names,
)
from novacron.database.copies.sqlite_tables import affinity
from novacron.database.copies.tables import STAMP_TABLE, Owner, quoted
from novacron.database.inspection import (
    Finding,
    Verification,
    list_copies,
    migrations_after,
    stranger,
)
from novacron.database.postgresql_owner import has_table, read_owner, read_revision
from novacron.database.postgresql_session import Session
from novacron.database.schema import SQLITE_SNAPSHOT, revisions
from novacron.database.store import DatabaseCorruptError, DatabaseUnavailableError
from novacron.errors import DatabaseError


def postgresql_status(
    session: Session, place: str, backups: Path, owns: Callable[[Owner], bool]
) -> dict[str, Any]:
    """The status document; as :func:`~novacron.database.inspection.sqlite_status`'s, and more."""
    document: dict[str, Any] = {
        "engine": "postgresql",
        "place": place,
        "state": "absent",
        "fault": None,
        "revision": None,
        "newest_revision": revisions()[-1],
        "owner": None,
        "nodes": None,
        "size": session.one("SELECT pg_database_size(current_database())"),
        "server": {
            "address": session.where,
            "version": session.one("SHOW server_version"),
            "role": "standby" if session.is_standby else "primary",
            "read_only": session.one("SHOW default_transaction_read_only") == "on",
            "connections": session.one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            ),
            "max_connections": int(session.one("SHOW max_connections")),
            "checksums": session.one("SHOW data_checksums") == "on",
            "tls": _tls(session),
        },
        "tables": [],
        "pending": [f"{m.revision} {m.name}" for m in migrations_after(None)],
        "backups": list_copies(backups),
    }
    names = table_names(session)
    if not names:
        return document
    if STAMP_TABLE not in names:
        why = "it holds other tables: " + ", ".join(names[:3])
        return document | {"state": "unusable", "fault": f"it is no NovaCron database: {why}"}
    try:
        session.begin(SNAPSHOT_MODE)
        snapshot = PostgresqlSnapshot(session, place, within=True)
        running = "SELECT count(*) FROM node_registration WHERE stopped IS NULL"
        nodes = session.one(running) if has_table(session, "node_registration") else None
        session.rollback()
    except DatabaseError as error:
        return document | {"state": "unusable", "fault": str(error)}
    pending = migrations_after(snapshot.revision)
    fault = stranger(snapshot.owner, owns)
    return document | {
        "state": "unusable" if fault else "pending" if pending else "current",
        "fault": fault,
        "revision": snapshot.revision,
        "owner": None if snapshot.owner is None else str(snapshot.owner),
        "nodes": nodes,
        "tables": [{"table": t.name, "rows": t.rows} for t in snapshot.tables],
        "pending": [f"{m.revision} {m.name}" for m in pending],
    }


def _tls(session: Session) -> str | None:
    """``TLSv1.3, TLS_AES_256_GCM_SHA384`` or None: in the clear."""
    rows = session.fetch(
        "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl"
    )
    return ", ".join(rows[0]) if rows else None


def verify_postgresql(
    session: Session, place: str, owns: Callable[[Owner], bool], *, full: bool
) -> Verification:
    """Everything that is wrong with the database; changes nothing.

    *full*: also every row is read, and every index is held against its table where amcheck is there.

    Raises:
      DatabaseError: it cannot be looked at.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    steps: tuple[Callable[[], None], ...] = (
        lambda: findings.extend(_owner_findings(session, place, owns)),
        lambda: findings.extend(_schema_findings(session)),
        lambda: findings.extend(_catalogue_findings(session)),
        lambda: findings.extend(_reference_findings(session)),
        lambda: _check_indexes(session, full, findings, notes),
        lambda: _read_rows(session, full, findings),
    )
    for step in steps:
        try:
            step()
        except DatabaseCorruptError as error:
            findings.append(Finding(error.why, error.remedy))
    if session.one("SHOW data_checksums") != "on":
        notes.append(
            "the server keeps no checksums of its pages: a bit that flipped in a value is not found"
        )
    return Verification(findings, notes)


def _owner_findings(session: Session, place: str, owns: Callable[[Owner], bool]) -> list[Finding]:
    read_revision(session, place)
    owner = read_owner(session, place)
    if owner is None or owns(owner):
        return []
    return [
        Finding(
            f"it belongs to another cluster, that of the authority {owner.id}",
            "set database.postgresql.name to this cluster's, or bring back the authority",
        )
    ]


_BY_HAND = "restore a backup, or undo what was done to the schema by hand"


def _schema_findings(session: Session) -> list[Finding]:
    """Compare with what the migrations make. They are written once for both engines, so what they
    make in SQLite says what must be here."""
    if read_revision(session, "") != revisions()[-1]:
        return []
    model = sqlite3.connect(":memory:")
    try:
        model.executescript(SQLITE_SNAPSHOT.read_text(encoding="utf-8"))
        wanted = _model(model)
    finally:
        model.close()
    return _differences(wanted, _definitions(session))


def _differences(wanted: dict[str, str], found: dict[str, str]) -> list[Finding]:
    missing = [f"the schema has no {name}" for name in sorted(wanted.keys() - found.keys())]
    strange = [
        f"the schema has {name}, which is not NovaCron's"
        for name in sorted(found.keys() - wanted.keys())
    ]
    different = [
        f"{name} is {found[name]}, and the migrations make it {wanted[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]
    return [Finding(what, _BY_HAND) for what in missing + strange + different]


def _model(raw: sqlite3.Connection) -> dict[str, str]:
    found = {}
    for (table,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        if table == STAMP_TABLE or table.startswith("sqlite_"):
            continue
        key: list[tuple[int, str]] = []
        for _cid, name, declared, notnull, _default, pk in raw.execute(
            f"PRAGMA table_info({quoted(table)})"
        ):
            found[f"column {table}.{name}"] = _column(affinity(declared), bool(notnull or pk))
            if pk:
                key.append((pk, name))
        found[f"key of {table}"] = ", ".join(name for _, name in sorted(key))
        for _seq, index, unique, origin, _partial in raw.execute(
            f"PRAGMA index_list({quoted(table)})"
        ).fetchall():
            columns = [row[2] for row in raw.execute(f"PRAGMA index_info({quoted(index)})")]
            if origin == "c":
                found[f"index {index}"] = _index(bool(unique), columns)
            elif origin == "u":
                found[f"uniqueness of {table} ({', '.join(columns)})"] = "kept"
        keys: dict[int, list[tuple[str, str, str]]] = {}
        for number, _seq, parent, column, other, *_rest in raw.execute(
            f"PRAGMA foreign_key_list({quoted(table)})"
        ):
            keys.setdefault(number, []).append((parent, column, other))
        for parts in keys.values():
            name = _reference(table, [p[1] for p in parts], parts[0][0], [p[2] for p in parts])
            found[name] = "kept"
    return found


def _definitions(session: Session) -> dict[str, str]:
    found = {}
    for table, name, kind, notnull in session.fetch(
        "SELECT c.relname, a.attname, format_type(a.atttypid, NULL), a.attnotnull"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"
        " AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> %s",
        (STAMP_TABLE,),
    ):
        found[f"column {table}.{name}"] = _column(KINDS_OF_TYPES.get(kind, kind), notnull)
    for table, index, unique, primary, columns, constrained in session.fetch(
        "SELECT t.relname, i.relname, x.indisunique, x.indisprimary, ARRAY(SELECT a.attname::text"
        " FROM unnest(x.indkey) WITH ORDINALITY k(number, place) JOIN pg_attribute a"
        " ON a.attrelid = x.indrelid AND a.attnum = k.number ORDER BY k.place),"
        " EXISTS (SELECT 1 FROM pg_constraint n WHERE n.conindid = x.indexrelid)"
        " FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " JOIN pg_class t ON t.oid = x.indrelid"
        " WHERE t.relnamespace = current_schema()::regnamespace AND t.relname <> %s",
        (STAMP_TABLE,),
    ):
        if primary:
            found[f"key of {table}"] = ", ".join(columns)
        elif not constrained:
            found[f"index {index}"] = _index(unique, columns)
        elif unique:
            found[f"uniqueness of {table} ({', '.join(columns)})"] = "kept"
    for table, parent, columns, others in _references(session):
        found[_reference(table, columns, parent, others)] = "kept"
    return found


def _references(session: Session) -> list[tuple[str, str, list[str], list[str]]]:
    """Table, table it refers to, and the columns of both, for each foreign key."""
    return [
        (table, parent, columns, others)
        for table, parent, columns, others in session.fetch(
            "SELECT t.relname, p.relname,"
            " ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY k(n, i)"
            " JOIN pg_attribute ON attrelid = conrelid AND attnum = n ORDER BY i),"
            " ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY k(n, i)"
            " JOIN pg_attribute ON attrelid = confrelid AND attnum = n ORDER BY i)"
            " FROM pg_constraint JOIN pg_class t ON t.oid = conrelid"
            " JOIN pg_class p ON p.oid = confrelid"
            " WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"
        )
    ]


def _reference(table: str, columns: list[str], parent: str, others: list[str]) -> str:
    return f"reference from {table} ({', '.join(columns)}) to {parent} ({', '.join(others)})"


def _column(kind: str, notnull: bool) -> str:
    return f"{kind}, {'not null' if notnull else 'null'}"


def _index(unique: bool, columns: list[str]) -> str:
    return f"{'unique, ' if unique else ''}on {', '.join(columns)}"


def _catalogue_findings(session: Session) -> list[Finding]:
    """Constraints and indexes that are there and do not count."""
    return [
        Finding(
            f"the {kind} {name} of {table} is not valid",
            "see the server's manual on REINDEX and VALIDATE CONSTRAINT",
        )
        for kind, name, table in session.fetch(
            "SELECT 'constraint', conname, conrelid::regclass::text FROM pg_constraint"
            " WHERE connamespace = current_schema()::regnamespace AND NOT convalidated"
            " UNION ALL SELECT 'index', i.relname, x.indrelid::regclass::text FROM pg_index x"
            " JOIN pg_class i ON i.oid = x.indexrelid"
            " WHERE i.relnamespace = current_schema()::regnamespace"
            " AND NOT (x.indisvalid AND x.indisready)"
        )
    ]


def _reference_findings(session: Session) -> list[Finding]:
    """Rows that refer to others which are not there. The server prevents them, but not with triggers
    switched off, nor after damage."""
    found = []
    for table, parent, columns, others in _references(session):
        fits = " AND ".join(
            f"p.{quoted(other)} = c.{quoted(column)}"
            for column, other in zip(columns, others, strict=True)
        )
        given = " AND ".join(f"c.{quoted(column)} IS NOT NULL" for column in columns)
        if session.fetch(
            f"SELECT 1 FROM {quoted(table)} c WHERE {given} AND NOT EXISTS"
            f" (SELECT 1 FROM {quoted(parent)} p WHERE {fits}) LIMIT 1"
        ):
            found.append(
                Finding(
                    f"a row of {table} refers to a row of {parent} that is not there",
                    "restore a backup, or repair the row by hand",
                )
            )
    return found


def _check_indexes(session: Session, full: bool, findings: list[Finding], notes: list[str]) -> None:
    if not session.fetch("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'"):
        notes.append(
            "indexes were not checked: CREATE EXTENSION amcheck in this database makes it possible"
        )
        return
    (schema,) = session.fetch(
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n"
        " ON n.oid = e.extnamespace WHERE extname = 'amcheck'"
    )[0]
    for oid, name in session.fetch(
        "SELECT i.oid, i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " JOIN pg_am a ON a.oid = i.relam WHERE a.amname = 'btree' AND x.indisvalid"
        " AND i.relnamespace = current_schema()::regnamespace ORDER BY i.relname"
    ):
        try:
            session.fetch(f"SELECT {schema}.bt_index_check(%s, %s)", (oid, full))
        except DatabaseCorruptError as error:
            findings.append(
                Finding(
                    f"the index {name} is damaged: {error.why}", f"REINDEX INDEX {quoted(name)}"
                )
            )
        except DatabaseUnavailableError as error:
            notes.append(
                f"indexes were not checked: {error.why}. GRANT EXECUTE ON FUNCTION "
                "bt_index_check(regclass, boolean) TO the role"
            )
            return


def _read_rows(session: Session, full: bool, findings: list[Finding]) -> None:
    """Every row, as a backup would: what cannot be read shows here and not when it is needed."""
    if not full:
        return
    for table in postgresql_tables(session, count=False):
        try:
            for _row in copy_out(session, table):
                pass
        except DatabaseCorruptError as error:
            findings.append(
                Finding(f"the table {table.name} cannot be read: {error.why}", error.remedy)
            )
