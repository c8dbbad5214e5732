"""The cache seam: bytes under a name, for a time, and the errors every implementation raises.

A cache may forget anything at any moment; a caller that cannot do without a value does not belong
here. Values are bytes, so that what one node writes another can read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from novacron.errors import (
    CacheError,
    DeniedError,
    InvalidError,
    LimitError,
    RemoteProtocolError,
    UnavailableError,
)
from novacron.record import Record

Loader = Callable[[], Awaitable[bytes]]


class CacheLimitError(CacheError, LimitError):
    """One value is larger than the whole cache may be."""

    code = "cache.limit"


class CacheInvalidError(CacheError, InvalidError):
    """A key is not text, a value is not bytes, or a time to live is not positive."""

    code = "cache.invalid"


class CacheUnavailableError(CacheError, UnavailableError):
    """The cache is not running, or the server behind it does not serve; see the classes below."""

    code = "cache.unavailable"


class CacheAwayError(CacheUnavailableError):
    """The server does not answer, or not in time, or is not ready yet."""

    code = "cache.away"


class CacheDeniedError(CacheUnavailableError, DeniedError):
    """The server refuses this node's credentials, or what their user may do is not enough."""

    code = "cache.denied"


class CacheIdentityError(CacheUnavailableError):
    """TLS: the server is not who it has to be, or its certificate is no good."""

    code = "cache.identity"


class CacheFullError(CacheUnavailableError, LimitError):
    """The server takes no more values: its memory, or the disk it has to write to, is full."""

    code = "cache.full"


class CacheFrozenError(CacheUnavailableError):
    """The server takes no changes, not even that a value is removed: it cannot save them, or lacks
    the replicas that it must have."""

    code = "cache.frozen"


class CacheReadOnlyError(CacheUnavailableError):
    """The server is a replica, which others change behind its back."""

    code = "cache.read_only"


class CacheProtocolError(CacheUnavailableError, RemoteProtocolError):
    """What answers speaks something else than Redis does."""

    code = "cache.protocol"


class CacheRefusedError(CacheUnavailableError):
    """The server refused one command, for a reason that concerns that command alone."""

    code = "cache.refused"


class CacheStatistics(Record):
    """Counted since the cache was made, except the last three, which say how it is now."""

    hits: int
    misses: int
    sets: int
    deletes: int
    loads: int
    """Loaders that were run."""
    load_failures: int
    evictions: int
    """Entries dropped before their time because the cache was full."""
    oversize: int
    """Values refused, or loaded and not kept, because they are larger than the cache."""
    entries: int
    bytes: int
    """What the entries count against the limit: keys, values and a fixed amount each."""
    max_bytes: int

    @property
    def hit_rate(self) -> float:
        """Share of the reads that were hits; 0.0 before the first read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0


class CacheStore(Protocol):
    """One cache. *ttl* is always seconds; ``None`` takes the configured ``cache.ttl``."""

    def get_nowait(self, key: str) -> bytes | None:
        """The value if it is in this process's memory. A value that is not may be elsewhere."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value, or None where there is none or its time is over."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Keep *value*, replacing what was there and starting its time anew.

        Raises:
          CacheLimitError: larger than the whole cache; what was there before is gone.
          CacheInvalidError: *key*, *value* or *ttl* is not usable.
        """
        ...

    async def delete(self, key: str) -> bool:
        """Forget *key*, also for a load that is running now; whether there was a value."""
        ...

    async def get_or_load(self, key: str, loader: Loader, *, ttl: float | None = None) -> bytes:
        """The value, made by *loader* where there is none.

        One loader runs for a key at a time, whoever asks: the others wait and get its value or
        its exception. A caller who is cancelled leaves alone; when it was the one that ran the
        loader, one of those waiting takes over with its own. A value that was set, deleted or
        cleared while the loader ran is newer than what it returns, which is then given to those
        who waited and not kept. A value too large to keep is returned all the same.
        """
        ...

    async def clear(self) -> None:
        """Forget everything, also for loads that are running now."""
        ...

    def statistics(self) -> CacheStatistics: ...
