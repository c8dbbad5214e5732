"""The account of what was encoded: it adds up, and survives being written down."""

from __future__ import annotations

import json
from typing import Any

import pytest

from novacron.dwcp.hde.report import (
    MAX_DECISIONS,
    NOTHING,
    Coded,
    CodingReport,
    Decision,
    StageSeconds,
)


def decision(at: float) -> Decision:
    return Decision(at, "raw", "zstd 1", "the link is what bounds", 10_000, 20_000, 3.5)


ONE = CodingReport(
    zero=Coded(4, 400, 0),
    raw=Coded(1, 100, 104),
    zstd=Coded(2, 200, 50),
    delta=Coded(1, 100, 10),
    refused_bases=1,
    cpu_seconds=StageSeconds(read=0.5, encode=1.0),
    decisions=(decision(1.0),),
)
TWO = CodingReport(
    lz4=Coded(3, 300, 150),
    budget_chunks=2,
    cpu_seconds=StageSeconds(encode=0.25, seal=0.125),
    decisions=(decision(0.5), decision(2.0)),
)


def test_objects_and_attempts_add_up() -> None:
    both = ONE.plus(TWO)
    assert both == TWO.plus(ONE)
    assert both.bytes == 1000
    assert both.wire_bytes == 304
    assert both.ratio == 600 / 304
    assert both.cpu_seconds == StageSeconds(read=0.5, encode=1.25, seal=0.125)
    assert [one.at for one in both.decisions] == [0.5, 1.0, 2.0]
    assert ONE.plus(NOTHING) == ONE


def test_what_was_not_sent_has_no_ratio() -> None:
    assert NOTHING.ratio is None
    assert CodingReport(zero=Coded(1, 4096, 0)).ratio is None


def test_the_last_decisions_are_kept_and_no_more() -> None:
    found = NOTHING
    for at in range(3 * MAX_DECISIONS):
        found = found.plus(CodingReport(decisions=(decision(float(at)),)))
    assert [one.at for one in found.decisions] == [
        float(at) for at in range(2 * MAX_DECISIONS, 3 * MAX_DECISIONS)
    ]


def test_it_is_the_same_after_it_was_written_and_read() -> None:
    both = ONE.plus(TWO)
    document = json.loads(json.dumps(both.as_json()))
    assert CodingReport.of_json(document) == both
    assert CodingReport.of_json({}) == NOTHING


def changed(**changes: Any) -> dict[str, Any]:
    return {**ONE.as_json(), **changes}


@pytest.mark.parametrize(
    "document",
    [
        {"raw": 1},
        changed(raw={"chunks": 1}),
        changed(raw={"chunks": 1.5, "bytes": 1, "wire_bytes": 1}),
        changed(raw=[1, 2, 3]),
        changed(refused_bases=True),
        changed(budget_chunks="1"),
        changed(cpu_seconds=None),
        changed(decisions=3),
        changed(decisions=[{"at": "now"}]),
        changed(decisions=[{**decision(1.0)._asdict(), "why": 5}]),
    ],
)
def test_what_is_no_report_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"report|number|text"):
        CodingReport.of_json(document)
