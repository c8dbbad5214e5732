"""The AMST benches move bytes between two processes, compare them, and say when they could not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as entry
from bench import amst, amst_files
from bench.amst_pair import (
    Setup,
    Worker,
    joined,
    parse_counts,
    parse_size,
    transfer,
    write_certificate,
    write_random,
)
from bench.harness import BenchError
from bench.series import Series

MIB = 1024**2
SIZE = 8 * MIB + 4096 + 17
DEADLINE = 60.0


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "source"
    write_random(path, SIZE)
    return path


@pytest.mark.parametrize("mapped", [True, False], ids=["memory", "files"])
@pytest.mark.parametrize(
    "setup",
    [
        Setup(encrypt=False, congestion="reno"),
        Setup(encrypt=True, streams=3, threads=1, chunk_bytes=65536),
        Setup(protocol=1, congestion="reno"),
    ],
    ids=["clear", "sealed", "v1"],
)
def test_two_processes_move_bytes_and_count_their_cpu_time(
    setup: Setup, mapped: bool, source: Path, no_leaks: None
) -> None:
    target = source.with_name("target")
    if setup.protocol == 1:
        certificate = source.with_name("certificate")
        write_certificate(certificate)
        setup = replace(setup, certificate=str(certificate))
    with joined(setup, source, target, mapped=mapped) as ends:
        moved = transfer(ends, source, timeout=DEADLINE)
    assert target.read_bytes() == source.read_bytes()
    assert moved.seconds > 0
    assert moved.sender_cpu_seconds > 0
    assert moved.receiver_cpu_seconds > 0
    assert moved.gbps == pytest.approx(SIZE * 8 / 1e9 / moved.seconds)
    assert moved.durable_seconds is None
    if setup.protocol == 3 and setup.congestion != "auto":
        assert moved.congestion == setup.congestion


def test_a_file_gets_its_name_when_it_is_durable(source: Path) -> None:
    part, target = source.with_name(".part"), source.with_name("target")
    with joined(Setup(), source, part, mapped=False) as ends:
        moved = transfer(ends, source, timeout=DEADLINE, rename=target)
    assert target.read_bytes() == source.read_bytes()
    assert not part.exists()
    assert moved.durable_seconds is not None
    assert moved.durable_seconds > 0


def test_changed_bytes_are_found(source: Path) -> None:
    other = source.with_name("other")
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    with (
        joined(Setup(), source, source.with_name("target")) as ends,
        pytest.raises(BenchError, match="AMST changed bytes"),
    ):
        transfer(ends, other, timeout=DEADLINE)


def test_a_worker_that_fails_is_told_with_its_last_words(source: Path, no_leaks: None) -> None:
    with Worker("sender") as worker, pytest.raises(BenchError, match="has no attribute 'dance'"):
        worker.do("dance")
    with joined(Setup(), source, source.with_name("target")) as ends:
        ends.receiver.do("expect")
        with pytest.raises(BenchError, match=r"receiver did not answer within 0\.1 s"):
            ends.receiver.do("finish", 0.1, within=DEADLINE)


def test_sizes_and_numbers_are_read() -> None:
    assert [parse_size(words) for words in ("2G", "256m", "64K", "17")] == [
        2 << 30,
        256 << 20,
        65536,
        17,
    ]
    for words in ("", "G", "-1", "1.5G", "0", "2T"):
        with pytest.raises(BenchError, match="is not a size"):
            parse_size(words)
    assert parse_counts("1,4,16", "--streams") == (1, 4, 16)
    for words in ("", "1,,2", "0,1", "many"):
        with pytest.raises(BenchError, match="--streams must be positive numbers"):
            parse_counts(words, "--streams")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert entry.main([*arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_amst_prints_one_json_object_with_its_figures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = run(
        capsys, "amst", "--rounds", "1", "--size", "64M", "--streams", "1,2", "--congestion", "reno"
    )
    assert (result["rounds"], result["verified"], result["size_bytes"]) == (1, True, 64 * MIB)
    assert list(result["by_congestion"]) == [result["congestion"]] == ["reno"]
    for name in ("iperf3_gbps", "amst_raw_gbps", "amst_aead_gbps"):
        assert list(result[name]) == ["1", "2"]
        assert min(result[name].values()) > 0
    best = {name: max(result[f"{name}_gbps"].values()) for name in ("iperf3", "amst_raw")}
    assert result["ratio_raw"] == pytest.approx(best["amst_raw"] / best["iperf3"], rel=0.01)
    assert set(result["cpu_s_per_gib"]) == {"iperf3", "raw", "aead"}
    assert min(result["v1_gbps"], result["copy_s_per_gib"]) > 0
    text = amst.as_text(result)
    assert "AMST sealed" in text
    assert f"in the clear {result['ratio_raw']:.3f}" in text
    amst.plot(result, tmp_path / "amst.svg")


def test_amst_files_prints_one_json_object_with_its_figures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = run(capsys, "amst-files", "--rounds", "1", "--size", "4M", "--streams", "2")
    assert (result["rounds"], result["verified"], result["size_bytes"]) == (1, True, 4 * MIB)
    assert list(result["gridftp_gbps"]) == ["1", "4", "16"]
    for name in ("amst_raw", "amst_aead", "amst_raw_durable", "amst_aead_durable"):
        assert list(result[f"{name}_gbps"]) == ["2"]
    assert result["amst_raw_durable_gbps"]["2"] <= result["amst_raw_gbps"]["2"]
    best = max(result["gridftp_gbps"].values())
    assert result["ratio_gridftp"] == pytest.approx(result["amst_raw_gbps"]["2"] / best, rel=0.02)
    assert result["ratio_cp"] > 0
    text = amst_files.as_text(result)
    assert "GridFTP -p 16" in text
    assert f"best of GridFTP: {result['ratio_gridftp']:.3f}" in text
    amst_files.plot(result, tmp_path / "files.svg")


@pytest.mark.parametrize("subject", ["amst", "amst-files"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--threads", "17"], "--threads must be 1 to 16"),
        (["--size", "big"], "'big' is not a size"),
        (["--streams", "0"], "--streams must be positive numbers"),
    ],
)
def test_a_bench_that_cannot_measure_says_why(
    subject: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main([subject, *arguments]) == 1
    assert message in capsys.readouterr().err


def test_an_algorithm_that_cannot_be_used_is_told(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ = amst._Measurement(tmp_path, MIB, 65536, 1)
    with pytest.raises(BenchError, match="nonesuch cannot be used here"):
        run_._amst(Series(0), ("raw", 1), Setup(congestion="nonesuch"))
