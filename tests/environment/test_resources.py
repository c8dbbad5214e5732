from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
import trio

from novacron.component import HealthDepth, HealthState
from novacron.config import LoadedConfiguration
from novacron.config.schema import (
    AmstSettings,
    ApiSettings,
    BootSettings,
    DwcpSettings,
    MonitoringSettings,
    NetworkSettings,
    ResourcesSettings,
    Settings,
)
from novacron.data_directory import DataDirectory
from novacron.environment import Resources, resources
from novacron.environment.data_access import (
    DataDirectoryBrokenError,
    DataDirectoryFullError,
    DataDirectoryMissingError,
)
from novacron.environment.host_class import Measured
from novacron.environment.ports import PortTakenError
from novacron.environment.probes.disk import Space
from novacron.environment.resources import HostBelowMinimumError, survey
from novacron.errors import InvalidError
from novacron.units import GIB, MIB
from tests.environment.conftest import FakeView, Tree

AMPLE = Measured(64.0, 512 * GIB, 4096 * GIB)
SMALL = Measured(2.0, 4 * GIB, 50 * GIB)
SPACE = Space(200 * GIB, 100 * GIB, 1000, False, 0)


class Make(Protocol):
    def __call__(
        self,
        *,
        file: bool = ...,
        measured: Measured | None = ...,
        reasons: dict[str, str] | None = ...,
        api_port: int = ...,
        data_port: int = ...,
        criticality: dict[str, Any] | None = ...,
        root: Path | None = ...,
        environment: Any = ...,
        **settings: Any,
    ) -> Resources: ...


@pytest.fixture
def make(data_directory: DataDirectory, view: FakeView, monkeypatch: pytest.MonkeyPatch) -> Make:
    def build(
        *,
        file: bool = False,
        measured: Measured | None = AMPLE,
        reasons: dict[str, str] | None = None,
        api_port: int = 0,
        data_port: int = 0,
        criticality: dict[str, Any] | None = None,
        root: Path | None = None,
        environment: Any = None,
        **settings: Any,
    ) -> Resources:
        boot = BootSettings(criticality=criticality or {})
        if measured is not None:
            found = resources.Survey(measured, reasons or {}, 10 * GIB)
            monkeypatch.setattr(resources, "survey", lambda machine, space: found)
        return Resources(
            ResourcesSettings(**settings),
            LoadedConfiguration(
                Settings(boot=boot), "digest", (Path("/etc/x.yaml"),) if file else ()
            ),
            DataDirectory(root) if root else data_directory,
            ApiSettings(port=api_port),
            NetworkSettings(port=0),
            MonitoringSettings(port=0),
            DwcpSettings(amst=AmstSettings(port=data_port)),
            view,  # type: ignore[arg-type]
            environment,
        )

    return build


async def boot(component: Resources) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await component.initialize(nursery)


async def test_a_large_host_passes_without_a_word(make: Make, view: FakeView) -> None:
    component = make(enforce="strict")
    await boot(component)
    assert view.said == []
    assert component.statistics()["shortfalls"] == []
    assert component.statistics()["class"]["host"] == "enterprise"
    await component.shutdown()


async def test_a_small_host_halts_where_it_is_enforced_naming_each_shortfall_and_key(
    make: Make, view: FakeView
) -> None:
    with pytest.raises(HostBelowMinimumError) as caught:
        await boot_bare(make(enforce="strict", measured=SMALL))
    error = caught.value
    assert isinstance(error, InvalidError)
    assert not error.retryable
    assert error.what == "this host is below the minimum"
    assert error.why == ("2 CPUs of 4, 4.0 GiB of 8.0 GiB memory, 50.0 GiB of 100.0 GiB disk")
    assert error.key == ("resources.min_cpus, resources.min_memory_bytes, resources.min_disk_bytes")
    assert "resources.enforce to warn" in error.remedy
    assert view.said == []


async def boot_bare(component: Resources) -> None:
    """Without a nursery around it, so that the error is not in a group."""
    with trio.fail_after(30):
        await component.initialize(None)  # type: ignore[arg-type]


