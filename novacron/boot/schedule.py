"""Which component may start next, under each of the three schedules. Pure.

A schedule sees one phase at a time: dependencies of earlier phases are settled by then. "Settled"
means ready, failed or skipped; what a failure means for a dependent is the engine's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

from novacron.boot.graph import invert, levels, topological_order

ScheduleName = Literal["dataflow", "level", "sequential"]


class Schedule(ABC):
    """Hands out names as they become startable; :meth:`settle` must be called once for each."""

    def __init__(self, edges: Mapping[str, Sequence[str]]) -> None:
        self._edges = {name: [t for t in edges[name] if t in edges] for name in edges}

    @abstractmethod
    def begin(self) -> list[str]:
        """What may start at once."""

    @abstractmethod
    def settle(self, name: str) -> list[str]:
        """What may start now that *name* is settled."""


class Dataflow(Schedule):
    """Each component the moment its last dependency is settled."""

    def begin(self) -> list[str]:
        self._dependents = invert(self._edges)
        self._waiting = {name: len(set(targets)) for name, targets in self._edges.items()}
        return [name for name, count in self._waiting.items() if count == 0]

    def settle(self, name: str) -> list[str]:
        startable = []
        for dependent in self._dependents[name]:
            self._waiting[dependent] -= 1
            if self._waiting[dependent] == 0:
                startable.append(dependent)
        return startable


class Level(Schedule):
    """Level groups with a barrier between them, as the design had it; kept for comparison."""

    def begin(self) -> list[str]:
        self._groups = levels(self._edges)
        self._groups.reverse()
        return self._next_group()

    def settle(self, name: str) -> list[str]:
        self._open.discard(name)
        return [] if self._open else self._next_group()

    def _next_group(self) -> list[str]:
        group = self._groups.pop() if self._groups else []
        self._open = set(group)
        return group


class Sequential(Schedule):
    """One at a time, in topological order; kept for comparison."""

    def begin(self) -> list[str]:
        self._rest = topological_order(self._edges)
        self._rest.reverse()
        return self._next()

    def settle(self, name: str) -> list[str]:
        return self._next()

    def _next(self) -> list[str]:
        return [self._rest.pop()] if self._rest else []


SCHEDULES: dict[str, type[Schedule]] = {
    "dataflow": Dataflow,
    "level": Level,
    "sequential": Sequential,
}
