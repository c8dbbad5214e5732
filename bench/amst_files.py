"""AMST from file to file, in the clear and sealed, against GridFTP, rsync and cp."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import file_peers, gridftp
from bench.amst_pair import (
    CHUNK_BYTES,
    SHARED_MEMORY,
    Setup,
    joined,
    parse_counts,
    parse_size,
    threads,
    transfer,
    write_random,
)
from bench.file_peers import Move
from bench.harness import BenchError, interleaved, percentile, say
from bench.series import Series

_WARM_UP = 1
_GRIDFTP_STREAMS = (1, 4, 16)
_SMALL_BYTES = 64 * 1024
_STARTS = 3
_RAW, _AEAD = "raw", "aead"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="rounds measured (default: 5)")
    parser.add_argument("--size", default="2G", help="bytes of the file (default: 2G)")
    parser.add_argument("--streams", default="1,4", help="AMST's streams (default: 1,4)")
    parser.add_argument(
        "--chunk", default=str(CHUNK_BYTES), help="bytes of a chunk (default: a node's, 1M)"
    )
    parser.add_argument(
        "--threads", type=int, default=threads(), help="the engine's (default: a node's)"
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=SHARED_MEMORY,
        help="where the files are (default: /dev/shm); everybody must be able to enter it, because "
        "GridFTP's server, started by root, serves as nobody",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.rounds < 1:
        raise BenchError("--rounds must be at least 1")
    if not 1 <= args.threads <= 16:
        raise BenchError("--threads must be 1 to 16")
    if not args.dir.is_dir():
        raise BenchError(f"--dir: {args.dir} is no directory")
    with tempfile.TemporaryDirectory(prefix="novacron-bench-", dir=args.dir) as directory:
        Path(directory).chmod(0o755)
        return _Measurement(Path(directory), args).result()


class _Measurement:
    def __init__(self, directory: Path, args: argparse.Namespace) -> None:
        self.directory = directory
        self.args = args
        self.counts = parse_counts(args.streams, "--streams")
        self.size, self.chunk = parse_size(args.size), parse_size(args.chunk)
        self.source = directory / "source"
        self.target = directory / "target"
        self.series = Series(_WARM_UP)

    def result(self) -> dict[str, Any]:
        say("random bytes ")
        write_random(self.source, self.size)
        start = self._gridftp_start()
        subjects: list[Callable[[], None]] = []
        for streams in self.counts:
            subjects += [partial(self._amst, name, streams) for name in (_RAW, _AEAD)]
        for streams in _GRIDFTP_STREAMS:
            subjects.append(
                partial(self._peer, f"gridftp {streams}", partial(gridftp.move, streams=streams))
            )
        subjects.append(partial(self._peer, "rsync", file_peers.rsync))
        subjects.append(partial(self._peer, "rsync daemon", file_peers.rsync_daemon))
        subjects.append(partial(self._peer, "cp", file_peers.cp))
        interleaved(subjects, self.args.rounds, _WARM_UP, lambda done, of: say("."))
        say("\n")
        return self._figures(start)

    def _gridftp_start(self) -> float:
        """What GridFTP takes for next to nothing: its processes' start and the connecting."""
        small = self.directory / "small"
        write_random(small, _SMALL_BYTES)
        return percentile(
            [gridftp.move(small, self.target, streams=1).seconds for _ in range(_STARTS)], 0.5
        )

    def _amst(self, name: str, streams: int) -> None:
        setup = Setup(
            encrypt=name == _AEAD,
            streams=streams,
            threads=self.args.threads,
            chunk_bytes=self.chunk,
        )
        self.target.unlink(missing_ok=True)
        part = self.directory / ".target.part"
        with joined(setup, self.source, part, mapped=False) as ends:
            moved = transfer(ends, self.source, rename=self.target)
        assert moved.durable_seconds is not None
        durable = self.size * 8 / 1e9 / moved.durable_seconds
        self.series.add((name, streams), gbps=moved.gbps, durable=durable, cpu=moved.cpu_s_per_gib)

    def _peer(self, name: str, move: Callable[[Path, Path], Move]) -> None:
        self.target.unlink(missing_ok=True)
        moved = move(self.source, self.target)
        self.series.add(name, gbps=moved.gbps, seconds=moved.seconds, cpu=moved.cpu_s_per_gib)

    def _figures(self, start: float) -> dict[str, Any]:
        series = self.series

        def of(value: str, name: str) -> dict[str, float]:
            return {str(n): round(series.median(value, (name, n)), 3) for n in self.counts}

        speeds = {name: of("gbps", name) for name in (_RAW, _AEAD)}
        durable = {name: of("durable", name) for name in (_RAW, _AEAD)}
        best = {name: max(found.values()) for name, found in speeds.items()}
        by_streams = {
            str(n): round(series.median("gbps", f"gridftp {n}"), 3) for n in _GRIDFTP_STREAMS
        }
        others = {name: series.median("gbps", name) for name in ("rsync", "rsync daemon", "cp")}
        top = max(by_streams.values())
        seconds = min(series.median("seconds", f"gridftp {n}") for n in _GRIDFTP_STREAMS)
        # Where the file is so small that the start is all, nothing is left to compare with.
        moving = self.size * 8 / 1e9 / max(seconds - start, seconds / 100)
        subjects: list[tuple[str, object]] = [
            (f"{name} {n}", (name, n)) for name in (_RAW, _AEAD) for n in self.counts
        ]
        subjects += [(f"gridftp {n}", f"gridftp {n}") for n in _GRIDFTP_STREAMS]
        subjects += [(name, name) for name in others]
        return {
            "rounds": self.args.rounds,
            "amst_raw_gbps": speeds[_RAW],
            "amst_aead_gbps": speeds[_AEAD],
            "amst_raw_durable_gbps": durable[_RAW],
            "amst_aead_durable_gbps": durable[_AEAD],
            "gridftp_gbps": by_streams,
            "rsync_gbps": round(others["rsync"], 3),
            "rsync_daemon_gbps": round(others["rsync daemon"], 3),
            "cp_gbps": round(others["cp"], 3),
            "ratio_gridftp": round(best[_RAW] / top, 4),
            "ratio_gridftp_durable": round(max(durable[_RAW].values()) / top, 4),
            "ratio_gridftp_without_start": round(best[_RAW] / moving, 4),
            "ratio_gridftp_aead": round(best[_AEAD] / top, 4),
            "ratio_rsync": round(best[_RAW] / max(others["rsync"], others["rsync daemon"]), 4),
            "ratio_cp": round(best[_RAW] / others["cp"], 4),
            "gridftp_start_s": round(start, 4),
            "cpu_s_per_gib": {
                words: round(series.median("cpu", key), 4) for words, key in subjects
            },
            "iqr_gbps": {words: round(series.iqr("gbps", key), 3) for words, key in subjects},
            "verified": True,
            "directory": str(self.args.dir),
            "size_bytes": self.size,
            "chunk_bytes": self.chunk,
            "threads": self.args.threads,
            "peers": {
                "gridftp": gridftp.version(),
                "rsync": file_peers.rsync_version(),
                "cp": file_peers.cp_version(),
            },
        }


