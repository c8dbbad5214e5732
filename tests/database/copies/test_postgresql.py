"""Snapshots of a PostgreSQL database while others write, and work on it that is cut anywhere."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import trio

from bench.servers.postgresql import PostgreSQL
from novacron.config.schema import DatabaseSettings
from novacron.data_directory import DataDirectory
from novacron.database.copies.reading import BackupFile
from novacron.database.copies.replacing import restore_file, stopped_node
from novacron.database.copies.sources import open_file, verify_file
from novacron.database.copies.tables import Column, Table
from novacron.database.copies.writing import write_backup
from novacron.database.operations_postgresql import PostgresqlOperations
from novacron.database.postgresql import PostgresqlStore
from novacron.database.postgresql_session import Session, open_session
from novacron.database.postgresql_target import Target
from novacron.database.schema import revisions
from novacron.database.store import (
    DatabaseAwayError,
    DatabaseLimitError,
    DatabaseOutcomeUnknownError,
    DatabaseReadOnlyError,
    DatabaseSchemaError,
    DatabaseTransientError,
)
from novacron.errors import DatabaseError
from tests.database.copies.support import Values, content, quiet, read_all
from tests.database.support import NODE, open_and_close
from tests.servers import Cluster, postgresql_cluster, postgresql_settings

AUTHORITY = "0f" * 32


class World:
    """One database, what an operator does with it, and a way to look at it from outside."""

    def __init__(self, cluster: Cluster, root: Path, **settings: float) -> None:
        self.cluster = cluster
        self.server = cluster.server
        self.name = cluster.new_database()
        self.settings = DatabaseSettings(
            engine="postgresql", postgresql=cluster.settings(name=self.name), **settings
        )
        self.data = DataDirectory(root)

    @property
    def operations(self) -> PostgresqlOperations:
        return PostgresqlOperations(self.settings, self.data, NODE, lambda: (AUTHORITY,))

    def sql(self, statement: str) -> str:
        return self.server.psql(statement, database=self.name)

    def count(self) -> int:
        return int(self.sql("SELECT count(*) FROM node_registration"))

    def fill(self, count: int) -> None:
        self.sql(
            "INSERT INTO node_registration SELECT 'n' || i, repeat(md5(i::text), 8), '{}', i, 1"
            f" FROM generate_series(1, {count}) i"
        )

    def session(self, *, silence: float = 1.0) -> Session:
        settings = self.settings.postgresql.model_copy(update={"connect_timeout": 2.0})
        return open_session(Target(settings, query_timeout=10.0), silence, changing=False)

    def back_up(self, path: Path) -> None:
        with contextlib.closing(self.operations.open_snapshot()) as snapshot:
            write_backup(snapshot, path, "1.2.3", quiet)

    def restore(self, path: Path, *, force: bool = True) -> Path | None:
        operations = self.operations
        with contextlib.closing(open_file(path, busy_timeout=1.0)) as source:
            verify_file(source, quiet)
            with operations.alone("restore", force=force):
                return operations.restore(source, quiet, keep=False).kept


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path) -> World:
    made = World(cluster, tmp_path / "node")
    made.operations.migrate(quiet)
    return made


@contextlib.contextmanager
def writers(world: World, count: int = 2) -> Iterator[None]:
    """Threads that keep one invariant over two tables: as many heartbeats as registrations, under
    the same names, with the same time."""
    stop, going = threading.Event(), threading.Barrier(count + 1)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        turn = 0
        try:
            with psycopg.connect(
                world.server.dsn(database=world.name), password=world.server.password
            ) as raw:
                while not stop.is_set():
                    name, old = f"w{number}-{turn}", f"w{number}-{turn - 20}"
                    raw.execute("INSERT INTO node_heartbeat VALUES (%s, 'b', %s)", (name, turn))
                    raw.execute(
                        "INSERT INTO node_registration VALUES (%s, 'b', '{}', %s, NULL)",
                        (name, turn),
                    )
                    raw.execute("DELETE FROM node_registration WHERE node_id = %s", (old,))
                    raw.execute("DELETE FROM node_heartbeat WHERE node_id = %s", (old,))
                    raw.commit()
                    turn += 1
                    if turn == 5:
                        going.wait(30)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        going.wait(30)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failures == []


def test_a_backup_under_writers_is_of_one_moment(world: World, tmp_path: Path) -> None:
    with writers(world):
        for number in range(6):
            world.back_up(tmp_path / f"{number}")
    seen = set()
    for number in range(6):
        found = read_all(tmp_path / f"{number}")
        beats = sorted((row[0], row[2]) for row in found["node_heartbeat"])
        assert beats == sorted((row[0], row[3]) for row in found["node_registration"])
        assert 10 <= len(beats) <= 42
        seen.add(tuple(beats))
    assert len(seen) > 1, "the writers wrote meanwhile"


def test_every_value_survives_the_way_to_a_file_and_back(world: World, tmp_path: Path) -> None:
    rows = [
        ["tabs", "a\tb\n\r\\N\\.", "\U0001f600 “quoted” 'it''s'", -1.5, float("inf")],
        ["tiny", "", "\ufeff", 5e-324, float("-inf")],
        ["whole", "x" * 200_000, "\\x00", 2.0**53, None],
    ]
    with psycopg.connect(
        world.server.dsn(database=world.name), password=world.server.password
    ) as raw:
        for row in rows:
            raw.execute("INSERT INTO node_registration VALUES (%s, %s, %s, %s, %s)", row)
        raw.execute("INSERT INTO node_registration VALUES ('nan', 'b', '{}', 'NaN', NULL)")
    world.back_up(tmp_path / "before")
    world.restore(tmp_path / "before")
    world.back_up(tmp_path / "after")
    # NaN is not equal to itself.
    found = [repr(sorted(read_all(tmp_path / n)["node_registration"])) for n in ("before", "after")]
    assert found[0] == found[1]
    assert repr(rows[1]) in found[0]


# --- A server that is away, slow, or a standby ---------------------------------------------------


def test_a_server_that_stops_answering_is_given_up(world: World) -> None:
    with world.session() as session:
        pause = threading.Timer(0.3, world.server.pause)
        pause.start()
        try:
            with pytest.raises(DatabaseAwayError, match="did not answer"):
                session.fetch("SELECT pg_sleep(60)")
        finally:
            pause.join()
            world.server.resume()


def test_a_statement_that_takes_long_is_waited_for(world: World) -> None:
    with world.session(silence=0.2) as session:
        assert session.one("SELECT 7 FROM pg_sleep(1.5)") == 7


def test_a_backup_from_a_server_that_stops_answering_fails_and_leaves_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    world = World(cluster, tmp_path / "node", query_timeout=1.0)
    world.operations.migrate(quiet)
    world.fill(20_000)
    target = tmp_path / "backup"
    target.mkdir()
    paused = False

    def pause_once(step: str, rows: int, total: int, size: int) -> None:
        nonlocal paused
        if not paused and step.startswith("writing") and rows > 100:
            paused = True
            world.server.pause()

    try:
        with (
            contextlib.closing(world.operations.open_snapshot()) as snapshot,
            pytest.raises(DatabaseAwayError, match="did not answer"),
        ):
            write_backup(snapshot, target / "b", "1", pause_once)
    finally:
        world.server.resume()
    assert paused
    assert list(target.iterdir()) == []


def test_a_backup_can_be_taken_from_a_standby_and_a_restoration_cannot(
    cluster: Cluster, tmp_path: Path
) -> None:
    world = World(cluster, tmp_path / "node")
    world.operations.migrate(quiet)
    world.fill(100)
    world.back_up(tmp_path / "b")
    with PostgreSQL(standby_of=cluster.server, durable=False) as standby:
        settings = postgresql_settings(standby, cluster.password, name=world.name)
        world.settings = world.settings.model_copy(update={"postgresql": settings})
        status = world.operations.status()
        assert status["fault"] is None
        assert status["server"]["role"] == "standby"
        world.back_up(tmp_path / "c")
        assert len(read_all(tmp_path / "c")["node_registration"]) == 100
        with pytest.raises(DatabaseReadOnlyError, match="standby"):
            world.restore(tmp_path / "b")
        with pytest.raises(DatabaseReadOnlyError, match="standby"):
            world.operations.migrate(quiet)


def test_who_migrates_waits_for_another_and_says_when_that_takes_too_long(
    cluster: Cluster, tmp_path: Path
) -> None:
    world = World(cluster, tmp_path / "node")
    quick = world.settings.postgresql.model_copy(update={"migrate_timeout": 0.5})
    world.settings = world.settings.model_copy(update={"postgresql": quick})
    from novacron.database.postgresql_schema import LOCK_KEY

    with world.session() as other:
        other.fetch("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        with pytest.raises(DatabaseLimitError, match="is locked"):
            world.operations.migrate(quiet)
    assert world.operations.status()["state"] == "absent"
    assert world.operations.migrate(quiet).before is None


def test_tables_that_somebody_holds_are_waited_for_no_longer_than_allowed(
    world: World, tmp_path: Path
) -> None:
    world.fill(10)
    world.back_up(tmp_path / "b")
    quick = world.settings.postgresql.model_copy(update={"migrate_timeout": 0.5})
    world.settings = world.settings.model_copy(update={"postgresql": quick})
    with world.session() as other:
        other.begin("")
        other.execute("DELETE FROM node_registration")
        with pytest.raises(DatabaseLimitError, match="in use"):
            world.restore(tmp_path / "b")
    assert world.count() == 10


# --- Cut anywhere --------------------------------------------------------------------------------


def in_child(work: Callable[[], object]) -> int:
    """Fork a child that does *work* and exits; its process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


