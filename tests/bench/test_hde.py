"""The encoding bench moves every data set in every way, compares it, and says what went wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as entry
from bench import hde, zstd_adapt
from bench.harness import BenchError
from bench.hde_data import MIB, Dataset, write_dirty
from bench.hde_link import KINDS, SHORT, Place, parse_kinds, standing
from bench.hde_pair import ADAPTIVE, ALONE, FIXED, Moved, paired
from bench.lab.netns import obstacle

LOOPBACK = SHORT["loopback"]
DEADLINE = 60.0


def moved(seconds: float, wire: int = 100) -> list[Moved]:
    return [Moved(seconds * factor, wire, 0.1, {}) for factor in (3, 1, 0.5)]


def some_cell(**changes: float) -> dict[str, Any]:
    seconds = {
        "adaptive": 2.0,
        "raw": 4.0,
        "lz4": 3.0,
        "zstd1": 1.9,
        "zstd3": 2.5,
        "zstd_adapt": 5.0,
    }
    ways = {name: moved(value) for name, value in (seconds | changes).items()}
    data = Dataset("logs", MIB, Path("source"))
    return {"data": "logs", "link": "loopback"} | hde.figures(data, ways, {})


def test_a_cell_compares_medians_with_the_best_codec_alone_and_with_zstd_adapt() -> None:
    row = some_cell()
    assert (row["adaptive_s"], row["raw_s"], row["zstd_adapt_s"]) == (2.0, 4.0, 5.0)
    assert (row["best_fixed"], row["ratio_to_best"], row["ratio_to_zstd_adapt"]) == (
        "zstd1",
        0.95,
        2.5,
    )
    assert (row["wire_bytes"], row["rounds"], row["verified"]) == (100, 3, True)
    assert row["iqr_s_by_way"]["raw"] == pytest.approx(5.0)
    assert "wire_to_zstd1_alone" not in row


def test_a_way_that_failed_has_no_seconds_and_its_error() -> None:
    data = Dataset("dirty-8", MIB, Path("source"), base=Path("base"))
    ways = {"adaptive": moved(2.0, 50), "raw": moved(1.0), "zstd1_alone": moved(1.0, 200)}
    row = hde.figures(data, ways, {"lz4": "it broke"})
    assert (row["lz4_s"], row["zstd_adapt_s"]) == (None, None)
    assert (row["best_fixed"], row["ratio_to_best"]) == ("raw", 0.5)
    assert (row["verified"], row["errors"]) == (False, {"lz4": "it broke"})
    assert row["wire_to_zstd1_alone"] == 0.25
    nothing = hde.figures(data, {}, {"adaptive": "it broke"})
    assert (nothing["best_fixed"], nothing["ratio_to_best"], nothing["wire_bytes"]) == (None,) * 3


def test_the_summary_is_of_the_worst_cell_and_the_geometric_mean() -> None:
    cells = [some_cell(), some_cell(zstd1=8.0, raw=8.0, lz4=8.0, zstd3=8.0)]
    cells[1] |= {"data": "dirty-8", "link": "10 Mbit/s", "wire_to_zstd1_alone": 0.3}
    top = hde.summary(cells)
    assert (top["worst_ratio_to_best"], top["worst_cell"]) == (0.95, "logs, loopback")
    assert top["geomean_ratio_to_best"] == pytest.approx((0.95 * 4) ** 0.5, abs=1e-4)
    assert top["dirty_wire_to_zstd1_alone"] == {"dirty-8": 0.3}
    assert hde.summary([])["geomean_ratio_to_best"] is None
    assert hde.summary([])["worst_ratio_to_best"] is None


def test_short_transfers_are_measured_more_often() -> None:
    assert hde.rounds_of(LOOPBACK, None, 5.0) == LOOPBACK.rounds
    assert hde.rounds_of(LOOPBACK, None, 20.0) == 2
    assert hde.rounds_of(LOOPBACK, None, 100.0) == 1
    assert hde.rounds_of(LOOPBACK, None, 1e-6) == 15
    assert hde.rounds_of(SHORT["10m"], None, 2.0) == 3
    assert hde.rounds_of(LOOPBACK, 2, 1e-6) == 2


def test_links_are_named_shortly() -> None:
    assert parse_kinds("10m, LOOPBACK") == (KINDS[0], KINDS[3])
    with pytest.raises(BenchError, match="'2g' is none of the links"):
        parse_kinds("1g,2g")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    source, base = tmp_path / "source", tmp_path / "base"
    base.write_bytes((b"some text that repeats itself, number %07d\n" * MIB)[: 6 * MIB])
    write_dirty(source, base, 8, 1)
    return Dataset("dirty-8", 6 * MIB, source, base)


def test_each_way_moves_the_same_bytes_over_a_link_of_its_own(
    data: Dataset, tmp_path: Path, no_leaks: None
) -> None:
    target = tmp_path / "target"
    with paired(Place(LOOPBACK)) as ends:
        wire = {
            way.name: ends.move(data, way, target, DEADLINE).wire_bytes
            for way in (ADAPTIVE, *FIXED, ALONE)
        }
        assert not target.exists()
        peer = zstd_adapt.move(data, ends.place, target, ends.congestion, DEADLINE)
    assert not target.exists()
    # Eight words a page: the difference is some fiftieth of the content, with which all begin.
    assert max(wire[way.name] for way in (ADAPTIVE, *FIXED)) < data.size / 20
    assert wire["zstd1"] < wire["zstd1_alone"] < data.size
    assert 0 < peer.wire_bytes < data.size
    assert min(peer.seconds, peer.cpu_seconds) > 0


def test_changed_bytes_and_a_missing_file_are_found(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    target = tmp_path / "target"
    with paired(Place(LOOPBACK)) as ends:
        monkeypatch.setattr(zstd_adapt, "same_bytes", lambda one, other: False)
        with pytest.raises(BenchError, match="zstd changed bytes of dirty-8"):
            zstd_adapt.move(data, ends.place, target, "", DEADLINE)
        gone = Dataset("gone", MIB, tmp_path / "gone")
        with pytest.raises(BenchError, match="No such file"):
            zstd_adapt.move(gone, ends.place, target, "", DEADLINE)
        target.unlink(missing_ok=True)
        with pytest.raises(BenchError, match=r"No such file or directory: .*gone"):
            ends.move(gone, ADAPTIVE, target, DEADLINE)
        target.unlink(missing_ok=True)
        ends.reset()
        assert ends.move(data, ADAPTIVE, target, DEADLINE).wire_bytes > 0


def test_a_way_that_fails_is_reported_and_the_others_are_measured(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> Moved:
        raise BenchError("it broke")

    monkeypatch.setattr(zstd_adapt, "move", fails)
    with paired(Place(LOOPBACK)) as ends:
        row = hde.cell(ends, data, tmp_path / "target", 1)
    assert row["errors"] == {"zstd_adapt": "it broke"}
    assert row["ratio_to_best"] > 0
    assert (row["data"], row["link"], row["rounds"]) == ("dirty-8", "loopback", 1)


@pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
@pytest.mark.parametrize("name", ["10m", "1g"])
def test_a_link_with_a_rate_holds_what_is_sent_to_it(
    name: str, data: Dataset, tmp_path: Path, no_leaks: None
) -> None:
    kind = SHORT[name]
    assert kind.rate_bps is not None
    with standing(kind) as place, paired(place) as ends:
        for way in (FIXED[0], ALONE):
            result = ends.move(data, way, tmp_path / "target", DEADLINE)
            # What may pass at once, after a pause, is no more than this.
            burst = max(64 * 1024, kind.rate_bps / 8 * 0.004) + 64 * 1024
            assert result.seconds > (result.wire_bytes - burst) * 8 / kind.rate_bps
        peer = zstd_adapt.move(data, place, tmp_path / "target", ends.congestion, DEADLINE)
    assert peer.seconds > (peer.wire_bytes - burst) * 8 / kind.rate_bps


def test_hde_prints_one_json_object_with_its_figures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--data", "logs,zeros", "--links", "loopback", "--rounds", "1", "--size", "8M"]
    arguments.append("--no-micro")
    assert entry.main(["hde", *arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["data"] for row in result["cells"]] == ["logs", "zeros"]
    for row in result["cells"]:
        assert (row["link"], row["size_bytes"], row["verified"]) == ("loopback", 8 * MIB, True)
        for way in ("adaptive", "raw", "lz4", "zstd1", "zstd3", "zstd_adapt"):
            assert row[f"{way}_s"] > 0
        best = row[f"{row['best_fixed']}_s"]
        assert best == min(row[f"{way.name}_s"] for way in FIXED)
        assert row["ratio_to_best"] == pytest.approx(best / row["adaptive_s"], rel=0.02)
    logs, zeros = result["cells"]
    assert zeros["wire_bytes"] < logs["wire_bytes_by_way"]["zstd1"] < 4 * MIB
    assert zeros["coding"]["zero"]["bytes"] == 8 * MIB
    ratios = [row["ratio_to_best"] for row in result["cells"]]
    assert result["worst_ratio_to_best"] == min(ratios)
    assert result["geomean_ratio_to_best"] > 0
    assert (result["left_out"], result["micro"]) == ([], None)
    text = hde.as_text(result)
    assert "zeros" in text
    assert f"worst {min(ratios):.3f}" in text
    hde.plot(result, tmp_path / "hde.svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--data", "videos"], "'videos' is none of the data sets"),
        (["--links", "2g"], "'2g' is none of the links"),
        (["--size", "big"], "'big' is not a size"),
        (["--data", "random", "--links", "loopback", "--size", "1M"], "nothing could be measured"),
    ],
)
def test_a_bench_that_cannot_measure_says_why(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["hde", *arguments]) == 1
    assert message in capsys.readouterr().err
