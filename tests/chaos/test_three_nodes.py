"""Three nodes on one PostgreSQL and one Redis, two of them joined by token, through the loss of each."""

from __future__ import annotations

from pathlib import Path

from bench.backends import MAX_STALENESS
from bench.cluster import run

LATE = 1.0
"""Seconds by which a busy machine may be late with a call that proves a token is refused."""


def test_nothing_acknowledged_is_lost_and_nothing_revoked_outlives_the_bound(
    tmp_path: Path,
) -> None:
    found = run(tmp_path, rounds=1, outage=2.0, calm=2.0)
    assert found["writes_acknowledged"] > 0
    assert found["writes_lost"] == 0
    assert found["revocations"] > 0
    assert found["worst_staleness_s"] < MAX_STALENESS + LATE
    assert found["calls_frozen"] == 0
    assert found["calls_without_answer"] == 0
    # The database being away is no defect of a node: it says so, and is whole again afterwards.
    assert set(found["statuses"]["/api/v1/tokens"]) <= {"201", "503", "504"}
    for path in ("/livez", "/readyz", "/api/v1/status"):
        assert set(found["statuses"][path]) == {"200"}
