"""Analyses of what the real engine reports, under simulated time."""

from __future__ import annotations

import random

import pytest

from novacron.boot import events
from novacron.boot.analysis import blame, critical_path, diff, plot
from novacron.boot.engine import Engine
from novacron.boot.registry import Definition
from novacron.boot.report import Report, finished
from novacron.component import Criticality, Phase
from tests.boot.fakes import QUICK, Broken, Fake, FakeWithFallback, Flaky, Stage, define


async def booted(definitions: list[Definition], schedule: str = "dataflow") -> Report:
    """The report as it is kept: of the READY node, or of the boot that failed."""
    kept: list[Report] = []

    def on_event(engine: Engine, event: events.Event) -> None:
        if isinstance(event, events.NodeReady):
            kept.append(Report.loads(Report.from_json(engine.view.report()).dumps()))
            engine.request_stop("the test has seen enough")

    stage = Stage(definitions, QUICK._replace(schedule=schedule), on_event)
    await stage.engine.run()
    return kept[0] if kept else Report.loads(Report.from_json(stage.view.report()).dumps())


def random_definitions(seed: int, count: int = 50) -> list[Definition]:
    source = random.Random(seed)
    found: list[Definition] = []
    for index in range(count):
        phase = list(Phase)[index * 4 // count]
        earlier = [one.name for one in found if one.phase is phase]
        requires = source.sample(earlier, min(len(earlier), source.randint(0, 3)))
        # Apart by more than the path's tolerance, so that every cause is unambiguous.
        fake = Fake(f"c{index:02d}", [], source.uniform(0.01, 0.5))
        found.append(define(fake, requires, phase=phase))
    return found


def failing_twice() -> Fake:
    async def start(self: Fake, nursery: object) -> None:
        if self.entered < 3:
            raise Flaky("not yet")

    return Fake("flaky", [], start=start)


@pytest.mark.parametrize("schedule", ["dataflow", "level", "sequential"])
@pytest.mark.parametrize("seed", range(5))
async def test_the_path_explains_the_boot_and_its_components_are_its_length(
    seed: int, schedule: str, autojump_clock: object
) -> None:
    report = await booted(random_definitions(seed), schedule)
    path = critical_path.steps(report)
    total = sum(step.seconds for step in path)
    assert report.seconds is not None
    assert total == pytest.approx(report.seconds, rel=0.02)
    # Simulated time passes only while components sleep: all of it is on the path.
    worked = sum(step.seconds for step in path if step.kind == "component")
    assert worked == pytest.approx(report.seconds, rel=0.02)


@pytest.mark.parametrize("seed", range(5))
async def test_dataflow_is_as_efficient_as_the_graph_allows_and_one_by_one_is_not(
    seed: int, autojump_clock: object
) -> None:
    dataflow = await booted(random_definitions(seed))
    one_by_one = await booted(random_definitions(seed), "sequential")
    assert critical_path.efficiency(dataflow) == pytest.approx(1.0, abs=0.001)
    assert (critical_path.efficiency(one_by_one) or 1.0) < 0.9
    assert critical_path.limit(one_by_one) == pytest.approx(critical_path.limit(dataflow), rel=0.01)


async def test_retries_are_blamed_to_the_millisecond(autojump_clock: object) -> None:
    report = await booted([define(failing_twice()), define(Fake("next", [], 0.5), ["flaky"])])
    records = {record["name"]: record for record in report.components}
    entries = {entry.name: entry for entry in blame.blame(report)}
    assert entries["flaky"].sleep == pytest.approx(3.0, abs=0.001)
    assert entries["flaky"].sleep == pytest.approx(records["flaky"]["retry_sleep"], abs=0.001)
    for name, entry in entries.items():
        end, began = finished(records[name]), records[name]["phase_started"]
        assert end is not None
        assert began is not None
        assert entry.total == pytest.approx(end - began, abs=0.001)
    assert critical_path.names(report) == ["flaky", "next"]


async def test_a_fallback_is_drawn_and_the_change_is_found(autojump_clock: object) -> None:
    async def broken(self: Fake, nursery: object) -> None:
        raise Broken("cannot reach the cache", remedy="start it")

    whole = await booted([define(FakeWithFallback("cache", [], 0.01))])
    less = await booted([define(FakeWithFallback("cache", [], start=broken))])
    [change] = [one for one in diff.changes(whole, less) if one.name == "cache"]
    assert "state" in change.flags
    svg = plot.as_svg(less)
    assert "on its fallback" in svg
    assert "cache, attempt 1: failed" in svg


async def test_the_path_of_a_failed_boot_ends_with_what_failed(autojump_clock: object) -> None:
    async def broken(self: Fake, nursery: object) -> None:
        raise Broken("cannot open the database")

    database = Fake("database", [], start=broken)
    report = await booted(
        [
            define(Fake("security", [], 0.2)),
            define(Fake("slow", [], 5.0), criticality=Criticality.WARNING),
            define(database, ["security"]),
            define(Fake("api", []), ["database"], phase=Phase.SERVICES),
        ]
    )
    assert critical_path.names(report) == ["security", "database"]
    assert "never entered: api" in blame.as_text(report)
    assert "failed after 200.0 ms (database)" in plot.as_svg(report)
