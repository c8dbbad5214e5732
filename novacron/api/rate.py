"""Token buckets: who may call again, and when. Pure: the caller brings the clock."""

from __future__ import annotations

from collections import OrderedDict

CAPACITY = 10_000
"""Buckets kept. A client that is forgotten starts with a full one, so forgetting the one that was
quiet for longest gives nobody more than ``burst`` extra; 10,000 take about 2 MiB."""


class Buckets:
    """One bucket a key, each filled with ``rate`` tokens a second up to ``burst``."""

    def __init__(self, rate: float, burst: int, capacity: int = CAPACITY) -> None:
        self.rate = rate
        self.burst = burst
        self._capacity = capacity
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Key to tokens left and when that was, least recently used first."""

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: str, now: float, cost: float = 1.0) -> float:
        """Take *cost* tokens; 0.0 when they were there, else the seconds until they are.

        *cost* above ``burst`` is taken as ``burst``: a call that could never pass would be a ban.
        """
        cost = min(cost, float(self.burst))
        level = self._level(key, now)
        missing = cost - level
        if missing <= 0:
            level = -missing
        self._levels[key] = (level, now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._capacity:
            self._levels.popitem(last=False)
        return max(0.0, missing / self.rate)

    def adjust(self, rate: float, burst: int) -> None:
        """New limits from now on; what callers have saved up is capped at the new burst."""
        self.rate = rate
        self.burst = burst

    def _level(self, key: str, now: float) -> float:
        level, then = self._levels.get(key, (float(self.burst), now))
        return min(float(self.burst), level + max(0.0, now - then) * self.rate)


def address_key(host: str) -> str:
    """The bucket of a caller known by address alone. An IPv6 client has a whole /64 to call from,
    so the first four groups are the client."""
    if ":" not in host:
        return f"address {host}"
    import ipaddress

    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return f"address {address.ipv4_mapped}"
    return f"address {ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
