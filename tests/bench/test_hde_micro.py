from __future__ import annotations

import json

import pytest

from bench import hde_micro
from bench.harness import BenchError
from novacron._native import hde


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hde_micro, "SIZES", {"cache": 16 * 1024, "memory": 3 * hde_micro.MIB})
    monkeypatch.setattr(hde_micro, "LEVELS", (("lz4", 1), ("zstd", 1)))
    monkeypatch.setattr(hde_micro, "WORDS", (0, 8))
    monkeypatch.setattr(hde_micro, "_ROUND_NS", 1)


def test_each_subject_has_a_rate_where_it_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert hde_micro.main(["--json", "--rounds", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["versions"] == {"lz4": hde.version("lz4"), "zstd": hde.version("zstd")}
    rates = result["rates"]
    assert set(rates) == {
        *("copy", "zero", "cdc", "lz4 1", "unlz4 1", "zstd 1", "unzstd 1"),
        *("delta 0 words a page", "undelta 0 words a page"),
        *("delta 8 words a page", "undelta 8 words a page"),
    }
    for name, places in rates.items():
        coded = name.removeprefix("un").startswith(("lz4", "zstd"))
        assert set(places) == ({"text", "noise"} if coded else {"cache", "memory"})
        assert all({"gb_per_s", "iqr"} <= set(figures) for figures in places.values())
    assert rates["delta 8 words a page"]["memory"]["ratio"] > 30
    assert rates["zstd 1"]["text"]["ratio"] > 2
    assert rates["zstd 1"]["noise"]["ratio"] == pytest.approx(1, abs=0.01)
    text = hde_micro.as_text(result)
    assert "delta 8 words a page" in text
    assert "medians of 1 rounds" in text


def test_what_cannot_be_measured_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hde_micro.main(["--rounds", "0"]) == 1
    assert "--rounds must be at least 1" in capsys.readouterr().err
    monkeypatch.setattr(hde, "available", lambda: ("raw", "zstd"))
    monkeypatch.setattr(hde, "missing", lambda name: "no liblz4" if name == "lz4" else "")
    with pytest.raises(BenchError, match="no liblz4"):
        hde_micro.measure()
