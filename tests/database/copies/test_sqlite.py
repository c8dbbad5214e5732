"""Snapshots of a SQLite file while others write, and restorations that are cut anywhere."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.data_directory import DataDirectory
from novacron.database import schema
from novacron.database.copies.reading import BackupFile
from novacron.database.copies.replacing import restore_file, stopped_node
from novacron.database.copies.sqlite_tables import SqliteDestination, SqliteSnapshot, affinity
from novacron.database.copies.tables import (
    BackupInvalidError,
    Column,
    Sum,
    Table,
    ordered,
)
from novacron.database.store import DatabaseSchemaError, DatabaseTransientError
from tests.database.copies.support import Values, back_up, content, quiet, read_all
from tests.database.support import NODE, change, open_and_close, rows


@pytest.fixture
def path(root: Path) -> Path:
    return DataDirectory(root).database / "novacron.db"


def restore(backup: Path, root: Path) -> Path | None:
    data = DataDirectory(root)
    with BackupFile(backup) as source:
        source.verify(quiet)
        target = data.database / "novacron.db"
        with stopped_node(data, "restore"):
            return restore_file(source, target, data, NODE, 1.0, quiet).kept


@contextlib.contextmanager
def writers(path: Path, count: int = 2) -> Iterator[threading.Event]:
    """Threads that keep one invariant over two tables: as many heartbeats as registrations, and
    the same sum. The event is set once each has written something."""
    stop, going = threading.Event(), threading.Barrier(count + 1)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        turn = 0
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as raw:
                while not stop.is_set():
                    name = f"w{number}-{turn}"
                    raw.execute("BEGIN IMMEDIATE")
                    raw.execute(
                        "INSERT INTO node_heartbeat VALUES (?, 'b', ?)", (name, float(turn))
                    )
                    raw.execute(
                        "INSERT INTO node_registration VALUES (?, 'b', '{}', ?, NULL)",
                        (name, float(turn)),
                    )
                    if turn >= 20:
                        old = f"w{number}-{turn - 20}"
                        raw.execute("DELETE FROM node_registration WHERE node_id = ?", (old,))
                        raw.execute("DELETE FROM node_heartbeat WHERE node_id = ?", (old,))
                    raw.execute("COMMIT")
                    turn += 1
                    if turn == 5:
                        going.wait(30)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    ready = threading.Event()
    try:
        going.wait(30)
        ready.set()
        yield ready
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failures == []


def test_a_backup_under_writers_is_of_one_moment(path: Path, tmp_path: Path) -> None:
    change(path, "DELETE FROM node_registration")
    with writers(path):
        for number in range(8):
            back_up(path, tmp_path / f"{number}")
    seen = set()
    for number in range(8):
        found = read_all(tmp_path / f"{number}")
        beats = sorted((row[0], row[2]) for row in found["node_heartbeat"])
        assert beats == sorted((row[0], row[3]) for row in found["node_registration"])
        assert 10 <= len(beats) <= 42
        seen.add(tuple(beats))
    assert len(seen) > 1, "the writers wrote meanwhile"


def test_every_value_survives_the_way_to_a_file_and_back(path: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.executemany(
            "INSERT INTO node_registration VALUES (?, ?, ?, ?, ?)",
            [
                ("zeros", "a\0b", "\U0001f600 “quoted” 'it''s' \\N \t\r\n", -0.0, math.inf),
                ("tiny", "", "", 5e-324, -math.inf),
                ("whole", "x" * 200_000, "\ufeff", 2**53, 1.5),
            ],
        )
        raw.commit()
    before = content(path)
    back_up(path, tmp_path / "b")
    change(path, "DELETE FROM node_registration")
    restore(tmp_path / "b", path.parents[1])
    assert content(path) == before


def test_an_older_revision_is_restored_and_then_migrated(
    root: Path, path: Path, tmp_path: Path, second: str
) -> None:
    back_up(path, tmp_path / "b")
    with BackupFile(tmp_path / "b") as backup:
        assert backup.revision == schema.revisions()[-2]
    restore(tmp_path / "b", root)
    assert rows(path, "SELECT version_num FROM alembic_version") == [(schema.revisions()[-1],)]
    assert rows(path, "SELECT count(*), count(zone) FROM node_registration") == [(300, 0)]
    assert rows(path, "SELECT id FROM second") == [(7,)]
    assert open_and_close(root) == []


def test_rows_that_a_migration_made_are_those_of_the_backup(
    root: Path, path: Path, tmp_path: Path, second: str
) -> None:
    back_up(path, tmp_path / "old")
    restore(tmp_path / "old", root)
    change(path, "UPDATE second SET id = 8", "UPDATE a_third SET second = 8, mark = 'm'")
    back_up(path, tmp_path / "new")
    restore(tmp_path / "new", root)
    assert rows(path, "SELECT id FROM second") == [(8,)]
    assert rows(path, "SELECT second, mark FROM a_third") == [(8, "m")]


def test_a_newer_revision_is_refused(root: Path, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(DatabaseSchemaError, match="newer than this NovaCron"):
        restore_file(Values({}, "9999"), path, DataDirectory(root), NODE, 1.0, quiet)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("columns", "why"),
    [(["stranger", "x"], "a table stranger"), (["node_heartbeat", "x"], "a column x")],
)
def test_what_is_not_of_the_schema_is_refused(
    root: Path, path: Path, columns: list[str], why: str
) -> None:
    source = Values({}, schema.revisions()[-1])
    source.tables = (Table(columns[0], (Column(columns[1], "text"),), 0),)
    before = path.read_bytes()
    with pytest.raises(BackupInvalidError, match=why):
        restore_file(source, path, DataDirectory(root), NODE, 1.0, quiet)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()].count(path.name) == 1


def test_rows_that_break_a_constraint_are_refused(root: Path, path: Path) -> None:
    source = Values({}, schema.revisions()[-1])
    names = ("node_id", "boot_id", "beat")
    source.content = {"node_heartbeat": ((), [["n", "b", 1.0], ["n", "b", 2.0]])}
    source.tables = (Table("node_heartbeat", tuple(Column(n, "text") for n in names), 2),)
    with pytest.raises(BackupInvalidError, match="UNIQUE"):
        restore_file(source, path, DataDirectory(root), NODE, 1.0, quiet)
    assert len(content(path)["node_registration"]) == 300


def test_a_file_that_somebody_reads_is_not_replaced(root: Path, path: Path, tmp_path: Path) -> None:
    back_up(path, tmp_path / "b")
    change(path, "DELETE FROM node_registration")
    with contextlib.closing(SqliteSnapshot(path, busy_timeout=1.0)):
        change(path, "DELETE FROM node_heartbeat")
        with pytest.raises(DatabaseTransientError, match="in use"):
            restore(tmp_path / "b", root)
    assert content(path)["node_registration"] == []
    assert restore(tmp_path / "b", root) is not None


def test_an_undo_step_of_an_earlier_boot_leaves_a_restored_database_alone(
    root: Path, path: Path, tmp_path: Path, second: str
) -> None:
    from novacron.database.backup import make_backup, undo_migration
    from novacron.database.connection import open_reader
    from novacron.database.migrate import upgrade

    with contextlib.closing(open_reader(path)) as raw:
        copy = make_backup(raw, path, schema.revisions()[-2])
    upgrade(path)
    back_up(path, tmp_path / "b")
    restore(tmp_path / "b", root)
    change(path, "DELETE FROM node_registration WHERE node_id <> 'node-1'")
    arguments = {"database": str(path), "backup": str(copy), "revision": schema.revisions()[-2]}
    undo_migration(arguments)
    assert len(content(path)["node_registration"]) == 1


# --- Cut anywhere --------------------------------------------------------------------------------

CHILD = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
from novacron.data_directory import DataDirectory
from novacron.database.copies.sources import open_file
from tests.database.copies.support import content
from tests.database.copies.test_sqlite import restore
from tests.database.support import kept, open_and_close

CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "sqlite3.connect"}
source, backup, work, mode = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]

def restoring(root, fatal):
    pid = os.fork()
    if pid == 0:
        seen = 0
        def hook(event, arguments):
            nonlocal seen
            if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                seen += 1
                if seen == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
        if mode == "changes":
            sys.addaudithook(hook)
        try:
            restore(backup, root)
        except BaseException as error:
            print(repr(error), error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if mode == "moments" and fatal:
        time.sleep(random.uniform(0, span))
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]

def outcome(root):
    path = DataDirectory(root).database / "novacron.db"
    notices = open_and_close(root)
    old = [p for p in path.parent.iterdir() if ".replaced." in p.name]
    boxes = [box / "novacron.db" for box in kept(root)]
    left = [p.name for p in path.parent.iterdir() if p.name.startswith(".")]
    def count(p):
        return len(content(p)["node_registration"])
    return [count(path), [count(p) for p in old], [p.stat().st_size for p in boxes], notices, left]

results, span = [], 0.0
if mode == "moments":
    shutil.copytree(source, work / "first")
    begun = time.monotonic()
    restoring(work / "first", 0)
    span = (time.monotonic() - begun) * 1.1
for fatal in range(1, 200 if mode == "changes" else 25):
    root = work / str(fatal)
    shutil.copytree(source, root)
    status = restoring(root, fatal)
    results.append([status, *outcome(root)])
    shutil.rmtree(root)
    if mode == "changes" and status == 0:
        break
print(json.dumps(results))
"""


