from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from novacron._native import ffi
from novacron.component import HealthDepth, HealthState, NodeState
from novacron.config.schema import DwcpSettings, ResourcesSettings
from novacron.data_directory import DataDirectory
from novacron.environment import Environment
from novacron.environment.fact import FactUnknownError, Probe
from novacron.environment.inquiry import GRACE
from novacron.environment.machine import Machine
from novacron.environment.probes import PROBES
from tests.environment.conftest import FakeView

NAMES = {
    "cpu", "numa", "memory", "disk", "cgroup", "interfaces", "rdma", "tcp_congestion", "kernel",
    "virtualisation", "container", "clock", "addresses", "partitions",
}  # fmt: skip


class Hang:
    """A probe body that hangs until the test is over."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.entered = 0

    def __call__(self, machine: Machine) -> Any:
        self.entered += 1
        assert self.released.wait(60)
        return "late"


@pytest.fixture
def hang() -> Iterator[Hang]:
    body = Hang()
    yield body
    body.released.set()


@pytest.fixture
def make(
    data_directory: DataDirectory, view: FakeView, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Environment]:
    def build(*probes: Probe, timeout: float = 2.0) -> Environment:
        settings = ResourcesSettings(probe_timeout=timeout)
        environment = Environment(settings, data_directory, view, DwcpSettings())  # type: ignore[arg-type]
        monkeypatch.setattr(environment, "probes", probes or PROBES)
        return environment

    return build


@asynccontextmanager
async def running(environment: Environment) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        await environment.initialize(nursery)
        try:
            yield nursery
        finally:
            await environment.shutdown()
            nursery.cancel_scope.cancel()


def constant(value: Any) -> Callable[[Machine], Any]:
    return lambda machine: value


async def test_this_machines_facts_are_all_answered(make: Callable[..., Environment]) -> None:
    environment = make(timeout=30.0)
    with trio.fail_after(60):
        async with running(environment):
            facts = await environment.wait_facts()
    assert set(facts) == NAMES
    for name, fact in facts.items():
        assert set(fact) == {"state", "value", "reason", "took_ms"}, name
        assert fact["state"] in ("known", "unknown")
        assert (fact["value"] is None) == (fact["state"] == "unknown"), fact
    assert facts["memory"]["state"] == "known"
    assert facts["tcp_congestion"]["state"] == "known"


async def until(condition: Callable[[], bool]) -> None:
    """Wait, in real time, for what a worker thread does; the mock clock stands still meanwhile."""
    for _ in range(5000):
        if condition():
            return
        await trio.to_thread.run_sync(time.sleep, 0.002)
    raise AssertionError("the condition never came true")


async def test_twenty_hanging_probes_cost_one_deadline_and_delay_nobody(
    make: Callable[..., Environment], hang: Hang, mock_clock: MockClock
) -> None:
    environment = make(*(Probe(f"hang{i}", hang) for i in range(20)), Probe("good", constant(1)))
    began = trio.current_time()
    async with running(environment):
        # The clock stands still: what has returned by now has waited for nothing.
        assert {fact["state"] for fact in environment.facts().values()} == {"pending"}
        await until(lambda: hang.entered == 1)
        mock_clock.jump(GRACE)
        await until(lambda: hang.entered == 20 and environment.fact("good").state == "known")
        mock_clock.jump(2.1 - GRACE)
        facts = await environment.wait_facts()
    assert trio.current_time() - began == pytest.approx(2.1)
    unknown = [fact for name, fact in facts.items() if name != "good"]
    assert len(unknown) == 20
    assert {fact["state"] for fact in unknown} == {"unknown"}
    assert {fact["reason"] for fact in unknown} == {"no answer within 2 s"}
    assert {fact["value"] for fact in unknown} == {None}


async def test_probes_that_answer_share_one_thread_and_what_waits_behind_a_slow_one_gets_more(
    make: Callable[..., Environment], hang: Hang, mock_clock: MockClock
) -> None:
    threads: dict[str, int] = {}

    def note(name: str) -> Probe:
        def ask(machine: Machine) -> str:
            threads[name] = threading.get_ident()
            return name

        return Probe(name, ask)

    environment = make(note("a"), note("b"), Probe("slow", hang), note("c"), note("d"))
    async with running(environment):
        await until(lambda: hang.entered == 1)
        assert threads["a"] == threads["b"]
        assert environment.fact("a").state == environment.fact("b").state == "known"
        assert environment.fact("c").state == environment.fact("d").state == "pending"
        mock_clock.jump(GRACE)
        await until(lambda: environment.fact("d").state == "known")
        await until(lambda: environment.fact("c").state == "known")
        assert threads["a"] not in (threads["c"], threads["d"])
        hang.released.set()
        assert (await environment.wait_facts())["slow"]["value"] == "late"


async def test_a_late_answer_does_not_replace_unknown(
    make: Callable[..., Environment], hang: Hang, mock_clock: MockClock
) -> None:
    environment = make(Probe("slow", hang))
    async with running(environment):
        await until(lambda: hang.entered == 1)
        mock_clock.jump(2.0)
        await environment.wait_facts()
        hang.released.set()
        await until(lambda: not environment.statistics()["hanging"])
        assert environment.fact("slow").state == "unknown"


async def test_what_still_hangs_is_not_asked_again_and_once_it_ends_it_is(
    make: Callable[..., Environment], hang: Hang, mock_clock: MockClock
) -> None:
    environment = make(Probe("slow", hang))
    async with running(environment):
        await until(lambda: hang.entered == 1)
        mock_clock.jump(2.0)
        await environment.wait_facts()
        mock_clock.jump(10.0)
        facts = await environment.refresh()
        assert facts["slow"]["reason"] == "an earlier probe has been hanging for 12 s"
        assert hang.entered == 1
        hang.released.set()
        await until(lambda: not environment.statistics()["hanging"])
        facts = await environment.refresh()
        assert (facts["slow"]["state"], facts["slow"]["value"]) == ("known", "late")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FactUnknownError("no idea", why="it is dark"), "no idea: it is dark"),
        (PermissionError(13, "Permission denied", "/proc/x"), "Permission denied: /proc/x"),
        (OSError(12, "Cannot allocate memory"), "Cannot allocate memory"),
        (ValueError("odd text"), "ValueError: odd text"),
        (RecursionError("deep"), "RecursionError: deep"),
    ],
)
async def test_a_probe_that_fails_leaves_its_fact_unknown_and_the_others_alone(
    make: Callable[..., Environment], error: Exception, reason: str
) -> None:
    def fail(machine: Machine) -> Any:
        raise error

    environment = make(Probe("bad", fail), Probe("good", constant({"x": 1})))
    with trio.fail_after(30):
        async with running(environment):
            facts = await environment.wait_facts()
            health = await environment.health_check(HealthDepth.SHALLOW)
    assert (facts["bad"]["state"], facts["bad"]["reason"]) == ("unknown", reason)
    assert facts["bad"]["value"] is None
    assert facts["good"]["value"] == {"x": 1}
    assert health.state is HealthState.HEALTHY
    assert health.message == "1 of 2 facts unknown: bad"


async def test_without_the_compiled_module_its_facts_are_unknown_for_that_reason(
    make: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffi, "_native", None)
    monkeypatch.setattr(ffi, "MODULE", "novacron._native._never_built")
    environment = make(timeout=30.0)
    with trio.fail_after(60):
        async with running(environment):
            facts = await environment.wait_facts()
    for name in ("rdma", "tcp_congestion", "clock"):
        assert facts[name]["state"] == "unknown"
        assert "make install" in facts[name]["reason"]
    assert facts["cpu"]["state"] == "known"


async def test_a_refresh_keeps_old_answers_until_there_are_new_ones(
    make: Callable[..., Environment], hang: Hang
) -> None:
    answers = iter(["old", "new"])

    def ask(machine: Machine) -> Any:
        answer = next(answers)
        return hang(machine) and answer if answer == "new" else answer

    environment = make(Probe("fact", ask), timeout=60.0)
    with trio.fail_after(30):
        async with running(environment) as nursery:
            await environment.wait_facts()
            nursery.start_soon(environment.refresh)
            nursery.start_soon(environment.refresh)
            await wait_all_tasks_blocked()
            assert environment.facts()["fact"]["value"] == "old"
            hang.released.set()
            # The two refreshes were one round: a second would have run out of answers.
            facts = await environment.wait_facts()
    assert facts["fact"]["value"] == "new"


async def test_a_caller_that_gives_up_does_not_stop_the_round(
    make: Callable[..., Environment], hang: Hang
) -> None:
    environment = make(Probe("fact", hang), timeout=60.0)
    with trio.fail_after(30):
        async with running(environment):
            with trio.CancelScope() as impatient:
                impatient.cancel()
                await environment.wait_facts()
            assert impatient.cancelled_caught
            hang.released.set()
            assert (await environment.wait_facts())["fact"]["value"] == "late"


async def test_patient_probes_wait_for_ready_and_for_whoever_asks(
    make: Callable[..., Environment], view: FakeView, mock_clock: MockClock
) -> None:
    environment = make(Probe("heavy", constant(1), patient=True))
    async with running(environment):
        await wait_all_tasks_blocked()
        mock_clock.jump(5.0)
        await wait_all_tasks_blocked()
        assert environment.fact("heavy").state == "pending"
        view.state = NodeState.READY
        mock_clock.jump(1.0)
        await until(lambda: environment.fact("heavy").state == "known")

    view.state = NodeState.STARTING
    async with running(environment):
        assert (await environment.wait_facts())["heavy"]["state"] == "known"


async def test_patience_ends_when_no_boot_lasts_that_long(
    make: Callable[..., Environment], mock_clock: MockClock
) -> None:
    environment = make(Probe("heavy", constant(1), patient=True))
    async with running(environment):
        await wait_all_tasks_blocked()
        mock_clock.jump(29.0)
        await wait_all_tasks_blocked()
        assert environment.fact("heavy").state == "pending"
        mock_clock.jump(1.1)
        await until(lambda: environment.fact("heavy").state == "known")


async def test_a_component_that_does_not_run_says_so(make: Callable[..., Environment]) -> None:
    environment = make()
    assert environment.facts() == {}
    with pytest.raises(FactUnknownError, match="not running"):
        await environment.wait_facts()
    with pytest.raises(FactUnknownError, match="novacron status"):
        await environment.refresh()
    await environment.shutdown()


async def test_it_starts_again_after_a_stop(make: Callable[..., Environment]) -> None:
    environment = make(Probe("fact", constant(1)))
    with trio.fail_after(30):
        for _ in range(2):
            async with running(environment):
                assert (await environment.wait_facts())["fact"]["state"] == "known"


async def test_an_unknown_fact_is_logged_with_its_reason(
    make: Callable[..., Environment], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(machine: Machine) -> Any:
        raise ValueError("odd")

    caplog.set_level(logging.INFO, "novacron.environment")
    environment = make(Probe("bad", fail))
    with trio.fail_after(30):
        async with running(environment):
            await environment.wait_facts()
    record = caplog.records[-1]
    assert record.getMessage() == "the environment fact bad is unknown"
    assert record.__dict__["reason"] == "ValueError: odd"


async def test_statistics_count_facts_and_time(make: Callable[..., Environment]) -> None:
    environment = make(Probe("fact", constant(1)))
    with trio.fail_after(30):
        async with running(environment):
            await environment.wait_facts()
    statistics = environment.statistics()
    assert statistics["facts"] == {"known": 1, "unknown": 0, "pending": 0}
    assert statistics["hanging"] == []
    assert set(statistics["took_ms"]) == {"fact"}
