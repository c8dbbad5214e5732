"""Migrations: imported only when one is pending, backed up before, undone after, safe to kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from novacron.data_directory import DataDirectory
from novacron.database import migrate, schema
from novacron.database.backup import (
    list_backups,
    newest_good_backup,
    prune_backups,
    undo_migration,
)
from novacron.database.store import DatabaseFullError, DatabaseInvalidError, DatabaseSchemaError
from tests.database.support import NODE, Bench, change, open_and_close, rows

NEWEST = schema.revisions()[-1]
NEXT = f"{int(NEWEST) + 1:04d}"

SECOND = f'''"""Adds a table, a column, and a row."""

import os
import signal

import sqlalchemy as sa
from alembic import op

revision = "{NEXT}"
down_revision = "{NEWEST}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("second", sa.Column("id", sa.Integer, primary_key=True))
    op.add_column("node_registration", sa.Column("zone", sa.Text, nullable=True))
    if os.environ.get("TEST_KILL_IN_MIGRATION"):
        os.kill(os.getpid(), signal.SIGKILL)
    op.execute("INSERT INTO second (id) VALUES (7)")
    if os.environ.get("TEST_FAIL_IN_MIGRATION"):
        op.execute("INSERT INTO nowhere VALUES (1)")
'''


def file_of(root: Path) -> Path:
    return DataDirectory(root).database / "novacron.db"


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code's migrations with one more, which the template does not have yet."""
    scripts = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / f"{NEXT}_second.py").write_text(SECOND)
    monkeypatch.setattr(schema, "MIGRATIONS", scripts)
    return scripts


def test_the_file_names_and_alembic_agree_on_the_newest_revision() -> None:
    assert schema.revisions()[-1] == migrate.head()


def test_the_revisions_are_one_line_in_the_order_of_their_numbers() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    walked = ScriptDirectory.from_config(config).walk_revisions()
    assert [step.revision for step in walked] == list(reversed(schema.revisions()))


def test_migrations_use_portable_operations_only() -> None:
    for path in (schema.MIGRATIONS / "versions").glob("0*.py"):
        text = path.read_text()
        for word in ("sqlite", "postgresql", "PRAGMA", "batch_alter_table", "def downgrade"):
            assert word not in text, f"{path.name} holds {word}"


BOOT = """
import sys, trio
from pathlib import Path
from novacron.database import schema
from tests.database.support import Bench
if len(sys.argv) > 2:
    schema.MIGRATIONS = Path(sys.argv[2])
bench = Bench(Path(sys.argv[1]))
async def main():
    async with bench.booted() as database:
        print("version", await database.fetch_one("SELECT version_num FROM alembic_version"))
trio.run(main)
print("undo", bench.undo.steps)
print("heavy", sorted(m for m in sys.modules if m.split(".")[0] in ("alembic", "sqlalchemy", "mako")))
"""


def boot_in_child(
    root: Path, scripts: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BOOT, str(root), *([str(scripts)] if scripts else [])],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_boot_without_a_pending_migration_imports_nothing_heavy(root: Path) -> None:
    done = boot_in_child(root)
    assert done.returncode == 0, done.stderr
    assert "heavy []" in done.stdout
    assert "undo []" in done.stdout


async def test_a_pending_migration_is_backed_up_noted_and_applied(root: Path, second: Path) -> None:
    bench = Bench(root)
    async with bench.booted() as database:
        assert await database.fetch_one("SELECT id FROM second") == (7,)
        assert await database.fetch_one("SELECT count(*), count(zone) FROM node_registration") == (
            300,
            0,
        )
    (step,) = bench.undo.steps
    assert step[:2] == ("database", "restore_backup")
    (backup,) = list_backups(bench.path)
    assert step[2] == {"database": str(bench.path), "backup": str(backup), "revision": NEWEST}
    assert backup.name.endswith(f"-v{NEWEST}.db")
    assert backup.stat().st_mode & 0o777 == 0o600
    assert rows(backup, "SELECT count(*) FROM node_registration") == [(300,)]
    assert any(f"from version {NEWEST} to {NEXT}" in message for message in bench.progress.messages)
    assert bench.node.said == []
    assert rows(bench.path, "PRAGMA user_version") == [(int(NEXT),)]


