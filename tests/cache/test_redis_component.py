"""The cache component on Redis: at boot, away, and back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from bench.processes import free_port
from bench.servers.redis import RedisServer
from novacron.cache import Cache
from novacron.cache.store import CacheAwayError, CacheDeniedError, CacheUnavailableError
from novacron.component import HealthDepth, HealthState
from novacron.config.schema import CacheSettings
from novacron.security import Security
from tests.cache.redis_nodes import new_prefix


class FakeSecurity:
    """What the component needs of the real one."""

    class certificates:
        @staticmethod
        def cluster_hashes() -> tuple[str, ...]:
            return ("0123456789abcdef" * 4,)


def new_cache(address: str, **settings: Any) -> Cache:
    redis = {"address": address, "tls": "off", "max_staleness": 0.4, "timeout": 0.2} | settings
    return Cache(
        cast(Security, FakeSecurity()),
        CacheSettings.model_validate({"engine": "redis", "redis": redis}),
    )


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def test_it_serves_from_start_to_stop(redis_server: RedisServer, no_leaks: None) -> None:
    cache = new_cache(redis_server.address, prefix=new_prefix(), max_staleness=60)
    assert cache.statistics() == {}
    assert not cache.shared
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await cache.initialize(nursery)
            await cache.set("key", b"value", ttl=60.0)
            assert await cache.get("key") == b"value"
            assert cache.get_nowait("key") == b"value"
            assert await cache.delete("key")
            assert (await cache.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY
            figures = cache.statistics()
            assert (figures["engine"], figures["hits"]) == ("redis", 2)
            assert figures["shared"]
            assert cache.shared
            await cache.shutdown()
            nursery.cancel_scope.cancel()
    with pytest.raises(CacheUnavailableError):
        await cache.get("key")


async def test_the_keys_of_clusters_differ_by_their_authority(server: RedisServer) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            cache = new_cache(server.address, database=3)
            await cache.initialize(nursery)
            await cache.set("key", b"value")
            await cache.shutdown()
            nursery.cancel_scope.cancel()
    info = server.command("INFO", "keyspace")
    assert isinstance(info, bytes)
    assert b"db3:keys=2" in info, "the value, and whose the keys are"
    server.command("SWAPDB", "0", "3")
    assert server.command("EXISTS", "novacron:0123456789abcdef:v:key") == 1


async def test_a_start_without_redis_fails_at_once_and_the_fallback_serves() -> None:
    cache = new_cache(f"127.0.0.1:{free_port()}")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with pytest.raises(CacheAwayError) as caught:
                await cache.initialize(nursery)
            assert not caught.value.retryable, "no boot waits for it"
            await cache.shutdown()
            await cache.initialize_fallback(nursery)
            await cache.set("key", b"value")
            with pytest.raises(CacheAwayError):
                await cache.initialize(nursery)
            await cache.shutdown()
            assert cache.get_nowait("key") == b"value", "the fallback was not disturbed"
            assert not cache.shared
            health = await cache.health_check(HealthDepth.DEEP)
            assert health.state is HealthState.DEGRADED
            await cache.shutdown_fallback()
            nursery.cancel_scope.cancel()
    with pytest.raises(CacheUnavailableError):
        cache.get_nowait("key")


async def test_what_the_fallback_changed_is_told_when_it_is_restored(server: RedisServer) -> None:
    cache = new_cache(server.address, prefix="test:")
    server.command("SET", "test:v:key", "old")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await cache.initialize_fallback(nursery)
            await cache.set("key", b"value")
            await cache.initialize(nursery)
            await cache.shutdown_fallback()
            assert cache.shared
            while (await cache.health_check(HealthDepth.DEEP)).state is not HealthState.HEALTHY:
                await trio.sleep(0.01)
            assert await cache.get("key") is None
            await cache.shutdown()
            nursery.cancel_scope.cancel()


async def test_losing_redis_degrades_it_and_it_comes_back_by_itself(server: RedisServer) -> None:
    cache = new_cache(server.address, prefix="test:")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await cache.initialize(nursery)
            await cache.set("key", b"1")
            server.kill()
            while (await cache.health_check(HealthDepth.SHALLOW)).state is HealthState.HEALTHY:
                await trio.sleep(0.01)
            await cache.set("key", b"2")
            assert await cache.get("key") == b"2"
            while not (health := await cache.health_check(HealthDepth.DEEP)).details:
                await trio.sleep(0.01)
            assert health.state is HealthState.DEGRADED
            assert server.address in health.message
            assert health.details["key"] == "cache.redis.address"
            assert health.details["remedy"]
            server.start()
            while (await cache.health_check(HealthDepth.DEEP)).state is not HealthState.HEALTHY:
                await trio.sleep(0.01)
            await cache.set("key", b"3")
            assert server.command("GET", "test:v:key") == b"3"
            await cache.shutdown()
            nursery.cancel_scope.cancel()


async def test_a_password_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("first\n")
    with trio.fail_after(60), RedisServer(users={"node": ("first", "~* &* +@all")}) as server:
        cache = new_cache(server.address, user="node", password=f"file:{secret}")
        async with trio.open_nursery() as nursery:
            await cache.initialize(nursery)
            server.command("ACL", "SETUSER", "node", ">second", "<first")
            server.command("CLIENT", "KILL", "USER", "node")
            while not (health := await cache.health_check(HealthDepth.DEEP)).details:
                await trio.sleep(0.01)
            while (
                "credentials" not in (health := await cache.health_check(HealthDepth.DEEP)).message
            ):
                await trio.sleep(0.01)
            assert health.details["key"] == "cache.redis.password"
            secret.write_text("second\n")
            while (await cache.health_check(HealthDepth.DEEP)).state is not HealthState.HEALTHY:
                await trio.sleep(0.01)
            await cache.shutdown()
            with pytest.raises(CacheDeniedError):
                secret.write_text("third\n")
                await cache.initialize(nursery)
            nursery.cancel_scope.cancel()


def test_a_node_without_redis_imports_nothing_of_it() -> None:
    script = (
        "import sys; from novacron.node import component_classes; component_classes(); "
        "from novacron.cache import Cache; from novacron.config.schema import CacheSettings; "
        "Cache(None, CacheSettings()); "
        "print([m for m in sys.modules if 'redis' in m])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert result.stdout.strip() == "[]"
