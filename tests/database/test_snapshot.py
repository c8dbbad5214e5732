"""A new database is filled from a snapshot: the same as by all migrations, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from novacron.database import opening, schema
from novacron.database.backup import list_backups
from novacron.database.connection import open_writer
from novacron.database.migrate import upgrade
from novacron.database.opening import fill
from novacron.database.snapshot import sqlite_snapshot
from novacron.database.store import DatabaseInvalidError
from novacron.units import NodeId
from tests.database.support import NODE, Bench, change, open_and_close, rows

REPOSITORY = Path(__file__).parents[2]
EVERYTHING = "SELECT type, name, tbl_name, sql FROM sqlite_schema"


def empty(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    change(path, "PRAGMA journal_mode=WAL", "VACUUM")
    return path


def content(path: Path) -> tuple[object, ...]:
    """Definitions apart from their blanks, every row except the owner's, and the stamp."""
    definitions = sorted(
        (kind, name, table, re.sub(r"\s+", " ", sql or "").replace(" ,", ","))
        for kind, name, table, sql in rows(path, EVERYTHING)
    )
    tables = sorted({table for _, _, table, _ in definitions} - {"node_identity"})
    return (
        definitions,
        {table: rows(path, f'SELECT * FROM "{table}"') for table in tables},
        rows(path, "PRAGMA user_version"),
    )


def apply(path: Path) -> bool:
    with contextlib.closing(open_writer(path)) as raw:
        return schema.apply_snapshot(raw, NODE, 1.5)


def test_the_snapshot_is_what_all_migrations_produce(tmp_path: Path) -> None:
    migrated, filled = empty(tmp_path / "migrated.db"), empty(tmp_path / "filled.db")
    upgrade(migrated)
    assert apply(filled), "run `python -m novacron.database.snapshot`"
    assert content(filled) == content(migrated), "run `python -m novacron.database.snapshot`"
    newest = schema.revisions()[-1]
    assert rows(filled, "SELECT version_num FROM alembic_version") == [(newest,)]
    assert rows(filled, "PRAGMA user_version") == [(int(newest),)]
    assert rows(filled, "SELECT node_id, created FROM node_identity") == [(NODE, 1.5)]


def test_the_snapshot_is_what_its_generator_writes() -> None:
    kept = schema.SQLITE_SNAPSHOT.read_text(encoding="utf-8")
    assert kept == sqlite_snapshot(), "run `python -m novacron.database.snapshot`"


