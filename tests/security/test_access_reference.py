from __future__ import annotations

import runpy
from pathlib import Path


def test_the_reference_of_who_may_do_what_is_what_the_table_says(repository: Path) -> None:
    generator = runpy.run_path(str(repository / "docs/generate/access.py"))
    page = (repository / "docs/reference/access.md").read_text()
    assert page == generator["rendered"](), "run make docs"
