from __future__ import annotations

import json

import pytest

from novacron.boot.analysis import blame
from novacron.boot.report import Report, finished
from tests.boot.reports import failed_report, random_report, retried_report, small_report

REPORTS = [small_report(), retried_report(), failed_report(), random_report(50, 4)]


@pytest.mark.parametrize("report", REPORTS)
def test_wait_work_and_sleep_add_up_to_end_minus_phase_start(report: Report) -> None:
    records = {record["name"]: record for record in report.components}
    entries = blame.blame(report)
    assert len(entries) == sum(1 for record in report.components if record["attempts"])
    for entry in entries:
        record = records[entry.name]
        end = finished(record)
        assert end is not None
        assert record["phase_started"] is not None
        total = entry.wait + entry.work + entry.sleep + entry.fallback
        assert total == pytest.approx(end - record["phase_started"], abs=0.001)


def test_a_retried_component_is_blamed_for_its_sleeps_not_for_its_wait() -> None:
    [cache] = [entry for entry in blame.blame(retried_report()) if entry.name == "cache"]
    assert cache.wait == pytest.approx(0.009)
    assert cache.work == pytest.approx(0.150)
    assert cache.sleep == pytest.approx(3.0)
    assert cache.fallback == pytest.approx(0.010)


def test_the_most_expensive_comes_first() -> None:
    own = [entry.own for entry in blame.blame(random_report(50, 2))]
    assert own == sorted(own, reverse=True)


def test_text_names_attempts_fallback_and_what_was_never_entered() -> None:
    text = blame.as_text(retried_report())
    assert "degraded, 3 attempts, fallback took 10.0 ms" in text
    assert "never entered: api, monitoring, ready_signal" in blame.as_text(failed_report())


def test_text_of_a_boot_that_entered_nothing_says_so() -> None:
    report = small_report(components=[], phases=[])
    assert "no component was entered" in blame.as_text(report)


def test_json_holds_the_same_figures() -> None:
    data = json.loads(json.dumps(blame.as_json(retried_report())))
    assert data["components"][0]["name"] == "cache"
    assert data["components"][0]["retry_sleep"] == 3.0
    assert data["seconds"] == 3.42
