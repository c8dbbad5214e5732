"""Damaged files: the node boots, the bytes that were found are kept, and somebody is told."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from novacron.data_directory import DataDirectory
from novacron.database.backup import make_backup
from novacron.database.connection import open_reader, open_writer
from novacron.database.schema import revisions
from novacron.database.store import DatabaseUnavailableError
from tests.database.support import NODE, Bench, change, kept, open_and_close, plan_for, rows

SEED = 20240
FLIPS = 500


def file_of(root: Path) -> Path:
    return DataDirectory(root).database / "novacron.db"


@pytest.fixture
def backed_up(root: Path) -> Path:
    """Like root, with a backup of the database, after which one more row was written."""
    raw = open_reader(file_of(root))
    make_backup(raw, file_of(root), revisions()[-1])
    raw.close()
    change(file_of(root), "INSERT INTO node_registration VALUES ('late', 'b', '{}', 1, NULL)")
    return root


@pytest.fixture
def with_log(backed_up: Path) -> Path:
    """Like backed_up, as a kill -9 leaves it: the newest changes are in the log only."""
    source = file_of(backed_up)
    raw = open_writer(source)
    for _ in range(5):
        raw.execute("UPDATE node_registration SET started = started + 1000")
    crashed = backed_up.parent / "crashed"
    shutil.copytree(backed_up, crashed)
    raw.close()
    (crashed / "database" / "novacron.db-shm").unlink()
    assert (crashed / "database" / "novacron.db-wal").stat().st_size > 40_000
    return crashed


def contents(root: Path) -> dict[str, bytes]:
    return {
        name: path.read_bytes()
        for name in ("novacron.db", "novacron.db-wal")
        if (path := DataDirectory(root).database / name).exists()
    }


def kept_bytes(box: Path) -> dict[str, bytes]:
    """Without the index, which SQLite rebuilds whenever it looks at a database, and without the
    empty log that it makes beside one that had none."""
    files = {path.name: path.read_bytes() for path in box.iterdir()}
    return {name: data for name, data in files.items() if data and not name.endswith("-shm")} | (
        {"novacron.db": b""} if files.get("novacron.db") == b"" else {}
    )


def boot_and_judge(root: Path) -> str:
    """Open the damaged database in *root*: it must work, and keep what it found if it replaced
    anything. Returns ``kept`` or ``replaced``."""
    found = contents(root)
    notices = open_and_close(root)
    boxes = kept(root)
    if boxes:
        assert len(boxes) == 1
        assert kept_bytes(boxes[0]) == found
        assert any(str(boxes[0]) in notice for notice in notices)
    else:
        assert notices == []
    # The next boot finds nothing wrong any more.
    assert open_and_close(root) == []
    assert len(kept(root)) == len(boxes)
    return "replaced" if boxes else "kept"


def test_a_sound_file_is_left_alone(backed_up: Path) -> None:
    before = contents(backed_up)
    assert open_and_close(backed_up) == []
    assert contents(backed_up) == before
    assert kept(backed_up) == []


@pytest.mark.parametrize("size", [0, 1, 15, 99, 100, 512, 4095, 4096, 4097, 10_000, -4096, -1])
def test_a_truncated_file_is_kept_and_the_backup_restored(backed_up: Path, size: int) -> None:
    path = file_of(backed_up)
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    assert boot_and_judge(backed_up) == "replaced"
    assert rows(path, "SELECT count(*) FROM node_registration") == [(300,)]


@pytest.mark.parametrize("start", [0, 18, 100, 4096, 8192, 20_000])
def test_a_zeroed_range_is_kept_and_the_backup_restored(backed_up: Path, start: int) -> None:
    with open(file_of(backed_up), "r+b") as file:
        file.seek(start)
        file.write(bytes(4096))
    assert boot_and_judge(backed_up) == "replaced"
    assert rows(file_of(backed_up), "SELECT count(*) FROM node_registration") == [(300,)]


def test_a_file_that_is_something_else_is_kept(backed_up: Path) -> None:
    file_of(backed_up).write_bytes(b"#!/bin/sh\necho this is not a database\n" * 500)
    assert boot_and_judge(backed_up) == "replaced"


def test_bits_flipped_anywhere_in_the_file_never_stop_a_boot(
    backed_up: Path, tmp_path: Path
) -> None:
    original = file_of(backed_up).read_bytes()
    chance = random.Random(SEED)
    # Every bit that matters most, and a sample of the rest.
    places = [(offset, 1 << chance.randrange(8)) for offset in range(0, 100, 2)]
    places += [
        (chance.randrange(100, len(original)), 1 << chance.randrange(8)) for _ in range(FLIPS)
    ]
    outcomes = []
    for number, (offset, bit) in enumerate(places):
        root = tmp_path / f"flip-{number}"
        shutil.copytree(backed_up, root)
        damaged = bytearray(original)
        damaged[offset] ^= bit
        file_of(root).write_bytes(damaged)
        outcomes.append(boot_and_judge(root))
        shutil.rmtree(root)
    assert "replaced" in outcomes
    assert "kept" in outcomes, "flips in unused space go unnoticed"


def test_bits_flipped_anywhere_in_the_log_never_stop_a_boot(with_log: Path, tmp_path: Path) -> None:
    log = with_log / "database" / "novacron.db-wal"
    original = log.read_bytes()
    chance = random.Random(SEED)
    places = [*range(32), *(chance.randrange(32, len(original)) for _ in range(60))]
    noticed = 0
    for number, offset in enumerate(places):
        root = tmp_path / f"flip-{number}"
        shutil.copytree(with_log, root)
        damaged = bytearray(original)
        damaged[offset] ^= 1 << chance.randrange(8)
        (root / "database" / "novacron.db-wal").write_bytes(damaged)
        noticed += boot_and_judge(root) == "replaced"
        assert rows(file_of(root), "SELECT count(*) FROM node_registration") in ([(300,)], [(301,)])
        shutil.rmtree(root)
    assert noticed > len(places) / 2


def test_a_cut_log_is_an_ordinary_crash(with_log: Path) -> None:
    """The torn tail of one commit is what a crash leaves; nobody needs to hear of it."""
    log = with_log / "database" / "novacron.db-wal"
    os.truncate(log, log.stat().st_size - 100)
    assert open_and_close(with_log) == []
    assert rows(file_of(with_log), "SELECT count(*) FROM node_registration") == [(301,)]


def test_damage_in_the_log_names_what_was_lost_and_keeps_it(with_log: Path) -> None:
    log = with_log / "database" / "novacron.db-wal"
    damaged = bytearray(log.read_bytes())
    damaged[32 + 24 + 50] ^= 1
    log.write_bytes(damaged)
    (notice,) = open_and_close(with_log)
    assert "the last 5 changes are lost" in notice
    (box,) = kept(with_log)
    assert str(box) in notice
    assert (box / "novacron.db-wal").read_bytes() == bytes(damaged)
    assert rows(file_of(with_log), "SELECT max(started) FROM node_registration") == [(300.0,)]


def test_without_a_backup_the_node_starts_empty_and_says_so(root: Path) -> None:
    file_of(root).write_bytes(b"\0" * 8192)
    (notice,) = open_and_close(root)
    assert "was damaged (it is not a SQLite file)" in notice
    assert "There was no good backup: the node started with an empty database" in notice
    (box,) = kept(root)
    assert (box / "novacron.db").read_bytes() == b"\0" * 8192
    assert rows(file_of(root), "SELECT node_id FROM node_identity") == [(NODE,)]
    assert rows(file_of(root), "SELECT count(*) FROM node_registration") == [(0,)]


def test_a_backup_that_is_damaged_itself_is_passed_over(backed_up: Path) -> None:
    directory = DataDirectory(backed_up).database / "backups"
    (good,) = directory.iterdir()
    bad = good.with_name(good.name.replace("-20", "-99"))
    bad.write_bytes(good.read_bytes()[:5000])
    file_of(backed_up).write_bytes(b"junk" * 100)
    (notice,) = open_and_close(backed_up)
    assert good.name in notice
    assert bad.exists()
    assert rows(file_of(backed_up), "SELECT count(*) FROM node_registration") == [(300,)]


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE node_identity SET node_id = '33333333-1111-4111-8111-111111111111'", "seal"),
        ("UPDATE node_identity SET created = created + 1", "seal"),
        ("UPDATE alembic_version SET version_num = '0009'", "two copies"),
        ("UPDATE alembic_version SET version_num = 'x'", "unreadable"),
        ("DELETE FROM alembic_version", "unreadable"),
        ("PRAGMA user_version = 17", "two copies"),
        ("DROP TABLE alembic_version", "is gone"),
        ("DROP TABLE node_heartbeat", "no such table"),
        ("ALTER TABLE node_registration RENAME COLUMN boot_id TO boot_ie", "no such column"),
    ],
)
def test_damage_that_sqlite_cannot_see_is_found(root: Path, statement: str, says: str) -> None:
    change(file_of(root), statement)
    (notice,) = open_and_close(root)
    assert says in notice
    assert len(kept(root)) == 1


def test_a_name_that_is_not_text_any_more_is_damage(backed_up: Path) -> None:
    # SQLite quotes the name in its message, and the driver cannot decode that.
    path = file_of(backed_up)
    data = path.read_bytes()
    assert b"node_heartbeat" in data
    path.write_bytes(
        data.replace(b"CREATE TABLE node_heartbeat", b"CREATE TABLE node_\xe9eartbeat")
    )
    assert boot_and_judge(backed_up) == "replaced"


@pytest.mark.parametrize(
    "value", [NODE.encode(), b"CREATE TABLE node_identity", revisions()[-1].encode(), b"created"]
)
def test_a_value_that_is_not_text_any_more_is_damage(backed_up: Path, value: bytes) -> None:
    path = file_of(backed_up)
    data = path.read_bytes()
    assert value in data
    broken = value[:2] + bytes([value[2] | 0x80]) + value[3:]
    path.write_bytes(data.replace(value, broken))
    assert boot_and_judge(backed_up) == "replaced"


def test_what_a_damaged_value_holds_is_not_repeated(root: Path) -> None:
    data = file_of(root).read_bytes()
    file_of(root).write_bytes(data.replace(NODE.encode(), b"\xff" + NODE[1:].encode()))
    (notice,) = open_and_close(root)
    assert "it holds text that cannot be read" in notice
    assert NODE[1:] not in notice


def test_a_missing_file_is_made_anew_and_mentioned(backed_up: Path) -> None:
    file_of(backed_up).unlink()
    (notice,) = open_and_close(backed_up)
    assert "was there at an earlier boot and is gone" in notice
    assert str(DataDirectory(backed_up).database / "backups") in notice
    assert open_and_close(backed_up) == []


def test_a_first_boot_says_nothing(tmp_path: Path) -> None:
    assert open_and_close(tmp_path / "new") == []


def test_a_log_without_its_database_is_kept_and_never_replayed(with_log: Path) -> None:
    log = with_log / "database" / "novacron.db-wal"
    before = log.read_bytes()
    file_of(with_log).unlink()
    notices = open_and_close(with_log)
    (box,) = kept(with_log)
    assert (box / "novacron.db-wal").read_bytes() == before
    assert any(str(box) in notice for notice in notices)
    assert rows(file_of(with_log), "SELECT count(*) FROM node_registration") == [(0,)]


def test_setting_aside_goes_on_where_a_kill_stopped_it(with_log: Path) -> None:
    directory = DataDirectory(with_log).database
    before = contents(with_log)
    box = directory / "novacron.db.damaged"
    box.mkdir()
    os.rename(directory / "novacron.db", box / "novacron.db")
    open_and_close(with_log)
    (done,) = kept(with_log)
    assert {p.name: p.read_bytes() for p in done.iterdir()} == before
    assert not box.exists()


def test_an_unreadable_quarantine_stops_the_boot_and_not_the_file(root: Path) -> None:
    file_of(root).write_bytes(b"junk" * 100)
    DataDirectory(root).quarantine_area.write_text("in the way")
    with pytest.raises(DatabaseUnavailableError):
        open_and_close(root)
    (found,) = DataDirectory(root).database.glob("novacron.db*/novacron.db")
    assert found.read_bytes() == b"junk" * 100


def test_a_path_on_another_file_system_is_set_aside_there(root: Path, small_disk: Path) -> None:
    path = small_disk / "novacron.db"
    plan = plan_for(root)
    plan = plan._replace(path=path)
    path.write_bytes(b"junk" * 100)
    from novacron.database.opening import open_database

    opening = open_database(plan)
    opening.close()
    (box,) = small_disk.glob("novacron.db.damaged.*")
    assert (box / "novacron.db").read_bytes() == b"junk" * 100
    assert str(box) in opening.notices[0]


async def test_a_boot_on_a_damaged_file_warns_and_serves(backed_up: Path) -> None:
    file_of(backed_up).write_bytes(b"junk" * 100)
    bench = Bench(backed_up)
    async with bench.booted() as database:
        assert await database.fetch_one("SELECT count(*) FROM node_registration") == (300,)
    (warning,) = bench.node.said
    assert "was restored; later changes are missing" in warning


def test_checks_can_be_switched_off_and_made_full(root: Path) -> None:
    # An index entry that is missing is found by the full check alone.
    path = file_of(root)
    change(path, "CREATE INDEX by_start ON node_registration (started)")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute(
            "UPDATE sqlite_schema SET sql ="
            " 'CREATE INDEX by_start ON node_registration (started DESC)' WHERE name = 'by_start'"
        )
        raw.commit()
    assert open_and_close(root, check="off") == []
    assert open_and_close(root, check="quick") == []
    (notice,) = open_and_close(root, check="full")
    assert "by_start" in notice
