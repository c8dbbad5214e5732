"""Stopping: in reverse, in time, by a signal, by cancellation, by force."""

from __future__ import annotations

import threading

import pytest
import trio

from novacron.boot.engine import Engine
from novacron.boot.events import Event
from novacron.boot.options import EngineOptions, StopBudget
from tests.boot.fakes import (
    QUICK,
    Diary,
    Fake,
    Stage,
    define,
    stop_when_ready,
)


async def test_a_stop_that_overruns_does_not_skip_the_next(autojump_clock: object) -> None:
    async def hang() -> None:
        await trio.sleep_forever()

    diary: Diary = []
    stage = Stage(
        [define(Fake("a", diary)), define(Fake("b", diary, stop=hang), ["a"])],
        QUICK,
        stop_when_ready,
    )

    assert await stage.engine.run() == 0
    assert ("gone", "a") in diary
    [stopped] = [e for e in stage.find("component_stopped") if e.name == "b"]
    assert "did not stop in 5 s" in str(stopped.error)


async def test_a_second_signal_cuts_a_hanging_drain_and_a_hanging_stop_short(
    autojump_clock: object,
) -> None:
    class Draining(Fake):
        async def drain(self) -> None:
            self.diary.append(("drain", self.name))
            await trio.sleep_forever()

    async def hang() -> None:
        await trio.sleep_forever()

    diary: Diary = []

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "node_ready":
            engine.request_stop("SIGTERM")
            engine.runtime.spawn(again, engine)

    async def again(engine: Engine) -> None:
        await trio.sleep(3)
        engine.request_force()

    stage = Stage([define(Draining("a", diary, stop=hang))], QUICK, steer)
    began = trio.current_time()

    assert await stage.engine.run() == 0
    assert diary.count(("stop", "a")) == 1
    assert trio.current_time() - began <= 3 + 1.0 + 0.5


async def test_the_report_of_a_boot_that_is_stopped_at_once_says_that_it_was_ready(
    autojump_clock: object,
) -> None:
    kept: list[dict[str, object]] = []
    stage = Stage([define(Fake("a", []))], QUICK, stop_when_ready, save_report=kept.append)

    assert await stage.engine.run() == 0
    assert [report["state"] for report in kept] == ["ready"]


async def test_a_drain_that_hangs_is_cut_at_its_budget(autojump_clock: object) -> None:
    class Draining(Fake):
        async def drain(self) -> None:
            await trio.sleep_forever()

    options = EngineOptions(health=None, stop=StopBudget(drain=7.0))
    fake = Draining("a", [])
    stage = Stage([define(fake)], options, stop_when_ready)
    began = trio.current_time()

    assert await stage.engine.run() == 0
    assert trio.current_time() - began == pytest.approx(7.0)
    assert fake.stopped == 1


async def test_a_signal_during_the_boot_rolls_back_and_is_no_failure(
    autojump_clock: object,
) -> None:
    diary: Diary = []

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "component_entered" and event.name == "b":
            engine.request_stop("SIGINT")

    stage = Stage(
        [define(Fake("a", diary)), define(Fake("b", diary, seconds=5), ["a"])], QUICK, steer
    )

    assert await stage.engine.run() == 0
    assert [x for x in diary if x[0] == "stop"] == [("stop", "b"), ("stop", "a")]
    report = stage.view.report()
    assert (report["failure"], report["state"]) == (None, "stopped")
    assert report["rollback"]["stopped"] == ["b", "a"]


async def test_cancelling_the_engine_stops_everything_in_reverse(autojump_clock: object) -> None:
    diary: Diary = []
    stage = Stage([define(Fake("a", diary)), define(Fake("b", diary), ["a"])], QUICK)
    with trio.move_on_after(10) as scope:
        await stage.engine.run()

    assert scope.cancelled_caught
    assert [x for x in diary if x[0] == "stop"] == [("stop", "b"), ("stop", "a")]


async def test_a_thread_that_ignores_cancellation_ends_the_process_the_hard_way() -> None:
    release = threading.Event()

    async def hang() -> None:
        await trio.to_thread.run_sync(release.wait)

    codes: list[int] = []

    def hard_exit(code: int) -> None:
        codes.append(code)
        release.set()

    diary: Diary = []
    options = EngineOptions(health=None, stop=StopBudget(cleanup=0.4, force=0.4))
    stuck = Fake("b", diary, stop=hang)
    stuck.stop_timeout = 0.1  # type: ignore[misc]
    stage = Stage(
        [define(Fake("a", diary)), define(stuck, ["a"])],
        options,
        stop_when_ready,
        hard_exit=hard_exit,
    )
    with trio.fail_after(10):
        await stage.engine.run()

    assert codes == [1]
    assert ("gone", "a") in diary
