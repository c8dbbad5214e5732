"""The environment component and the network's mode: what it tells, to whom, and what it costs."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from novacron.config.schema import DetectionSettings, DwcpSettings, ResourcesSettings
from novacron.data_directory import DataDirectory
from novacron.environment import Environment
from novacron.environment.fact import Probe
from novacron.environment.modes import metrics
from novacron.environment.modes.track import Mode
from novacron.environment.path import PathMeasure
from tests.environment.conftest import FakeView
from tests.environment.modes.measures import BETWEEN, FAR, NEAR
from tests.environment.test_detection import constant, running

Make = Callable[..., Environment]
NO_RDMA = Probe("rdma", constant({"devices": [], "why_none": "none"}))
RDMA = Probe("rdma", constant({"devices": [{"name": "mlx5_0"}], "why_none": ""}))


def interface(speed_bps: int | None, *, physical: bool) -> Probe:
    found = {"speed_bps": speed_bps, "state": "up", "kind": "ethernet", "physical": physical}
    return Probe("interfaces", constant([found]))


@pytest.fixture(autouse=True)
def clean_metrics() -> Iterator[None]:
    yield
    for family in (metrics.ROUND_TRIP, metrics.JITTER, metrics.LOSS, metrics.PATHS):
        family.values.clear()


@pytest.fixture
def make(data_directory: DataDirectory, view: FakeView, monkeypatch: pytest.MonkeyPatch) -> Make:
    def build(*probes: Probe, mode: str = "auto", **detection: Any) -> Environment:
        settings = DwcpSettings(mode=mode, detection=DetectionSettings(**detection))  # type: ignore[arg-type]
        environment = Environment(ResourcesSettings(), data_directory, view, settings)  # type: ignore[arg-type]
        monkeypatch.setattr(environment, "probes", probes or (NO_RDMA,))
        return environment

    return build


def observe(environment: Environment, found: PathMeasure, rounds: int = 3) -> None:
    for _ in range(rounds):
        environment.observe_path(found)


@pytest.mark.parametrize(
    ("probes", "mode", "why"),
    [
        ((NO_RDMA,), "hybrid", "no device of this node tells of a datacenter"),
        ((RDMA,), "datacenter", "this node has RDMA: mlx5_0"),
        (
            (NO_RDMA, interface(25 * 10**9, physical=True)),
            "datacenter",
            "this node has a link of 25 Gbit/s",
        ),
        # Every veth says 10 Gbit/s, in any container on any line.
        (
            (NO_RDMA, interface(10**10, physical=False)),
            "hybrid",
            "no device of this node tells of a datacenter",
        ),
    ],
)
async def test_without_a_path_the_devices_say_and_the_mode_is_unmeasured(
    make: Make, probes: tuple[Probe, ...], mode: str, why: str
) -> None:
    environment = make(*probes)
    async with running(environment):
        assert not environment.mode.measured
        await environment.wait_facts()
        environment.review_modes()
        found = environment.mode
        assert (found.name, found.measured, found.forced) == (mode, False, False)
        assert found.why == f"no path to another host is measured; {why}"


async def test_a_measured_path_makes_the_mode_and_a_changed_one_changes_it(
    make: Make, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "novacron.environment")
    environment = make()
    before = metrics.MODE_SWITCHES.values.get(("internet",), 0.0)
    async with running(environment):
        await environment.wait_facts()
        observe(environment, NEAR)
        assert (environment.mode.name, environment.mode.measured) == ("datacenter", True)
        observe(environment, FAR)
        assert environment.mode.name == "datacenter"
        await trio.sleep(31)
        observe(environment, FAR)
        assert environment.mode.name == "internet"
        path = environment.path_mode(FAR.peer)
        assert path is not None
        assert (path.name, path.measure) == ("internet", FAR)
    assert metrics.MODE.values == {("hybrid",): 0.0, ("datacenter",): 0.0, ("internet",): 1.0}
    assert metrics.MODE_MEASURED.values == {(): 1.0}
    assert metrics.MODE_SWITCHES.values[("internet",)] == before + 1
    assert metrics.PATHS.values[("internet",)] == 1
    [event] = [r for r in caplog.records if getattr(r, "was", "") == "datacenter" and hasattr(r, "event")]  # fmt: skip
    assert event.getMessage() == "the network mode is internet: 1 path (peer-one) is internet"


async def test_peers_of_both_kinds_make_it_hybrid_and_forgetting_one_ends_that(
    make: Make, autojump_clock: MockClock
) -> None:
    environment = make(cool_down=5)
    async with running(environment):
        await environment.wait_facts()
        observe(environment, NEAR)
        observe(environment, FAR._replace(peer="far"))
        await trio.sleep(6)
        environment.review_modes()
        assert environment.mode.name == "hybrid"
        environment.forget_path("far")
        environment.forget_path("nobody")
        assert environment.mode.name == "hybrid"  # it has to cool down
        await trio.sleep(6)
        environment.review_modes()
        assert environment.mode.name == "datacenter"


async def test_a_peer_on_this_host_leaves_the_mode_unmeasured_and_is_shown(make: Make) -> None:
    environment = make()
    async with running(environment):
        await environment.wait_facts()
        observe(environment, NEAR._replace(same_host=True))
        report = environment.mode_report()
    assert (report["mode"], report["measured"]) == ("hybrid", False)
    [path] = report["paths"]
    assert (path["same_host"], path["mode"], path["scores"]) == (True, None, None)
    assert path["round_trip_seconds"] == pytest.approx(NEAR.rtt_us / 1e6)


async def test_the_report_has_null_for_what_was_not_measured(make: Make) -> None:
    environment = make()
    async with running(environment):
        await environment.wait_facts()
        observe(environment, NEAR._replace(samples=1), rounds=1)
        [path] = environment.mode_report()["paths"]
    for name in ("mode", "jitter_seconds", "loss", "ce_share", "rate_bps", "rate_spread", "scores"):
        assert path[name] is None, name
    assert path["why"] == "1 of 10 round trips so far"
    assert (path["measured"], path["samples"]) == (False, 1)


async def test_a_forced_mode_stays_and_tells_what_there_would_be(make: Make) -> None:
    environment = make(mode="internet")
    async with running(environment):
        await environment.wait_facts()
        observe(environment, NEAR)
        found = environment.mode
    assert (found.name, found.forced, found.measured) == ("internet", True, True)
    assert "without it: datacenter" in found.why


async def test_who_follows_the_mode_gets_it_at_once_and_then_each_change(
    make: Make, autojump_clock: MockClock
) -> None:
    environment = make(cool_down=5)
    seen: list[Mode] = []

    async def follow() -> None:
        async for mode in environment.modes():
            seen.append(mode)  # noqa: PERF401 - it never ends

    async with running(environment) as nursery:
        await environment.wait_facts()
        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        assert [mode.measured for mode in seen] == [False]
        observe(environment, NEAR)
        await wait_all_tasks_blocked()
        observe(environment, NEAR)
        await wait_all_tasks_blocked()
        assert [(mode.name, mode.measured) for mode in seen[1:]] == [("datacenter", True)]
        assert seen[-1] == environment.mode


async def test_who_follows_slowly_is_told_of_the_newest_mode_only(
    make: Make, autojump_clock: MockClock
) -> None:
    environment = make(cool_down=1)
    async with running(environment):
        await environment.wait_facts()
        changes = environment.modes()
        await anext(changes)
        for found in (NEAR, FAR, BETWEEN, NEAR, FAR):
            observe(environment, found)
            await trio.sleep(1.5)
        assert (await anext(changes)).name == "internet"
        with trio.move_on_after(10) as scope:
            await anext(changes)
        assert scope.cancelled_caught


async def test_the_figures_of_paths_are_bounded_and_go_with_the_path(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MOST_PEERS", 3)
    environment = make()
    async with running(environment):
        await environment.wait_facts()
        for number in range(9):
            environment.observe_path(NEAR._replace(peer=str(number), segments=100, loss=0.5))
        assert set(metrics.ROUND_TRIP.values) == {("0",), ("1",), ("2",)}
        assert metrics.JITTER.values[("1",)] == pytest.approx(NEAR.jitter_us / 1e6)
        assert metrics.LOSS.values[("2",)] == 0.5
        assert len(environment.mode_report()["paths"]) == 9
        environment.forget_path("1")
        environment.observe_path(NEAR._replace(peer="8"))
        assert set(metrics.ROUND_TRIP.values) == {("0",), ("2",), ("8",)}
        assert ("8",) not in metrics.LOSS.values


async def test_switches_are_remembered_with_their_reasons_and_bounded(
    make: Make, autojump_clock: MockClock
) -> None:
    environment = make(cool_down=1)
    async with running(environment):
        await environment.wait_facts()
        for number in range(100):
            observe(environment, (NEAR, FAR)[number % 2])
            await trio.sleep(2)
        switches = environment.mode_report()["switches"]
    assert len(switches) == 32
    last = switches[-1]
    assert (last["was"], last["mode"]) == ("datacenter", "internet")
    assert last["seconds_ago"] == pytest.approx(2)
    assert last["why"]


def test_the_code_of_modes_is_not_imported_before_somebody_asks() -> None:
    program = (
        "import sys\n"
        "from novacron.node import component_classes\n"
        "component_classes()\n"
        "print(*(m for m in sys.modules if 'environment.modes' in m or 'acp.sampling' in m or 'acp.window' in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []
