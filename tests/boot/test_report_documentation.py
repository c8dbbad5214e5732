"""The reference page of the boot report, held to the code."""

from __future__ import annotations

import re
from pathlib import Path

from novacron.boot import report
from novacron.boot.analysis import main_choices
from novacron.boot.node_view import BootRecord, EngineView

DOCS = Path(__file__).parents[2] / "docs"


def test_every_field_is_documented_and_nothing_else() -> None:
    page = (DOCS / "reference" / "boot-report.md").read_text()
    whole, _, component = page.partition("## A component")

    def rows(text: str) -> set[str]:
        cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
        return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}

    assert rows(whole) == set(EngineView(BootRecord("b", 1, 0.0)).report())
    assert rows(component) == set(report._ITEMS["components"])


def test_what_the_engine_reports_before_anything_ran_is_a_valid_report() -> None:
    made = EngineView(BootRecord("b", 1, 0.0)).report()
    assert set(report._REPORT) <= set(made)
    assert report.Report.from_json(made).state == "starting"


def test_every_analysis_is_in_the_guide() -> None:
    guide = (DOCS / "guide" / "boot-analysis.md").read_text()
    for kind in main_choices:
        assert f"--analyze {kind}" in guide
