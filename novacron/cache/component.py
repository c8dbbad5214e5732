"""The node's cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import trio

from novacron.cache.memory import MemoryCache
from novacron.cache.store import CacheUnavailableError, Loader
from novacron.component import (
    HEALTHY,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    ObservableComponent,
    Phase,
)
from novacron.config.schema import CacheSettings
from novacron.security import Security


class Cache(ObservableComponent):
    """A :class:`~novacron.cache.store.CacheStore` once it is initialized.

    Args:
      security: started first; an engine on the network takes its credentials from it.
    """

    name: ClassVar[str] = "cache"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.DEGRADED

    def __init__(self, security: Security, settings: CacheSettings) -> None:
        self._security = security
        self._settings = settings
        self._store: MemoryCache | None = None

    @property
    def store(self) -> MemoryCache:
        """The open cache, for callers that ask often. Raises :class:`CacheUnavailableError` while
        there is none."""
        if self._store is None:
            raise CacheUnavailableError(
                "the cache is not running",
                why="its component has not started or has stopped",
                remedy="do without it",
            )
        return self._store

    async def initialize(self, nursery: trio.Nursery) -> None:
        self._store = MemoryCache(max_bytes=self._settings.max_bytes, ttl=self._settings.ttl)

    async def shutdown(self) -> None:
        self._store = None

    async def health_check(self, depth: HealthDepth) -> Health:
        return HEALTHY if self._store is not None else Health(HealthState.UNKNOWN, "not running")

    def statistics(self) -> Mapping[str, Any]:
        if self._store is None:
            return {}
        figures = self._store.statistics()
        return {"engine": "memory", "hit_rate": round(figures.hit_rate, 4), **figures._asdict()}

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
