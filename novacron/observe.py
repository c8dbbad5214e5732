"""Cheap metric handles that every layer may use; who exports them is nobody's business here.

A handle costs a dict update. The monitoring component reads :func:`collect` when it is scraped and
turns families into Prometheus exposition; without it the numbers just sit here. Names follow
Prometheus conventions (``novacron_…_total``, base units). All calls are made from the Trio thread
or are single dict operations, so there is no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

DEFAULT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; the spread of what a node does, from a cache hit to a slow boot phase."""


class Family:
    """All time series of one metric name."""

    kind: Kind

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help
        self.label_names = tuple(labels)
        existing = _families.get(name)
        if existing is not None and (
            type(existing) is not type(self) or existing.label_names != self.label_names
        ):
            raise ValueError(f"metric {name} is already defined differently")
        _families[name] = self

    def _check(self, labels: Labels) -> Labels:
        if len(labels) != len(self.label_names):
            raise ValueError(f"{self.name} takes labels {self.label_names}, got {labels}")
        return labels


class Counter(Family):
    """Only ever grows."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}

    def inc(self, *labels: str, by: float = 1.0) -> None:
        key = self._check(labels)
        self.values[key] = self.values.get(key, 0.0) + by


class Gauge(Family):
    kind = "gauge"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)
        self.values: dict[Labels, float] = {}

    def set(self, value: float, *labels: str) -> None:
        self.values[self._check(labels)] = value

    def add(self, by: float, *labels: str) -> None:
        """For a sum that several parts contribute to; each takes back what it added."""
        key = self._check(labels)
        self.values[key] = self.values.get(key, 0.0) + by

    def remove(self, *labels: str) -> None:
        self.values.pop(self._check(labels), None)


class Histogram(Family):
    kind = "histogram"

    def __init__(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = DEFAULT_BUCKETS,
    ) -> None:
        super().__init__(name, help, labels)
        self.buckets = tuple(sorted(buckets))
        self.values: dict[Labels, tuple[list[int], float]] = {}
        """Per label set: observations per bucket (the last is +Inf, not cumulative), and the sum."""

    def observe(self, value: float, *labels: str) -> None:
        key = self._check(labels)
        counts, total = self.values.get(key) or ([0] * (len(self.buckets) + 1), 0.0)
        counts[bisect_left(self.buckets, value)] += 1
        self.values[key] = (counts, total + value)


_families: dict[str, Family] = {}


def collect() -> Iterator[Family]:
    """Every family defined so far, in definition order."""
    yield from list(_families.values())
