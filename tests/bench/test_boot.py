"""The boot bench on the real node, once, for the shape of what it prints; never for its figures."""

from __future__ import annotations

import json

import pytest

from bench import __main__ as entry
from bench import boot


def test_a_boot_is_measured_against_a_floor_of_exactly_its_modules(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boot, "_WARM_UP", 0)
    monkeypatch.setattr(boot, "_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(boot, "_FEWEST", 1)
    assert entry.main(["boot", "--runs", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for name in ("import_floor", "boot", "first_boot", "boot_seen_from_outside", "stop_ms"):
        assert set(result[name]) == {"p50", "p95", "p99"}
        assert result[name]["p50"] > 0
    assert result["ratio_p50"] == pytest.approx(
        result["boot"]["p50"] / result["import_floor"]["p50"], abs=1e-3
    )
    assert {"pre_init", "core", "services", "post_init"} <= set(result["phases"])
    modules = result["floor_modules"]
    assert modules["count"] > 50
    assert (modules["failed"], modules["missing"], modules["extra"]) == ([], [], [])
    assert result["cpu_ms"]["boot"]["p50"] > 0
    assert result["rss_mib"] > 10
    assert result["peers"] == {}