async def test_a_small_host_is_told_where_it_is_not_enforced(make: Make, view: FakeView) -> None:
    component = make(enforce="warn", measured=SMALL, file=True)
    await boot(component)
    assert view.said == [
        "this host is below the minimum: 2 CPUs of 4, 4.0 GiB of 8.0 GiB memory, "
        "50.0 GiB of 100.0 GiB disk "
        "[resources.min_cpus, resources.min_memory_bytes, resources.min_disk_bytes]"
    ]
    await boot(component)
    assert len(view.said) == 1, "a restart says nothing new"
    statistics = component.statistics()
    assert statistics["class"]["host"] == "below minimum"
    assert [missing["key"] for missing in statistics["shortfalls"]] == [
        "resources.min_cpus",
        "resources.min_memory_bytes",
        "resources.min_disk_bytes",
    ]


@pytest.mark.parametrize(
    ("enforce", "file", "strict"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("strict", False, True),
        ("warn", True, False),
    ],
)
def test_auto_is_strict_where_somebody_wrote_a_configuration(
    make: Make, enforce: str, file: bool, strict: bool
) -> None:
    component = make(enforce=enforce, file=file)
    assert component.strict is strict
    assert component.statistics()["enforce"] == ("strict" if strict else "warn")


async def test_a_shortfall_says_what_narrows_the_host(make: Make) -> None:
    reasons = {"memory_bytes": "limited by control group /x", "cpus": "affinity leaves 2 of 8"}
    with pytest.raises(HostBelowMinimumError) as caught:
        await boot_bare(make(enforce="strict", measured=SMALL, reasons=reasons))
    assert "2 CPUs of 4 (affinity leaves 2 of 8)" in caught.value.why
    assert "memory (limited by control group /x)" in caught.value.why


async def test_what_cannot_be_found_out_is_told_and_does_not_halt(
    make: Make, view: FakeView
) -> None:
    unknown = AMPLE._replace(memory_bytes=None)
    await boot(make(enforce="strict", measured=unknown, reasons={"memory_bytes": "it is dark"}))
    assert view.said == [
        "the host's memory could not be found out, and was not checked: it is dark"
    ]


async def test_this_very_host_is_measured(make: Make) -> None:
    component = make(measured=None, enforce="warn")
    await boot(component)
    statistics = component.statistics()
    assert statistics["measured"]["cpus"] > 0
    assert statistics["measured"]["memory_bytes"] > 0
    assert statistics["free_disk_bytes"] > 0


async def test_too_little_free_space_halts_whatever_is_enforced(make: Make) -> None:
    with pytest.raises(DataDirectoryFullError) as caught:
        await boot_bare(make(enforce="warn", min_free_disk_bytes=2**60))
    assert "too little free space" in caught.value.what
    assert "needed" in caught.value.why
    assert caught.value.key == "resources.min_free_disk_bytes"


async def test_a_missing_data_directory_halts(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryMissingError):
        await boot_bare(make(root=tmp_path / "absent"))


async def test_a_disk_that_cannot_be_measured_halts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> Space:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(resources.disk, "measure", broken)
    with pytest.raises(DataDirectoryBrokenError, match="Input/output error"):
        await boot_bare(make())