async def test_the_undo_step_restores_and_may_run_twice(root: Path, second: Path) -> None:
    bench = Bench(root)
    async with bench.booted():
        pass
    change(bench.path, "INSERT INTO second VALUES (8)")
    arguments = bench.undo.steps[0][2]
    handler = bench.database.undo_handlers["restore_backup"]
    for _ in range(2):
        handler(arguments)
        assert rows(bench.path, "SELECT version_num FROM alembic_version") == [(NEWEST,)]
        assert rows(bench.path, "SELECT count(*) FROM node_registration") == [(300,)]
    change(bench.path, "DELETE FROM node_registration WHERE started > 100")
    handler(arguments)
    assert rows(bench.path, "SELECT count(*) FROM node_registration") == [(100,)], (
        "a database that has the old version already is not touched"
    )
    again = Bench(root)
    async with again.booted() as database:
        assert await database.fetch_one("SELECT id FROM second") == (7,)


async def test_the_undo_step_removes_the_log_of_what_it_replaces(root: Path, second: Path) -> None:
    bench = Bench(root)
    async with bench.booted() as database:
        await database.execute("INSERT INTO second VALUES (9)")
        crashed = root.parent / "crashed"
        await trio.to_thread.run_sync(shutil.copytree, root, crashed)
    arguments = {
        name: value.replace(str(root), str(crashed))
        for name, value in bench.undo.steps[0][2].items()
    }
    assert (crashed / "database" / "novacron.db-wal").stat().st_size > 0
    undo_migration(arguments)
    assert rows(file_of(crashed), "SELECT version_num FROM alembic_version") == [(NEWEST,)]
    assert rows(file_of(crashed), "PRAGMA integrity_check") == [("ok",)]


def test_the_undo_step_is_harmless_without_its_backup(root: Path) -> None:
    before = file_of(root).read_bytes()
    undo_migration(
        {"database": str(file_of(root)), "backup": str(root / "gone.db"), "revision": "0000"}
    )
    assert file_of(root).read_bytes() == before


def test_a_kill_in_the_middle_of_a_migration_is_recovered(root: Path, second: Path) -> None:
    dead = boot_in_child(root, second, TEST_KILL_IN_MIGRATION="1")
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    (backup,) = list_backups(file_of(root))
    # The engine runs the undo step it finds: the schema never changed, so nothing happens.
    undo_migration(
        {"database": str(file_of(root)), "backup": str(backup), "revision": NEWEST},
    )
    assert rows(file_of(root), "SELECT version_num FROM alembic_version") == [(NEWEST,)]
    alive = boot_in_child(root, second)
    assert alive.returncode == 0, alive.stderr
    assert f"version ('{NEXT}',)" in alive.stdout
    assert rows(file_of(root), "SELECT id FROM second") == [(7,)]
    assert rows(file_of(root), "SELECT count(*) FROM node_registration") == [(300,)]


