"""What the engine does with components that succeed, fail, hang and come back."""

from __future__ import annotations

import threading

import pytest
import trio

from novacron.boot.engine import Engine
from novacron.boot.events import Event
from novacron.boot.options import EngineOptions, HealthOptions, StopBudget
from novacron.boot.retry import RetryPolicy
from novacron.component import (
    Announcer,
    ComponentState,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeState,
    Phase,
)
from novacron.errors import BootError, InvalidError, TransientError
from tests.boot.fakes import Fake, FakeWithFallback, Stage, define, stop_when_ready

EXACT = RetryPolicy(jitter=0.0)
QUICK = EngineOptions(health=None, retry=EXACT)
Diary = list[tuple[str, str]]


class Flaky(BootError, TransientError):
    code = "test.flaky"


class Broken(BootError, InvalidError):
    code = "test.broken"


def failing(times: int, error: type[Exception] = Flaky):
    """A start that fails *times* times, then succeeds."""

    async def start(fake: Fake, nursery: trio.Nursery) -> None:
        await trio.sleep(fake.seconds)
        if fake.entered <= times:
            raise error(f"{fake.name} failed")

    return start


async def test_components_start_in_order_and_stop_in_reverse(autojump_clock: object) -> None:
    diary: Diary = []
    stage = Stage(
        [
            define(Fake("c", diary), ["b"]),
            define(Fake("b", diary), ["a"]),
            define(Fake("a", diary)),
        ],
        QUICK,
        stop_when_ready,
    )

    assert await stage.engine.run() == 0
    assert [x for x in diary if x[0] in ("enter", "stop")] == [
        ("enter", "a"),
        ("enter", "b"),
        ("enter", "c"),
        ("stop", "c"),
        ("stop", "b"),
        ("stop", "a"),
    ]


async def test_a_dependency_is_still_there_while_its_dependent_stops(
    autojump_clock: object,
) -> None:
    diary: Diary = []

    async def slow() -> None:
        await trio.sleep(2)

    stage = Stage(
        [define(Fake("a", diary)), define(Fake("b", diary, stop=slow), ["a"])],
        QUICK,
        stop_when_ready,
    )
    await stage.engine.run()

    assert diary.index(("gone", "b")) < diary.index(("stop", "a"))


async def test_a_retry_that_succeeds_is_healthy_and_not_degraded(autojump_clock: object) -> None:
    stage = Stage([define(Fake("a", [], start=failing(2)))], QUICK, stop_when_ready)

    assert await stage.engine.run() == 0
    assert [event.delay for event in stage.find("component_retry")] == [1.0, 2.0]
    [ready] = stage.find("node_ready")
    assert (ready.state, list(ready.degraded)) == ("ready", [])
    [record] = stage.view.report()["components"]
    assert [a["outcome"] for a in record["attempts"]] == ["failed", "failed", "ready"]
    assert record["retry_sleep"] == pytest.approx(3.0)


async def test_an_error_that_is_not_retryable_is_not_retried(autojump_clock: object) -> None:
    fake = Fake("a", [], start=failing(1, Broken))
    stage = Stage([define(fake)], QUICK)

    assert await stage.engine.run() == 1
    assert (fake.entered, fake.stopped) == (1, 1)


async def test_every_attempt_that_was_entered_is_shut_down_once(autojump_clock: object) -> None:
    fake = Fake("a", [], start=failing(9))
    stage = Stage([define(fake)], QUICK)

    assert await stage.engine.run() == 1
    assert (fake.entered, fake.stopped) == (4, 4)


async def test_a_delay_that_would_pass_the_deadline_is_not_slept(autojump_clock: object) -> None:
    options = EngineOptions(
        health=None, retry=EXACT, deadlines={**EngineOptions().deadlines, Phase.CORE: 2.5}
    )
    stage = Stage([define(Fake("a", [], start=failing(9)))], options)
    began = trio.current_time()

    assert await stage.engine.run() == 1
    # Attempts at 0 s and 1 s; the third would begin at 3 s.
    assert trio.current_time() - began == pytest.approx(1.0)


