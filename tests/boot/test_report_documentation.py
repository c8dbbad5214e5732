"""The reference page of the boot report, held to the code."""

from __future__ import annotations

import re
from pathlib import Path

from novacron.boot import report
from novacron.boot.analysis import main_choices

DOCS = Path(__file__).parents[2] / "docs"


def test_every_field_is_documented_and_nothing_else() -> None:
    page = (DOCS / "reference" / "boot-report.md").read_text()
    whole, _, component = page.partition("## A component")

    def rows(text: str) -> set[str]:
        cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
        return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}

    assert rows(whole) == set(report._REPORT)
    assert rows(component) == set(report._ITEMS["components"])


def test_every_analysis_is_in_the_guide() -> None:
    guide = (DOCS / "guide" / "boot-analysis.md").read_text()
    for kind in main_choices:
        assert f"--analyze {kind}" in guide
