"""How many denials are recorded one by one, and what is counted past that. Pure: the caller brings the clock.

Anybody who reaches a port can be denied as often as the network lets him, and a record is some 500
bytes and a write to the disk. So each source has a budget for each window, all together have one, and
what is above it becomes one record that says how many there were, of whom, and since when.
"""

from __future__ import annotations

from typing import Any

WINDOW = 60.0
"""Seconds. A summary comes at most so late, and a source that erred is back to whole records by then."""
PER_SOURCE = 10
"""Denials of one source recorded in full in a window: a person who mistypes makes fewer."""
IN_ALL = 60
"""Of all sources: at 500 bytes each the most an attacker fills is 45 MB a day, however many addresses
he has."""
NAMED = 20
"""Sources a summary counts by name; the rest together."""


class DenialBudget:
    """What may still be recorded in this window, and what was counted instead."""

    def __init__(self) -> None:
        self._started = float("-inf")
        self._recorded = 0
        self._by_source: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._others = 0
        self._first = self._last = 0.0

    @property
    def left_out(self) -> int:
        """Denials that were counted and are in no summary yet."""
        return sum(self._left_out.values()) + self._others

    def admit(self, source: str, now: float) -> bool:
        """Whether a denial of *source*, an address with or without a port, is recorded in full; if
        not it is counted. *now*: seconds of a monotonic clock."""
        if now - self._started >= WINDOW:
            self._started, self._recorded = now, 0
            self._by_source = {}
        host = _host(source)
        used = self._by_source.get(host, 0)
        if used < PER_SOURCE and self._recorded < IN_ALL:
            self._by_source[host] = used + 1
            self._recorded += 1
            return True
        if not self.left_out:
            self._first = now
        self._last = now
        if host in self._left_out or len(self._left_out) < NAMED:
            self._left_out[host] = self._left_out.get(host, 0) + 1
        else:
            self._others += 1
        return False

    def due(self, now: float) -> bool:
        """Whether there is something to say, and it is time."""
        return self.left_out > 0 and now - self._first >= WINDOW

    def take(self) -> dict[str, Any]:
        """The summary of what was counted, which starts anew."""
        summary = {
            "denials": self.left_out,
            "seconds": round(self._last - self._first, 3),
            "sources": dict(self._left_out),
            "other_sources": self._others,
        }
        self._left_out, self._others = {}, 0
        return summary

    def put_back(self, summary: dict[str, Any], now: float) -> None:
        """*summary* could not be recorded: its denials are in the next one."""
        if not self.left_out:
            self._first = self._last = now
        self._others += int(summary["denials"])


def _host(source: str) -> str:
    """*source* without the port that a peer's has: each connection has another one."""
    if source.startswith("["):
        return source[1:].partition("]")[0]
    return source.partition(":")[0] if source.count(":") == 1 else source