def cut(root: Path, backup: Path, work: Path, mode: str) -> list[list[object]]:
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root), str(backup), str(work), mode],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results: list[list[object]] = json.loads(done.stdout)
    return results


@pytest.mark.parametrize("mode", ["changes", "moments"])
def test_a_restoration_that_is_killed_loses_nothing(
    root: Path, path: Path, tmp_path: Path, mode: str
) -> None:
    back_up(path, tmp_path / "b")
    # What is replaced has its last changes in the log, as after a crash.
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("DELETE FROM node_registration WHERE started > 100")
        raw.commit()
        crashed = tmp_path / "crashed"
        shutil.copytree(root, crashed)
    results = cut(crashed, tmp_path / "b", tmp_path / "work", mode)
    for _status, now, old, boxes, notices, left in results:
        assert now in (100, 300)
        # Killed between the two, the old database has two names.
        assert old in ([], [100]) if now == 100 else old == [100]
        assert (boxes, notices, left) == ([], [], [])
    if mode == "changes":
        *killed, undisturbed = results
        assert undisturbed[:3] == [0, 300, [100]]
        assert len(killed) >= 4
        assert all(status == 9 for status, *_ in killed)


def test_a_restoration_over_a_damaged_file_that_is_killed_loses_nothing(
    root: Path, path: Path, tmp_path: Path
) -> None:
    back_up(path, tmp_path / "b")
    path.write_bytes(b"SQLite format 3\0 and no more of it")
    crashed = tmp_path / "crashed"
    shutil.copytree(root, crashed)
    for _status, now, _old, boxes, _notices, left in cut(
        crashed, tmp_path / "b", tmp_path / "work", "changes"
    ):
        # A boot that finds the damaged file sets it aside and begins with an empty one.
        assert now in (0, 300)
        assert boxes == [34]
        assert left == []


