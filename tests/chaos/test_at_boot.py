"""A node that boots while one of its servers fails it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.backends import Backends
from bench.rest_load import Client, admin_token
from tests.chaos.faults import POSTGRESQL, REDIS, Fault
from tests.chaos.meter import Meter
from tests.chaos.nodes import start_node
from tests.chaos.test_under_load import Loaded

DEADLINES = {"core": 6.0}
"""Seconds; what a boot that cannot succeed may take here."""
RETRY = {"attempts": 2, "delay": 0.2}

LASTING_POSTGRESQL = [fault for fault in POSTGRESQL if not (fault.serves or fault.ends)]
LASTING_REDIS = [fault for fault in REDIS if not fault.ends]


def boot(deadlines: dict[str, float]) -> dict[str, object]:
    return {
        "deadlines": deadlines,
        "retry": RETRY,
        "health": {"interval": 1.0, "deep_interval": 2.0, "cache": 0.5},
    }


@pytest.mark.parametrize("fault", LASTING_POSTGRESQL, ids=lambda fault: fault.name)
def test_without_its_database_a_node_does_not_boot_and_says_why(
    backends: Backends, tmp_path: Path, fault: Fault
) -> None:
    name = f"boot-{tmp_path.name}"
    fault.break_(backends)
    try:
        with start_node(backends, name, boot=boot(DEADLINES)) as node:
            assert node.wait_exit() == 1
            told = node.output() + node.text()
    finally:
        fault.mend(backends)
    assert "database" in told
    assert backends.to_postgresql.address in told, "the server is named"
    assert "database.postgresql" in told, "the key is named"


@pytest.mark.parametrize("fault", LASTING_REDIS, ids=lambda fault: fault.name)
def test_without_its_cache_a_node_is_ready_and_goes_back_to_it(
    backends: Backends, tmp_path: Path, fault: Fault
) -> None:
    meter = Meter(tmp_path / "meter")
    fault.break_(backends)
    try:
        with start_node(backends, f"boot-{tmp_path.name}", meter=meter, database={}) as node:
            loaded = Loaded(node, meter)
            status = loaded.client.call("GET", "/api/v1/status").document
            if fault.serves or fault.name == "full":
                assert status["state"] in ("ready", "degraded")
            else:
                assert [part["name"] for part in status["degraded"]] == ["cache"]
            fault.mend(backends)
            loaded.wait_whole()
            assert (
                Client(node.wait_ready()["addresses"]["rest"], admin_token(node.data))
                .call("GET", "/readyz")
                .status
                == 200
            )
    finally:
        fault.mend(backends)
        meter.close()
