"""Three nodes, two of them joined by token, through the fail-over of the database they share."""

from __future__ import annotations

from pathlib import Path

from bench.failover import run


def test_nodes_go_on_with_the_promoted_server_and_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    found = run(
        tmp_path,
        synchronous=True,
        rounds=1,
        outage=0.5,
        lag=0.5,
        calm=0.5,
        durable=False,
        two_primaries=False,
    )
    assert found["writes_acknowledged"] > 0
    assert found["writes_lost"] == 0
    assert found["calls_without_answer"] == 0
    assert set(found["statuses"]["/api/v1/tokens"]) <= {"201", "503", "504"}
    for path in ("/livez", "/readyz", "/api/v1/status"):
        assert set(found["statuses"][path]) == {"200"}
