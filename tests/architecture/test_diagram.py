"""The architecture page shows the layers that import-linter enforces."""

from __future__ import annotations

import re

from docs.generate.architecture import PAGE, layers, rendered


def test_the_diagram_is_what_the_contract_says() -> None:
    page = PAGE.read_text()
    assert page == rendered(page), "run: make docs"
    assert "flowchart" in page


def test_every_package_of_the_contract_is_explained() -> None:
    table = "\n".join(line for line in PAGE.read_text().splitlines() if line.startswith("| `"))
    explained = set(re.findall(r"`(\w+)`", table))
    assert not {name for row, _ in layers() for name in row} - explained
