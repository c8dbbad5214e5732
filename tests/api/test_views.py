from __future__ import annotations

from typing import Any, cast

import pytest

from novacron.api.views import component_view, node_status
from novacron.component import ComponentState, Health, HealthState, NodeView
from tests.api.stand_ins import NodeStandIn, component_status

FAILURE = {"error": "PortTakenError", "what": "cannot listen", "why": "pid 7 does", "remedy": "-"}
UNCHECKED = Health(HealthState.UNKNOWN, "not checked yet")


def test_what_is_degraded_is_what_the_engine_says() -> None:
    node = NodeStandIn()
    assert node_status(cast(NodeView, node), "id")["degraded"] == []
    node.short_of = [{"name": "database", "why": "it was replaced"}]
    assert node_status(cast(NodeView, node), "id")["degraded"] == node.short_of


@pytest.mark.parametrize(
    "state", [ComponentState.FAILED, ComponentState.SKIPPED, ComponentState.RETRYING]
)
def test_a_component_that_does_not_serve_shows_why_it_failed(state: ComponentState) -> None:
    status = component_status("api", state=state, health=UNCHECKED, failure=FAILURE)
    assert health_of(status) == ("unhealthy", "cannot listen: pid 7 does")
    status = status._replace(failure={"what": "it broke", "why": ""})
    assert health_of(status) == ("unhealthy", "it broke")


@pytest.mark.parametrize("state", [ComponentState.READY, ComponentState.DEGRADED])
def test_a_component_that_serves_shows_its_last_check(state: ComponentState) -> None:
    status = component_status(
        "api", state=state, health=Health(HealthState.HEALTHY, "fine"), failure=FAILURE
    )
    assert health_of(status) == ("healthy", "fine")


def test_a_component_that_never_failed_is_not_made_unhealthy() -> None:
    status = component_status("api", state=ComponentState.PENDING, health=UNCHECKED)
    assert health_of(status) == ("unknown", "not checked yet")


def health_of(status: Any) -> tuple[str, str]:
    health = component_view(status)["health"]
    return health["state"], health["message"]