def _rows(result: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Name, key of the details, Gbit/s."""
    rows = []
    for name, words in ((_RAW, "AMST in the clear"), (_AEAD, "AMST sealed")):
        for n, gbps in result[f"amst_{name}_gbps"].items():
            rows.append((f"{words}, {n} streams", f"{name} {n}", gbps))
    for n, gbps in result["gridftp_gbps"].items():
        rows.append((f"GridFTP -p {n}", f"gridftp {n}", gbps))
    rows.append(("rsync", "rsync", result["rsync_gbps"]))
    rows.append(("rsync from its daemon", "rsync daemon", result["rsync_daemon_gbps"]))
    rows.append(("cp", "cp", result["cp_gbps"]))
    return rows


def as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rounds']} rounds of {result['size_bytes'] / 2**30:g} GiB, file to file in "
        f"{result['directory']}",
        "",
        f"{'medians':<28}{'Gbit/s':>9}{'iqr':>9}{'CPU s/GiB':>12}{'durable':>10}",
    ]
    for words, key, gbps in _rows(result):
        name, _, streams = key.partition(" ")
        durable = result.get(f"amst_{name}_durable_gbps", {}).get(streams)
        lines.append(
            f"{words:<28}{gbps:>9.2f}{result['iqr_gbps'][key]:>9.2f}"
            f"{result['cpu_s_per_gib'][key]:>12.3f}"
            + (f"{durable:>10.2f}" if durable is not None else "")
        )
    lines += [
        "",
        f"best in the clear / best of GridFTP: {result['ratio_gridftp']:.3f}; durable "
        f"{result['ratio_gridftp_durable']:.3f}; without GridFTP's start "
        f"({result['gridftp_start_s'] * 1000:.0f} ms) {result['ratio_gridftp_without_start']:.3f}; "
        f"sealed {result['ratio_gridftp_aead']:.3f}",
        f"/ rsync: {result['ratio_rsync']:.3f}   / cp: {result['ratio_cp']:.3f}",
    ]
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    rows = _rows(result)
    figure, (left, right) = subplots(1, 2, width=11.0, height=4.2)
    positions = range(len(rows))
    colours = ["#2f6fab" if key.startswith(_RAW) else "#d9822b" for _, key, _ in rows]
    colours = [
        colour if key.startswith((_RAW, _AEAD)) else "#7c8796"
        for colour, (_, key, _) in zip(colours, rows, strict=True)
    ]
    left.barh(positions, [gbps for _, _, gbps in rows], color=colours)
    left.set_yticks(positions, [words for words, _, _ in rows])
    left.invert_yaxis()
    left.set_xlabel("Gbit/s, medians")
    left.set_title(f"against GridFTP: {result['ratio_gridftp']:.2f} (n = {result['rounds']})")
    right.barh(positions, [result["cpu_s_per_gib"][key] for _, key, _ in rows], color=colours)
    right.set_yticks(positions, [""] * len(rows))
    right.invert_yaxis()
    right.set_xlabel("CPU s/GiB")
    save(figure, path, result["environment"])
