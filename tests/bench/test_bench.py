from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as entry
from bench import boot, parallel, stress
from bench.graphs import Graph, Node, reference

FIGURES = {"p50": 0.2, "p95": 0.3, "p99": 0.4}
MILLISECONDS = {"p50": 200.0, "p95": 300.0, "p99": 400.0}
BOOT: dict[str, Any] = {
    "runs": 3,
    "import_floor": FIGURES,
    "boot": FIGURES,
    "ratio_p50": 1.0,
    "ratio_p99": 2.0,
    "boot_seen_from_outside": FIGURES,
    "cpu_ms": {"boot": MILLISECONDS, "import_floor": MILLISECONDS},
    "rss_mib": 61.0,
    "stop_ms": MILLISECONDS,
    "first_boot": FIGURES,
    "phases": {"core": FIGURES},
    "peers": {"etcd": {"version": "3", **FIGURES, "fresh": FIGURES, "boot_ratio_p50": 0.5}},
}


def test_speedup_limit_and_efficiency_follow_from_the_seconds() -> None:
    row = parallel.figures(reference(), {"sequential": 17.4, "level": 9.8, "dataflow": 8.4})
    assert row["limit"] == 2.0843
    assert row["speedup"] == 2.0714
    assert row["efficiency"] == pytest.approx(17.4 / 8.4 / (17.3 / 8.3), abs=1e-4)
    assert row["critical_path_over_dataflow"] == pytest.approx(8.3 / 8.4, abs=1e-4)
    assert (row["name"], row["components"]) == ("reference", 8)


def test_the_schedules_run_in_the_real_engine_and_dataflow_is_no_slower_than_one_by_one() -> None:
    graph = Graph(
        "two",
        (Node("a", "core", 0.05), Node("b", "core", 0.05), Node("c", "services", 0.01, ("a",))),
    )
    row = parallel._measured(graph, repeat=1)
    assert row["sequential"] >= graph.work
    assert row["dataflow"] >= graph.critical_path
    assert row["level"] >= graph.critical_path
    assert row["dataflow"] < row["sequential"]


def test_stress_prints_one_json_object_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(stress, "SIZES", (10, 50))
    saved = tmp_path / "stress.json"
    assert entry.main(["stress", "--repeat", "1", "--json", "--save", str(saved)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["components"] for row in result["sizes"]] == [10, 50]
    assert {"start_us_per_component", "stop_us_per_component", "peak_mib"} <= set(
        result["sizes"][0]
    )
    assert result["environment"]["python"]
    assert json.loads(saved.read_text()) == result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["boot", "--runs", "0"], "--runs must be at least 1"),
        (["parallel", "--repeat", "0"], "--repeat must be at least 1"),
        (["stress", "--repeat", "0"], "--repeat must be at least 1"),
    ],
)
def test_a_bench_that_cannot_measure_says_why(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_text_of_each_bench_names_its_figures() -> None:
    assert "boot p50 / floor p50: 1.000" in boot.as_text(BOOT)
    assert "boot p50 / etcd p50: 0.500" in boot.as_text(BOOT)
    row = parallel.figures(reference(), {"sequential": 17.4, "level": 9.8, "dataflow": 8.4})
    assert "reference" in parallel.as_text({"graphs": [row]})
    size = {
        "components": 10,
        "start_us_per_component": 40.0,
        "stop_us_per_component": 30.0,
        "peak_mib": 30.0,
        "baseline_mib": 28.0,
    }
    assert "40.0 us" in stress.as_text({"sizes": [size]})


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_each_bench_draws_its_result(tmp_path: Path, suffix: str) -> None:
    environment = {
        "commit": None,
        "cpu": "c",
        "cores": 2,
        "kernel": "6",
        "python": "3",
        "date": "2026-01-01T00:00:00Z",
    }
    row = parallel.figures(reference(), {"sequential": 17.4, "level": 9.8, "dataflow": 8.4})
    size = {
        "components": 10,
        "start_us_per_component": 40.0,
        "stop_us_per_component": 30.0,
        "peak_mib": 30.0,
    }
    for module, result in (
        (boot, BOOT),
        (parallel, {"graphs": [row]}),
        (stress, {"sizes": [size]}),
    ):
        path = tmp_path / f"{module.__name__}.{suffix}"
        module.plot({**result, "environment": environment}, path)  # type: ignore[attr-defined]
        head = path.read_bytes()[:200]
        assert head.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in path.read_bytes()
