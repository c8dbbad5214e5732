"""The component between paths, modes and what moves data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from novacron.component import NodeState
from novacron.config.schema import DwcpSettings, ResourcesSettings
from novacron.data_directory import DataDirectory
from novacron.dwcp import Dwcp
from novacron.environment import Environment
from novacron.environment.fact import Probe
from novacron.environment.modes.track import Mode
from tests.environment.conftest import FakeView
from tests.environment.modes.measures import FAR, NEAR

NO_RDMA = Probe("rdma", lambda machine: {"devices": [], "why_none": "none"})


class NoPeers:
    def sessions(self) -> list[Any]:
        return []

    async def wait_sessions_changed(self) -> None:
        await trio.sleep_forever()


class Ground:
    def __init__(
        self, directory: DataDirectory, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.view = FakeView()
        settings = DwcpSettings(mode=cast(Any, mode))
        self.environment = Environment(
            ResourcesSettings(), directory, cast(Any, self.view), settings
        )
        monkeypatch.setattr(self.environment, "probes", (NO_RDMA,))
        self.dwcp = self.component(settings, self.environment, directory)

    def component(
        self, settings: DwcpSettings, environment: Environment | None, directory: DataDirectory
    ) -> Dwcp:
        unused = cast(Any, None)
        view = cast(Any, self.view)
        network = cast(Any, NoPeers())
        return Dwcp(unused, network, unused, settings, unused, directory, view, environment)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await self.environment.initialize(nursery)
            await self.environment.wait_facts()
            nursery.start_soon(self.dwcp._watch_paths)
            yield
            await self.environment.shutdown()
            nursery.cancel_scope.cancel()


@pytest.fixture
def directory(tmp_path: Any) -> DataDirectory:
    return DataDirectory(tmp_path)


async def test_nothing_is_measured_before_the_node_is_ready(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground(directory, "auto", monkeypatch)
    seen: list[Mode] = []
    ground.dwcp.on_mode(seen.append)
    with trio.fail_after(30):
        async with ground.running():
            await trio.sleep(0.3)
            assert (seen, ground.dwcp._sampler) == ([], None)
            assert ground.dwcp.path("peer-one") is None
            ground.view.state = NodeState.READY
            while not seen:
                await trio.sleep(0.01)
    assert [(mode.name, mode.measured) for mode in seen] == [("hybrid", False)]


async def test_whoever_asked_is_told_of_a_switch_as_it_happens(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground(directory, "auto", monkeypatch)
    ground.view.state = NodeState.READY
    first: list[str] = []
    second: list[str] = []
    ground.dwcp.on_mode(lambda mode: first.append(mode.name))
    ground.dwcp.on_mode(lambda mode: second.append(mode.name))
    with trio.fail_after(30):
        async with ground.running():
            while not second:
                await trio.sleep(0.01)
            ground.environment.observe_path(FAR)
            await wait_all_tasks_blocked()
    assert first == second == ["hybrid", "internet"]


async def test_the_mode_of_a_path_is_its_own_then_the_nodes(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    ground = Ground(directory, "auto", monkeypatch)
    async with ground.running():
        assert ground.dwcp.mode_of("anybody") == "hybrid"
        ground.environment.observe_path(FAR._replace(peer="far"))
        assert ground.dwcp.mode_of("far") == "internet"
        assert ground.dwcp.mode_of("anybody") == "internet"
        ground.environment.observe_path(NEAR._replace(peer="near"))
        assert ground.dwcp.mode_of("near") == "datacenter"
        await trio.sleep(31)
        ground.environment.review_modes()
        assert ground.dwcp.mode_of("anybody") == "hybrid"
        assert ground.dwcp.mode_of("far") == "internet"


async def test_a_forced_mode_holds_for_every_path(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground(directory, "datacenter", monkeypatch)
    async with ground.running():
        ground.environment.observe_path(FAR._replace(peer="far"))
        assert ground.dwcp.mode_of("far") == "datacenter"


async def test_without_an_environment_the_configured_mode_is_all_there_is(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground(directory, "auto", monkeypatch)
    dwcp = ground.component(DwcpSettings(), None, directory)
    assert dwcp.mode_of("anybody") == "auto"
    assert dwcp._mode() == {"wanted": "auto", "got": "auto", "why": ""}
