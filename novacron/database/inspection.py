"""What can be said about a node's SQLite database without changing it, the node running or not."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from novacron.data_directory import DataDirectory
from novacron.database import integrity, schema
from novacron.database.backup import backup_directory
from novacron.database.connection import open_reader
from novacron.database.copies.sqlite_tables import SqliteSnapshot, explain
from novacron.database.copies.tables import Owner
from novacron.database.schema import SQLITE_SNAPSHOT, check_owner, read_state, revisions
from novacron.database.wal import find_log_damage
from novacron.errors import DatabaseError
from novacron.record import Record
from novacron.units import NodeId


class Finding(Record):
    """One thing that is wrong."""

    what: str
    remedy: str


class Verification(Record):
    findings: list[Finding]
    notes: list[str]
    """What was not looked at, and why."""


class Migration(Record):
    revision: str
    name: str
    """From its file: ``what it does``."""


def migrations_after(revision: str | None) -> list[Migration]:
    """What is to be run on a database of *revision*, oldest first; all of them for None."""
    names = {
        name[:4]: name[5:-3].replace("_", " ")
        for name in os.listdir(schema.MIGRATIONS / "versions")
        if name.endswith(".py") and name[:4].isdigit()
    }
    return [Migration(r, names[r]) for r in revisions() if revision is None or r > revision]


def running_node(data: DataDirectory) -> str | None:
    """Who holds the lock of *data*, or None.

    Read off the kernel's list: to try the lock would make a node that starts at this moment fail.
    """
    try:
        place = data.lock.stat()
        with open("/proc/locks", encoding="ascii") as locks:
            held = any(
                fields[1] == "FLOCK" and fields[5].rsplit(":", 1)[-1] == str(place.st_ino)
                for fields in map(str.split, locks)
                if len(fields) >= 6
            )
        if not held:
            return None
        owner = json.loads(data.lock.read_bytes())
        return f"pid {int(owner['pid'])}"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is unknown"


def list_copies(directory: Path) -> list[dict[str, Any]]:
    """Backups of every kind in *directory*, newest first, at most ten."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith((".db", ".ncb")) and not entry.name.startswith("."):
                    status = entry.stat()
                    found.append((status.st_mtime, entry.path, status.st_size))
    except FileNotFoundError:
        return []
    return [
        {"file": path, "made": instant(made), "size": size}
        for made, path, size in sorted(found, reverse=True)[:10]
    ]


def instant(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def stranger(owner: Owner | None, owns: Callable[[Owner], bool]) -> str | None:
    """Why a node would refuse a database of *owner*; None if it would not."""
    if owner is None or owns(owner):
        return None
    return f"it belongs to another {owner.kind}, {owner.id}, and a node here refuses it"


def sqlite_status(
    path: Path, data: DataDirectory, busy_timeout: float, owns: Callable[[Owner], bool]
) -> dict[str, Any]:
    """The status document of a SQLite database; ``fault`` is None if it can be used.

    ``state``: ``current``, ``pending`` (migrations are to be run), ``absent`` or ``unusable``.
    """
    document: dict[str, Any] = {
        "engine": "sqlite",
        "place": str(path),
        "state": "absent",
        "fault": None,
        "revision": None,
        "newest_revision": revisions()[-1],
        "owner": None,
        "node": running_node(data),
        "size": None,
        "tables": [],
        "pending": [],
        "backups": list_copies(backup_directory(path)),
    }
    if not path.exists():
        document["pending"] = [f"{m.revision} {m.name}" for m in migrations_after(None)]
        return document
    document["size"] = sum(
        part.stat().st_size for suffix in ("", "-wal") if (part := Path(f"{path}{suffix}")).exists()
    )
    try:
        snapshot = SqliteSnapshot(path, busy_timeout=busy_timeout)
    except DatabaseError as error:
        document |= {"state": "unusable", "fault": str(error)}
        return document
    try:
        pending = migrations_after(snapshot.revision)
        fault = stranger(snapshot.owner, owns)
        document |= {
            "state": "unusable" if fault else "pending" if pending else "current",
            "fault": fault,
            "revision": snapshot.revision,
            "owner": None if snapshot.owner is None else str(snapshot.owner),
            "tables": [{"table": t.name, "rows": t.rows} for t in snapshot.tables],
            "pending": [f"{m.revision} {m.name}" for m in pending],
        }
    finally:
        snapshot.close()
    return document


def verify_sqlite(
    path: Path, data: DataDirectory, node_id: NodeId, *, full: bool, busy_timeout: float
) -> Verification:
    """Everything that is wrong with the database at *path*; changes nothing.

    *full*: also every index against its table. The log is looked at only while no node runs: one
    that writes is ahead of what can be compared.

    Raises:
      DatabaseError: it cannot be looked at: not there, locked, no permission.
    """
    remedy = "restart the node: it sets the file aside, keeps it, and restores a backup"
    try:
        integrity.check_header(path)
        raw = open_reader(path)
    except DatabaseError as error:
        return Verification([Finding(error.why, error.remedy)], [])
    except sqlite3.Error as error:
        if not integrity.is_damage(error):
            raise explain(error, path) from error
        return Verification([Finding(f"SQLite says “{error}”", remedy)], [])
    except OSError as error:
        from novacron.database.copies.reading import unreadable

        raise unreadable(path, error) from error
    found: list[Finding] = []
    notes: list[str] = []
    try:
        raw.execute(f"PRAGMA busy_timeout={int(busy_timeout * 1000)}").close()
        steps: tuple[Callable[[], None], ...] = (
            lambda: integrity.check_pages(raw, path, full=full, progress=None),
            lambda: check_owner(read_state(raw, path, revisions()), path, node_id),
            lambda: found.extend(_schema_findings(raw)),
            lambda: found.extend(_reference_findings(raw)),
        )
        for step in steps:
            try:
                step()
            except DatabaseError as error:
                found.append(Finding(error.why or error.what, error.remedy))
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if not integrity.is_damage(error):
                    raise explain(error, path) from error
                found.append(Finding(explain(error, path).why, remedy))
        if running_node(data) is None:
            lost = find_log_damage(path)
            # Asked again: a node may have started in between, and written.
            if lost is not None and running_node(data) is None:
                found.append(
                    Finding(
                        f"its log is damaged: the last {lost.commits_lost} changes are lost",
                        "start the node: it keeps file and log as they are in the quarantine",
                    )
                )
        else:
            notes.append("its log was not checked: a node runs, and writes to it")
    finally:
        raw.close()
    return Verification(found, notes)


def _schema_findings(raw: sqlite3.Connection) -> list[Finding]:
    """Compare with what the migrations make, where the database is of the newest revision."""
    stamp = raw.execute("PRAGMA user_version").fetchone()[0]
    if int(revisions()[-1]) != stamp:
        return []
    model = sqlite3.connect(":memory:")
    try:
        model.executescript(SQLITE_SNAPSHOT.read_text(encoding="utf-8"))
        wanted, found = _definitions(model), _definitions(raw)
    finally:
        model.close()
    remedy = "restore a backup, or undo what was done to the schema by hand"
    return (
        [
            Finding(f"the schema has no {name}", remedy)
            for name in sorted(wanted.keys() - found.keys())
        ]
        + [
            Finding(f"the schema has {name}, which is not NovaCron's", remedy)
            for name in sorted(found.keys() - wanted.keys())
        ]
        + [
            Finding(f"{name} is not defined as the migrations define it", remedy)
            for name in sorted(wanted.keys() & found.keys())
            if wanted[name] != found[name]
        ]
    )


def _definitions(raw: sqlite3.Connection) -> dict[str, str]:
    return {
        f"{kind} {name}": " ".join((sql or "").split())
        for kind, name, sql in raw.execute("SELECT type, name, sql FROM sqlite_schema")
        if not name.startswith("sqlite_")
    }


def _reference_findings(raw: sqlite3.Connection) -> list[Finding]:
    return [
        Finding(
            f"a row of {table} refers to a row of {parent} that is not there",
            "restore a backup, or repair the row by hand",
        )
        for table, _rowid, parent, _key in raw.execute("PRAGMA foreign_key_check").fetchmany(3)
    ]
