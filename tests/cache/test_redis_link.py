"""One connection to Redis, and what its failures are called."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.processes import free_port
from bench.proxy import Proxy
from bench.servers.redis import RedisServer
from bench.servers.tls import NAMES
from novacron.cache import redis_link
from novacron.cache.redis_access import read_target
from novacron.cache.redis_errors import RIGHTS
from novacron.cache.redis_language import Language
from novacron.cache.redis_link import Link, Target
from novacron.cache.store import (
    CacheAwayError,
    CacheDeniedError,
    CacheIdentityError,
    CacheProtocolError,
    CacheReadOnlyError,
    CacheRefusedError,
    CacheUnavailableError,
)
from novacron.config.schema import RedisSettings

TRACKING = Language("nc:", publishing=False)
PUBSUB = Language("nc:", publishing=True)


async def failure(
    target: Target, *, language: Language = TRACKING, within: float = 20.0
) -> CacheUnavailableError:
    """What connecting raises; nothing of it must be left."""
    async with trio.open_nursery() as nursery:
        link = Link(target, set_up=language.prepare(0, None))
        with trio.fail_after(30), pytest.raises(CacheUnavailableError) as caught:
            await link.open(nursery, within=within)
        await link.closed.wait()
    return caught.value


@contextmanager
def listening() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(20)
        yield listener


async def test_all_is_ready_one_round_trip_after_the_connection_stands() -> None:
    """Everything is sent before anything is answered."""
    received = b""

    def serve(listener: socket.socket) -> None:
        nonlocal received
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            while b"TRACKING" not in received:
                received += connection.recv(65536)

    with listening() as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        target = Target("127.0.0.1", listener.getsockname()[1], "node", "secret")
        found = await failure(target)
        thread.join(20)
    assert isinstance(found, CacheAwayError)
    words = [line for line in received.split(b"\r\n") if line[:1] not in (b"*", b"$")]
    assert words[:5] == [b"HELLO", b"3", b"AUTH", b"node", b"secret"]
    assert words[-4:-1] == [b"CLIENT", b"TRACKING", b"ON"]


@pytest.mark.parametrize("language", [TRACKING, PUBSUB], ids=["tracking", "pubsub"])
async def test_a_user_with_the_rights_that_are_named_is_enough(language: Language) -> None:
    users = {"node": ("secret", f"~nc:* &nc:* {RIGHTS}")}
    with trio.fail_after(60), RedisServer(tls=True, users=users) as server:
        assert server.tls is not None
        context = ssl.create_default_context(cafile=str(server.tls.ca_certificate))
        target = Target("localhost", server.port, "node", "secret", context)
        async with trio.open_nursery() as nursery:
            link = Link(target, set_up=language.prepare(3, (7, "127.0.0.1:9")))
            await link.open(nursery, within=20)
            assert link.client_id
            assert link.peer.startswith("127.0.0.1:")
            for words in (
                language.write("key", b"value", 60),
                language.claim("other", b"token", 4),
                language.renew("other", b"token", 4),
                language.keep("other", b"token", b"value", 60),
                language.release("other", b"token"),
                language.delete("key"),
                *language.read("other"),
                language.scan(b"0"),
                (b"UNLINK", b"nc:v:key"),
                *([language.tell_all()] if language.publishing else []),
                (b"ROLE",),
            ):
                await link.call(*words, within=20)
            link.close()


async def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await failure(Target("127.0.0.1", free_port()))
    assert type(found) is CacheAwayError
    assert found.why == "Connection refused"
    assert found.key == "cache.redis.address"
    with listening() as listener:
        found = await failure(Target("127.0.0.1", listener.getsockname()[1]), within=0.2)
    assert type(found) is CacheAwayError
    assert "0.2 s" in found.why
    assert found.key == "cache.redis.connect_timeout"
    found = await failure(Target("nowhere.invalid", 1))
    assert type(found) is CacheAwayError


async def test_credentials_that_are_refused() -> None:
    users = {"node": ("secret", "~nc:* &nc:* +get")}
    with RedisServer(users=users) as server:
        for user, password, word in (
            (None, None, "none are set"),
            ("node", "wrong", "invalid username-password pair"),
            ("node", "secret", "no permissions to run the 'client|setname' command"),
        ):
            found = await failure(Target("127.0.0.1", server.port, user, password))
            assert type(found) is CacheDeniedError, found
            assert word in found.why
            assert "secret" not in str(found)
        assert found.key == "cache.redis.user"
        assert "+evalsha" in found.remedy


async def test_a_user_that_may_not_subscribe() -> None:
    users = {"node": ("secret", f"~nc:* {RIGHTS}")}
    with RedisServer(users=users) as server:
        target = Target("127.0.0.1", server.port, "node", "secret")
        found = await failure(target, language=PUBSUB)
    assert type(found) is CacheDeniedError
    assert "channel" in found.why


async def test_a_password_where_none_is_wanted_is_no_obstacle() -> None:
    with RedisServer() as server:
        async with trio.open_nursery() as nursery:
            link = Link(Target("127.0.0.1", server.port, None, "secret"))
            with trio.fail_after(20):
                await link.open(nursery, within=20)
            link.close()


async def test_certificates_that_are_not_accepted(tmp_path: Path) -> None:
    with RedisServer(tls=True) as server, RedisServer(tls=True) as other:
        assert server.tls is not None
        assert other.tls is not None
        settings = RedisSettings(
            address=server.address, ca_certificate=str(server.tls.ca_certificate)
        )
        async with trio.open_nursery() as nursery:
            link = Link(read_target(settings))
            with trio.fail_after(20):
                await link.open(nursery, within=20)
            link.close()
        unknown = RedisSettings(
            address=server.address, ca_certificate=str(other.tls.ca_certificate)
        )
        found = await failure(read_target(unknown))
        assert type(found) is CacheIdentityError
        assert "self-signed certificate" in found.why
        assert found.key == "cache.redis.ca_certificate"
        for names, days, word, key in (
            (NAMES, -0.1, "expired", "ca_certificate"),
            (("elsewhere.example",), 1.0, "mismatch", "address"),
        ):
            server.tls.issue("server", names=names, days=days)
            server.restart()
            found = await failure(read_target(settings))
            assert type(found) is CacheIdentityError
            assert word in found.why
            assert found.key == f"cache.redis.{key}"


async def test_a_client_certificate_goes_along(tmp_path: Path) -> None:
    with RedisServer(tls=True) as server:
        assert server.tls is not None
        server.command("CONFIG", "SET", "tls-auth-clients", "yes")
        settings = RedisSettings(
            address=server.address, ca_certificate=str(server.tls.ca_certificate)
        )
        found = await failure(read_target(settings))
        assert isinstance(found, CacheUnavailableError)
        certificate, key = server.tls.issue("client", names=["node"])
        own = RedisSettings(
            **{
                **settings.model_dump(),
                "certificate": str(certificate),
                "private_key": f"file:{key}",
            }
        )
        async with trio.open_nursery() as nursery:
            link = Link(read_target(own))
            with trio.fail_after(20):
                await link.open(nursery, within=20)
            link.close()
        for change, word in (
            ({"private_key": None}, "not set"),
            ({"private_key": "file:/nowhere"}, "no such file"),
            ({"certificate": "/nowhere"}, "no such file"),
            ({"ca_certificate": "/nowhere"}, "no such file"),
        ):
            with pytest.raises(CacheIdentityError) as caught:
                read_target(RedisSettings(**{**own.model_dump(), **change}))
            assert word in caught.value.why


def test_a_password_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CacheDeniedError) as caught:
        read_target(RedisSettings(password="env:NOVACRON_TEST_NOWHERE", tls="off"))
    assert caught.value.key == "cache.redis.password"
    monkeypatch.setenv("NOVACRON_TEST_PASSWORD", "secret\n")
    found = read_target(
        RedisSettings(address="[::1]:7", password="env:NOVACRON_TEST_PASSWORD", tls="off")
    )
    assert (found.host, found.port, found.password) == ("::1", 7, "secret")
    assert found.address == "[::1]:7"
    monkeypatch.setenv("NOVACRON_TEST_PASSWORD", "secret\udcff")
    with pytest.raises(CacheDeniedError, match="not UTF-8"):
        read_target(RedisSettings(password="env:NOVACRON_TEST_PASSWORD", tls="off"))


async def test_one_side_speaks_tls_and_the_other_does_not() -> None:
    with RedisServer(tls=True) as server, RedisServer() as plain:
        found = await failure(Target("127.0.0.1", server.port))
        assert type(found) is CacheAwayError
        assert "TLS" in found.remedy
        # It waits for the end of what it takes for a line.
        target = Target("127.0.0.1", plain.port, context=ssl.create_default_context())
        found = await failure(target, within=0.3)
        assert type(found) is CacheAwayError
        assert "TLS" in found.remedy


async def test_something_that_is_not_redis() -> None:
    with RedisServer() as server, Proxy(("127.0.0.1", server.port), mode="garbage") as proxy:
        found = await failure(Target("127.0.0.1", proxy.port))
        assert type(found) is CacheProtocolError
        async with trio.open_nursery() as nursery:
            proxy.mode("pass")
            link = Link(Target("127.0.0.1", proxy.port))
            with trio.fail_after(30):
                await link.open(nursery, within=20)
                proxy.mode("garbage")
                with pytest.raises(CacheProtocolError):
                    await link.call(b"ROLE", within=20)
                await link.closed.wait()


async def test_an_old_or_cut_down_redis() -> None:
    with RedisServer(config=['rename-command EVALSHA ""']) as server:
        async with trio.open_nursery() as nursery:
            link = Link(Target("127.0.0.1", server.port), set_up=TRACKING.prepare(0, None))
            with trio.fail_after(20):
                await link.open(nursery, within=20)
                with pytest.raises(CacheProtocolError) as caught:
                    await link.call(*TRACKING.write("key", b"hidden", 1), within=20)
                await link.closed.wait()
        assert "EVALSHA" in caught.value.why
        assert "hidden" not in str(caught.value)


async def test_a_replica_is_not_used() -> None:
    with RedisServer() as server:
        server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        found = await failure(Target("127.0.0.1", server.port))
        assert type(found) is CacheReadOnlyError


async def test_a_server_with_too_many_clients() -> None:
    with RedisServer() as server:
        server.command("CONFIG", "SET", "maxclients", "1")
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as first:
            first.sendall(b"PING\r\n")
            assert first.recv(16)
            found = await failure(Target("127.0.0.1", server.port))
    assert type(found) is CacheAwayError
    assert "maxclients" in found.why


async def test_a_call_that_is_refused_or_given_up_leaves_the_connection_usable() -> None:
    with trio.fail_after(60), RedisServer() as server:
        async with trio.open_nursery() as nursery:
            proofs: list[float] = []
            link = Link(
                Target("127.0.0.1", server.port), on_proof=lambda link, sent: proofs.append(sent)
            )
            await link.open(nursery, within=20)
            server.command("RPUSH", "list", "x")
            with pytest.raises(CacheRefusedError) as caught:
                await link.call(b"GET", b"list", within=20)
            assert "WRONGTYPE" in str(caught.value) or "wrong kind" in str(caught.value)
            server.pause()
            with pytest.raises(CacheAwayError):
                await link.call(b"SET", b"key", b"1", within=0.05)
            with trio.move_on_after(0.05):
                await link.call(b"SET", b"key", b"2", within=20)
            assert not proofs
            server.resume()
            assert await link.calls((b"GET", b"key"), (b"GET", b"none"), within=20) == [b"2", None]
            assert len(proofs) == 1
            assert not link.closed.is_set()
            link.close()
            await link.closed.wait()
            with pytest.raises(CacheAwayError):
                await link.call(b"GET", b"key", within=20)
            link.post(b"GET", b"key")


async def test_a_call_on_a_connection_that_is_being_closed_fails_like_any_other() -> None:
    with trio.fail_after(60), RedisServer() as server:
        async with trio.open_nursery() as nursery:
            link = Link(Target("127.0.0.1", server.port))
            await link.open(nursery, within=20)
            link._connection._write_buffer_in.close()
            link.post(b"PING")
            with pytest.raises(CacheUnavailableError):
                await link.call(b"PING", within=20)
            await link.closed.wait()


async def test_calls_do_not_queue_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "MOST_IN_FLIGHT", 3)
    refused = []

    async def call(link: Link) -> None:
        try:
            await link.call(b"ROLE", within=20)
        except CacheRefusedError as error:
            refused.append(error)

    with trio.fail_after(60), RedisServer() as server:
        async with trio.open_nursery() as nursery:
            link = Link(Target("127.0.0.1", server.port))
            await link.open(nursery, within=20)
            async with trio.open_nursery() as callers:
                for _ in range(10):
                    callers.start_soon(call, link)
            link.close()
    assert len(refused) == 7


async def test_pushes_are_passed_on_before_answers_that_came_after_them() -> None:
    order: list[Any] = []
    with trio.fail_after(60), RedisServer() as server:
        async with trio.open_nursery() as nursery:
            link = Link(
                Target("127.0.0.1", server.port),
                set_up=[(b"CLIENT TRACKING", b"ON")],
                on_push=lambda link, message: order.append(message[1]),
            )
            await link.open(nursery, within=20)
            keys = [b"key %d" % number for number in range(300)]
            for key in keys:
                await link.call(b"GET", key, within=20)
            server.command("MSET", *(word for key in keys for word in (key, "1")))
            await link.call(b"ROLE", within=20)
            order.append("answer")
            link.close()
    assert order[-1] == "answer"
    assert sorted(key for keys in order[:-1] for key in keys) == sorted(keys)
