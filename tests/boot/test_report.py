from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.boot.report import Report, ReportError
from tests.boot.reports import failed_report, random_report, retried_report, small_report

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "report", [small_report(), retried_report(), failed_report(), random_report(60, 1)]
)
def test_a_report_survives_writing_and_reading(report: Report) -> None:
    assert Report.loads(report.dumps()).to_json() == report.to_json()


def test_a_new_report_is_a_valid_report() -> None:
    report = Report.new(boot_id="b", pid=1, started=1.0, schedule="dataflow", max_concurrency=64)
    assert Report.loads(report.dumps()).state == "starting"
    assert report.seconds is None
    assert report.last_moment == 0.0


def test_fields_of_a_newer_minor_layout_are_kept() -> None:
    data = small_report().to_json() | {"weather": "fine"}
    assert Report.from_json(data).to_json()["weather"] == "fine"


def test_another_version_is_refused_and_named() -> None:
    data = small_report().to_json() | {"version": 2}
    with pytest.raises(ReportError, match="version 2, this code reads version 1"):
        Report.from_json(data)


@pytest.mark.parametrize("field", sorted(small_report().to_json()))
def test_each_field_must_be_there_and_of_its_type(field: str) -> None:
    data = small_report().to_json()
    without = {key: value for key, value in data.items() if key != field}
    with pytest.raises(ReportError, match=f"has no {field}"):
        Report.from_json(without)
    with pytest.raises(ReportError, match=rf"report\.{field} is set"):
        Report.from_json(data | {field: {1}})


def test_true_is_not_a_time_and_neither_is_infinity() -> None:
    data = small_report().to_json()
    with pytest.raises(ReportError, match="seconds is bool"):
        Report.from_json(data | {"seconds": True})
    with pytest.raises(ReportError, match="not a finite number"):
        Report.from_json(data | {"seconds": float("inf")})


def test_deep_nesting_is_refused_not_overflowed() -> None:
    with pytest.raises(ReportError, match="not JSON"):
        Report.loads("[" * 100_000)


@given(JSON)
def test_no_json_value_does_anything_but_raise_report_error(value: object) -> None:
    with pytest.raises(ReportError):
        Report.from_json(value)


@given(st.data())
def test_a_report_with_any_part_replaced_is_read_or_refused(data: st.DataObject) -> None:
    tree = copy.deepcopy(failed_report().to_json())
    node: Any = tree
    for _ in range(data.draw(st.integers(0, 3))):
        children = [
            key
            for key in (node if isinstance(node, dict) else range(len(node)))
            if isinstance(node[key], dict | list) and node[key]
        ]
        if not children:
            break
        node = node[data.draw(st.sampled_from(children))]
    keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
    node[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    try:
        report = Report.from_json(tree)
    except ReportError:
        return
    assert report.last_moment >= 0.0
