from __future__ import annotations

import pytest

from novacron.component import ComponentState, Criticality, Health, HealthState, Phase
from novacron.readiness.system_health import SystemHealth, SystemUnhealthyError
from tests.readiness.stand_ins import Node, status

SICK = Health(HealthState.UNHEALTHY, "feverish")


async def test_a_healthy_node_passes() -> None:
    node = Node([status("database"), status("monitoring", criticality=Criticality.WARNING)])
    await SystemHealth(node).initialize(None)  # type: ignore[arg-type]

    assert node.warned == []


async def test_a_sick_critical_component_fails_the_activity_and_may_be_tried_again() -> None:
    node = Node([status("database")], {"database": SICK})
    with pytest.raises(SystemUnhealthyError) as caught:
        await SystemHealth(node).initialize(None)  # type: ignore[arg-type]

    assert "database" in caught.value.what
    assert caught.value.why == "feverish"
    assert caught.value.retryable


async def test_a_sick_dispensable_component_is_only_said() -> None:
    node = Node([status("cache", criticality=Criticality.DEGRADED)], {"cache": SICK})
    await SystemHealth(node).initialize(None)  # type: ignore[arg-type]

    assert node.warned == ["cache is not healthy: feverish"]


async def test_what_failed_to_start_and_what_starts_later_is_not_judged_here() -> None:
    node = Node(
        [
            status("monitoring", ComponentState.FAILED, Criticality.WARNING),
            status("ready_signal", ComponentState.PENDING, phase=Phase.POST_INIT),
        ],
        {"monitoring": SICK, "ready_signal": SICK},
    )
    await SystemHealth(node).initialize(None)  # type: ignore[arg-type]

    assert node.warned == []
