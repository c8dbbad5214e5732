"""The second activity: what the boot did, as figures that stay for the life of the process."""

from __future__ import annotations

import logging

import trio

from novacron import observe
from novacron.component import Component, ComponentState, Criticality, NodeView, Phase
from novacron.readiness.system_health import SystemHealth

_log = logging.getLogger("novacron.readiness")

_components = observe.Gauge(
    "novacron_boot_components", "Components at the end of the boot, by state.", ("state",)
)
_attempts = observe.Gauge(
    "novacron_boot_component_attempts", "Attempts each component needed to start.", ("component",)
)
_recovered = observe.Gauge(
    "novacron_boot_recovered", "1 if this boot undid what a crashed one left behind."
)
_started = observe.Gauge(
    "novacron_boot_process_start_timestamp_seconds", "When the kernel started the process."
)


class StartupMetrics(Component):
    name = "startup_metrics"
    phase = Phase.POST_INIT
    criticality = Criticality.WARNING

    def __init__(self, node: NodeView, system_health: SystemHealth) -> None:
        self._node = node

    async def initialize(self, nursery: trio.Nursery) -> None:
        counts = dict.fromkeys(ComponentState, 0)
        for status in self._node.components():
            if status.phase is Phase.POST_INIT:
                continue
            counts[status.state] += 1
            _attempts.set(status.attempts, status.name)
        for state, count in counts.items():
            _components.set(count, str(state))
        _recovered.set(1 if self._node.report()["recovered"] else 0)
        _started.set(self._node.started_at)
        _log.info(
            "components started",
            extra={"components": {str(state): count for state, count in counts.items() if count}},
        )

    async def shutdown(self) -> None:
        """The figures stay: the last scrape before the end should still see them."""
