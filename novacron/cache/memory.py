"""The cache in this process's memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import trio
from cachetools import TLRUCache

from novacron.cache.flights import Flight, Flights
from novacron.cache.store import (
    CacheInvalidError,
    CacheLimitError,
    CacheStatistics,
    Loader,
)
from novacron.observe import Counter, Gauge

Entry = tuple[bytes, float, int]
"""Value, seconds to live, bytes it counts for."""

ENTRY_BYTES = 560
"""What one entry costs besides the bytes of key and value: the objects' headers, this tuple, the
dictionary slots, the expiry heap's item and the removed item that may still lie beside it. Measured
as resident memory for each of 300,000 small entries that were all overwritten twice (CPython 3.11:
515 bytes), rounded up."""

HITS = Counter("novacron_cache_hits_total", "Reads that found a value.", ("engine",))
MISSES = Counter("novacron_cache_misses_total", "Reads that found none.", ("engine",))
EVICTIONS = Counter(
    "novacron_cache_evictions_total",
    "Entries dropped before their time because the cache was full.",
    ("engine",),
)
LOADS = Counter("novacron_cache_loads_total", "Loaders that were run.", ("engine",))
BYTES = Gauge("novacron_cache_bytes", "What the entries count against the limit.", ("engine",))

ENGINE = "memory"


class _Entries(TLRUCache[str, Entry]):
    """Counts what had to go before its time."""

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        super().__init__(
            maxsize=max_bytes,
            ttu=lambda _key, entry, now: now + entry[1],
            timer=clock,
            getsizeof=lambda entry: entry[2],
        )
        self.evictions = 0

    def popitem(self) -> tuple[str, Entry]:
        self.evictions += 1
        EVICTIONS.inc(ENGINE)
        return super().popitem()


class MemoryCache:
    """A :class:`~novacron.cache.store.CacheStore` that holds at most *max_bytes*.

    Nothing here blocks: the methods are async because the seam is, and return without a
    checkpoint (:meth:`get_or_load` apart). :meth:`get_nowait` is the same path without a coroutine.
    For use by one thread. *ttl* is in seconds, *clock* monotonic.
    """

    def __init__(
        self, *, max_bytes: int, ttl: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._entries = _Entries(max_bytes, clock)
        self._flights = Flights()
        self._hits = 0
        self._misses = 0
        self._sets = 0
        self._deletes = 0
        self._load_count = 0
        self._load_failures = 0
        self._oversize = 0

    def get_nowait(self, key: str) -> bytes | None:
        """Like :meth:`get`."""
        try:
            value = self._entries[key][0]
        except KeyError:
            self._misses += 1
            MISSES.inc(ENGINE)
            return None
        self._hits += 1
        HITS.inc(ENGINE)
        return value

    async def get(self, key: str) -> bytes | None:
        return self.get_nowait(key)

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        entry = self._entry(key, value, ttl)
        self._flights.forget(key)
        if not self._keep(key, entry):
            raise too_large(entry[2], self._max_bytes)
        self._sets += 1

    async def delete(self, key: str) -> bool:
        self._flights.forget(key)
        if not self.forget(key):
            return False
        self._deletes += 1
        return True

    async def get_or_load(self, key: str, loader: Loader, *, ttl: float | None = None) -> bytes:
        await trio.lowlevel.checkpoint()

        async def load(flight: Flight) -> bytes:
            return await self._load(key, loader, ttl, flight)

        return await self._flights.run(key, self.get_nowait, load)

    async def clear(self) -> None:
        self._flights.clear()
        self.empty()

    # For a cache that has this one before it -----------------------------------------------------

    def size(self, key: str, value: bytes, ttl: float | None) -> int:
        """Bytes the entry would count for. Raises :class:`CacheInvalidError` as :meth:`set` does."""
        return self._entry(key, value, ttl)[2]

    def keep(self, key: str, value: bytes, ttl: float) -> bool:
        """Like :meth:`set`, uncounted, and nothing to a load; whether there was room for it."""
        return self._keep(key, self._entry(key, value, ttl))

    def forget(self, key: str) -> bool:
        """Like :meth:`delete`, uncounted, and nothing to a load."""
        return self._entries.pop(key, None) is not None

    def empty(self) -> None:
        """Like :meth:`clear`, and nothing to a load."""
        # Not entries.clear(): some releases drop one entry after the other as if evicted.
        entries = _Entries(self._max_bytes, self._clock)
        entries.evictions = self._entries.evictions
        self._entries = entries
        BYTES.set(0, ENGINE)

    def statistics(self) -> CacheStatistics:
        self._entries.expire()
        return CacheStatistics(
            hits=self._hits,
            misses=self._misses,
            sets=self._sets,
            deletes=self._deletes,
            loads=self._load_count,
            load_failures=self._load_failures,
            evictions=self._entries.evictions,
            oversize=self._oversize,
            entries=len(self._entries),
            bytes=int(self._entries.currsize),
            max_bytes=self._max_bytes,
        )

    async def _load(self, key: str, loader: Loader, ttl: float | None, flight: Flight) -> bytes:
        self._load_count += 1
        LOADS.inc(ENGINE)
        try:
            value = await loader()
            entry = self._entry(key, value, ttl)
        except Exception:
            self._load_failures += 1
            raise
        if self._flights.current(key, flight):
            self._keep(key, entry)
        return value

    def _keep(self, key: str, entry: Entry) -> bool:
        if entry[2] > self._max_bytes:
            self._entries.pop(key, None)
            self._oversize += 1
            return False
        self._entries[key] = entry
        BYTES.set(self._entries.currsize, ENGINE)
        return True

    def _entry(self, key: str, value: bytes, ttl: float | None) -> Entry:
        seconds = self._ttl if ttl is None else ttl
        if not isinstance(key, str) or not isinstance(value, bytes) or not seconds > 0:
            raise CacheInvalidError(
                "the cache refused an entry",
                why="keys are text, values are bytes, and times to live are positive",
                remedy="this is a defect in NovaCron; report it with this message",
            )
        # Characters may take up to four bytes each in memory.
        width = len(key) if key.isascii() else sys.getsizeof(key)
        return value, seconds, len(value) + width + ENTRY_BYTES


def too_large(size: int, max_bytes: int) -> CacheLimitError:
    return CacheLimitError(
        "a value is too large for the cache",
        why=f"with its key it takes {size} bytes, the whole cache has {max_bytes}",
        remedy="do without caching it, or raise the limit",
        key="cache.max_bytes",
    )
