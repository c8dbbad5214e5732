"""What an operator meets on the way to PostgreSQL, and what must not stop a node meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from bench.authority import Authority
from bench.proxy import Proxy
from novacron.database import (
    postgresql_connection,
    postgresql_dial,
    postgresql_migrate,
    postgresql_parameters,
)
from novacron.database.postgresql_connection import Connection
from novacron.database.postgresql_dial import dial
from novacron.database.postgresql_errors import (
    away,
    map_failed_login,
    read_only,
    too_many,
)
from novacron.database.postgresql_session import open_session
from novacron.database.postgresql_target import Endpoint, Target
from novacron.database.store import (
    FETCH_LIMIT,
    DatabaseAwayError,
    DatabaseConnectionsError,
    DatabaseCredentialsError,
    DatabaseInvalidError,
    DatabaseLimitError,
    DatabaseOutcomeUnknownError,
    DatabaseTlsError,
    DatabaseTransientError,
    DatabaseUnavailableError,
)
from novacron.errors import DatabaseError
from tests.contracts.check_store import INSERT, TABLE, item
from tests.database.test_postgresql import opened
from tests.servers import CERTIFIED, Cluster

HUGE = "x" * 24 * 1024 * 1024
"""More than sockets and a path hold."""


@pytest.fixture
def name(cluster: Cluster) -> str:
    return cluster.new_database()


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """*process* stopped, at most for five seconds, whatever becomes of this one."""
    command = f"kill -STOP {process}; sleep 5; kill -CONT {process}"
    watchman = subprocess.Popen(["sh", "-c", command], start_new_session=True)
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        pass
    try:
        yield
    finally:
        os.killpg(watchman.pid, signal.SIGKILL)
        watchman.wait()
        os.kill(process, signal.SIGCONT)


# --- Getting there ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("/nowhere", "No such file or directory"),
        ("/" + "d" * 150, "is too long"),
        ("db..example:5432", "its name cannot be one of a host"),
        ("x" * 64 + ".example:5432", "its name cannot be one of a host"),
    ],
)
async def test_a_server_that_cannot_even_be_tried_is_away(
    cluster: Cluster, host: str, why: str
) -> None:
    with trio.fail_after(10), pytest.raises(DatabaseAwayError) as caught:
        await dial(Target(cluster.settings(hosts=(host,)), query_timeout=5.0))
    assert why in caught.value.why


async def test_a_database_that_cannot_keep_every_text_is_refused(
    cluster: Cluster, name: str
) -> None:
    latin = f"{name}_latin"
    made = f"CREATE DATABASE {latin} ENCODING 'LATIN1' TEMPLATE template0"
    await trio.to_thread.run_sync(partial(cluster.server.psql, made, database="postgres"))
    target = Target(cluster.settings(name=latin), query_timeout=5.0)
    with trio.fail_after(10), pytest.raises(DatabaseUnavailableError, match="LATIN1"):
        await dial(target)
    with pytest.raises(DatabaseUnavailableError, match="LATIN1"):
        await trio.to_thread.run_sync(partial(open_session, target, 5.0, changing=True))
    reading = await trio.to_thread.run_sync(partial(open_session, target, 5.0, changing=False))
    reading.close()  # to take a backup of it


async def test_a_pooler_in_between_is_refused(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Target, "_options", lambda _: "")
    with trio.fail_after(10), pytest.raises(DatabaseUnavailableError) as caught:
        await dial(Target(cluster.settings(name=name), query_timeout=5.0))
    assert "drops the settings" in caught.value.why
    text = 'connection to server at "db" failed: FATAL:  unsupported startup parameter: options'
    error = map_failed_login(text, "db:6432", user="novacron", used_password=True)
    assert type(error) is DatabaseUnavailableError
    assert "PgBouncer" in error.remedy


async def test_certificates_of_the_node_that_do_not_do_are_named(
    cluster: Cluster, name: str, tmp_path: Path
) -> None:
    good = cluster.certified(name=name)
    assert good.certificate is not None
    assert good.private_key is not None

    def put(content: bytes | tuple[bytes, bytes], index: int = 0) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.pem"
        path.touch(mode=0o600)
        path.write_bytes(content if isinstance(content, bytes) else content[index])
        return str(path)

    expired = cluster.server.authority.issue_names([], common_name=CERTIFIED, days=-1.0)
    stranger = Authority().issue_names([], common_name=CERTIFIED)
    locked = load_pem_private_key(
        Path(good.private_key.removeprefix("file:")).read_bytes(), None
    ).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    for certificate, key, said, concerns in (
        (put(expired, 0), put(expired, 1), "expired", "certificate"),
        (put(stranger, 0), put(stranger, 1), "unknown ca", "certificate"),
        (good.certificate, put(stranger, 1), "key values mismatch", "private_key"),
        (put(b"junk"), good.private_key, "could not read certificate file", "certificate"),
        (good.certificate, put(locked), "could not load private key", "private_key"),
        (str(tmp_path), good.private_key, "it is no file", "certificate"),
    ):
        changed = {"certificate": certificate, "private_key": f"file:{key.removeprefix('file:')}"}
        target = Target(good.model_copy(update=changed), query_timeout=5.0)
        with trio.fail_after(10), pytest.raises(DatabaseUnavailableError) as caught:
            await dial(target)
        assert said in caught.value.why
        assert caught.value.key == f"database.postgresql.{concerns}"
    endpoint = target.endpoints[0]
    found = Target(good, query_timeout=5.0).parameters(endpoint, None)
    assert found["sslpassword"], "nothing is asked for on the terminal"
    without = good.model_copy(update={"certificate": None, "private_key": None})
    with trio.fail_after(10), pytest.raises(DatabaseUnavailableError) as caught:
        await dial(Target(without, query_timeout=5.0))
    assert "wants a certificate of this node" in caught.value.what


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SSL error: unexpected eof while reading", DatabaseAwayError),
        ("SSL SYSCALL error: Connection reset by peer", DatabaseAwayError),
        ("server closed the connection unexpectedly", DatabaseAwayError),
        ("SSL error: certificate verify failed", DatabaseTlsError),
        ("SSL error: tlsv13 alert certificate required", DatabaseTlsError),
        ("server does not support SSL, but SSL was required", DatabaseTlsError),
    ],
)
def test_a_handshake_that_was_cut_off_is_no_fault_of_the_certificates(
    text: str, expected: type[DatabaseError]
) -> None:
    error = map_failed_login(
        f'connection to server at "db" failed: {text}', "db", user="n", used_password=False
    )
    assert type(error) is expected


async def test_a_server_notices_a_node_that_lost_its_power(cluster: Cluster, name: str) -> None:
    async with opened(cluster, name) as store:
        found = [
            await store.fetch_one(f"SHOW {setting}")
            for setting in ("tcp_keepalives_idle", "tcp_keepalives_count", "tcp_user_timeout")
        ]
        assert found == [("10",), ("3",), ("10000",)]


async def test_a_password_that_was_changed_at_the_server_first_ends_nothing(
    cluster: Cluster, name: str, tmp_path: Path
) -> None:
    cluster.server.psql("CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'old'")
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("old")
    login = {"user": "rotated", "password": f"file:{secret}"}
    async with opened(cluster, name, pool_max=8, **login) as store:
        await store.execute(TABLE)
        cluster.server.psql("ALTER ROLE rotated PASSWORD 'new'")

        async def change(number: int) -> None:
            await store.execute(INSERT, item(number))

        async with store.transaction() as tx:
            await tx.execute(INSERT, item(100))
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(store.fetch_one, "SELECT 1")
                await trio.sleep(0.05)
                with pytest.raises(DatabaseCredentialsError):
                    # All that is open is in use: then it is said why there is no more.
                    await store.fetch_one("SELECT 1", within=0.05)
                await tx.execute(INSERT, item(101))
                nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(change, number)
        assert await store.fetch_one("SELECT count(*) FROM item") == (8,)
        assert store.absence is None
        secret.write_text("new")
        async with store.stream("SELECT 1"), store.stream("SELECT 1"):
            assert await store.fetch_one("SELECT 1") == (1,)


async def test_a_standby_beside_a_server_that_is_full_ends_nothing(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = too_many("first:5432", "sorry, too many clients already")
    standby = read_only("second:5432", "it is a standby that follows another server")

    async def refuse(target: Target, endpoint: Endpoint) -> Connection:
        raise full if endpoint.host == "127.0.0.1" else standby

    hosts = ("second.example:5432", cluster.server.address)
    other = Target(cluster.settings(name=name, hosts=hosts), query_timeout=5.0)
    async with opened(cluster, name) as store:
        monkeypatch.setattr(postgresql_dial, "_dial_one", refuse)
        with pytest.raises(DatabaseConnectionsError):
            await dial(other)
        for error in (standby, full):
            store.pool._note_failure(error)
            assert await store.fetch_one("SELECT 1") == (1,)
        async with store.stream("SELECT 1"):
            with pytest.raises(DatabaseConnectionsError):
                await store.fetch_one("SELECT 1", within=0.05)
        assert store.absence is None


async def test_a_secret_that_is_gone_is_an_error_of_the_database(
    cluster: Cluster, name: str, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text(cluster.server.password)
    async with opened(cluster, name, password=f"file:{secret}") as store:
        secret.unlink()
        async with store.stream("SELECT 1"):
            with pytest.raises(DatabaseCredentialsError, match="cannot read the secret file"):
                await store.fetch_one("SELECT 1", within=0.1)
        assert await store.fetch_one("SELECT 1") == (1,)


# --- Being there --------------------------------------------------------------------------------


async def test_giving_up_on_a_server_that_is_stopped_does_not_stop_the_node(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_connection, "CANCEL_GRACE", 0.2)
    async with opened(cluster, name) as store:
        row = await store.fetch_one("SELECT pg_backend_pid()")
        assert row is not None
        with stopped(row[0]), trio.fail_after(4):
            with trio.move_on_after(0.1) as scope:
                await store.fetch_one("SELECT 1")
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await store.fetch_one("SELECT 1") == (1,)


@pytest.mark.parametrize("size", [3000, 12000])
@pytest.mark.parametrize("how", ["overdue", "cancelled"])
async def test_rows_that_are_given_up_too_late_are_whole_or_none(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch, how: str, size: int
) -> None:
    async def nothing(connection: object) -> None:
        """The statement has been done when the cancellation arrives."""

    monkeypatch.setattr(postgresql_connection.Connection, "_ask_to_cancel", nothing)
    sql = f"SELECT g, repeat('x', 200) FROM generate_series(1, {size}) g"
    with Proxy(("127.0.0.1", cluster.server.port)) as proxy:
        async with opened(cluster, name, hosts=(proxy.address,)) as store:
            await store.fetch_one("SELECT 1")
            proxy.throttle(size * 600)
            found: int | None = None
            with contextlib.suppress(DatabaseLimitError):
                if how == "overdue":
                    found = len(await store.fetch_all(sql, within=0.15))
                else:
                    with trio.move_on_after(0.15):
                        found = len(await store.fetch_all(sql))
            assert found == (size if size < FETCH_LIMIT else None)


@pytest.mark.parametrize("how", ["abandoned", "cancelled"])
async def test_a_large_value_that_does_not_get_through_is_told_of_as_any_other(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(postgresql_connection, "CANCEL_GRACE", 0.1)
    with Proxy(("127.0.0.1", cluster.server.port)) as proxy:
        async with opened(cluster, name, hosts=(proxy.address,)) as store:
            await store.execute(TABLE)
            proxy.mode("silent")
            caught: list[BaseException] = []

            async def insert(scope: trio.CancelScope) -> None:
                with pytest.raises(DatabaseOutcomeUnknownError) as error, scope:
                    await store.execute(INSERT, {"id": 1, "name": HUGE, "size": 0})
                caught.append(error.value)

            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(insert, scope)
                await trio.sleep(0.3)
                if how == "abandoned":
                    store.pool._abandon()
                else:
                    scope.cancel()
            assert len(caught) == 1
            proxy.mode("pass")


async def test_a_text_that_no_server_takes_is_refused_before_it_is_sent(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_parameters, "_LONGEST", 1000)
    async with opened(cluster, name) as store:
        for value in ("é" * 500, b"x" * 1000):
            with pytest.raises(DatabaseInvalidError, match="larger than 1 GiB"):
                await store.fetch_one("SELECT :value", {"value": value})


async def test_a_statement_that_somebody_ends_at_the_server_did_not_take_too_long(
    cluster: Cluster, name: str
) -> None:
    async with opened(cluster, name) as store, trio.open_nursery() as nursery:

        async def sleep() -> None:
            with pytest.raises(DatabaseTransientError, match="ended at the server"):
                await store.fetch_one("SELECT pg_sleep(20)")

        nursery.start_soon(sleep)
        end = (
            f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            " AND query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()"
        )
        while not await trio.to_thread.run_sync(cluster.server.psql, end):
            pass


async def test_statements_that_the_server_forgot_are_prepared_anew(
    cluster: Cluster, name: str
) -> None:
    async with opened(cluster, name, pool_max=2) as store:
        for forget in ("DEALLOCATE ALL", "DISCARD ALL"):
            for _ in range(3):
                assert await store.fetch_one("SELECT :x + 1", {"x": 1}) == (2,)
            connection = await store.pool.take(None, trio.current_time() + 5)
            step = postgresql_connection.Step(postgresql_connection.Bound(forget.encode()))
            assert (await connection.exchange([step], trio.current_time() + 5)).error is None
            store.pool.give_back(connection)
            assert await store.fetch_one("SELECT :x + 1", {"x": 1}) == (2,)
            assert await store.fetch_one("SHOW transaction_read_only") == ("on",)


def test_a_migration_on_a_server_that_stops_answering_is_given_up(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(target: Target, endpoint: Any) -> None:
        raise away(endpoint.address, "nobody answers")

    def wait(url: str, connect: Any, revision: str, *, keep: bool) -> None:
        connect().execute("SELECT pg_sleep(10)")

    monkeypatch.setattr(postgresql_migrate, "ask", ask)
    monkeypatch.setattr(postgresql_migrate, "run_migrations", wait)
    target = Target(cluster.settings(name=name, connect_timeout=0.2), query_timeout=5.0)
    with pytest.raises(DatabaseAwayError, match="nobody answers"):
        postgresql_migrate.upgrade(target, target.endpoints[0], "a" * 64)
    with psycopg.connect(
        f"{cluster.server.dsn(database=name)} password='{cluster.server.password}'"
    ) as raw:
        assert raw.execute("SELECT to_regclass('node_identity')").fetchone() == (None,)
