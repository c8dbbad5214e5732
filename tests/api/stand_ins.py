"""Stand-ins for what the API and the metrics see of a node, with as little as they use."""

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
    HealthState,
    NodeState,
    Phase,
)
from novacron.errors import NotFoundError


def component_status(name: str, **changes: Any) -> ComponentStatus:
    fields: dict[str, Any] = {
        "name": name,
        "phase": Phase.CORE,
        "criticality": Criticality.CRITICAL,
        "state": ComponentState.READY,
        "health": HEALTHY,
        "requires": (),
        "wants": (),
        "attempts": 1,
        "restorations": 0,
        "start_seconds": 0.25,
        "failure": None,
    }
    return ComponentStatus(**fields | changes)


class NodeStandIn:
    """A node that is READY, until a test changes a field."""

    def __init__(self) -> None:
        self.boot_id = "6d0f2f5e-33a3-4b7e-8f6a-3f2f9f0c1a11"
        self.state = NodeState.READY
        self.started_at = 1_700_000_000.0
        self.ready_seconds: float | None = 0.5
        self.addresses: dict[str, str] = {}
        self.statuses = [
            component_status("security"),
            component_status(
                "cache",
                state=ComponentState.DEGRADED,
                criticality=Criticality.DEGRADED,
                health=Health(HealthState.DEGRADED, "no server"),
                attempts=4,
                restorations=2,
                requires=("security",),
            ),
            component_status("api", state=ComponentState.STARTING, start_seconds=None),
        ]
        self.short_of: list[dict[str, Any]] = []
        self.sentences: list[str] = []
        self.is_alive = True
        self.asked: list[HealthDepth] = []
        self.boot_report: dict[str, Any] = {
            "version": 1,
            "boot_id": self.boot_id,
            "state": "ready",
            "seconds": 0.5,
            "phases": [
                {"name": "pre_init", "start": 0.1, "end": 0.2, "deadline": 10.1, "outcome": "ok"},
                {"name": "core", "start": 0.2, "end": None, "deadline": 20.2, "outcome": None},
            ],
            "components": [],
            "efficiency": 0.99,
        }

    def publish_address(self, kind: str, address: str) -> None:
        self.addresses[kind] = address

    def components(self) -> Sequence[ComponentStatus]:
        return self.statuses

    def component(self, name: str) -> ComponentStatus:
        for status in self.statuses:
            if status.name == name:
                return status
        raise NotFoundError(f"there is no component {name!r}")

    async def health(self, depth: HealthDepth = HealthDepth.SHALLOW) -> Mapping[str, Health]:
        self.asked.append(depth)
        return {status.name: status.health for status in self.statuses}

    def degraded(self) -> Sequence[dict[str, Any]]:
        return self.short_of

    def warnings(self) -> Sequence[str]:
        return self.sentences

    def warn(self, message: str) -> None:
        self.sentences.append(message)

    def report(self) -> dict[str, Any]:
        return self.boot_report

    def alive(self) -> bool:
        return self.is_alive


class IdentityStandIn:
    node_id = "0b1f6f0a-6c5b-4d3b-9a39-0b6f2b7f6f10"


class EnvironmentStandIn:
    name = "environment"

    def __init__(self) -> None:
        self.refreshed = 0

    def facts(self) -> Mapping[str, Any]:
        return {"cpus": {"state": "known", "value": 2}, "asked": self.refreshed}

    async def refresh(self) -> None:
        self.refreshed += 1

    def mode_report(self) -> Mapping[str, Any]:
        return {"mode": "hybrid", "measured": False, "forced": False, "why": "", "paths": []}


class NetworkStandIn:
    name = "network"

    def statistics(self) -> Mapping[str, Any]:
        return {"peers": [{"node_id": "other"}], "seeds": [], "sessions": 1}


class NamedStandIn:
    def __init__(self, name: str) -> None:
        self.name = name