async def test_a_critical_failure_names_component_phase_attempt_cause_and_remedy(
    autojump_clock: object,
) -> None:
    async def start(fake: Fake, nursery: trio.Nursery) -> None:
        raise Broken("cannot bind", why="port in use", remedy="free it", key="api.port")

    stage = Stage([define(Fake("api", [], start=start), phase=Phase.SERVICES)], QUICK)
    await stage.engine.run()
    failure = stage.view.report()["failure"]

    assert failure["component"] == "api"
    assert failure["phase"] == "services"
    assert failure["attempt"] == 1
    assert (failure["what"], failure["why"], failure["remedy"], failure["key"]) == (
        "cannot bind",
        "port in use",
        "free it",
        "api.port",
    )
    [failed] = stage.find("boot_failed")
    assert failed.failure["component"] == "api"


async def test_a_dependent_of_a_failed_critical_component_never_starts(
    autojump_clock: object,
) -> None:
    diary: Diary = []
    dependent = Fake("b", diary)
    stage = Stage(
        [define(Fake("a", diary, start=failing(9, Broken))), define(dependent, ["a"])], QUICK
    )
    await stage.engine.run()

    assert dependent.entered == 0


async def test_a_failed_warning_component_leaves_the_node_ready_but_degraded(
    autojump_clock: object,
) -> None:
    stage = Stage(
        [
            define(Fake("a", [], start=failing(99, Broken)), criticality=Criticality.WARNING),
            define(Fake("b", []), wants=["a"]),
        ],
        QUICK,
        stop_when_ready,
    )

    assert await stage.engine.run() == 0
    [ready] = stage.find("node_ready")
    assert ready.state == "degraded"
    assert [entry["name"] for entry in ready.degraded] == ["a"]


async def test_what_requires_a_failed_warning_component_is_skipped_with_it(
    autojump_clock: object,
) -> None:
    skipped = Fake("b", [])
    stage = Stage(
        [
            define(Fake("a", [], start=failing(99, Broken)), criticality=Criticality.WARNING),
            define(skipped, ["a"], criticality=Criticality.WARNING),
        ],
        QUICK,
        stop_when_ready,
    )

    assert await stage.engine.run() == 0
    assert skipped.entered == 0
    assert stage.view.component("b").state is ComponentState.SKIPPED


async def test_a_critical_component_that_requires_a_failed_warning_one_fails_the_boot(
    autojump_clock: object,
) -> None:
    stage = Stage(
        [
            define(Fake("a", [], start=failing(99, Broken)), criticality=Criticality.WARNING),
            define(Fake("b", []), ["a"]),
        ],
        QUICK,
    )

    assert await stage.engine.run() == 1
    assert "requires a" in stage.view.report()["failure"]["why"]


async def test_a_degraded_component_serves_its_dependents_on_its_fallback(
    autojump_clock: object,
) -> None:
    diary: Diary = []
    cache = FakeWithFallback("cache", diary, start=failing(99, Broken))
    stage = Stage([define(cache), define(Fake("b", diary), ["cache"])], QUICK, stop_when_ready)

    assert await stage.engine.run() == 0
    assert diary.index(("fallback", "cache")) < diary.index(("enter", "b"))
    assert (cache.entered, cache.stopped) == (1, 1)
    assert (cache.fallback_entered, cache.fallback_stopped) == (1, 1)
    assert stage.view.report()["degraded"] == [] or stage.view.report()["state"] == "stopped"


async def test_a_start_that_hangs_until_the_phase_ends_still_leaves_room_for_the_fallback(
    autojump_clock: object,
) -> None:
    async def hang(fake: Fake, nursery: trio.Nursery) -> None:
        await trio.sleep_forever()

    cache = FakeWithFallback("cache", [], start=hang)
    stage = Stage([define(cache)], QUICK, stop_when_ready)

    assert await stage.engine.run() == 0
    assert cache.fallback_entered == 1


async def test_the_boot_ends_at_the_phase_deadline_when_a_critical_component_hangs(
    autojump_clock: object,
) -> None:
    async def hang(fake: Fake, nursery: trio.Nursery) -> None:
        await trio.sleep_forever()

    fake = Fake("a", [], start=hang)
    never = Fake("b", [])
    options = EngineOptions(health=None, retry=EXACT, start_timeouts={"a": 1000.0})
    stage = Stage([define(fake), define(never, ["a"])], options)
    began = trio.current_time()

    assert await stage.engine.run() == 1
    assert trio.current_time() - began == pytest.approx(20.0)
    assert (fake.entered, fake.stopped, never.entered) == (1, 1, 0)
    [phase] = [p for p in stage.view.record.phases if p["name"] == "core"]
    assert phase["outcome"] == "failed"