@pytest.mark.parametrize("what", ["restore", "copy"])
def test_what_is_killed_leaves_the_old_rows_or_the_new(
    world: World, tmp_path: Path, what: str
) -> None:
    world.fill(5_000)
    world.back_up(tmp_path / "b")
    if what == "copy":
        open_and_close(tmp_path)
        file = DataDirectory(tmp_path).database / "novacron.db"
        with BackupFile(tmp_path / "b") as backup, stopped_node(DataDirectory(tmp_path), what):
            restore_file(backup, file, DataDirectory(tmp_path), NODE, 1.0, quiet)
        (tmp_path / "b").unlink()
        file.rename(tmp_path / "b")
    begun = time.monotonic()
    world.restore(tmp_path / "b")
    span = time.monotonic() - begun
    outcomes = set()
    for number in range(10):
        world.sql("DELETE FROM node_registration WHERE started > 100")
        child = in_child(lambda: world.restore(tmp_path / "b"))
        time.sleep(random.uniform(0.0, span * 1.2))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        # Its session ends when the server notices; then it is one or the other.
        world.sql(
            "DO $$ BEGIN WHILE EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name ="
            " 'novacron database' AND datname = current_database())"
            " LOOP PERFORM pg_sleep(0.02), pg_stat_clear_snapshot(); END LOOP; END $$"
        )
        found = world.count()
        assert found == 5_000 if status == 0 else found in (100, 5_000), number
        assert world.operations.verify(full=False).findings == []
        outcomes.add(found)
    assert 100 in outcomes, "some of them were killed before they were done"


