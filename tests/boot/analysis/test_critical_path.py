from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.boot.analysis import critical_path
from novacron.boot.report import Report
from tests.boot.reports import component, failed_report, phase, random_report, small_report
from tests.boot.reports import retried_report as retried


@pytest.mark.parametrize(
    "report", [small_report(), retried(), failed_report(), random_report(60, 9)]
)
def test_the_steps_tile_the_boot(report: Report) -> None:
    path = critical_path.steps(report)
    assert path[0].start == 0.0
    for earlier, later in pairwise(path):
        assert earlier.end == pytest.approx(later.start)
        assert later.seconds > 0
    assert sum(step.seconds for step in path) == pytest.approx(report.seconds)


def test_the_path_follows_the_last_dependency_of_the_last_component() -> None:
    assert critical_path.names(small_report()) == [
        "environment",
        "resources",
        "security",
        "database",
        "api",
        "ready_signal",
    ]


def test_a_failed_boots_path_ends_with_what_failed() -> None:
    assert critical_path.names(failed_report())[-1] == "database"


def test_a_wish_is_waited_for_like_a_requirement() -> None:
    report = small_report(
        phases=[phase("core", 0.18, 0.3)],
        components=[
            component("cache", "core", 0.18, 0.18, 0.28),
            component("database", "core", 0.18, 0.18, 0.2),
            component("api", "core", 0.18, 0.28, 0.3, requires=("database",), wants=("cache",)),
        ],
    )
    assert critical_path.names(report) == ["cache", "api"]


def test_in_a_sequential_boot_the_one_before_is_the_cause() -> None:
    parts = [
        component(f"c{index}", "core", 0.18, 0.18 + index / 100, 0.19 + index / 100)
        for index in range(5)
    ]
    fields = {"phases": [phase("core", 0.18, 0.23)], "components": parts}
    assert critical_path.names(small_report(schedule="sequential", **fields)) == [
        "c0",
        "c1",
        "c2",
        "c3",
        "c4",
    ]
    # The same times under dataflow are a coincidence, not a cause.
    assert critical_path.names(small_report(**fields)) == ["c4"]
    # Unless the concurrency limit was what held them back.
    assert len(critical_path.names(small_report(max_concurrency=1, **fields))) == 5


def test_what_nothing_accounts_for_is_called_unexplained() -> None:
    report = small_report(prelude=[{"name": "imports", "start": 0.1, "end": 0.181}])
    path = critical_path.steps(report)
    assert (path[0].kind, path[0].end) == ("unexplained", 0.1)
    assert critical_path.as_json(report)["explained"] == pytest.approx(1 - 0.1 / 0.251)
    assert "unexplained, before imports" in critical_path.as_text(report)


def test_efficiency_is_one_when_everything_started_at_once_or_after_its_dependency() -> None:
    assert critical_path.efficiency(random_report(60, 5)) == pytest.approx(1.0)


def test_efficiency_falls_by_what_a_worse_schedule_cost() -> None:
    report = small_report(
        phases=[phase("core", 0.18, 0.22)],
        schedule="sequential",
        components=[
            component("a", "core", 0.18, 0.18, 0.20),
            component("b", "core", 0.18, 0.20, 0.22),
        ],
    )
    assert critical_path.limit(report) == pytest.approx(0.02)
    assert critical_path.efficiency(report) == pytest.approx(0.5)


def test_without_components_there_is_no_efficiency_and_still_a_path() -> None:
    report = small_report(components=[], phases=[])
    assert critical_path.efficiency(report) is None
    assert [step.kind for step in critical_path.steps(report)] == ["prelude"] * 3 + ["barrier"]
    empty = Report.new(boot_id="x", pid=1, started=0.0, schedule="dataflow", max_concurrency=1)
    assert "nothing was recorded" in critical_path.as_text(empty)


def test_json_and_text_agree() -> None:
    data = json.loads(json.dumps(critical_path.as_json(small_report())))
    assert data["sum"] == pytest.approx(0.251)
    assert data["components"] == critical_path.names(small_report())
    text = critical_path.as_text(small_report())
    assert "* database  (after security)" in text
    assert "checkpoint core_init_complete 1.1 ms" in text
    assert "parallel efficiency 1.000" in text


TIMES = st.none() | st.floats(0, 5)


@given(st.data())
def test_times_that_contradict_each_other_never_break_it(data: st.DataObject) -> None:
    names = ["a", "b", "c", "d"]
    parts = []
    for name in names:
        begin, end = data.draw(TIMES), data.draw(TIMES)
        attempts = []
        if begin is not None:
            attempts = [
                {"number": 1, "start": begin, "end": end, "outcome": "failed", "error": None}
            ]
        part = component(
            name,
            "core",
            data.draw(st.floats(0, 5)),
            0.0,
            data.draw(TIMES),
            requires=tuple(data.draw(st.lists(st.sampled_from(names), max_size=3))),
            attempts=attempts,
        )
        part["started"] = begin
        parts.append(part)
    report = small_report(phases=[phase("core", 0.18, 0.3)], components=parts)
    path = critical_path.steps(report)
    assert all(step.seconds >= 0 for step in path)
    assert 0 <= (critical_path.efficiency(report) or 0.0) <= 1
    assert critical_path.as_text(report)
