from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.floor import third_party
from bench.harness import (
    BenchError,
    child_environment,
    environment,
    interleaved,
    percentile,
    percentiles,
    run_worker,
)
from bench.node import cpu_seconds


def test_percentiles_of_a_known_series() -> None:
    assert percentiles([float(value) for value in range(1, 102)]) == {
        "p50": 51.0,
        "p95": 96.0,
        "p99": 100.0,
    }
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_the_median_is_the_standard_librarys(values: list[float]) -> None:
    assert percentile(values, 0.5) == pytest.approx(statistics.median(values))


@given(st.lists(st.floats(0, 1e6), min_size=2), st.integers(1, 99))
def test_a_percentile_is_the_standard_librarys_inclusive_quantile(
    values: list[float], share: int
) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")[share - 1]
    assert percentile(values, share / 100) == pytest.approx(expected, abs=1e-6)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_subjects_take_turns_and_neither_always_comes_first() -> None:
    calls: list[str] = []
    interleaved([lambda: calls.append("a"), lambda: calls.append("b")], runs=3, warm_up=1)
    assert "".join(calls) == "abbaabba"


def test_a_child_is_not_told_of_our_settings_or_of_switches_that_slow_python_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOVACRON_LOG_LEVEL", "debug")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "/var/tmp/pyc")
    found = child_environment(NOVACRON_API__PORT="0")
    assert found["NOVACRON_API__PORT"] == "0"
    assert found["LANG"] == "C.UTF-8"
    assert found["PYTHONPYCACHEPREFIX"] == "/var/tmp/pyc"
    assert not {"NOVACRON_LOG_LEVEL", "PYTHONDONTWRITEBYTECODE", "NOTIFY_SOCKET"} & set(found)


def test_the_environment_names_what_a_figure_depends_on() -> None:
    found = json.loads(json.dumps(environment()))
    assert {"commit", "modified", "cpu", "cores", "kernel", "python"} <= set(found)
    assert found["cores"] == len(os.sched_getaffinity(0))


def test_a_worker_that_fails_is_reported_with_what_it_said() -> None:
    with pytest.raises(BenchError, match=r"bench\.engine failed:\n(.|\n)*KeyError"):
        run_worker("bench.engine", {}, timeout=60)


def test_only_modules_of_third_parties_make_the_floor() -> None:
    names = ["trio", "trio._core", "json", "novacron.boot", "__main__", "_distutils_hack"]
    names += ["__editable___novacron_0_1_0_finder", "_cython_3_3_0", "_cffi_backend"]
    assert third_party(names) == ["trio", "trio._core", "_cffi_backend"]


def test_the_floor_imports_what_it_is_told_and_says_what_differs(tmp_path: object) -> None:
    file = f"{tmp_path}/modules.json"
    with open(file, "w") as output:
        json.dump(["sortedcontainers", "no_such_module"], output)
    result = subprocess.run(
        [sys.executable, "-m", "bench.floor", file],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(result.stdout)
    assert found["failed"] == ["no_such_module"]
    assert found["missing"] == ["no_such_module"]
    assert "sortedcontainers.sortedlist" in found["extra"]
    assert found["seconds"] > 0
    assert found["cpu_seconds"] > 0


def test_the_cpu_time_of_another_process_counts_all_its_threads() -> None:
    script = (
        "import threading, time\n"
        "def burn():\n"
        "    while time.thread_time() < 0.05: pass\n"
        "threads = [threading.Thread(target=burn) for _ in range(3)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(time.process_time(), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        inside = float(child.stdout.readline())
        outside = cpu_seconds(child.pid)
        child.communicate("\n", timeout=30)
    assert inside >= 0.15
    assert inside <= outside
