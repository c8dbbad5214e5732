from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from novacron import observe
from novacron.component import HealthDepth, HealthState
from novacron.config.schema import MonitoringSettings
from novacron.environment.ports import PortTakenError
from novacron.monitoring import Monitoring
from novacron.network import Network
from tests.api.stand_ins import NodeStandIn, component_status

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def make(node: NodeStandIn, port: int = 0) -> Monitoring:
    # The exporter needs the peer listener only to be up before it is.
    network = typing.cast(Network, None)
    return Monitoring(network, MonitoringSettings(port=port), node)


@asynccontextmanager
async def exporting(node: NodeStandIn) -> AsyncIterator[httpx.AsyncClient]:
    monitoring = make(node)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await monitoring.initialize(nursery)
            url = f"http://{node.addresses['metrics']}"
            async with httpx.AsyncClient(base_url=url) as client:
                yield client
            await monitoring.shutdown()
            nursery.cancel_scope.cancel()


def values(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


async def test_the_metrics_of_a_boot_and_its_components_are_exported() -> None:
    node = NodeStandIn()
    async with exporting(node) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    found = values(answer.text)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("novacron_boot_seconds") == 0.5
    assert value("novacron_boot_parallel_efficiency") == 0.99
    assert value("novacron_boot_phase_seconds", phase="pre_init") == pytest.approx(0.1)
    assert ("novacron_boot_phase_seconds", frozenset({("phase", "core")})) not in found
    assert value("novacron_component_start_seconds", component="security") == 0.25
    assert value("novacron_component_state", component="cache", state="degraded") == 1
    assert value("novacron_component_state", component="cache", state="ready") == 0
    assert value("novacron_component_health", component="cache", state="degraded") == 1
    assert value("novacron_component_retries_total", component="cache") == 3
    assert value("novacron_component_restorations_total", component="cache") == 2
    assert value("novacron_node_state", state="ready") == 1
    assert value("novacron_trio_tasks_living") > 1
    assert value("process_resident_memory_bytes") > 0
    assert any(name == "novacron_build_info" for name, _ in found)


async def test_each_component_is_in_exactly_one_state() -> None:
    async with exporting(NodeStandIn()) as client:
        found = values((await client.get("/metrics")).text)
    for component in ("security", "cache", "api"):
        states = [
            value
            for (name, labels), value in found.items()
            if name == "novacron_component_state" and ("component", component) in labels
        ]
        assert sorted(states) == [0.0] * (len(states) - 1) + [1.0]


async def test_before_ready_there_is_no_boot_time() -> None:
    node = NodeStandIn()
    node.ready_seconds = None
    node.boot_report["efficiency"] = None
    async with exporting(node) as client:
        found = values((await client.get("/metrics")).text)
    names = {name for name, _ in found}
    assert "novacron_boot_seconds" not in names
    assert "novacron_boot_parallel_efficiency" not in names


async def test_openmetrics_is_served_where_it_is_asked_for_and_parses_strictly() -> None:
    histogram = observe.Histogram("novacron_test_seconds", "For this test.", ("kind",), (0.1, 1.0))
    for seconds in (0.05, 0.5, 5.0):
        histogram.observe(seconds, 'a "quoted"\nlabel\\')
    async with exporting(NodeStandIn()) as client:
        answer = await client.get("/metrics", headers={"accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    families = {family.name: family for family in parse_openmetrics(answer.text)}  # type: ignore[no-untyped-call]
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for sample in families["novacron_test_seconds"].samples
    }
    assert samples["novacron_test_seconds_bucket", "0.1"] == 1
    assert samples["novacron_test_seconds_bucket", "1.0"] == 2
    assert samples["novacron_test_seconds_bucket", "+Inf"] == 3
    assert samples["novacron_test_seconds_count", None] == 3
    assert samples["novacron_test_seconds_sum", None] == pytest.approx(5.55)


async def test_only_reads_of_the_one_path_are_answered() -> None:
    async with exporting(NodeStandIn()) as client:
        missing = await client.get("/")
        assert (missing.status_code, missing.json()["code"]) == (404, "monitoring.no_route")
        assert missing.json()["instance"] == missing.headers["x-request-id"]
        refused = await client.post("/metrics")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert refused.json()["code"] == "monitoring.method"
        assert refused.json()["instance"] == refused.headers["x-request-id"]
        head = await client.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")


async def test_the_lag_of_the_loop_is_measured(autojump_clock: trio.testing.MockClock) -> None:
    monitoring = make(NodeStandIn())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(monitoring._measure_lag)
        await trio.sleep(3.5)
        nursery.cancel_scope.cancel()
    [lag] = [f for f in observe.collect() if f.name == "novacron_trio_loop_lag_seconds"]
    assert isinstance(lag, observe.Gauge)
    assert lag.values[()] == pytest.approx(0.0)


async def test_a_taken_port_is_an_error_with_the_key_of_the_metrics_port() -> None:
    node = NodeStandIn()
    async with exporting(node):
        port = int(node.addresses["metrics"].rpartition(":")[2])
        async with trio.open_nursery() as nursery:
            second = make(node, port)
            with pytest.raises(PortTakenError) as caught:
                await second.initialize(nursery)
            await second.shutdown()
    assert caught.value.key == "monitoring.port"


async def test_it_can_be_started_again_after_a_stop_and_reports_its_health() -> None:
    node = NodeStandIn()
    monitoring = make(node)
    published = set()
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await monitoring.initialize(nursery)
            published.add(node.addresses["metrics"])
            assert (await monitoring.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY
            assert monitoring.statistics()["connections"] == 0
            await monitoring.shutdown()
            nursery.cancel_scope.cancel()
        assert (await monitoring.health_check(HealthDepth.DEEP)).state is HealthState.UNHEALTHY
    assert len(published) == 1


def test_the_constructor_names_its_dependencies_by_type() -> None:
    hints = typing.get_type_hints(Monitoring.__init__)
    assert list(inspect.signature(Monitoring).parameters) == ["network", "settings", "node"]
    assert hints["network"] is Network
    assert hints["settings"] is MonitoringSettings


async def test_metrics_with_very_many_label_sets_are_cut_and_counted() -> None:
    node = NodeStandIn()
    node.statuses = [component_status(f"c{number}") for number in range(1100)]
    async with exporting(node) as client:
        found = values((await client.get("/metrics")).text)
    starts = [name for name, _ in found if name == "novacron_component_start_seconds"]
    assert len(starts) == 1000
    assert found["novacron_metrics_dropped_series", frozenset()] > 100
