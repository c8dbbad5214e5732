"""The cache component."""

from __future__ import annotations

import typing
from typing import cast

import pytest
import trio

from novacron.cache import Cache
from novacron.cache.store import CacheUnavailableError
from novacron.component import Component, HealthDepth, HealthState
from novacron.config.schema import CacheSettings
from novacron.security import Security


def new_cache() -> Cache:
    return Cache(cast(Security, None), CacheSettings(max_bytes=4096, ttl=60.0))


async def test_it_serves_from_start_to_stop(autojump_clock: trio.testing.MockClock) -> None:
    cache = new_cache()
    assert (await cache.health_check(HealthDepth.DEEP)).state is HealthState.UNKNOWN
    assert cache.statistics() == {}
    async with trio.open_nursery() as nursery:
        await cache.initialize(nursery)

        async def load() -> bytes:
            await trio.sleep(1)
            return b"loaded"

        await cache.set("key", b"value", ttl=5.0)
        assert await cache.get("key") == b"value"
        assert cache.get_nowait("key") == b"value"
        assert await cache.get_or_load("other", load) == b"loaded"
        assert await cache.delete("key")
        await cache.clear()
        assert await cache.get("other") is None
        assert (await cache.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY
        figures = cache.statistics()
        assert figures["engine"] == "memory"
        assert figures["max_bytes"] == 4096
        assert figures["hits"] == 2
        await cache.shutdown()
    with pytest.raises(CacheUnavailableError):
        await cache.get("key")


async def test_it_starts_empty_again_after_a_stop() -> None:
    cache = new_cache()
    async with trio.open_nursery() as nursery:
        await cache.initialize(nursery)
        await cache.set("key", b"value")
        await cache.shutdown()
        await cache.initialize(nursery)
        assert await cache.get("key") is None
        await cache.shutdown()
        await cache.shutdown()


def test_the_engine_can_read_the_constructor() -> None:
    hints = typing.get_type_hints(Cache.__init__)
    assert issubclass(hints["security"], Component)
    assert hints["settings"] is CacheSettings