BOOT = """
import sys, trio
from pathlib import Path
from tests.database.support import Bench
bench = Bench(Path(sys.argv[1]))
async def main():
    async with bench.booted() as database:
        print("owner", await database.fetch_one("SELECT node_id FROM node_identity"))
trio.run(main)
print("heavy", sorted(m for m in sys.modules if m.split(".")[0] in ("alembic", "sqlalchemy", "mako")))
"""


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
def test_making_a_database_imports_nothing_heavy(tmp_path: Path, there: bool) -> None:
    if there:
        empty(Bench(tmp_path).path)
    done = subprocess.run(
        [sys.executable, "-c", BOOT, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"owner ('{NODE}',)" in done.stdout
    assert "heavy []" in done.stdout


def test_the_first_boot_of_a_whole_node_imports_no_alembic(tmp_path: Path) -> None:
    ports = [f"--set={name}.port=0" for name in ("api", "network", "monitoring")]
    node = ["-m", "novacron.boot", "--data-dir", str(tmp_path / "data"), *ports]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *node, "--exit-when-ready"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "READY" in done.stdout + done.stderr
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "novacron.database.component" in imported
    assert not {"alembic", "sqlalchemy", "mako"} & {name.split(".")[0] for name in imported}


KILLS = """
import sys
import traceback
from pathlib import Path
from tests.database.test_snapshot import kill_at_each_statement
kill_at_each_statement(Path(sys.argv[1]), there=sys.argv[2] == "True")
"""


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
def test_a_kill_at_any_statement_leaves_the_database_empty_or_whole(
    tmp_path: Path, there: bool
) -> None:
    # The crash points of test_crash_points.py are changes of the file system; these lie between.
    # In a process of its own, because forking one that has threads is not safe.
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), str(there)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def kill_at_each_statement(work: Path, *, there: bool) -> None:
    outcomes = []
    for fatal in range(1, 60):
        bench = Bench(work / str(fatal))
        if there:
            empty(bench.path)
        outcomes.append(boot_killed_at(fatal, bench))
        left = rows(bench.path, EVERYTHING) if bench.path.exists() else []
        open_and_fill(bench)
        assert rows(bench.path, "PRAGMA integrity_check") == [("ok",)]
        assert rows(bench.path, "SELECT node_id FROM node_identity") == [(NODE,)]
        assert left in ([], rows(bench.path, EVERYTHING)), "never a part of it"
        if outcomes[-1] == 0:
            break
    assert outcomes.pop() == 0
    assert set(outcomes) == {signal.SIGKILL}
    assert len(outcomes) > schema.SQLITE_SNAPSHOT.read_text().count(";\n"), "each was met"


def open_and_fill(bench: Bench) -> None:
    if bench.path.exists() and rows(bench.path, EVERYTHING) == []:
        fill(bench.path, NODE)
    assert open_and_close(bench.data.root) == []


def boot_killed_at(fatal: int, bench: Bench) -> int:
    """The signal that ended a child which was to die before its *fatal*-th statement, or 0."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def statement(_sql: str) -> None:
            nonlocal seen
            seen += 1
            if seen == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        plain = opening.apply_snapshot

        def watched(raw: sqlite3.Connection, node_id: NodeId, created: float) -> bool:
            raw.set_trace_callback(statement)
            return plain(raw, node_id, created)

        opening.apply_snapshot = watched
        try:
            open_and_fill(bench)
        except BaseException:
            traceback.print_exc()
            os._exit(100)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else status


def test_what_holds_something_is_left_to_the_migrations(tmp_path: Path) -> None:
    path = empty(tmp_path / "some.db")
    change(path, "CREATE TABLE something (id INTEGER)")
    before = rows(path, EVERYTHING)
    assert not apply(path)
    assert rows(path, EVERYTHING) == before


async def test_a_migration_that_began_by_itself_is_taken_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    empty(bench.path)
    change(bench.path, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    async with bench.booted() as database:
        assert await database.fetch_one("SELECT node_id FROM node_identity") == (NODE,)
    assert bench.undo.steps == []
    assert list_backups(bench.path) == []


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
async def test_a_snapshot_of_an_older_revision_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    older = tmp_path / "older.sql"
    kept = schema.SQLITE_SNAPSHOT.read_text(encoding="utf-8")
    newest = schema.revisions()[-1]
    older.write_text(kept.replace(f"'{newest}'", "'0000'") + "CREATE TABLE stale (id INTEGER);\n")
    monkeypatch.setattr(schema, "SQLITE_SNAPSHOT", older)
    bench = Bench(tmp_path / "data")
    if there:
        empty(bench.path)
    async with bench.booted() as database:
        assert await database.fetch_one("SELECT version_num FROM alembic_version") == (newest,)
        assert await database.fetch_one("SELECT node_id FROM node_identity") == (NODE,)
    assert rows(bench.path, "SELECT name FROM sqlite_schema WHERE name = 'stale'") == []


def test_a_snapshot_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.sql"
    broken.write_text("CREATE TABLE first (id INTEGER);\nINSERT INTO nowhere VALUES (1);\n")
    monkeypatch.setattr(schema, "SQLITE_SNAPSHOT", broken)
    path = empty(tmp_path / "some.db")
    with pytest.raises(DatabaseInvalidError):
        fill(path, NODE)
    assert rows(path, EVERYTHING) == []
    assert rows(path, "PRAGMA user_version") == [(0,)]
