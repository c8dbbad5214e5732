"""The wide-area bench measures real links through a relay, and its figures follow from what it saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as entry
from bench import amst_wan
from bench.amst_wan import Cell, seconds_to
from bench.lab.netns import obstacle

MBIT = 125_000


def test_the_time_to_a_goodput_is_when_half_a_second_had_it_first() -> None:
    # 1 Mbit/s for a second, then 10.
    moments = [(n / 10, n * MBIT // 10) for n in range(11)]
    moments += [(1 + n / 10, MBIT + n * MBIT) for n in range(1, 21)]
    assert seconds_to(moments, 0.9) == 0.5
    assert seconds_to(moments, 9.9) == 1.5
    assert seconds_to(moments, 10.1) is None
    assert seconds_to([], 1.0) is None


def one(mbps: float, seconds: float = 8.0) -> dict[str, Any]:
    moments = [(n / 10, int(n / 10 * mbps * MBIT)) for n in range(int(seconds * 10) + 1)]
    return {
        "goodput_mbps": mbps,
        "whole_mbps": mbps,
        "streams": 4,
        "queue_mean_ms": 1.0,
        "queue_peak_ms": 2.0,
        "resent_bytes": 0,
        "moments": moments,
    }


def cell() -> dict[str, Any]:
    found = {
        "tcp": {"goodput_mbps": 20.0, "queue_mean_ms": 0.0, "queue_peak_ms": 0.0},
        "adaptive": one(76.0),
        "1": one(20.0),
        "4": one(60.0),
        "16": one(80.0),
        "64": one(70.0),
    }
    return amst_wan._row(Cell(5.0, 0.01, 20.0), found, 3)


def test_a_cell_compares_the_controller_with_the_best_fixed_number_and_with_tcp() -> None:
    row = cell()
    assert (row["best_fixed"], row["missed_packets"]) == (16, 3)
    assert (row["ratio_to_best_fixed"], row["ratio_to_tcp"]) == (0.95, 3.8)
    assert row["adaptive"]["seconds_to_90"] == 0.5
    assert row["fixed"]["4"]["seconds_to_90"] is None
    assert "moments" not in row["adaptive"]


def test_text_and_drawing_show_every_cell(tmp_path: Path) -> None:
    ratios = {"worst": 0.95, "mean": 0.95}
    slow = {"goodput_mbps": 120.0, "ratio_to_seven": 0.95, "ratio_to_seven_eighths": 0.85}
    result = {
        "rate_mbps": 200.0,
        "seconds": 8,
        "congestion": "bbr",
        "cells": [cell()],
        "ratio_to_best_fixed": ratios,
        "ratio_to_tcp": ratios,
        "slow_stream": {**slow, "last_percent_share": 0.02},
    }
    text = amst_wan.as_text(result)
    assert "(3 packets missed)" in text
    assert "0.950 of the other seven alone" in text
    assert "the last 1 % took 2.0 % of the time" in text
    environment = {"commit": None, "cpu": "c", "cores": 2, "kernel": "6", "python": "3"}
    path = tmp_path / "wan.svg"
    amst_wan.plot({**result, "environment": {**environment, "date": "2026-01-01T00:00:00Z"}}, path)
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "3"], "--seconds must be an even number"),
        (["--seconds", "0"], "--seconds must be an even number"),
        (["--rate", "0"], "--rate must be 1 to 10000"),
        (["--delays", "1,x"], "--delays must be numbers"),
        (["--losses", "1"], "--losses are shares"),
        (["--flows", "-1"], "--flows must be numbers"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["amst-wan", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
def test_amst_wan_prints_one_json_object_with_its_figures(
    capsys: pytest.CaptureFixture[str], no_leaks: None
) -> None:
    arguments = ["--seconds", "2", "--rate", "50", "--delays", "2", "--losses", "0"]
    arguments += ["--flows", "0", "--congestion", "reno", "--json"]
    assert entry.main(["amst-wan", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    (row,) = result["cells"]
    assert (row["delay_ms"], row["loss"], row["flow_mbps"]) == (2.0, 0.0, 0.0)
    assert set(row["fixed"]) == {"1", "4", "16", "64"}
    assert row["adaptive"]["goodput_mbps"] > 0
    assert row["adaptive"]["decisions"][0]["streams"] == 8
    assert row["tcp"]["goodput_mbps"] > 0
    assert row["tcp"]["queue_peak_ms"] > 0
    assert result["ratio_to_best_fixed"]["worst"] == row["ratio_to_best_fixed"] > 0
    assert result["slow_stream"]["goodput_mbps"] > 0
    assert 0 < result["slow_stream"]["last_percent_share"] <= 1
