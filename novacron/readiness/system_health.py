"""The first activity: does everything that started really work?"""

from __future__ import annotations

import trio

from novacron.component import (
    Component,
    ComponentState,
    Criticality,
    HealthDepth,
    HealthState,
    NodeView,
    Phase,
)
from novacron.errors import BootError, TransientError


class SystemUnhealthyError(BootError, TransientError):
    """A critical component started, but fails its deep check."""

    code = "boot.system_unhealthy"


class SystemHealth(Component):
    """Asks every component for a deep health check, all at once, before READY is said."""

    name = "system_health"
    phase = Phase.POST_INIT
    criticality = Criticality.CRITICAL

    def __init__(self, node: NodeView) -> None:
        self._node = node

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Raises SystemUnhealthyError, which is retried."""
        health = await self._node.health(HealthDepth.DEEP)
        for status in self._node.components():
            answer = health[status.name]
            if status.phase is Phase.POST_INIT or answer.state is not HealthState.UNHEALTHY:
                continue
            if status.state is ComponentState.FAILED:
                continue  # Why it did not start is among what is degraded; nothing to add here.
            if status.criticality is Criticality.CRITICAL:
                raise SystemUnhealthyError(
                    f"{status.name} started but is not healthy",
                    why=answer.message,
                    remedy=f"see what {status.name} logs",
                )
            self._node.warn(f"{status.name} is not healthy: {answer.message}")

    async def shutdown(self) -> None:
        """Holds nothing."""
