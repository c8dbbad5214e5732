"""One sample of ``python -m bench cache``: JSON in, JSON out. ``python -m bench.cache_worker``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import trio
import trio.lowlevel

from bench.harness import percentile
from novacron.cache import Cache
from novacron.config.schema import CacheSettings
from novacron.security import Security

_WARM_UP = 0.2
"""Of the sample's length, before anything counts."""
_HITS = 1000
"""Hits in memory between two looks at the clock, which costs as much as one."""
_VALUE = b"x" * 64
KEYS = 400_000


def component(request: dict[str, Any]) -> Cache:
    security = SimpleNamespace(
        certificates=SimpleNamespace(cluster_hashes=lambda: ("0" * 64,)),
    )
    settings = {"engine": request["engine"]}
    if request["engine"] == "redis":
        settings["redis"] = {
            "address": request["address"],
            "tls": "off",
            "prefix": request["prefix"],
            "coherency": request["coherency"],
            # Two ends of the machine wait for each other here; a busy moment is no outage.
            "timeout": 5.0,
            "max_staleness": 20.0,
        }
    return Cache(cast(Security, security), CacheSettings.model_validate(settings))


@asynccontextmanager
async def running(request: dict[str, Any]) -> AsyncIterator[Cache]:
    cache = component(request)
    async with trio.open_nursery() as nursery:
        await cache.initialize(nursery)
        try:
            yield cache
        finally:
            await cache.shutdown()
            nursery.cancel_scope.cancel()


async def memory_hits(request: dict[str, Any]) -> dict[str, float]:
    """Hits a second, through the component."""
    async with running(request) as cache:
        await cache.set("key", _VALUE)
        began, hits, seconds = time.perf_counter(), 0, request["seconds"]
        while time.perf_counter() - began < seconds:
            if request["work"] == "get":
                for _ in range(_HITS):
                    await cache.get("key")
            else:
                for _ in range(_HITS):
                    cache.get_nowait("key")
            hits += _HITS
        return {"rate": hits / (time.perf_counter() - began)}


async def repeated(
    operation: Callable[[int], Awaitable[object]], tasks: int, seconds: float
) -> dict[str, float]:
    """Operations a second of *tasks* tasks; each gets another number each time."""
    begin = time.perf_counter() + seconds * _WARM_UP
    end = begin + seconds
    latencies: list[float] = []

    async def repeat(number: int) -> None:
        while (started := time.perf_counter()) < end:
            await operation(number % KEYS)
            number += tasks
            if started >= begin:
                latencies.append(time.perf_counter() - started)

    async with trio.open_nursery() as nursery:
        for number in range(tasks):
            nursery.start_soon(repeat, number)
    return {
        "rate": len(latencies) / seconds,
        "p50_us": percentile(latencies, 0.5) * 1e6,
        "p99_us": percentile(latencies, 0.99) * 1e6,
    }


async def redis_hits(request: dict[str, Any]) -> dict[str, float]:
    """Values that another one has written: found in Redis, not yet in memory."""
    async with running(request) as cache:

        async def read(number: int) -> None:
            if await cache.get(f"key:{number}") is None:
                raise AssertionError(f"key:{number} is not there")

        return await repeated(read, request["tasks"], request["seconds"])


async def redis_writes(request: dict[str, Any]) -> dict[str, float]:
    async with running(request) as cache:

        async def write(number: int) -> None:
            await cache.set(f"written:{number % 1000}", _VALUE)

        return await repeated(write, request["tasks"], request["seconds"])


async def driver(request: dict[str, Any]) -> dict[str, float]:
    """The same with coredis alone."""
    from coredis import Redis

    host, _, port = request["address"].rpartition(":")
    async with Redis(host=host, port=int(port)) as redis:

        async def read(number: int) -> None:
            if await redis.get(f"{request['prefix']}v:key:{number}") is None:
                raise AssertionError(f"key:{number} is not there")

        async def write(number: int) -> None:
            await redis.set(f"{request['prefix']}plain:{number % 1000}", _VALUE, px=300_000)

        operation = read if request["work"] == "read" else write
        return await repeated(operation, request["tasks"], request["seconds"])


async def invalidations(request: dict[str, Any]) -> dict[str, float]:
    """Seconds from before a change until another node's memory has not the old value any more."""
    latencies = []
    async with running(request) as writer, running(request) as reader:
        begin = time.perf_counter()
        number = 0
        while time.perf_counter() - begin < request["seconds"]:
            number += 1
            key, old = f"shared:{number % 100}", b"%d" % number
            await writer.set(key, old)
            while await reader.get(key) != old:
                await trio.lowlevel.checkpoint()
            started = time.perf_counter()
            await writer.set(key, b"new")
            while reader.get_nowait(key) == old:
                await trio.lowlevel.checkpoint()
            latencies.append(time.perf_counter() - started)
    return {
        "p50_us": percentile(latencies, 0.5) * 1e6,
        "p99_us": percentile(latencies, 0.99) * 1e6,
        "changes": float(len(latencies)),
    }


_SUBJECTS: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, float]]]] = {
    "memory_hits": memory_hits,
    "redis_hits": redis_hits,
    "redis_writes": redis_writes,
    "driver": driver,
    "invalidations": invalidations,
}

if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    print(json.dumps(trio.run(_SUBJECTS[wanted["subject"]], wanted)))
