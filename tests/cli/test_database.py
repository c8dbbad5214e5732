"""``novacron database`` on a SQLite file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.boot.lock import DataDirectoryLock
from novacron.database.schema import revisions
from novacron.units import NodeId
from tests.cli.booted import Booted
from tests.database.copies.support import add_migration
from tests.database.support import change, open_and_close, rows
from tests.security.stand_ins import NODE_ID, OTHER_ID


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Booted:
    made = Booted(tmp_path / "node", capsys)
    open_and_close(made.directory.root, node_id=NodeId(NODE_ID))
    change(
        database(made),
        "INSERT INTO node_registration VALUES ('n1', 'b', '{}', 1.5, NULL)",
        "INSERT INTO node_registration VALUES ('n2', 'b', '{}', 2.5, 3.0)",
    )
    return made


def database(node: Booted) -> Path:
    return node.directory.database / "novacron.db"


def registered(node: Booted) -> list[str]:
    return [row[0] for row in rows(database(node), "SELECT node_id FROM node_registration")]


@contextlib.contextmanager
def running(node: Booted) -> Iterator[None]:
    lock = DataDirectoryLock(node.directory, "boot-1")
    try:
        yield
    finally:
        lock.release()


def test_status_shows_what_the_database_is(node: Booted) -> None:
    found = node.json("database", "status")
    assert found["state"] == "current"
    assert found["engine"] == "sqlite"
    assert found["place"] == str(database(node))
    assert found["revision"] == found["newest_revision"] == revisions()[-1]
    assert found["owner"] == f"node {NODE_ID}"
    assert {"table": "node_registration", "rows": 2} in found["tables"]
    assert found["node"] is None
    shown = node.run("database", "status")
    assert "node_registration  2" in shown
    assert "There are no backups" in shown
    with running(node):
        assert node.json("database", "status")["node"] == f"pid {os.getpid()}"


def test_to_ask_for_the_status_does_not_take_the_nodes_lock(node: Booted) -> None:
    with open(node.directory.lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        node.run("database", "status")


def test_a_database_that_is_not_there_yet_is_pending(node: Booted) -> None:
    database(node).unlink()
    assert node.json("database", "status", fails=3)["state"] == "absent"
    assert "has not booted yet" in node.run("database", "verify", fails=1)


def test_a_damaged_database_is_unusable_and_verify_says_why(node: Booted) -> None:
    data = bytearray(database(node).read_bytes())
    data[4096 : 4096 + 60] = os.urandom(60)
    database(node).write_bytes(data)
    found = node.json("database", "verify", fails=1)
    assert not found["ok"]
    assert found["findings"][0]["what"]
    database(node).write_bytes(b"not a database at all")
    status = node.json("database", "status", fails=1)
    assert status["state"] == "unusable"
    assert "cut short" in status["fault"]


def test_verify_finds_nothing_wrong_also_beside_a_running_node(node: Booted) -> None:
    with running(node), contextlib.closing(sqlite3.connect(database(node))) as raw:
        raw.execute("INSERT INTO node_registration VALUES ('n3', 'b', '{}', 1.5, NULL)")
        raw.commit()
        assert node.json("database", "verify")["ok"]
        assert "nothing is wrong" in node.run("database", "verify", "--quick")


def test_verify_finds_a_schema_changed_by_hand(node: Booted) -> None:
    change(
        database(node),
        "CREATE TABLE notes (x TEXT)",
        "CREATE INDEX fast ON node_registration (started)",
        "ALTER TABLE node_heartbeat ADD COLUMN more TEXT",
    )
    found = [f["what"] for f in node.json("database", "verify", fails=1)["findings"]]
    assert any("table notes, which is not NovaCron's" in what for what in found)
    assert any("index fast" in what for what in found)
    assert any("table node_heartbeat is not defined as" in what for what in found)


def test_verify_finds_another_nodes_database(node: Booted) -> None:
    database(node).unlink()
    open_and_close(node.directory.root, node_id=NodeId(OTHER_ID))
    assert OTHER_ID in node.run("database", "verify", fails=1)


def test_a_backup_is_made_and_restored(node: Booted, tmp_path: Path) -> None:
    file = tmp_path / "node.ncb"
    made = node.json("database", "backup", str(file))
    assert made["file"] == str(file)
    assert made["rows"] == 2
    checked = node.json("database", "verify", str(file))
    assert checked["ok"]
    assert checked["sha256"] == made["sha256"]
    change(database(node), "DELETE FROM node_registration")
    done = node.json("database", "restore", str(file), "--yes")
    assert registered(node) == ["n1", "n2"]
    assert {t["table"]: t["rows"] for t in done["tables"]}["node_registration"] == 2
    kept = Path(done["kept"])
    assert rows(kept, "SELECT count(*) FROM node_registration") == [(0,)]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert node.json("database", "verify")["ok"]
    assert open_and_close(node.directory.root, node_id=NodeId(NODE_ID)) == []
    assert node.actions()[-2:] == ["database.backup", "database.restore"]


def test_a_backup_without_a_name_lies_among_the_others(node: Booted) -> None:
    shown = node.run("database", "backup")
    (file,) = (node.directory.database / "backups").iterdir()
    assert str(file) in shown
    assert node.json("database", "status")["backups"][0]["file"] == str(file)


def test_a_backup_never_replaces_a_file(node: Booted, tmp_path: Path) -> None:
    file = tmp_path / "there"
    file.write_text("precious")
    assert "never replaced" in node.run("database", "backup", str(file), fails=1)
    assert file.read_text() == "precious"


def test_a_directory_is_called_one(node: Booted, tmp_path: Path) -> None:
    assert "that is a directory" in node.run("database", "backup", str(tmp_path), fails=1)


def test_a_full_disk_leaves_no_backup_and_says_so(node: Booted, tmp_path: Path) -> None:
    change(
        database(node),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        " INSERT INTO node_registration"
        " SELECT 'many-' || i, hex(randomblob(3000)), '{}', i, NULL FROM n",
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        shown = node.run("database", "backup", str(disk / "node.ncb"), fails=1)
        assert "no space is left" in shown
        assert list(disk.iterdir()) == []
        assert os.statvfs(disk).f_bavail == os.statvfs(disk).f_blocks
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_restoration_is_refused_while_the_node_runs(node: Booted, tmp_path: Path) -> None:
    node.run("database", "backup", str(tmp_path / "b"))
    with running(node):
        shown = node.run("database", "restore", str(tmp_path / "b"), "--yes", "--force", fails=1)
    assert "while a node runs on it" in shown
    assert f"pid {os.getpid()}" in shown


def test_a_restoration_asks_before_it_replaces(
    node: Booted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.run("database", "backup", str(tmp_path / "b"))
    change(database(node), "DELETE FROM node_registration WHERE node_id = 'n1'")
    shown = node.run("database", "restore", str(tmp_path / "b"), fails=1)
    assert "nobody to ask" in shown
    assert "1 rows" in shown
    assert registered(node) == ["n2"]
    assert "database.restore" not in node.actions()

    class Terminal:
        def __init__(self, answer: str) -> None:
            self.answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert "left as it is" in node.run("database", "restore", str(tmp_path / "b"), fails=1)
    assert registered(node) == ["n2"]


def test_what_is_no_backup_is_refused_before_anything_is_touched(
    node: Booted, tmp_path: Path
) -> None:
    node.run("database", "backup", str(tmp_path / "good"))
    data = (tmp_path / "good").read_bytes()
    before = database(node).read_bytes()
    for name, content in {
        "empty": b"",
        "foreign": b"PK\x03\x04 something else",
        "cut": data[:-40],
        "flipped": data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    }.items():
        file = tmp_path / name
        file.write_bytes(content)
        assert str(file) in node.run("database", "restore", str(file), "--yes", fails=1)
        assert f"{file}: 1 finding." in node.run("database", "verify", str(file), fails=1)
        assert node.json("database", "verify", str(file), fails=1)["ok"] is False
    assert "gone" in node.run("database", "restore", str(tmp_path / "gone"), fails=1)
    assert database(node).read_bytes() == before
    assert "database.restore" not in node.actions()


def test_another_nodes_backup_is_taken_only_if_told_so(node: Booted, tmp_path: Path) -> None:
    database(node).unlink()
    open_and_close(node.directory.root, node_id=NodeId(OTHER_ID))
    node.run("database", "backup", str(tmp_path / "b"))
    database(node).unlink()
    open_and_close(node.directory.root, node_id=NodeId(NODE_ID))
    shown = node.run("database", "restore", str(tmp_path / "b"), "--yes", fails=1)
    assert OTHER_ID in shown
    assert NODE_ID in shown
    node.json("database", "restore", str(tmp_path / "b"), "--yes", "--adopt")
    assert node.json("database", "status")["owner"] == f"node {NODE_ID}"


def test_another_nodes_database_is_not_replaced_unless_told_so(
    node: Booted, tmp_path: Path
) -> None:
    node.json("database", "backup", str(tmp_path / "b"))
    database(node).unlink()
    open_and_close(node.directory.root, node_id=NodeId(OTHER_ID))
    change(database(node), "INSERT INTO node_registration VALUES ('n3', 'b', '{}', 1.5, NULL)")
    assert node.json("database", "status", fails=1)["state"] == "unusable"
    shown = node.run("database", "restore", str(tmp_path / "b"), "--yes", fails=1)
    assert OTHER_ID in shown
    assert registered(node) == ["n3"]
    node.json("database", "restore", str(tmp_path / "b"), "--yes", "--adopt")
    assert registered(node) == ["n1", "n2"]


def test_a_database_behind_a_link_is_restored_where_the_link_leads(
    node: Booted, tmp_path: Path
) -> None:
    node.json("database", "backup", str(tmp_path / "b"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    database(node).rename(elsewhere / "real.db")
    database(node).symlink_to(elsewhere / "real.db")
    change(elsewhere / "real.db", "DELETE FROM node_registration")
    done = node.json("database", "restore", str(tmp_path / "b"), "--yes")
    assert database(node).is_symlink()
    assert registered(node) == ["n1", "n2"]
    kept = Path(done["kept"])
    assert not kept.is_symlink()
    assert rows(kept, "SELECT count(*) FROM node_registration") == [(0,)]


@pytest.mark.parametrize("action", [("verify",), ("restore", "--yes")])
def test_a_pipe_is_no_backup_and_is_not_waited_for(
    node: Booted, tmp_path: Path, action: tuple[str, ...]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    shown = node.run("database", *action, str(tmp_path / "pipe"), fails=1)
    assert "no regular file" in shown


def test_a_plain_copy_of_the_file_is_restored_too(node: Booted, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with (
        contextlib.closing(sqlite3.connect(database(node))) as raw,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        raw.backup(target)
    change(database(node), "DELETE FROM node_registration")
    assert node.json("database", "verify", str(copy))["rows"] == 2
    node.json("database", "restore", str(copy), "--yes")
    assert registered(node) == ["n1", "n2"]


def test_a_damaged_database_is_kept_whole_and_replaced(node: Booted, tmp_path: Path) -> None:
    node.run("database", "backup", str(tmp_path / "b"))
    database(node).write_bytes(b"ruined")
    done = node.json("database", "restore", str(tmp_path / "b"), "--yes")
    assert "cut short" in done["replaced"]["fault"]
    assert (Path(done["kept"]) / "novacron.db").read_bytes() == b"ruined"
    assert registered(node) == ["n1", "n2"]


def test_a_restoration_where_nothing_is_needs_no_yes(node: Booted, tmp_path: Path) -> None:
    node.run("database", "backup", str(tmp_path / "b"))
    database(node).unlink()
    assert "read back and compared" in node.run("database", "restore", str(tmp_path / "b"))
    assert registered(node) == ["n1", "n2"]


def test_nothing_is_migrated_where_nothing_is_pending(node: Booted) -> None:
    assert node.json("database", "migrate", "--dry-run") == {"pending": [], "migrated": False}
    assert "newest" in node.run("database", "migrate")
    assert "database.migrate" not in node.actions()


def test_a_pending_migration_is_shown_and_run_with_a_copy_made_before(
    node: Booted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = add_migration(tmp_path / "migrations", monkeypatch)
    found = node.json("database", "status", fails=3)
    assert found["state"] == "pending"
    assert found["pending"] == [f"{second} one more"]
    shown = node.run("database", "migrate", "--dry-run", fails=3)
    assert f"{second} one more" in shown
    assert rows(database(node), "SELECT name FROM sqlite_schema WHERE name = 'second'") == []
    with running(node):
        assert "while a node runs" in node.run("database", "migrate", fails=1)
    done = node.json("database", "migrate")
    assert done["to"] == second
    assert rows(database(node), "SELECT id FROM second") == [(7,)]
    assert rows(Path(done["backup"]), "SELECT count(*) FROM node_registration") == [(2,)]
    assert node.json("database", "status")["state"] == "current"
    assert "database.migrate" in node.actions()


def test_a_full_disk_stops_a_restoration_and_changes_nothing(node: Booted, tmp_path: Path) -> None:
    change(
        database(node),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        " INSERT INTO node_registration"
        " SELECT 'many-' || i, hex(randomblob(1000)), '{}', i, NULL FROM n",
    )
    node.run("database", "backup", str(tmp_path / "large"))
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], check=True)
    try:
        there = ("--set", f"database.path={disk / 'novacron.db'}")
        change(database(node), "DELETE FROM node_registration")
        node.run("database", "backup", str(tmp_path / "small"))
        node.run("database", "restore", str(tmp_path / "small"), *there)
        before = (disk / "novacron.db").read_bytes()
        shown = node.run("database", "restore", str(tmp_path / "large"), "--yes", *there, fails=1)
        assert "no space is left" in shown
        assert (disk / "novacron.db").read_bytes() == before
        assert list(disk.glob(".*")) == []
        assert node.json("database", "verify", *there)["ok"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
