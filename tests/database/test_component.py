"""The database component: its life, its health, whose database it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import typing
from pathlib import Path

import pytest
import trio

from novacron.component import Component, HealthDepth, HealthState
from novacron.config.schema import DatabaseSettings
from novacron.database import Database, opening
from novacron.database import sqlite_life as module
from novacron.database.store import (
    DatabaseCorruptError,
    DatabaseSchemaError,
    DatabaseTransientError,
    DatabaseUnavailableError,
)
from tests.database.support import NODE, OTHER, Bench, change, kept, rows


async def test_a_first_boot_makes_a_database_and_the_next_finds_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "data")
    async with bench.booted() as database:
        assert database.engine == "sqlite"
        assert await database.fetch_one("SELECT node_id FROM node_identity") == (NODE,)
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO node_heartbeat VALUES ('n', 'b', 1.5)")
    assert bench.path.stat().st_mode & 0o777 == 0o600
    assert bench.path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in bench.path.parent.iterdir()) == [
        "novacron.db",
        "novacron.db.created",
    ]
    again = Bench(tmp_path / "data")
    async with (
        again.booted() as database,
        database.stream("SELECT beat FROM node_heartbeat") as stream,
    ):
        assert [row async for row in stream] == [(1.5,)]
    assert bench.node.said == again.node.said == []
    assert bench.undo.steps == again.undo.steps == []


async def test_the_component_can_be_started_again_after_it_stopped(root: Path) -> None:
    bench = Bench(root)
    for _ in range(3):
        async with bench.booted() as database:
            assert await database.fetch_one("SELECT 1") == (1,)
        with pytest.raises(DatabaseUnavailableError) as caught:
            await database.fetch_one("SELECT 1")
        assert "is not open" in str(caught.value)


async def test_stopping_what_never_started_is_harmless(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.database.shutdown()
    assert bench.database.statistics() == {}
    assert list(tmp_path.iterdir()) == []


async def test_a_start_that_is_cancelled_leaks_no_connection(root: Path) -> None:
    def descriptors() -> int:
        return len([1 for fd in os.listdir("/proc/self/fd") if _points_into(fd, root)])

    bench = Bench(root)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                scope.cancel()
                await bench.database.initialize(nursery)
            await bench.database.shutdown()
    assert descriptors() == 0
    async with bench.booted():
        assert descriptors() > 0
    assert descriptors() == 0


def _points_into(fd: str, root: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(root))
    except FileNotFoundError:
        return False


async def test_another_nodes_database_is_refused_untouched(root: Path) -> None:
    bench = Bench(root, OTHER)
    before = bench.path.read_bytes()
    with pytest.raises(ExceptionGroup) as caught:
        async with bench.booted():
            raise AssertionError("not reached")
    error = caught.value.exceptions[0]
    assert isinstance(error, DatabaseSchemaError)
    assert not error.retryable
    assert NODE in str(error)
    assert OTHER in str(error)
    assert "identity.json" in str(error)
    assert error.key == "database.path"
    assert bench.path.read_bytes() == before
    assert kept(root) == []


async def test_the_path_can_be_configured(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "data", path=str(tmp_path / "elsewhere" / "state 100%?.sqlite"))
    async with bench.booted() as database:
        assert await database.fetch_one("SELECT node_id FROM node_identity") == (NODE,)
    assert (tmp_path / "elsewhere" / "state 100%?.sqlite").exists()
    async with bench.booted() as database:
        assert await database.fetch_one("SELECT node_id FROM node_identity") == (NODE,)


@pytest.mark.parametrize("depth", HealthDepth)
async def test_a_running_database_is_healthy_at_every_depth(root: Path, depth: HealthDepth) -> None:
    bench = Bench(root)
    assert (await bench.database.health_check(depth)).state is HealthState.UNKNOWN
    async with bench.booted() as database:
        assert (await database.health_check(depth)).state is HealthState.HEALTHY
    beats = rows(bench.path, "SELECT node_id, boot_id FROM node_heartbeat")
    assert beats == ([] if depth is HealthDepth.SHALLOW else [(NODE, "boot-1")])


async def test_a_database_that_is_held_up_is_degraded_and_not_dead(root: Path) -> None:
    bench = Bench(root)
    async with bench.booted() as database:
        async with database.transaction(), trio.open_nursery() as nursery:
            seen: list[HealthState] = []

            async def look() -> None:
                seen.append((await database.health_check(HealthDepth.DEEP)).state)

            nursery.start_soon(look)
        assert seen == [HealthState.DEGRADED]


async def test_a_disk_that_fills_up_is_unhealthy_until_it_has_room(
    root: Path, small_disk: Path
) -> None:
    shutil.copytree(root, small_disk / "data")
    bench = Bench(small_disk / "data")
    async with bench.booted() as database:
        filler = small_disk / "filler"
        with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 4096)
        states = [await database.health_check(HealthDepth.DEEP) for _ in range(30)]
        assert states[-1].state is HealthState.UNHEALTHY
        assert "no space is left" in states[-1].message
        filler.unlink()
        assert (await database.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY


def damage(path: Path) -> bytes:
    """Overwrite the last pages, which no statement of a boot reads, and return what is there."""
    data = path.read_bytes()
    # A boot reads the tables' roots, and one leaf of the only one that has leaves of its own.
    sound = 4096 * (1 + max(page for (page,) in rows(path, "SELECT rootpage FROM sqlite_schema")))
    data = data[:sound] + b"\xff" * (len(data) - sound)
    path.write_bytes(data)
    return data


async def test_damage_met_while_serving_is_repaired_by_a_restart(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "FOREGROUND_CHECK_BYTES", 0)
    bench = Bench(root, integrity_check="off")
    data = damage(bench.path)
    async with bench.booted() as database:
        with pytest.raises(DatabaseCorruptError) as caught:
            await database.fetch_all("SELECT * FROM node_registration NOT INDEXED")
        assert "Restart the node" in str(caught.value)
        health = await database.health_check(HealthDepth.SHALLOW)
        assert health.state is HealthState.UNHEALTHY
    # A new process, with the check switched off still.
    again = Bench(root, integrity_check="off")
    async with again.booted() as database:
        assert await database.fetch_all("SELECT * FROM node_registration") == []
    (box,) = kept(root)
    assert (box / "novacron.db").read_bytes() == data
    assert not opening.suspicion(bench.path).exists()


async def test_a_large_file_is_checked_while_the_node_serves(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "FOREGROUND_CHECK_BYTES", 0)
    bench = Bench(root)
    data = damage(bench.path)
    with pytest.raises(ExceptionGroup) as caught:
        async with bench.booted():
            await trio.sleep(10)
    assert caught.group_contains(DatabaseCorruptError)
    assert kept(root) == [], "nothing is moved while the node serves from it"
    # What the supervisor does next.
    async with bench.booted() as database:
        assert await database.fetch_all("SELECT * FROM node_registration") == []
    (box,) = kept(root)
    assert (box / "novacron.db").read_bytes() == data
    (warning,) = bench.node.said
    assert str(box) in warning


async def test_a_large_sound_file_raises_no_alarm(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "FOREGROUND_CHECK_BYTES", 0)
    done = trio.Event()
    plain = module.SqliteLife._check_in_background

    async def watched(self: module.SqliteLife, store: module.SqliteStore) -> None:
        await plain(self, store)
        done.set()

    monkeypatch.setattr(module.SqliteLife, "_check_in_background", watched)
    async with Bench(root).booted():
        await done.wait()


async def test_a_full_health_check_finds_damage(root: Path) -> None:
    bench = Bench(root, integrity_check="off")
    damage(bench.path)
    async with bench.booted() as database:
        health = await database.health_check(HealthDepth.FULL)
        assert health.state is HealthState.UNHEALTHY


async def test_a_heartbeat_that_is_lost_is_damage(root: Path) -> None:
    change(
        Bench(root).path,
        "CREATE TRIGGER eat AFTER INSERT ON node_heartbeat BEGIN DELETE FROM node_heartbeat; END",
    )
    async with Bench(root).booted() as database:
        health = await database.health_check(HealthDepth.DEEP)
    assert health.state is HealthState.UNHEALTHY
    assert "does not keep what is written" in health.message


@pytest.mark.parametrize("depth", HealthDepth)
async def test_after_a_repair_the_node_is_degraded_until_its_next_boot(
    root: Path, depth: HealthDepth
) -> None:
    bench = Bench(root)
    bench.path.write_bytes(b"not a database")
    for _ in range(2):  # a restart of the component within the process changes nothing
        async with bench.booted() as database:
            health = await database.health_check(depth)
        assert health.state is HealthState.DEGRADED
        assert "was damaged (it is " in health.message
        assert str(kept(root)[0]) in health.message
        assert "started with an empty database" in health.message
    async with Bench(root).booted() as database:
        assert (await database.health_check(depth)).state is HealthState.HEALTHY


async def test_a_database_that_stays_locked_is_not_ready(root: Path) -> None:
    bench = Bench(root, busy_timeout=0.05)
    with contextlib.closing(sqlite3.connect(bench.path, isolation_level=None)) as holder:
        holder.execute("PRAGMA journal_mode=WAL")
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(ExceptionGroup) as caught:
            async with bench.booted():
                raise AssertionError("it says that it is ready")
        holder.execute("ROLLBACK")
    assert caught.group_contains(DatabaseTransientError, match="is locked")
    async with bench.booted() as database:
        assert await database.fetch_one("SELECT 1") == (1,)


async def test_a_lock_that_is_given_back_in_time_is_waited_for(root: Path) -> None:
    bench = Bench(root, busy_timeout=20.0)
    with contextlib.closing(
        sqlite3.connect(bench.path, isolation_level=None, check_same_thread=False)
    ) as holder:
        holder.execute("PRAGMA journal_mode=WAL")
        holder.execute("BEGIN IMMEDIATE")

        async def give_back() -> None:
            await trio.sleep(0.05)
            holder.execute("ROLLBACK")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            async with bench.booted() as database:
                assert await database.fetch_one("SELECT 1") == (1,)


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_moved_under_a_running_node_is_unhealthy(
    root: Path, replaced: bool
) -> None:
    bench = Bench(root)
    async with bench.booted() as database:
        away = bench.path.with_name("elsewhere.db")
        bench.path.rename(away)
        if replaced:
            shutil.copyfile(away, bench.path)
        assert (await database.health_check(HealthDepth.SHALLOW)).state is HealthState.HEALTHY
        health = await database.health_check(HealthDepth.DEEP)
        assert health.state is HealthState.UNHEALTHY
        assert "was moved, deleted or replaced" in health.message
        away.rename(bench.path)
        assert (await database.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY


async def test_statistics_are_plain_values(root: Path) -> None:
    async with Bench(root).booted() as database:
        await database.fetch_all("SELECT 1")
        figures = database.statistics()
    assert figures["engine"] == "sqlite"
    assert figures["reads"] == 1
    assert figures["connections"] == 2


def test_the_engine_can_read_the_constructor() -> None:
    hints = typing.get_type_hints(Database.__init__)
    assert issubclass(hints["security"], Component)
    assert issubclass(hints["identity"], Component)
    assert hints["settings"] is DatabaseSettings


async def test_nothing_heavy_is_imported_by_a_repair_that_has_a_backup(root: Path) -> None:
    # Guards the import boundary itself: only migrate.py may name the migration tool.
    package = Path(sys.modules[Database.__module__].__file__ or "").parent
    for path in package.glob("*.py"):
        if path.stem not in ("migrate", "postgresql_migrate", "postgresql_migrating"):
            text = path.read_text()
            assert "import alembic" not in text
            assert "from alembic" not in text
            assert "sqlalchemy" not in text.lower().replace("alembic and sqlalchemy", "")