# --- Parts ---------------------------------------------------------------------------------------


def test_tables_come_after_those_they_refer_to() -> None:
    a, b, c = (Table(name, (Column("x", "text"),), 0) for name in "abc")
    assert ordered([a, b, c], {"a": ["b", "a"], "b": ["c", "elsewhere"]}) == (c, b, a)
    with pytest.raises(BackupInvalidError, match="circle: a, b"):
        ordered([a, b, c], {"a": ["b"], "b": ["a"]})


def test_the_checksum_is_of_the_rows_and_not_of_their_order() -> None:
    def of(kinds: list[str], *values: list[object]) -> tuple[int, int]:
        found = Sum(kinds)
        for row in values:
            found.add(row)
        return found.rows, found.value

    kinds = ["integer", "real", "text"]
    assert of(kinds, [1, 2, "x"], [3, 4.5, None]) == of(kinds, [3, 4.5, None], [1, 2.0, "x"])
    assert of(kinds, [1, -0.0, "x"]) == of(kinds, [1, 0.0, "x"])
    assert of(kinds, [1, 2, "x"]) != of(kinds, [1, 2, b"x"])
    assert of(kinds, [1, 2, "x"]) != of(kinds, [1, 2, "x"], [1, 2, "x"])
    assert of(kinds, [1, 2, None]) != of(kinds, [1, None, "2"])


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("BIGINT", "integer"),
        ("VARCHAR(20)", "text"),
        ("BLOB", "blob"),
        ("", "blob"),
        ("DOUBLE", "real"),
        ("NUMERIC(10, 2)", "number"),
        ("BOOLEAN", "number"),
    ],
)
def test_columns_are_of_the_kind_that_sqlite_gives_them(declared: str, kind: str) -> None:
    assert affinity(declared) == kind


def test_computed_columns_stay_behind(tmp_path: Path) -> None:
    from novacron.database.copies.sqlite_tables import sqlite_tables

    with contextlib.closing(sqlite3.connect(":memory:")) as raw:
        raw.execute("CREATE TABLE t (a INTEGER, b INTEGER AS (a * 2) STORED, c AS (a + 1))")
        (table,) = sqlite_tables(raw)
    assert [column.name for column in table.columns] == ["a"]


def test_a_destination_that_was_never_prepared_closes(tmp_path: Path) -> None:
    SqliteDestination(tmp_path / "x", NODE).close()
    assert list(tmp_path.iterdir()) == []