def test_a_server_that_is_killed_under_a_restoration_has_the_old_rows_or_the_new(
    tmp_path: Path,
) -> None:
    with postgresql_cluster(durable=True) as cluster:
        world = World(cluster, tmp_path / "node", query_timeout=2.0)
        world.operations.migrate(quiet)
        world.fill(5_000)
        world.back_up(tmp_path / "b")
        begun = time.monotonic()
        world.restore(tmp_path / "b")
        span = time.monotonic() - begun
        for number in range(5):
            world.sql("DELETE FROM node_registration WHERE started > 100")
            kill = threading.Timer(random.uniform(0.1, 1.0) * span, world.server.kill)
            kill.start()
            done = False
            try:
                world.restore(tmp_path / "b")
                done = True
            except (DatabaseTransientError, DatabaseAwayError, DatabaseOutcomeUnknownError):
                pass
            kill.join()
            world.server.start()
            found = world.count()
            assert found == 5_000 if done else found in (100, 5_000), number
            assert world.operations.verify(full=True).findings == []


def test_a_connection_that_is_cut_during_the_commit_says_that_the_outcome_is_unknown(
    world: World,
) -> None:
    with world.session(silence=30.0) as session:
        session.begin("")
        session.execute("DELETE FROM node_registration")
        pid = session.one("SELECT pg_backend_pid()")
        world.sql(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(DatabaseOutcomeUnknownError, match="not known"):
            session.commit()


def test_rows_that_end_in_an_error_leave_nothing(world: World) -> None:
    class Torn(Values):
        def rows(self, table: object) -> Iterator[list[object]]:
            yield ["n", "b", 1.0]
            raise DatabaseError("the file ends here")

    world.fill(10)
    source = Torn({}, revisions()[-1])
    columns = tuple(Column(n, "text") for n in ("node_id", "boot_id", "beat"))
    source.tables = (Table("node_heartbeat", columns, 1),)
    operations = world.operations
    with (
        operations.alone("restore", force=False),
        pytest.raises(DatabaseError, match="the file ends here"),
    ):
        operations.restore(source, quiet, keep=False)
    assert world.count() == 10


# --- The schema ----------------------------------------------------------------------------------


@pytest.fixture
def larger(cluster: Cluster, tmp_path: Path, second: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """A database with tables that refer to each other."""
    from novacron.database import postgresql_inspection
    from novacron.database.snapshot import sqlite_snapshot

    model = tmp_path / "snapshot.sql"
    model.write_text(sqlite_snapshot())
    monkeypatch.setattr(postgresql_inspection, "SQLITE_SNAPSHOT", model)
    made = World(cluster, tmp_path / "node")
    made.operations.migrate(quiet)
    assert made.operations.verify(full=True).findings == []
    return made


def test_tables_that_refer_to_each_other_are_restored_on_both_engines(
    larger: World, tmp_path: Path
) -> None:
    larger.sql(
        "INSERT INTO second VALUES (70); INSERT INTO a_third VALUES"
        f" ('x', 'm', 70, '\\x00ff', {2**63 - 1}), ('y', NULL, NULL, NULL, {-(2**63)})"
    )
    larger.back_up(tmp_path / "b")
    before = {name: sorted(map(repr, rows)) for name, rows in read_all(tmp_path / "b").items()}
    data = DataDirectory(tmp_path / "other")
    path = data.database / "novacron.db"
    data.root.mkdir(mode=0o700)
    with BackupFile(tmp_path / "b") as backup, stopped_node(data, "restore"):
        restore_file(backup, path, data, NODE, 1.0, quiet)
    assert {name: sorted(map(repr, rows)) for name, rows in content(path).items()} == before
    larger.sql("DELETE FROM a_third")
    larger.restore(path)
    larger.back_up(tmp_path / "c")
    assert {name: sorted(map(repr, rows)) for name, rows in read_all(tmp_path / "c").items()} == (
        before
    )
    assert larger.operations.verify(full=True).findings == []


def test_what_keys_and_references_lack_is_found(larger: World) -> None:
    larger.sql(
        "SET session_replication_role = replica; INSERT INTO a_third (name, second) VALUES ('x', 1)"
    )
    (found,) = larger.operations.verify(full=True).findings
    assert found.what == "a row of a_third refers to a row of second that is not there"
    larger.sql(
        "ALTER TABLE a_third DROP CONSTRAINT a_third_second_fkey;"
        "ALTER TABLE a_third DROP CONSTRAINT a_third_mark_key;"
        "DROP INDEX a_third_by_big; CREATE INDEX a_third_by_big ON a_third (name)"
    )
    what = [found.what for found in larger.operations.verify(full=True).findings]
    assert what == [
        "the schema has no reference from a_third (second) to second (id)",
        "the schema has no uniqueness of a_third (mark)",
        "index a_third_by_big is on name, and the migrations make it on big, name",
    ]


def test_what_others_made_of_the_tables_is_not_dropped(world: World, tmp_path: Path) -> None:
    world.fill(3)
    world.back_up(tmp_path / "b")
    world.sql("CREATE VIEW mine AS SELECT node_id FROM node_registration")
    with pytest.raises(DatabaseSchemaError, match="something else was made of them"):
        world.restore(tmp_path / "b")
    assert world.sql("SELECT count(*) FROM mine") == "3"


async def test_a_node_that_runs_goes_on_after_a_forced_restoration(
    world: World, tmp_path: Path
) -> None:
    world.fill(50)
    world.back_up(tmp_path / "b")
    store = PostgresqlStore(Target(world.settings.postgresql, query_timeout=10.0))
    count, add = "SELECT count(*) FROM node_registration", "DELETE FROM node_registration WHERE 1=1"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.keep)
            try:
                for _ in range(5):
                    # Often enough for both to be prepared on the server.
                    assert (await store.fetch_one(count)) is not None
                    await store.execute(add)
                assert await store.fetch_one(count) == (0,)
                await trio.to_thread.run_sync(world.restore, tmp_path / "b")
                assert await store.fetch_one(count) == (50,)
                assert await store.execute(add) == 50
            finally:
                await store.close()


def test_nothing_stays_open(world: World, tmp_path: Path, no_leaks: None) -> None:
    world.back_up(tmp_path / "b")
    world.restore(tmp_path / "b")
    world.operations.status()
    world.operations.verify(full=True)
