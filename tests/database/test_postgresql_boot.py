"""The component on PostgreSQL: first boot, later boots, several nodes, and whose database it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.proxy import Proxy
from novacron.component import HealthDepth, HealthState
from novacron.database import postgresql_pool, schema
from novacron.database.postgresql_connection import Connection
from novacron.database.postgresql_schema import LOCK_KEY
from novacron.database.registrations import deregister, list_registrations, register
from novacron.database.store import (
    DatabaseAwayError,
    DatabaseCorruptError,
    DatabaseCredentialsError,
    DatabaseLimitError,
    DatabaseReadOnlyError,
    DatabaseSchemaError,
    DatabaseUnavailableError,
)
from tests.database.support import NODE, OTHER, Bench
from tests.servers import Cluster

OURS, THEIRS = "a" * 64, "b" * 64
NEWEST = schema.revisions()[-1]

Node = Callable[..., Bench]


@pytest.fixture
def name(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.fixture
def node(cluster: Cluster, name: str, tmp_path: Path) -> Node:
    """Makes nodes that share one new database."""

    def make(**changes: Any) -> Bench:
        about = {key: changes.pop(key) for key in ("node_id", "authorities") if key in changes}
        settings = cluster.settings(**{"name": name, **changes})
        return Bench(tmp_path, engine="postgresql", postgresql=settings, **about)

    return make


async def test_a_first_boot_makes_the_schema_and_claims_the_database(
    node: Node, cluster: Cluster, name: str
) -> None:
    first = node()
    async with first.booted() as database:
        assert database.engine == "postgresql"
        await register(database, NODE, "boot-1", {"rest": "127.0.0.1:1"})
        health = await database.health_check(HealthDepth.FULL)
        assert health.state is HealthState.HEALTHY
        assert health.details["server"] == cluster.server.address
        assert database.statistics()["engine"] == "postgresql"
    assert any(f"from version none to {NEWEST}" in said for said in first.progress.messages)
    assert cluster.server.psql("SELECT version_num FROM alembic_version", database=name) == NEWEST
    assert cluster.server.psql("SELECT authority FROM cluster_identity", database=name) == OURS
    again = node(node_id=OTHER)
    async with again.booted() as database:
        (found,) = await list_registrations(database)
        assert (found.node_id, found.addresses) == (NODE, {"rest": "127.0.0.1:1"})
        assert await deregister(database, NODE, "boot-1")
    assert again.progress.messages == [], "nothing was to be migrated"


@pytest.mark.parametrize("login", ["password", "certificate"])
async def test_a_boot_asks_once_after_the_connection_is_made(
    node: Node,
    cluster: Cluster,
    tmp_path: Path,
    name: str,
    login: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with node().booted():
        pass
    asked = []
    plain = Connection.exchange

    async def watched(self: Connection, steps: Any, deadline: float, mode: Any = None) -> Any:
        asked.append(steps)
        return await plain(self, steps, deadline, mode)

    monkeypatch.setattr(Connection, "exchange", watched)
    choose = cluster.settings if login == "password" else cluster.certified
    async with Bench(tmp_path, engine="postgresql", postgresql=choose(name=name)).booted():
        assert len(asked) == 1


async def test_two_nodes_that_boot_at_once_migrate_once(
    node: Node, cluster: Cluster, name: str
) -> None:
    benches = [node(node_id=each) for each in (NODE, OTHER)]

    async def boot(bench: Bench) -> None:
        async with bench.booted() as database:
            await register(database, bench.node_id, "boot", {})

    async with trio.open_nursery() as nursery:
        for bench in benches:
            nursery.start_soon(boot, bench)
    assert cluster.server.psql("SELECT count(*) FROM alembic_version", database=name) == "1"
    assert cluster.server.psql("SELECT count(*) FROM cluster_identity", database=name) == "1"
    assert cluster.server.psql("SELECT count(*) FROM node_registration", database=name) == "2"


async def test_a_node_waits_for_another_that_migrates_and_not_for_ever(
    node: Node, cluster: Cluster, name: str
) -> None:
    holder = node()
    async with holder.booted() as database:
        async with database.transaction() as transaction:
            await transaction.fetch_one("SELECT pg_advisory_xact_lock(:key)", {"key": LOCK_KEY})
            cluster.server.psql("DELETE FROM cluster_identity", database=name)
            late = node(node_id=OTHER, migrate_timeout=0.3)
            with pytest.raises(ExceptionGroup) as caught:
                async with late.booted():
                    raise AssertionError("not reached")
            assert caught.group_contains(DatabaseLimitError, match="another node has been at it")
        assert any("waiting for another node" in said for said in late.progress.messages)
    async with late.booted():
        pass
    assert cluster.server.psql("SELECT authority FROM cluster_identity", database=name) == OURS


async def test_another_clusters_database_is_refused_and_both_are_named(
    node: Node, cluster: Cluster, name: str
) -> None:
    async with node(authorities=(THEIRS,)).booted():
        pass
    with pytest.raises(ExceptionGroup) as caught:
        async with node().booted():
            raise AssertionError("not reached")
    (error,) = caught.value.exceptions
    assert isinstance(error, DatabaseSchemaError)
    assert OURS in str(error)
    assert THEIRS in str(error)
    assert cluster.server.psql("SELECT authority FROM cluster_identity", database=name) == THEIRS


async def test_a_database_stays_its_clusters_when_the_authoritys_key_was_replaced(
    node: Node, cluster: Cluster, name: str
) -> None:
    new, newer = "c" * 64, "d" * 64
    async with node().booted() as running:
        # One that has heard of the new authority, one that trusts it alone, one two authorities on:
        # the first names the cluster. None of them takes the database from those that have not heard.
        for hashes in ((OURS, new), (OURS, new, OURS), (OURS, newer, OURS, new)):
            async with node(node_id=OTHER, authorities=hashes).booted() as other:
                health = await other.health_check(HealthDepth.DEEP)
                assert health.state is HealthState.HEALTHY
        health = await running.health_check(HealthDepth.DEEP)
        assert health.state is HealthState.HEALTHY
    assert cluster.server.psql("SELECT authority FROM cluster_identity", database=name) == OURS
    with pytest.raises(ExceptionGroup) as caught:
        async with node(authorities=(new,)).booted():
            raise AssertionError("not reached")
    assert caught.group_contains(DatabaseSchemaError, match="another cluster")


@pytest.mark.parametrize(
    ("sql", "kind", "text"),
    [
        ("CREATE TABLE invoice (id int)", DatabaseSchemaError, "invoice"),
        (
            "CREATE TABLE alembic_version (version_num text); CREATE TABLE invoice (id int);"
            " INSERT INTO alembic_version VALUES ('ae1027a6acf')",
            DatabaseSchemaError,
            "not a NovaCron database",
        ),
    ],
)
async def test_another_programs_database_is_refused(
    node: Node, cluster: Cluster, name: str, sql: str, kind: type[Exception], text: str
) -> None:
    cluster.server.psql(sql, database=name)
    before = cluster.server.psql("SELECT count(*) FROM pg_class", database=name)
    with pytest.raises(ExceptionGroup) as caught:
        async with node().booted():
            raise AssertionError("not reached")
    assert caught.group_contains(kind, match=text)
    assert cluster.server.psql("SELECT count(*) FROM pg_class", database=name) == before


@pytest.mark.parametrize(
    ("sql", "kind", "text"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", DatabaseSchemaError, "is newer"),
        ("UPDATE cluster_identity SET created = 1", DatabaseCorruptError, "seal"),
        ("DROP TABLE node_heartbeat", DatabaseCorruptError, "a table of it is gone"),
    ],
)
async def test_a_database_that_is_newer_or_damaged_is_refused(
    node: Node, cluster: Cluster, name: str, sql: str, kind: type[Exception], text: str
) -> None:
    async with node().booted():
        pass
    cluster.server.psql(sql, database=name)
    with pytest.raises(ExceptionGroup) as caught:
        async with node().booted():
            raise AssertionError("not reached")
    assert caught.group_contains(kind, match=text)


async def test_a_database_without_its_tables_again_is_found_by_a_look(
    node: Node, cluster: Cluster, name: str
) -> None:
    async with node().booted() as database:
        cluster.server.psql("UPDATE cluster_identity SET authority = 'x'", database=name)
        health = await database.health_check(HealthDepth.DEEP)
        assert health.state is HealthState.UNHEALTHY
        assert "belongs to another cluster" in health.message


async def test_a_role_that_may_not_make_tables_is_told_so(
    node: Node, cluster: Cluster, name: str
) -> None:
    cluster.server.psql("DROP ROLE IF EXISTS guest", database=name)
    cluster.server.psql(f"CREATE ROLE guest LOGIN PASSWORD '{cluster.server.password}'")
    with pytest.raises(ExceptionGroup) as caught:
        async with node(user="guest").booted():
            raise AssertionError("not reached")
    assert caught.group_contains(DatabaseUnavailableError, match="Make the role the owner")


async def test_a_server_that_does_not_say_its_timeline_is_used_all_the_same(
    node: Node, cluster: Cluster, name: str
) -> None:
    cluster.server.psql("DROP ROLE IF EXISTS careful", database=name)
    cluster.server.psql(f"CREATE ROLE careful LOGIN PASSWORD '{cluster.server.password}'")
    cluster.server.psql(f'ALTER DATABASE "{name}" OWNER TO careful', database="postgres")
    cluster.server.psql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", database=name)
    async with node(user="careful").booted() as database:
        health = await database.health_check(HealthDepth.FULL)
        assert health.state is HealthState.HEALTHY


async def test_a_database_that_takes_no_changes_fails_the_boot_and_may_be_tried_again(
    node: Node, cluster: Cluster, name: str
) -> None:
    cluster.server.psql(
        f'ALTER DATABASE "{name}" SET default_transaction_read_only = on', database="postgres"
    )
    with pytest.raises(ExceptionGroup) as caught:
        async with node().booted():
            raise AssertionError("not reached")
    (error,) = caught.value.exceptions
    assert isinstance(error, DatabaseReadOnlyError)
    assert error.retryable


async def test_a_server_that_is_away_at_boot_may_be_tried_again(
    node: Node, cluster: Cluster
) -> None:
    with Proxy(("127.0.0.1", cluster.server.port)) as proxy:
        proxy.mode("refuse")
        bench = node(hosts=(proxy.address,))
        with pytest.raises(ExceptionGroup) as caught:
            async with bench.booted():
                raise AssertionError("not reached")
        (error,) = caught.value.exceptions
        assert isinstance(error, DatabaseAwayError)
        assert error.retryable
        assert proxy.address in str(error)
        proxy.mode("pass")
        async with bench.booted() as database:
            assert await database.fetch_one("SELECT 1") == (1,)


async def test_a_server_that_goes_away_degrades_the_node_and_needs_no_restart(
    node: Node, cluster: Cluster
) -> None:
    with Proxy(("127.0.0.1", cluster.server.port)) as proxy:
        async with node(hosts=(proxy.address,)).booted() as database:
            proxy.mode("refuse")
            proxy.cut()
            with pytest.raises(DatabaseAwayError):
                await database.fetch_one("SELECT 1")
            for depth in HealthDepth:
                health = await database.health_check(depth)
                assert health.state is HealthState.DEGRADED
                assert "PostgreSQL is away since" in health.message
            assert database.statistics()["away_since"] > 0
            proxy.mode("pass")
            while (await database.health_check(HealthDepth.DEEP)).state is not HealthState.HEALTHY:
                await trio.sleep(0.05)
            assert await database.fetch_one("SELECT 1") == (1,)
            assert "away_since" not in database.statistics()


async def test_a_server_that_lets_nobody_else_in_degrades_the_node_until_it_does(
    node: Node, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_pool, "LONGEST_DELAY", 0.1)
    cluster.server.psql("DROP ROLE IF EXISTS changed")
    cluster.server.psql("CREATE ROLE changed LOGIN SUPERUSER PASSWORD 'old'")
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("old")
    async with node(user="changed", password=f"file:{secret}").booted() as database:
        await trio.to_thread.run_sync(cluster.server.psql, "ALTER ROLE changed PASSWORD 'new'")
        async with database.stream("SELECT 1"):
            with pytest.raises(DatabaseCredentialsError):
                await database.fetch_one("SELECT 1", within=0.1)
        health = await database.health_check(HealthDepth.DEEP)
        assert health.state is HealthState.DEGRADED
        assert "does not let changed in" in health.message
        assert await database.fetch_one("SELECT 1") == (1,)
        secret.write_text("new")
        while (await database.health_check(HealthDepth.DEEP)).state is not HealthState.HEALTHY:
            await trio.sleep(0.05)
