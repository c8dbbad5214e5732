from __future__ import annotations

from typing import Any

from novacron import observe
from novacron.component import ComponentState, Phase
from novacron.readiness.metrics import StartupMetrics
from tests.readiness.stand_ins import Node, status


async def test_what_the_boot_did_can_be_read_from_the_metrics() -> None:
    node = Node(
        [
            status("database"),
            status("cache", ComponentState.DEGRADED),
            status("ready_signal", ComponentState.PENDING, phase=Phase.POST_INIT),
        ]
    )
    await StartupMetrics(node, None).initialize(None)  # type: ignore[arg-type]
    families: dict[str, Any] = {family.name: family for family in observe.collect()}

    counts = families["novacron_boot_components"].values
    assert (counts[("ready",)], counts[("degraded",)], counts[("pending",)]) == (1, 1, 0)
    assert families["novacron_boot_component_attempts"].values[("database",)] == 1
    assert families["novacron_boot_recovered"].values[()] == 0
    assert families["novacron_boot_process_start_timestamp_seconds"].values[()] == 1.0
