"""What a running node does with components that die, fall ill and come back."""

from __future__ import annotations

import pytest
import trio

from novacron.boot.engine import Engine
from novacron.boot.events import Event
from novacron.boot.options import EngineOptions, HealthOptions
from novacron.component import (
    ComponentState,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeState,
)
from tests.boot.fakes import (
    EXACT,
    QUICK,
    Broken,
    Diary,
    Fake,
    FakeWithFallback,
    Flaky,
    Stage,
    define,
    failing,
)


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


async def test_a_shallow_look_does_not_take_back_what_a_deep_one_found(
    autojump_clock: object,
) -> None:
    class Limping(Fake):
        async def health_check(self, depth: HealthDepth) -> Health:
            deep = depth is HealthDepth.DEEP
            return Health(HealthState.DEGRADED if deep else HealthState.HEALTHY, "a seed is away")

    states: set[str] = set()

    async def look(engine: Engine) -> None:
        await trio.sleep(31)
        for _ in range(100):
            await trio.sleep(1)
            states.add(str(engine.view.state))
            assert bool(engine.view.degraded()) == (engine.view.state is NodeState.DEGRADED)
        engine.request_stop("test")

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "node_ready":
            engine.runtime.spawn(look, engine)

    stage = Stage([define(Limping("a", []))], EngineOptions(health=HealthOptions()), steer)

    assert await stage.engine.run() == 0
    assert states == {"degraded"}


async def test_a_component_that_is_restarted_within_its_budget_leaves_the_node_alive(
    autojump_clock: object,
) -> None:
    alive: list[bool] = []

    def steer(engine: Engine, event: Event) -> None:
        if event.kind == "component_lost":
            engine.runtime.spawn(look, engine)
        if event.kind == "component_restored":
            engine.request_stop("test")

    async def look(engine: Engine) -> None:
        await trio.sleep(0.5)
        alive.append(engine.view.alive())

    stage = Stage([define(Fake("a", [], start=dying_once(1.0)))], QUICK, steer)

    assert await stage.engine.run() == 0
    assert alive == [True]


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
