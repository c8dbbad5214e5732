from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.boot.analysis.plot import as_svg, tick_step
from novacron.boot.report import Report
from tests.boot.reports import failed_report, random_report, retried_report, small_report

SVG = "{http://www.w3.org/2000/svg}"


def drawn(report: Report) -> ElementTree.Element:
    return ElementTree.fromstring(as_svg(report))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def hints(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}title")]


@pytest.mark.parametrize("components", [1, 12, 60, 400])
def test_every_component_has_a_row_of_its_own_within_the_page(components: int) -> None:
    report = random_report(components, 8)
    root = drawn(report)
    rows = {
        element.text: float(element.get("y", "nan"))
        for element in root.iter(f"{SVG}text")
        if element.get("text-anchor") == "end"
    }
    positions = [rows[record["name"]] for record in report.components]
    assert len(set(positions)) == components
    assert max(positions) < float(root.get("height", "0"))


@pytest.mark.parametrize(
    "report", [small_report(), retried_report(), failed_report(), random_report(60, 3)]
)
def test_nothing_is_drawn_outside_the_page(report: Report) -> None:
    root = drawn(report)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    for shape in root.iter(f"{SVG}rect"):
        if shape.get("x") is not None:
            assert float(shape.get("x", "-1")) >= 0
            assert float(shape.get("x", "-1")) + float(shape.get("width", "0")) <= width
            assert float(shape.get("y", "-1")) + float(shape.get("height", "0")) <= height
    for element in root.iter(f"{SVG}text"):
        # 0.5 em a character is narrower than any font used here: a lower bound of what must fit.
        reach = 0.5 * float(element.get("font-size", "12")) * len(element.text or "")
        x = float(element.get("x", "0"))
        if element.get("text-anchor") == "end":
            assert x - reach >= 0
        elif element.get("text-anchor") is None:
            assert x + reach <= width


def test_bars_show_waiting_working_sleeping_failing_and_the_fallback() -> None:
    found = hints(drawn(retried_report()))
    assert "cache waited 9.0 ms" in found
    assert "cache, attempt 1: failed after 50.0 ms, cannot reach the cache" in found
    assert "cache slept 1.000 s before attempt 2" in found
    assert "cache, attempt 3: timeout after 50.0 ms, cannot reach the cache" in found
    assert "cache began to serve on its fallback in 10.0 ms" in found
    assert "security, attempt 1: ready after 9.0 ms" in found


def test_the_length_of_a_bar_is_its_time_on_the_axis() -> None:
    bars = {
        hint.text: float(shape.get("width", "0"))
        for shape in drawn(small_report()).iter(f"{SVG}rect")
        if (hint := shape.find(f"{SVG}title")) is not None
    }
    imports = bars["imports 150.0 ms"]
    assert bars["database, attempt 1: ready after 13.0 ms"] == pytest.approx(
        imports * 13 / 150, abs=0.01
    )
    assert bars["database waited 9.0 ms"] == pytest.approx(imports * 9 / 150, abs=0.01)


def test_the_critical_path_is_bold_and_joined() -> None:
    root = drawn(small_report())
    bold = {e.text for e in root.iter(f"{SVG}text") if e.get("font-weight") == "bold"}
    assert {"security", "database", "api"} <= bold
    assert "cache" not in bold
    assert len(list(root.iter(f"{SVG}polyline"))) == 5


def test_title_names_boot_date_state_and_total() -> None:
    words = texts(drawn(small_report()))
    assert "Boot 0b6e3a52: ready after 251.0 ms" in words
    assert any(word.startswith("2026-09-21 14:13:20 UTC, 12 of 12 components") for word in words)
    assert "READY" in words


def test_a_failed_boot_says_what_failed_and_what_was_never_entered() -> None:
    words = texts(drawn(failed_report()))
    assert "Boot 22222222: failed after 262.0 ms (database)" in words
    assert "cannot open the database: the file is damaged (integrity check: row 7 missing)" in words
    assert "monitoring, api, ready_signal" in words
    assert "13.0 ms, failed" in words
    assert "FAILED" in words


def test_checkpoints_that_fall_together_share_a_label() -> None:
    assert {"1-2", "3-5"} <= set(texts(drawn(retried_report())))
    assert {"1", "2", "3", "4", "5"} <= set(texts(drawn(small_report())))


@given(st.text(min_size=1, max_size=30))
def test_any_text_in_a_report_gives_well_formed_svg(words: str) -> None:
    report = failed_report()
    failure = report.failure
    assert failure is not None
    failure["what"] = words
    report.components[0]["name"] = words
    [attempt] = report.components[6]["attempts"]
    assert attempt["error"] is not None
    attempt["error"]["what"] = words
    drawn(report)


@given(st.floats(1e-4, 1e5))
def test_an_axis_has_between_four_and_eleven_ticks_at_round_numbers(span: float) -> None:
    step = tick_step(span)
    assert 4 <= span / step <= 10.01
    assert re.match(r"[125]\.?0*e", f"{step:e}")


def test_a_boot_that_has_only_begun_can_be_drawn() -> None:
    report = Report.new(boot_id="x", pid=1, started=0.0, schedule="dataflow", max_concurrency=1)
    assert "Boot x: starting, not over yet" in texts(drawn(report))