async def test_a_taken_port_halts_before_anything_listens(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.environment.ports._is_ours", lambda port, machine: False)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(PortTakenError) as caught:
        await boot_bare(make(api_port=server.getsockname()[1]))
    assert caught.value.key == "api.port"


async def test_the_data_port_halts_a_boot_only_where_somebody_said_that_it_is_critical(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.environment.ports._is_ours", lambda port, machine: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        await boot_bare(make(data_port=port))
        with pytest.raises(PortTakenError) as caught:
            await boot_bare(make(data_port=port, criticality={"dwcp": "critical"}))
    assert caught.value.key == "dwcp.amst.port"


async def test_the_class_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "novacron.environment")
    await boot(make())
    assert "host class: enterprise" in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("fact", "grade"),
    [
        (
            {"state": "known", "value": [{"state": "up", "speed_bps": 10**10, "kind": "ethernet"}]},
            "recommended",
        ),
        ({"state": "known", "value": []}, "unknown"),
        ({"state": "pending", "value": None}, "unknown"),
        ({"state": "unknown", "value": None}, "unknown"),
    ],
)
async def test_the_network_joins_the_class_once_its_fact_is_known(
    make: Make, fact: dict[str, Any], grade: str
) -> None:
    component = make(environment=SimpleNamespace(facts=lambda: {"interfaces": fact}))
    await boot(component)
    assert component.statistics()["class"]["network"] == grade


async def test_a_disk_that_fills_up_later_degrades_and_does_not_stop_the_node(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = make()
    await boot(component)
    assert (await component.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY
    monkeypatch.setattr(resources.disk, "measure", lambda path: SPACE._replace(free_bytes=10 * MIB))
    assert (await component.health_check(HealthDepth.SHALLOW)).state is HealthState.HEALTHY
    health = await component.health_check(HealthDepth.DEEP)
    assert health.state is HealthState.DEGRADED
    assert "10.0 MiB free" in health.message
    assert "resources.min_free_disk_bytes" in health.message

    def broken(path: str) -> Space:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(resources.disk, "measure", broken)
    assert "Input/output error" in (await component.health_check(HealthDepth.FULL)).message


def put_host(tree: Tree, memory_max: str = "max", cpu_max: str = "max 100000") -> None:
    tree.put("/proc/self/cgroup", "0::/node\n")
    tree.put("/proc/self/mountinfo", "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    tree.put("/proc/meminfo", "MemTotal: 16777216 kB\n")
    tree.put("/sys/fs/cgroup/node/memory.max", memory_max)
    tree.put("/sys/fs/cgroup/node/cpu.max", cpu_max)


@pytest.fixture
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def usable(count: int) -> None:
        monkeypatch.setattr(resources.cpu, "usable", lambda: count)
        monkeypatch.setattr(resources.os, "cpu_count", lambda: 16)

    usable(16)
    return usable


def test_an_unlimited_host_offers_all_it_has(
    tree: Tree, sixteen_cpus: Callable[[int], None]
) -> None:
    put_host(tree)
    found = survey(tree.machine, SPACE)
    assert found.measured == Measured(16.0, 16 * GIB, 200 * GIB)
    assert found.reasons == {}
    assert found.free_disk_bytes == 100 * GIB


def test_control_groups_and_affinity_narrow_the_host(
    tree: Tree, sixteen_cpus: Callable[[int], None]
) -> None:
    put_host(tree, str(2 * GIB), "150000 100000")
    found = survey(tree.machine, SPACE)
    assert found.measured == Measured(1.5, 2 * GIB, 200 * GIB)
    assert found.reasons["cpus"] == "limited by the control group's CPU quota"
    assert found.reasons["memory_bytes"] == "limited by control group /sys/fs/cgroup/node"
    sixteen_cpus(1)
    found = survey(tree.machine, SPACE)
    assert found.measured.cpus == 1
    assert found.reasons["cpus"] == "affinity leaves 1 of 16"


def test_a_limit_that_cannot_be_read_leaves_the_figures_unknown_not_too_high(
    tree: Tree, sixteen_cpus: Callable[[int], None]
) -> None:
    put_host(tree, "some")
    found = survey(tree.machine, SPACE)
    assert found.measured == Measured(None, None, 200 * GIB)
    assert "control groups cannot be read" in found.reasons["memory_bytes"]


def test_memory_without_a_total_is_unknown(tree: Tree, sixteen_cpus: Callable[[int], None]) -> None:
    put_host(tree)
    tree.put("/proc/meminfo", "")
    found = survey(tree.machine, SPACE)
    assert found.measured.memory_bytes is None
    assert "MemTotal" in found.reasons["memory_bytes"]
