"""What a boot does with components that succeed, fail and hang."""

from __future__ import annotations

import pytest
import trio

from novacron.boot.options import EngineOptions
from novacron.component import (
    Announcer,
    ComponentState,
    Criticality,
    Phase,
)
from tests.boot.fakes import (
    EXACT,
    QUICK,
    Broken,
    Diary,
    Fake,
    FakeWithFallback,
    Stage,
    define,
    failing,
    stop_when_ready,
)


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
