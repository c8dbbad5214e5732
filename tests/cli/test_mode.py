"""``novacron mode``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from novacron.data_directory import DataDirectory
from tests.cli.conftest import Answers
from tests.cli.test_node import at

Run = Callable[..., tuple[int, str, str]]
MODE = "/api/v1/mode"


def path(**changes: Any) -> dict[str, Any]:
    return {
        "peer": "7669cb21-0000",
        "mode": "internet",
        "measured": True,
        "why": "round trip 60.3 ms (above 50 ms)",
        "same_host": False,
        "samples": 10,
        "sampled_seconds_ago": 0.2,
        "round_trip_seconds": 0.0603,
        "round_trip_minimum_seconds": 0.06,
        "jitter_seconds": 0.000102,
        "loss": 0.0025,
        "segments": 40_000,
        "ecn": True,
        "ce_share": 0.01,
        "rate_bps": 12_500_000,
        "rate_spread": None,
        "rdma": False,
        "scores": {"datacenter": 0.0, "internet": 0.8, "hybrid": 0.2},
        **changes,
    }


def answer(*paths: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "mode": "internet",
        "measured": True,
        "forced": False,
        "why": "1 path (7669cb21) is internet",
        "seconds": 75.0,
        "paths": list(paths),
        "switches": [],
        **changes,
    }


def test_it_says_the_mode_since_when_why_and_lists_the_paths(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    rest.by_path[MODE] = (200, answer(path()))
    status, out, _ = run("mode", *at(node))
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "internet for 1 min 15 s"
    assert lines[1] == "  1 path (7669cb21) is internet"
    assert [cell.strip() for cell in lines[4].split("  ") if cell] == [
        "7669cb21", "internet", "60.300 ms", "60.000 ms", "0.102 ms", "0.25 %", "1 %",
        "11.9 MiB/s", "10", "0.00", "0.80", "0.20",
    ]  # fmt: skip
    assert lines[-1] == "7669cb21: round trip 60.3 ms (above 50 ms)"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measured": False}, "hybrid (unmeasured)"),
        ({"forced": True}, "hybrid (forced)"),
        ({"forced": True, "measured": False}, "hybrid (forced, unmeasured)"),
    ],
)
def test_a_mode_that_nobody_measured_or_that_was_forced_is_called_that(
    run: Run, node: DataDirectory, rest: Answers, changes: dict[str, Any], said: str
) -> None:
    rest.by_path[MODE] = (200, answer(mode="hybrid", **changes))
    out = run("mode", *at(node))[1]
    assert out.startswith(f"{said} for 1 min 15 s\n")
    assert out.endswith("no paths to other nodes\n")


def test_what_was_not_measured_has_no_number(run: Run, node: DataDirectory, rest: Answers) -> None:
    nothing = dict.fromkeys(
        ("mode", "jitter_seconds", "loss", "ce_share", "rate_bps", "scores"), None
    )
    here = path(peer="here0000", same_host=True, **nothing)
    rest.by_path[MODE] = (200, answer(path(ecn=False, **nothing), here))
    lines = run("mode", *at(node))[1].splitlines()
    cells = [cell.strip() for cell in lines[4].split("  ") if cell]
    assert cells == [
        "7669cb21", "unmeasured", "60.300 ms", "60.000 ms", "-", "-", "no ECN", "-", "10", "-",
        "-", "-",
    ]  # fmt: skip
    assert "same host" in lines[5]


def test_json_is_the_answer_of_the_node(run: Run, node: DataDirectory, rest: Answers) -> None:
    rest.by_path[MODE] = (200, answer(path()))
    assert json.loads(run("mode", "--json", *at(node))[1]) == answer(path())


@pytest.mark.parametrize("form", ["text", "json"])
def test_watching_tells_of_each_change_of_a_mode_and_of_nothing_else(
    run: Run, node: DataDirectory, rest: Answers, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr("novacron.cli.mode.LOOK_EVERY", 0.01)
    first = answer(path(mode=None), mode="hybrid", measured=False)
    second = answer(path(mode=None, samples=9), mode="hybrid", measured=False)
    third = answer(path(), mode="hybrid", measured=False)
    fourth = answer(path())
    rest.in_turn[MODE] = [(200, each) for each in (first, first, second, third, fourth, fourth)]
    status, out, err = run("mode", "--watch", *(["--json"] if form == "json" else []), *at(node))
    # Then the stand-in answers that there is no such thing.
    assert (status, bool(err)) == (1, True)
    if form == "json":
        assert [json.loads(line) for line in out.splitlines()] == [first, third, fourth]
    else:
        assert out.count("1 path (7669cb21) is internet") == 3
        assert out.count("hybrid (unmeasured) for") == 2
