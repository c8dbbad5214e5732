"""The guide gives Redis's user the rights that the node asks for."""

from __future__ import annotations

import re
from pathlib import Path

from novacron.cache.redis_errors import RIGHTS


def test_the_guide_lists_every_right_and_no_other(repository: Path) -> None:
    page = (repository / "docs/guide/cache.md").read_text()
    found = re.search(r"ACL SETUSER (.+?)\n\n", page, re.DOTALL)
    assert found is not None
    assert re.findall(r"\+\S+", found.group(1)) == RIGHTS.split()