async def test_progress_extends_a_start_but_never_past_the_phase(autojump_clock: object) -> None:
    async def slow(fake: Fake, nursery: trio.Nursery) -> None:
        for step in range(15):
            await trio.sleep(1)
            stage.engine.progress("a", f"step {step}", 5.0)

    fake = Fake("a", [], start=slow)
    stage = Stage([define(fake)], QUICK, stop_when_ready)

    assert await stage.engine.run() == 0
    assert fake.entered == 1
    assert len(stage.find("component_progress")) == 15


async def test_a_component_whose_task_dies_during_its_start_fails_with_that_error(
    autojump_clock: object,
) -> None:
    async def start(fake: Fake, nursery: trio.Nursery) -> None:
        async def die() -> None:
            raise Broken("the pump burst")

        nursery.start_soon(die)
        await trio.sleep_forever()

    fake = Fake("a", [], start=start)
    stage = Stage([define(fake)], QUICK)

    assert await stage.engine.run() == 1
    assert stage.view.report()["failure"]["what"] == "the pump burst"
    assert fake.stopped == 1


def dying_once(after: float):
    async def start(fake: Fake, nursery: trio.Nursery) -> None:
        async def die() -> None:
            await trio.sleep(after)
            raise Flaky(f"{fake.name} died")

        if fake.entered == 1:
            nursery.start_soon(die)

    return start


async def test_a_critical_component_lost_at_run_time_is_restarted_with_its_dependents(
    autojump_clock: object,
) -> None:
    diary: Diary = []

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "component_ready" and event.name == "c" and len(diary) > 10:
            engine.request_stop("test")

    database = Fake("a", diary, start=dying_once(5.0))
    stage = Stage(
        [
            define(database),
            define(Fake("b", diary), ["a"]),
            define(Fake("c", diary), ["b"]),
            define(Fake("bystander", diary)),
        ],
        QUICK,
        steer,
    )

    assert await stage.engine.run() == 0
    restart = diary[diary.index(("stop", "a")) :]
    assert [x for x in restart if x[0] in ("stop", "enter")][:6] == [
        ("stop", "a"),
        ("stop", "c"),
        ("stop", "b"),
        ("enter", "a"),
        ("enter", "b"),
        ("enter", "c"),
    ]
    assert diary.count(("enter", "bystander")) == 1
    assert [event.name for event in stage.find("component_restored")] == ["a"]


async def test_a_critical_component_that_does_not_come_back_stops_the_node_with_exit_1(
    autojump_clock: object,
) -> None:
    diary: Diary = []

    async def start(fake: Fake, nursery: trio.Nursery) -> None:
        async def die() -> None:
            await trio.sleep(5)
            raise Flaky("died")

        if fake.entered > 1:
            raise Flaky("still dead")
        nursery.start_soon(die)

    fake = Fake("a", diary, start=start)
    dependent = Fake("b", diary)
    stage = Stage([define(fake), define(dependent, ["a"])], QUICK)

    assert await stage.engine.run() == 1
    # The loss and three restarts are the budget of four.
    assert (fake.entered, fake.stopped) == (4, 4)
    assert (dependent.entered, dependent.stopped) == (1, 1)
    [stopping] = stage.find("node_stopping")
    assert "critical component lost: a" in stopping.reason


async def test_a_degraded_component_is_restored_and_its_skipped_dependent_with_it(
    autojump_clock: object,
) -> None:
    working = False

    async def start(fake: Fake, nursery: trio.Nursery) -> None:
        if not working:
            raise Flaky("not yet")

    def steer(engine: Engine, event: Event) -> None:
        nonlocal working
        if event.kind == "node_ready":
            working = True
        if event.kind == "component_ready" and event.name == "b":
            engine.request_stop("test")

    source = Fake("a", [], start=start)
    dependent = Fake("b", [])
    stage = Stage(
        [
            define(source, criticality=Criticality.WARNING),
            define(dependent, ["a"], criticality=Criticality.WARNING),
        ],
        QUICK,
        steer,
    )

    assert await stage.engine.run() == 0
    [ready] = stage.find("node_ready")
    [back] = [event for event in stage.find("component_ready") if event.name == "b"]
    # Four failures came before, so the next try is one delay of the fifth step away.
    assert back.at - ready.at <= EXACT.nominal(5) + 0.001


