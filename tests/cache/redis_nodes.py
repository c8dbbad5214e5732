"""Caches on a private Redis, as several nodes of one cluster would have them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from bench.servers.redis import RedisServer
from novacron.cache.redis import RedisCache
from novacron.cache.redis_keeper import Keeper
from novacron.cache.redis_language import Language
from novacron.cache.redis_link import Link, Target, now

_prefixes = count(1)


def new_prefix() -> str:
    """For one test: nothing in the server begins with it."""
    return f"test{next(_prefixes)}-[*]:"


class Clock:
    """What entries in memory live by; :attr:`shift` seconds ahead of the real one."""

    def __init__(self) -> None:
        self.shift = 0.0

    def __call__(self) -> float:
        return now() + self.shift


class Node:
    """One cache, and what keeps it connected."""

    def __init__(
        self,
        prefix: str,
        port: int,
        *,
        publishing: bool = False,
        max_staleness: float = 1.0,
        timeout: float = 0.5,
        settle: bool = False,
        **options: Any,
    ) -> None:
        self.lifetimes = Clock()
        self.cache = RedisCache(
            Language(prefix, publishing=publishing),
            max_bytes=options.pop("max_bytes", 64 * 1024),
            ttl=options.pop("ttl", 60.0),
            max_staleness=max_staleness,
            timeout=timeout,
            lifetimes=self.lifetimes,
        )
        self.target = Target("127.0.0.1", port, **options)
        self.keeper = Keeper(self.cache, self._target, connect_timeout=5.0, settle=settle)

    async def _target(self) -> Target:
        return self.target

    @property
    def link(self) -> Link:
        """The connection in use."""
        link = self.cache._link
        assert link is not None
        return link

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[RedisCache]:
        async with trio.open_nursery() as nursery:
            await nursery.start(_keep, self.keeper)
            yield self.cache
            nursery.cancel_scope.cancel()

    async def all_heard(self) -> None:
        """Return when what Redis has said so far has been acted on."""
        await self.link.call(b"ROLE", within=20)

    async def wait_reading(self) -> None:
        while not self.cache.reading:
            await trio.sleep(0.005)

    async def wait_alone(self) -> None:
        while self.cache.reading:
            await trio.sleep(0.005)


async def _keep(keeper: Keeper, task_status: trio.TaskStatus[None]) -> None:
    await keeper.run(task_status=task_status)


def age_server(server: RedisServer, seconds: float) -> None:
    """Have every key in the server end that much sooner."""
    names = server.command("KEYS", "*")
    assert isinstance(names, list)
    for name in names:
        assert isinstance(name, bytes)
        left = server.command("PTTL", name)
        assert isinstance(left, int)
        if left >= 0:
            server.command("PEXPIRE", name, left - round(seconds * 1000))


def wait_connections(server: RedisServer, wanted: int, within: float = 20.0) -> None:
    """Block until the server has that many clients beside the control connection."""
    give_up = time.monotonic() + within
    while True:
        info = server.command("INFO", "clients")
        assert isinstance(info, bytes)
        if f"connected_clients:{wanted + 1}\r" in info.decode():
            return
        assert time.monotonic() < give_up, info
        time.sleep(0.005)
