"""The steps by which the authority's key is replaced, cut short anywhere, and what each leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("step", "writes"), [("begin", 3), ("issue", 3), ("finish", 5), ("abort", 3)]
)
def test_a_step_killed_before_any_of_its_writes_is_finished_by_the_same_command(
    tmp_path: Path, step: str, writes: int
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.trust.rotation_killer", step, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["steps"] >= writes