async def test_a_restored_component_ends_its_fallback_and_keeps_its_object(
    autojump_clock: object,
) -> None:
    noticed: list[bool] = []

    class Noticing(Fake):
        async def dependency_changed(self, dependency: object) -> None:
            noticed.append(dependency is cache)

    cache = FakeWithFallback("cache", [], start=failing(5))

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "component_restored":
            engine.runtime.spawn(finish, engine)

    async def finish(engine: Engine) -> None:
        await trio.sleep(1)
        assert engine.view.component("cache").state is ComponentState.READY
        assert engine.view.state is NodeState.READY
        engine.request_stop("test")

    stage = Stage([define(cache), define(Noticing("b", []), ["cache"])], QUICK, steer)

    assert await stage.engine.run() == 0
    assert (cache.fallback_entered, cache.fallback_stopped) == (1, 1)
    assert cache.entered == cache.stopped == 6
    assert noticed == [True]
    assert stage.view.component("cache").restorations == 1


async def test_a_configuration_error_is_not_restored_behind_the_operators_back(
    autojump_clock: object,
) -> None:
    fake = Fake("a", [], start=failing(1, Broken))

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "node_ready":
            engine.runtime.spawn(later, engine)

    async def later(engine: Engine) -> None:
        await trio.sleep(600)
        engine.request_stop("test")

    stage = Stage([define(fake, criticality=Criticality.WARNING)], QUICK, steer)

    assert await stage.engine.run() == 0
    assert fake.entered == 1


async def test_three_deep_checks_that_fail_count_as_the_components_failure(
    autojump_clock: object,
) -> None:
    class Sick(Fake):
        async def health_check(self, depth: HealthDepth) -> Health:
            sick = self.entered == 1 and depth is HealthDepth.DEEP
            return Health(HealthState.UNHEALTHY if sick else HealthState.HEALTHY, "feverish")

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "component_restored":
            engine.request_stop("test")

    options = EngineOptions(health=HealthOptions(interval=10, deep_interval=10), retry=EXACT)
    fake = Sick("a", [])
    stage = Stage([define(fake)], options, steer)

    assert await stage.engine.run() == 0
    assert fake.entered == 2
    [lost] = stage.find("component_lost")
    assert "feverish" in lost.error.why
    assert lost.at == pytest.approx(30.0, abs=0.1)


async def test_a_health_check_that_hangs_delays_no_other_answer(autojump_clock: object) -> None:
    class Hanging(Fake):
        async def health_check(self, depth: HealthDepth) -> Health:
            await trio.sleep_forever()
            raise AssertionError

    answers: dict[str, Health] = {}

    async def ask(engine: Engine) -> None:
        began = trio.current_time()
        answers.update(await engine.view.health(HealthDepth.SHALLOW))
        assert trio.current_time() - began <= 0.1
        answers["deep"] = (await engine.view.health(HealthDepth.DEEP))["a"]
        engine.request_stop("test")

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "node_ready":
            engine.runtime.spawn(ask, engine)

    stage = Stage([define(Hanging("a", [])), define(Fake("b", []))], QUICK, steer)
    await stage.engine.run()

    assert answers["a"].state is HealthState.UNKNOWN
    assert answers["b"].state is HealthState.HEALTHY
    assert answers["deep"].state is HealthState.UNHEALTHY


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


async def test_an_announcer_speaks_after_everything_is_ready_and_its_failure_rolls_back(
    autojump_clock: object,
) -> None:
    class Herald(Fake, Announcer):
        async def announce(self) -> None:
            self.diary.append(("announce", self.name))
            raise Broken("no voice")

    diary: Diary = []
    stage = Stage([define(Herald("herald", diary)), define(Fake("b", diary), ["herald"])], QUICK)

    assert await stage.engine.run() == 1
    assert diary.index(("announce", "herald")) > diary.index(("ready", "b"))
    assert stage.view.report()["failure"]["what"] == "no voice"
    assert diary.count(("stop", "herald")) == 1


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
