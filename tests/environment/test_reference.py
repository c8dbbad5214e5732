"""The reference page and the table of probes tell the same."""

from __future__ import annotations

import re
from pathlib import Path

from novacron.environment.probes import PROBES


def test_every_fact_is_in_the_reference_and_no_other(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "environment.md").read_text()
    table = page.partition("| fact |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [probe.name for probe in PROBES]
