"""Values kept for a while: a seam, and this process's memory behind it."""

from __future__ import annotations

from novacron.cache.component import Cache
from novacron.cache.store import CacheStatistics, CacheStore, Loader

__all__ = ["Cache", "CacheStatistics", "CacheStore", "Loader"]
