from __future__ import annotations

import json
from typing import Any

import pytest

from novacron.boot.analysis import diff
from novacron.boot.report import Report
from tests.boot.reports import component, failed_report, retried_report, small_report


def with_one(took: float, **fields: Any) -> Report:
    return small_report(components=[component("one", "core", 0.202, 0.202, 0.202 + took, **fields)])


def flags(before: Report, after: Report) -> dict[str, list[str]]:
    return {change.name: change.flags for change in diff.changes(before, after) if change.flags}


@pytest.mark.parametrize(
    ("before", "after", "flagged"),
    [
        (0.100, 0.121, ["slower"]),
        (0.100, 0.120, ["slower"]),
        (0.100, 0.119, []),
        (0.010, 0.029, []),
        (1.000, 1.100, []),
        (1.000, 1.200, ["slower"]),
        (0.121, 0.100, ["faster"]),
    ],
)
def test_a_component_is_flagged_when_both_share_and_amount_are_exceeded(
    before: float, after: float, flagged: list[str]
) -> None:
    assert flags(with_one(before), with_one(after)).get("one", []) == flagged


def test_a_component_that_came_or_went_is_flagged() -> None:
    before, after = with_one(0.01), small_report()
    found = flags(before, after)
    assert found["one"] == ["disappeared"]
    assert found["database"] == ["appeared"]


def test_a_component_that_ended_differently_is_flagged() -> None:
    found = flags(small_report(), retried_report())
    assert found == {"total": ["state", "slower"], "core": ["slower"], "cache": ["state", "slower"]}


def test_a_phase_that_was_not_reached_disappeared() -> None:
    found = flags(small_report(), failed_report())
    assert found["services"] == ["disappeared"]
    assert found["core"] == ["state"]


def test_two_equal_boots_have_nothing_flagged_even_if_one_has_stopped_since() -> None:
    stopped = small_report()
    for record in stopped.components:
        record["state"], record["stopped"] = "stopped", 9.0
    assert flags(small_report(), stopped) == {}


def test_text_shows_flagged_components_and_counts_the_others() -> None:
    text = diff.as_text(small_report(), retried_report())
    assert "ready -> degraded, slower" in text
    assert "11 components not shown" in text
    assert "database" not in text


def test_json_holds_every_change() -> None:
    data = json.loads(json.dumps(diff.as_json(small_report(), retried_report())))
    assert data["flagged"] == ["total", "core", "cache"]
    [cache] = [change for change in data["changes"] if change["name"] == "cache"]
    assert cache["delta"] == pytest.approx(3.159)
