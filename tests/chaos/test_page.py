"""The page of the fault matrix lists what the tests do."""

from __future__ import annotations

import re
from pathlib import Path

from tests.chaos.faults import POSTGRESQL, REDIS


def test_the_page_lists_each_fault_with_what_is_done(repository: Path) -> None:
    page = (repository / "docs/internals/faults.md").read_text()
    rows = re.findall(r"^\| (PostgreSQL|Redis) \| ([^|]+) \| ([^|]+) \|", page, re.MULTILINE)
    expected = [("PostgreSQL", fault.name, fault.what) for fault in POSTGRESQL]
    expected += [("Redis", fault.name, fault.what) for fault in REDIS]
    assert rows == expected
