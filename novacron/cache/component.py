"""The node's cache."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from novacron.cache.memory import MemoryCache
from novacron.cache.store import CacheUnavailableError, Loader
from novacron.component import (
    HEALTHY,
    Criticality,
    DegradableComponent,
    Health,
    HealthDepth,
    HealthState,
    ObservableComponent,
    Phase,
)
from novacron.config.schema import CacheSettings
from novacron.security import Security

if TYPE_CHECKING:
    from novacron.cache.redis import RedisCache
    from novacron.cache.redis_keeper import Keeper
    from novacron.cache.redis_link import Target

_log = logging.getLogger("novacron.cache")

PREFIX_DIGITS = 16
"""Of the hash of the cluster's authority: clusters that share a Redis by mistake do not meet."""


class Cache(DegradableComponent, ObservableComponent):
    """A :class:`~novacron.cache.store.CacheStore` once it is initialized.

    With ``cache.engine`` redis, what the store does while there is no Redis is the store's: the
    fallback is the same object without a connection. It is lost at boot only; a connection that is
    lost later is made again without end, and :meth:`health_check` says so meanwhile.

    Args:
      security: started first; it names the cluster, and reads the credentials.
    """

    name: ClassVar[str] = "cache"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.DEGRADED

    def __init__(self, security: Security, settings: CacheSettings) -> None:
        self._security = security
        self._settings = settings
        self._store: MemoryCache | RedisCache | None = None
        self._redis: RedisCache | None = None
        self._keeper: Keeper | None = None
        self._falls_back = False
        if settings.engine == "redis":
            # While the node is put together, not while it starts: it takes 0.2 s, in which the
            # event loop would stand still.
            for module in ("redis_access", "redis_keeper"):
                import_module(f"novacron.cache.{module}")

    @property
    def store(self) -> MemoryCache | RedisCache:
        """The open cache, for callers that ask often. Raises :class:`CacheUnavailableError` while
        there is none."""
        if self._store is None:
            raise CacheUnavailableError(
                "the cache is not running",
                why="its component has not started or has stopped",
                remedy="do without it",
            )
        return self._store

    @property
    def shared(self) -> bool:
        """Whether what is changed here reaches every node that uses this cache at once. Always so
        for a cache in memory, which no other node uses."""
        return self._store is not None and (self._redis is None or self._redis.shared)

    # The component contract -----------------------------------------------------------------------

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Raises :class:`CacheUnavailableError`: Redis cannot be used; its class tells why."""
        if self._settings.engine == "memory":
            self._store = MemoryCache(max_bytes=self._settings.max_bytes, ttl=self._settings.ttl)
            return
        from novacron.cache.redis_keeper import Keeper

        store = self._open_redis()
        keeper = Keeper(
            store,
            self._target,
            database=self._settings.redis.database,
            connect_timeout=self._settings.redis.connect_timeout,
            settle=self._falls_back,
        )
        await nursery.start(_keep, keeper)
        self._store, self._keeper = store, keeper

    async def initialize_fallback(self, nursery: trio.Nursery) -> None:
        """The same store, for this node alone."""
        self._store = self._open_redis()
        self._falls_back = True

    async def shutdown(self) -> None:
        self._keeper = None
        if not self._falls_back:
            self._store = self._redis = None

    async def shutdown_fallback(self) -> None:
        self._falls_back = False
        if self._keeper is None:
            self._store = self._redis = None

    async def health_check(self, depth: HealthDepth) -> Health:
        if self._store is None:
            return Health(HealthState.UNKNOWN, "not running")
        redis = self._redis
        if redis is None or (redis.reading and redis.trouble is None):
            return HEALTHY
        if redis.reading:
            error = redis.trouble
        else:
            error = self._keeper.error if self._keeper is not None else None
        if error is None:
            return Health(
                HealthState.DEGRADED,
                "in memory for this node alone, until the nodes have told Redis what changed",
            )
        return Health(
            HealthState.DEGRADED,
            f"{error.what}: {error.why}",
            {"remedy": error.remedy, "key": error.key},
        )

    def statistics(self) -> Mapping[str, Any]:
        if self._store is None:
            return {}
        figures = self._store.statistics()
        found = {
            "engine": self._settings.engine,
            "hit_rate": round(figures.hit_rate, 4),
            **figures._asdict(),
        }
        if self._redis is not None:
            found |= {
                "reading": self._redis.reading,
                "shared": self._redis.shared,
                "connections": self._keeper.connections if self._keeper else 0,
            }
        return found

    def _open_redis(self) -> RedisCache:
        if self._redis is None:
            from novacron.cache.redis import RedisCache
            from novacron.cache.redis_language import Language

            settings = self._settings.redis
            prefix = settings.prefix
            if prefix is None:
                # The cluster's name, which stays when its authority's key is replaced: nodes that
                # have heard of it and nodes that have not must go on meeting.
                cluster = self._security.certificates.cluster_hashes()[0]
                prefix = f"novacron:{cluster[:PREFIX_DIGITS]}:"
            if settings.tls == "off" and settings.password is not None:
                _log.warning(
                    "The password for Redis and all values go over the network in the clear "
                    "(cache.redis.tls is off)."
                )
            self._redis = RedisCache(
                Language(prefix, publishing=settings.coherency == "pubsub"),
                max_bytes=self._settings.max_bytes,
                ttl=self._settings.ttl,
                max_staleness=settings.max_staleness,
                timeout=settings.timeout,
            )
        return self._redis

    async def _target(self) -> Target:
        from novacron.cache.redis_access import read_target

        return await trio.to_thread.run_sync(
            read_target, self._settings.redis, abandon_on_cancel=True
        )

    # The store ------------------------------------------------------------------------------------

    def get_nowait(self, key: str) -> bytes | None:
        """The value if it is in this process's memory. Never blocks."""
        return self.store.get_nowait(key)

    async def get(self, key: str) -> bytes | None:
        return await self.store.get(key)

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        await self.store.set(key, value, ttl=ttl)

    async def delete(self, key: str) -> bool:
        return await self.store.delete(key)

    async def get_or_load(self, key: str, loader: Loader, *, ttl: float | None = None) -> bytes:
        return await self.store.get_or_load(key, loader, ttl=ttl)

    async def clear(self) -> None:
        await self.store.clear()


async def _keep(keeper: Keeper, task_status: trio.TaskStatus[None]) -> None:
    await keeper.run(task_status=task_status)
