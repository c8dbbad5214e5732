"""A node, an undo log and a database as the activities of post_init see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from novacron.component import (
    HEALTHY,
    ComponentState,
    ComponentStatus,
    Criticality,
    Health,
    HealthDepth,
    NodeState,
    Phase,
)


def status(
    name: str,
    state: ComponentState = ComponentState.READY,
    criticality: Criticality = Criticality.CRITICAL,
    phase: Phase = Phase.CORE,
) -> ComponentStatus:
    return ComponentStatus(name, phase, criticality, state, HEALTHY, (), (), 1, 0, 0.1, None)


class Node:
    """A :class:`NodeView` whose answers the test chooses."""

    boot_id = "b" * 32
    started_at = 1.0

    def __init__(
        self, components: Sequence[ComponentStatus] = (), health: Mapping[str, Health] | None = None
    ) -> None:
        self._components = components
        self._health = health or {}
        self.state = NodeState.READY
        self.addresses = {"rest": "127.0.0.1:1", "metrics": "127.0.0.1:2", "peer": "127.0.0.1:3"}
        self.warned: list[str] = []

    def components(self) -> Sequence[ComponentStatus]:
        return self._components

    async def health(self, depth: HealthDepth) -> Mapping[str, Health]:
        return {s.name: self._health.get(s.name, HEALTHY) for s in self._components}

    def warn(self, message: str) -> None:
        self.warned.append(message)

    def report(self) -> dict[str, Any]:
        return {"seconds": 0.5, "degraded": [{"name": "cache"}], "recovered": None}


class Undo:
    def __init__(self) -> None:
        self.owed: dict[str, tuple[str, Mapping[str, Any], bool]] = {}

    async def record(
        self, component: str, kind: str, arguments: Mapping[str, Any], *, until_stop: bool = False
    ) -> str:
        self.owed["1"] = (kind, arguments, until_stop)
        return "1"

    async def discharge(self, step: str) -> None:
        del self.owed[step]


class Store:
    """Keeps the statements; :attr:`broken` makes each of them fail."""

    engine = "sqlite"

    def __init__(self) -> None:
        self.statements: list[tuple[str, Any]] = []
        self.broken: Exception | None = None
        self.store = self

    async def execute(self, sql: str, parameters: Any = None) -> int:
        if self.broken is not None:
            raise self.broken
        self.statements.append((sql, parameters))
        return 1


class NodeIdentity:
    node_id = "11111111-2222-3333-4444-555555555555"
