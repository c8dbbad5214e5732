"""AMST through the loopback from memory to memory, in the clear, sealed and as protocol v1, against
iperf3."""

from __future__ import annotations

import argparse
import importlib.util
import mmap
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import iperf3
from bench.amst_pair import (
    CHUNK_BYTES,
    SHARED_MEMORY,
    Setup,
    joined,
    parse_counts,
    parse_size,
    threads,
    transfer,
    write_certificate,
    write_random,
)
from bench.harness import BenchError, interleaved, percentile, say
from bench.processes import GIB
from bench.series import Series

_WARM_UP = 1
_COPIES = 5
_SHARED = mmap.MAP_SHARED | mmap.MAP_POPULATE
_SAME_HOST = "cubic"
"""What a node chooses for the loopback; the figures at the top are of it."""
_RAW, _AEAD, _V1, _IPERF3 = "raw", "aead", "v1", "iperf3"
_NAMES = {_IPERF3: "iperf3", _RAW: "AMST in the clear", _AEAD: "AMST sealed"}

_Key = tuple[str, int]
"""Subject, streams."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=8, help="rounds measured (default: 8)")
    parser.add_argument("--size", default="2G", help="bytes of a transfer (default: 2G)")
    parser.add_argument("--streams", default="1,4,16", help="numbers of streams (default: 1,4,16)")
    parser.add_argument(
        "--chunk", default=str(CHUNK_BYTES), help="bytes of a chunk (default: a node's, 1M)"
    )
    parser.add_argument(
        "--threads", type=int, default=threads(), help="the engine's (default: a node's)"
    )
    parser.add_argument(
        "--congestion",
        default="",
        help="congestion controls, the first for the figures at the top "
        "(default: cubic, which a node chooses here, and the kernel's default)",
    )


def figures(series: Series, counts: tuple[int, ...]) -> dict[str, Any]:
    """What stands under one congestion control."""

    def by_streams(value: Callable[[str, object], float], name: str, digits: int) -> Any:
        return {
            subject: {str(n): round(value(name, (subject, n)), digits) for n in counts}
            for subject in _NAMES
        }

    speeds = by_streams(series.median, "gbps", 3)
    best = {
        subject: max(counts, key=lambda n: series.median("gbps", (subject, n)))
        for subject in _NAMES
    }
    top = {name: series.median("gbps", (name, best[name])) for name in _NAMES}
    cost = {name: series.median("cpu", (name, best[name])) for name in _NAMES}
    return {
        "iperf3_gbps": speeds[_IPERF3],
        "amst_raw_gbps": speeds[_RAW],
        "amst_aead_gbps": speeds[_AEAD],
        "ratio_raw": round(top[_RAW] / top[_IPERF3], 4),
        "ratio_aead": round(top[_AEAD] / top[_IPERF3], 4),
        "cpu_s_per_gib": {name: round(value, 4) for name, value in cost.items()},
        "cpu_ratio_raw": round(cost[_RAW] / cost[_IPERF3], 4),
        "best_streams": best,
        "iqr_gbps": by_streams(series.iqr, "gbps", 3),
        "cpu_s_per_gib_by_streams": by_streams(series.median, "cpu", 4),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.rounds < 1:
        raise BenchError("--rounds must be at least 1")
    if not 1 <= args.threads <= 16:
        raise BenchError("--threads must be 1 to 16")
    counts = parse_counts(args.streams, "--streams")
    size, chunk = parse_size(args.size), parse_size(args.chunk)
    algorithms = _algorithms(args.congestion)
    with tempfile.TemporaryDirectory(prefix="novacron-bench-", dir=SHARED_MEMORY) as directory:
        run = _Measurement(Path(directory), size, chunk, args.threads)
        by_congestion = {name: run.series(name, counts, args.rounds) for name in algorithms}
        v1, why = run.v1(args.rounds)
        copy = run.copy_s_per_gib()
    say("\n")
    result: dict[str, Any] = {"rounds": args.rounds, **by_congestion[algorithms[0]]}
    result["v1_gbps"] = None if v1 is None else round(v1, 3)
    if why:
        result["v1_skipped"] = why
    return result | {
        "verified": True,
        "copy_s_per_gib": round(copy, 4),
        "congestion": algorithms[0],
        "by_congestion": by_congestion,
        "size_bytes": size,
        "chunk_bytes": chunk,
        "threads": args.threads,
        "peers": {"iperf3": iperf3.version()},
    }


def _algorithms(words: str) -> tuple[str, ...]:
    if words:
        found = [word.strip() for word in words.split(",")]
    else:
        kernel = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
        found = [_SAME_HOST, kernel]
    return tuple(dict.fromkeys(found))


class _Measurement:
    def __init__(self, directory: Path, size: int, chunk: int, threads: int) -> None:
        self.source = directory / "source"
        self.target = directory / "target"
        self.certificate = directory / "certificate"
        self.size, self.chunk, self.threads = size, chunk, threads
        say("random bytes ")
        write_random(self.source, size)

    def series(self, congestion: str, counts: tuple[int, ...], rounds: int) -> dict[str, Any]:
        say(f"\n{congestion} ")
        series = Series(_WARM_UP)
        subjects: list[Callable[[], None]] = []
        for streams in counts:
            subjects.append(partial(self._iperf3, series, congestion, streams))
            for name in (_RAW, _AEAD):
                setup = Setup(
                    encrypt=name == _AEAD,
                    streams=streams,
                    threads=self.threads,
                    chunk_bytes=self.chunk,
                    congestion=congestion,
                )
                subjects.append(partial(self._amst, series, (name, streams), setup))
        interleaved(subjects, rounds, _WARM_UP, lambda done, of: say("."))
        return figures(series, counts)

    def _iperf3(self, series: Series, congestion: str, streams: int) -> None:
        moved = iperf3.measure(streams, total_bytes=self.size, congestion=congestion)
        series.add((_IPERF3, streams), gbps=moved.gbps, cpu=moved.cpu_s_per_gib)

    def _amst(self, series: Series, key: _Key, setup: Setup) -> None:
        with joined(setup, self.source, self.target) as ends:
            if setup.protocol == 3 and ends.congestion != setup.congestion:
                raise BenchError(f"congestion control {setup.congestion} cannot be used here")
            moved = transfer(ends, self.source)
        series.add(key, gbps=moved.gbps, cpu=moved.cpu_s_per_gib)

    def copy_s_per_gib(self) -> float:
        """CPU time for copying the source's memory once, into memory whose pages are there: what any
        transfer between memories that large costs on top of one out of the cache."""
        seconds = []
        with self.source.open("rb") as source, self.target.open("w+b") as target:
            target.truncate(self.size)
            with (
                mmap.mmap(source.fileno(), self.size, _SHARED, mmap.PROT_READ) as read,
                mmap.mmap(target.fileno(), self.size, _SHARED) as written,
                memoryview(read) as data,
                memoryview(written) as room,
            ):
                for _ in range(_COPIES):
                    began = time.process_time()
                    room[:] = data
                    seconds.append(time.process_time() - began)
        return percentile(seconds, 0.5) / (self.size / GIB)

    def v1(self, rounds: int) -> tuple[float | None, str]:
        """One TLS stream in Python, which no congestion control bounds; or why it was left out."""
        if importlib.util.find_spec("novacron.dwcp.amst.v1") is None:
            return None, "novacron.dwcp.amst.v1 does not exist"
        say("\nv1 ")
        write_certificate(self.certificate)
        setup = Setup(protocol=1, chunk_bytes=self.chunk, certificate=str(self.certificate))
        series = Series(_WARM_UP)
        for _ in range(_WARM_UP + min(rounds, 3)):
            self._amst(series, (_V1, 1), setup)
            say(".")
        return series.median("gbps", (_V1, 1)), ""


def as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rounds']} rounds of {result['size_bytes'] / 2**30:g} GiB through the loopback, "
        f"chunks of {result['chunk_bytes'] // 1024} KiB, {result['threads']} threads; "
        "Gbit/s, medians (interquartile range)"
    ]
    for algorithm, found in result["by_congestion"].items():
        counts = list(found["iperf3_gbps"])
        lines += ["", f"{algorithm:<20}" + "".join(f"{n:>18}" for n in counts) + "   streams"]
        for name, words in _NAMES.items():
            speeds = found["iperf3_gbps" if name == _IPERF3 else f"amst_{name}_gbps"]
            cells = [f"{speeds[n]:.2f} ({found['iqr_gbps'][name][n]:.2f})" for n in counts]
            cost = found["cpu_s_per_gib"][name]
            lines.append(
                f"{words:<20}" + "".join(f"{c:>18}" for c in cells) + f"   {cost:.3f} CPU s/GiB"
            )
        lines.append(
            f"best / best of iperf3: in the clear {found['ratio_raw']:.3f}, "
            f"sealed {found['ratio_aead']:.3f}; CPU {found['cpu_ratio_raw']:.2f} times"
        )
    v1 = result["v1_gbps"]
    lines += ["", f"v1 {v1:.2f}" if v1 is not None else f"v1: {result['v1_skipped']}"]
    lines.append(f"one copy from memory to memory: {result['copy_s_per_gib']:.3f} CPU s/GiB")
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    figure, (left, right) = subplots(1, 2, width=11.0, height=4.2)
    counts = list(result["iperf3_gbps"])
    colours = {_IPERF3: "#7c8796", _RAW: "#2f6fab", _AEAD: "#d9822b"}
    for number, (name, words) in enumerate(_NAMES.items()):
        speeds = result["iperf3_gbps" if name == _IPERF3 else f"amst_{name}_gbps"]
        positions = [index + 0.27 * (number - 1) for index in range(len(counts))]
        left.bar(
            positions, [speeds[n] for n in counts], width=0.25, label=words, color=colours[name]
        )
    left.set_xticks(range(len(counts)), counts)
    left.set_xlabel("streams")
    left.set_ylabel("Gbit/s")
    left.set_title(f"in the clear {result['ratio_raw']:.2f}, sealed {result['ratio_aead']:.2f}")
    left.legend()
    costs = result["cpu_s_per_gib"]
    right.bar([_NAMES[name] for name in costs], list(costs.values()), color=list(colours.values()))
    right.set_ylabel("CPU s/GiB, both ends")
    right.set_title(f"n = {result['rounds']}")
    save(figure, path, result["environment"])