async def test_a_migration_that_fails_leaves_the_old_schema(
    root: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_FAIL_IN_MIGRATION", "1")
    bench = Bench(root)
    with pytest.raises(ExceptionGroup) as caught:
        async with bench.booted():
            raise AssertionError("not reached")
    assert caught.group_contains(DatabaseInvalidError)
    assert rows(bench.path, "SELECT name FROM sqlite_schema WHERE name = 'second'") == []
    assert rows(bench.path, "SELECT version_num FROM alembic_version") == [(NEWEST,)]
    monkeypatch.delenv("TEST_FAIL_IN_MIGRATION")
    async with Bench(root).booted() as database:
        assert await database.fetch_one("SELECT id FROM second") == (7,)


def test_a_newer_schema_is_refused_untouched(root: Path) -> None:
    change(
        file_of(root), "UPDATE alembic_version SET version_num = '0009'", "PRAGMA user_version = 9"
    )
    before = file_of(root).read_bytes()
    with pytest.raises(DatabaseSchemaError) as caught:
        open_and_close(root)
    message = str(caught.value)
    assert "version 0009" in message
    assert f"knows up to {schema.revisions()[-1]}" in message
    assert "restore the backup" in message
    assert caught.value.key == "database.path"
    assert file_of(root).read_bytes() == before


def test_another_programs_database_is_refused_untouched(tmp_path: Path) -> None:
    file_of(tmp_path).parent.mkdir()
    change(file_of(tmp_path), "CREATE TABLE moz_places (id INTEGER)")
    before = file_of(tmp_path).read_bytes()
    with pytest.raises(DatabaseSchemaError) as caught:
        open_and_close(tmp_path)
    assert "is not a NovaCron database" in str(caught.value)
    assert "moz_places" in str(caught.value)
    assert file_of(tmp_path).read_bytes() == before


async def test_an_empty_database_of_the_operator_is_filled(tmp_path: Path) -> None:
    file_of(tmp_path).parent.mkdir()
    change(file_of(tmp_path), "PRAGMA journal_mode=WAL", "VACUUM")
    bench = Bench(tmp_path)
    async with bench.booted() as database:
        assert await database.fetch_one("SELECT node_id FROM node_identity") == (NODE,)
    assert bench.undo.steps == []
    assert list_backups(bench.path) == []


@pytest.mark.parametrize(("keep", "left"), [(0, 1), (1, 1), (3, 3)])
async def test_the_newest_backups_are_kept(root: Path, second: Path, keep: int, left: int) -> None:
    directory = DataDirectory(root).database / "backups"
    directory.mkdir()
    for year in (2001, 2002, 2003, 2004):
        (directory / f"novacron-{year}0101T000000Z-v0001.db").write_bytes(b"old")
    (directory / "notes.txt").write_text("mine")
    bench = Bench(root, backups=keep)
    async with bench.booted():
        pass
    names = [path.name for path in list_backups(bench.path)]
    assert len(names) == left
    assert not names[0].startswith("novacron-200"), "the one just made is among them"
    assert names[1:] == [f"novacron-{y}0101T000000Z-v0001.db" for y in (2004, 2003)][: left - 1]
    assert (directory / "notes.txt").exists()


async def test_a_disk_too_full_for_the_backup_stops_the_migration(
    root: Path, second: Path, small_disk: Path
) -> None:
    shutil.copytree(root, small_disk / "data")
    path = file_of(small_disk / "data")
    filler = small_disk / "filler"
    room = os.statvfs(small_disk)
    filler.write_bytes(b"x" * max(0, room.f_bavail * room.f_bsize - 64 * 1024))
    before = path.read_bytes()
    bench = Bench(small_disk / "data")
    with pytest.raises(ExceptionGroup) as caught:
        async with bench.booted():
            raise AssertionError("not reached")
    assert caught.group_contains(DatabaseFullError)
    assert bench.undo.steps == []
    assert path.read_bytes() == before
    assert list(path.parent.glob("backups/*")) == []
    filler.unlink()
    async with Bench(small_disk / "data").booted() as database:
        assert await database.fetch_one("SELECT id FROM second") == (7,)


async def test_a_restored_backup_of_an_older_schema_is_migrated(root: Path, second: Path) -> None:
    bench = Bench(root)
    async with bench.booted():
        pass
    bench.path.write_bytes(b"junk" * 1000)
    again = Bench(root)
    async with again.booted() as database:
        assert await database.fetch_one("SELECT id FROM second") == (7,)
    assert len(again.node.said) == 1
    assert len(again.undo.steps) == 1


def test_a_backup_of_another_node_is_not_restored(root: Path, tmp_path: Path) -> None:
    from novacron.database.backup import make_backup
    from novacron.database.connection import open_reader

    raw = open_reader(file_of(root))
    made = make_backup(raw, file_of(root), NEWEST)
    raw.close()
    found = newest_good_backup(file_of(root), (NEWEST,), NODE)
    assert found is not None
    assert found[0] == made
    assert newest_good_backup(file_of(root), (NEWEST,), "somebody else") is None
    assert newest_good_backup(file_of(root), ("0000",), NODE) is None
    prune_backups(file_of(root), 0)
    assert newest_good_backup(file_of(root), (NEWEST,), NODE) is None
