"""The programs the transport is measured against move bytes, and say when they could not."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import file_peers, gridftp, iperf3, processes
from bench.file_peers import Move, same_bytes
from bench.harness import BenchError
from bench.processes import Measured

MIB = 1024**2
DEADLINE = 60.0


@pytest.fixture
def source() -> Iterator[Path]:
    """A file that everybody may read: GridFTP's server, started by root, serves as nobody."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "image")
        path.write_bytes(os.urandom(4 * MIB))
        path.chmod(0o644)
        yield path


@pytest.mark.parametrize("streams", [1, 4])
def test_iperf3_reports_throughput_and_the_cpu_of_both_ends(streams: int) -> None:
    result = iperf3.measure(streams, total_bytes=64 * MIB, timeout=DEADLINE)
    assert result.gbps > 0
    assert 0 < result.received_bytes <= 65 * MIB
    assert min(result.sender_cpu_s_per_gib, result.receiver_cpu_s_per_gib) > 0
    assert result.cpu_s_per_gib == result.sender_cpu_s_per_gib + result.receiver_cpu_s_per_gib
    assert iperf3.version().startswith("iperf 3")


def test_iperf3_runs_for_a_time_with_a_congestion_control_it_is_given() -> None:
    result = iperf3.measure(1, seconds=1, congestion="reno", timeout=DEADLINE)
    assert result.congestion == "reno"
    with pytest.raises(BenchError, match="give one of them"):
        iperf3.measure(1)
    with pytest.raises(BenchError, match="at most 128 streams"):
        iperf3.measure(129, seconds=1)


def test_iperf3_refusing_is_told_with_its_own_words() -> None:
    with pytest.raises(BenchError, match="unable to set TCP_CONGESTION"):
        iperf3.measure(1, seconds=1, congestion="nonesuch", timeout=DEADLINE)


@pytest.mark.parametrize("streams", [1, 4, 16])
def test_gridftp_moves_a_file_over_parallel_streams(streams: int, source: Path) -> None:
    target = source.with_name("copy")
    moved = gridftp.move(source, target, streams=streams, timeout=DEADLINE)
    assert target.read_bytes() == source.read_bytes()
    assert min(moved.gbps, moved.seconds, moved.cpu_s_per_gib) > 0
    assert "globus-url-copy" in gridftp.version()


@pytest.mark.parametrize("peer", [file_peers.cp, file_peers.rsync, file_peers.rsync_daemon])
def test_a_file_is_moved(peer: Callable[..., Move], source: Path) -> None:
    target = source.with_name("copy")
    moved = peer(source, target, timeout=DEADLINE)
    assert target.read_bytes() == source.read_bytes()
    assert moved.gbps == pytest.approx(4 * MIB * 8 / 1e9 / moved.seconds)
    assert moved.cpu_s_per_gib > 0
    # Again, onto an equal file: it is moved, and not found to be there.
    again = peer(source, target, timeout=DEADLINE)
    assert again.cpu_s_per_gib > 0
    assert target.stat().st_mtime_ns >= source.stat().st_mtime_ns


def test_changed_and_missing_bytes_are_found(source: Path) -> None:
    target = source.with_name("copy")
    with pytest.raises(BenchError, match="left nothing to compare"):
        same_bytes(source, target, "cp")
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    target.write_bytes(data)
    os.utime(target, ns=(source.stat().st_mtime_ns,) * 2)
    with pytest.raises(BenchError, match="cp changed bytes"):
        same_bytes(source, target, "cp")


@pytest.mark.parametrize(
    ("measure", "package"),
    [
        (iperf3.version, "iperf3"),
        (gridftp.version, "globus-gridftp-server-progs"),
        (file_peers.rsync_version, "rsync"),
    ],
)
def test_a_missing_program_is_named_with_its_package(
    measure: Callable[[], str], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BenchError, match=rf"apt-get install {package}\)"):
        measure()


def test_a_measured_process_counts_its_children_and_has_a_deadline(no_leaks: None) -> None:
    busy = "n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done"
    with Measured(["sh", "-c", f"({busy}); echo done"]) as process:
        finished = process.wait(DEADLINE)
        assert (finished.output, process.wait(DEADLINE)) == ("done\n", finished)
    assert 0 < finished.cpu_seconds <= 2 * finished.seconds
    with (
        Measured(["sh", "-c", "echo working; sleep 1000"]) as slow,
        pytest.raises(BenchError, match=r"took more than 0\.05 s:\nworking"),
    ):
        slow.wait_output("working", DEADLINE)
        slow.wait(0.05)


def test_leaving_early_ends_the_process_and_its_children(no_leaks: None) -> None:
    with Measured(["sh", "-c", "sleep 1000 & echo $!; wait"]) as process:
        child = Path("/proc", process.wait_output("\n", DEADLINE).strip())
    give_up = time.monotonic() + DEADLINE
    while child.exists() and child.joinpath("stat").read_text().split()[2] != "Z":
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_failing_process_is_told_with_its_last_words() -> None:
    with (
        Measured(["sh", "-c", "echo no such luck >&2; exit 3"]) as process,
        pytest.raises(BenchError, match=r"failed \(3\):\nno such luck"),
    ):
        process.wait(DEADLINE)
    with pytest.raises(BenchError, match="cannot be started"):
        Measured(["/no/such/program"])
    with Measured(["true"]) as silent, pytest.raises(BenchError, match="did not say 'hello'"):
        silent.wait_output("hello", DEADLINE)


def test_a_free_port_can_be_bound() -> None:
    assert 0 < processes.free_port() < 65536
