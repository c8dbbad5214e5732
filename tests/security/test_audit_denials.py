"""A flood of denials is counted, not written down one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from novacron.data_directory import DataDirectory
from novacron.security import audit_denials
from novacron.security.audit import AuditLog
from novacron.security.audit_denials import IN_ALL, NAMED, PER_SOURCE, WINDOW, DenialBudget
from novacron.security.errors import AuditUnavailableError
from tests.security.stand_ins import prepared


def records(log: AuditLog) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(log.directory.glob("audit-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_a_source_that_errs_now_and_then_is_recorded_in_full() -> None:
    budget = DenialBudget()
    for turn in range(5):
        assert all(budget.admit("192.0.2.1", turn * WINDOW) for _ in range(PER_SOURCE))
    assert budget.left_out == 0


def test_one_that_floods_is_counted_and_others_are_still_recorded() -> None:
    budget = DenialBudget()
    assert [budget.admit("192.0.2.1:4711", 0.0) for _ in range(1000)].count(True) == PER_SOURCE
    assert budget.admit("192.0.2.2", 1.0)
    assert not budget.due(1.0)
    assert budget.due(WINDOW)
    summary = budget.take()
    assert summary["denials"] == 1000 - PER_SOURCE
    assert summary["sources"] == {"192.0.2.1": 1000 - PER_SOURCE}
    assert not budget.due(2 * WINDOW)


def test_ports_do_not_make_a_source_new() -> None:
    budget = DenialBudget()
    for source in ("192.0.2.1:{}", "[2001:db8::1]:{}"):
        admitted = [budget.admit(source.format(port), 0.0) for port in range(1, 100)]
        assert admitted.count(True) == PER_SOURCE


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0, 3 * WINDOW)), max_size=600))
def test_nothing_is_lost_and_no_window_holds_more_than_its_budget(
    denials: list[tuple[int, float]],
) -> None:
    budget = DenialBudget()
    recorded = 0
    summaries = []
    windows: dict[float, int] = {}
    for source, now in sorted(denials, key=lambda denial: denial[1]):
        if budget.due(now):
            summaries.append(budget.take())
        if budget.admit(f"host-{source}", now):
            recorded += 1
            windows[budget._started] = windows.get(budget._started, 0) + 1
    summaries.append(budget.take())
    assert recorded + sum(summary["denials"] for summary in summaries) == len(denials)
    assert all(count <= IN_ALL for count in windows.values())
    assert all(len(summary["sources"]) <= NAMED for summary in summaries)


async def test_a_flood_makes_few_records_and_one_with_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(prepared(tmp_path))
    log.open_blocking()
    with trio.fail_after(30):
        for number in range(500):
            await log.append_denied("api.call", "anonymous", "/x", "192.0.2.1", {"n": number})
        assert len(records(log)) == PER_SOURCE
        monkeypatch.setattr(audit_denials, "WINDOW", 0.0)
        await log.flush_denials()
    (*_, last) = records(log)
    assert (last["action"], last["outcome"]) == ("audit.denials", "denied")
    assert last["details"]["denials"] == 500 - PER_SOURCE
    assert log.verify().ok
    log.close_blocking()


async def test_a_count_that_cannot_be_recorded_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory: DataDirectory = prepared(tmp_path)
    log = AuditLog(directory)
    log.open_blocking()
    for _ in range(50):
        await log.append_denied("api.call", "anonymous", "/x", "192.0.2.1")
    monkeypatch.setattr(audit_denials, "WINDOW", 0.0)
    log.close_blocking()
    away = directory.audit.with_name("away")
    directory.audit.rename(away)
    with pytest.raises(AuditUnavailableError):
        await log.flush_denials()
    away.rename(directory.audit)
    log.flush_denials_blocking()
    assert records(log)[-1]["details"]["denials"] == 50 - PER_SOURCE
    log.close_blocking()
