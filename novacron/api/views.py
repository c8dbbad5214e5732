"""What the API says about a node, as JSON values: from the engine's objects, no framework."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

from novacron import __version__
from novacron.component import (
    Component,
    ComponentState,
    ComponentStatus,
    Health,
    HealthState,
    JsonObject,
    NodeView,
    ObservableComponent,
)

_SERVING = (ComponentState.READY, ComponentState.DEGRADED)

# Worst first: a node is as healthy as its worst component.
_WORST = (
    HealthState.UNHEALTHY,
    HealthState.DEGRADED,
    HealthState.UNKNOWN,
    HealthState.HEALTHY,
)


def node_status(node: NodeView, node_id: str) -> JsonObject:
    components = node.components()
    return {
        "node_id": node_id,
        "boot_id": node.boot_id,
        "version": __version__,
        "pid": os.getpid(),
        "state": node.state.value,
        "started": node.started_at,
        "uptime_seconds": max(0.0, time.time() - node.started_at),
        "ready_seconds": node.ready_seconds,
        "addresses": node.addresses,
        "degraded": list(node.degraded()),
        "warnings": list(node.warnings()),
        "components": dict(Counter(c.state.value for c in components)),
    }


def component_view(status: ComponentStatus, component: Component | None = None) -> JsonObject:
    """*component*: its figures are added where it offers any."""
    view: JsonObject = {
        "name": status.name,
        "phase": status.phase.value,
        "criticality": status.criticality.value,
        "state": status.state.value,
        "health": health_view(_health(status)),
        "requires": list(status.requires),
        "wants": list(status.wants),
        "attempts": status.attempts,
        "restorations": status.restorations,
        "start_seconds": status.start_seconds,
        "failure": status.failure,
    }
    if isinstance(component, ObservableComponent):
        view["figures"] = dict(component.statistics())
    return view


def health_view(health: Health) -> JsonObject:
    return {
        "state": health.state.value,
        "message": health.message,
        "details": dict(health.details),
    }


def overall_health(states: list[HealthState]) -> HealthState:
    return next((state for state in _WORST if state in states), HealthState.UNKNOWN)


def report_summary(report: JsonObject) -> JsonObject:
    """One line of the list of kept boot reports."""
    return {key: report.get(key) for key in ("boot_id", "started", "state", "seconds")} | {
        "degraded": [entry["name"] for entry in report.get("degraded", ())],
        "failure": _failed_component(report.get("failure")),
    }


def _failed_component(failure: Any) -> Any:
    return failure.get("component") if isinstance(failure, dict) else None


def _health(status: ComponentStatus) -> Health:
    """What is known about how it goes. One that does not serve is not asked, and why it failed says
    more than that."""
    failure = status.failure
    if failure is None or status.state in _SERVING or status.health.state is HealthState.UNHEALTHY:
        return status.health
    why = failure.get("why")
    message = f"{failure['what']}: {why}" if why else str(failure["what"])
    return Health(HealthState.UNHEALTHY, message)
