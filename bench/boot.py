"""How long a whole node takes from process start to READY, and how much of that is imports."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import boot_datacenter, etcd
from bench.floor import third_party
from bench.harness import (
    ROOT,
    BenchError,
    child_environment,
    interleaved,
    percentile,
    percentiles,
    python,
    say,
)
from bench.node import Boot

_WARM_UP = 2
_FEWEST = 3
"""First boots and idle nodes, which the runs only multiply when there are many."""
_IDLE_SECONDS = 2.0
"""After READY, before memory and stop are looked at: what READY did not wait for has ended."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=100, help="boots measured (default: 100)")
    parser.add_argument(
        "--profile",
        choices=("embedded", "datacenter"),
        default="embedded",
        help="embedded: the defaults (default); datacenter: PostgreSQL, Redis and two peers, each "
        "behind a delay proxy, under each schedule",
    )
    parser.add_argument(
        "--rtt-ms",
        type=float,
        default=25.0,
        metavar="MS",
        help="with --profile datacenter: round trip to each service (default: 25)",
    )
    parser.add_argument(
        "--peers", action="store_true", help="also time etcd, from start to healthy, run by run"
    )


class Series:
    """What was measured, run by run; the warm-up's runs too, at the front."""

    def __init__(self) -> None:
        self.boot: list[float] = []
        self.boot_cpu: list[float] = []
        self.outside: list[float] = []
        self.floor: list[float] = []
        self.floor_cpu: list[float] = []
        self.phases: dict[str, list[float]] = {}
        self.etcd: list[float] = []


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.runs < 1:
        raise BenchError("--runs must be at least 1")
    if args.profile == "datacenter":
        if args.peers or not 0 <= args.rtt_ms <= 10_000:
            raise BenchError("--profile datacenter takes --rtt-ms from 0 to 10000, and no --peers")
        return boot_datacenter.measure(args.runs, args.rtt_ms)
    with tempfile.TemporaryDirectory(prefix="novacron-bench-") as directory:
        return _Measurement(Path(directory), args.runs, args.peers).result()


class _Measurement:
    def __init__(self, directory: Path, runs: int, peers: bool) -> None:
        self.directory = directory
        self.runs = runs
        self.peers = peers
        self.data_dir = directory / "data"
        self.modules_file = directory / "modules.json"
        self.series = Series()
        self.floor_modules: dict[str, Any] = {}

    def result(self) -> dict[str, Any]:
        say("first boots ")
        first = [
            self._first_boot(number) for number in range(max(_FEWEST, min(10, self.runs // 10)))
        ]
        modules = self._modules()
        say("\nboots and floors, in turn ")
        subjects = [self._boot, self._floor]
        if self.peers:
            subjects.append(self._etcd)
        interleaved(subjects, self.runs, _WARM_UP, lambda done, of: say("."))
        say("\nidle ")
        idle = [self._idle() for _ in range(max(_FEWEST, min(20, self.runs // 5)))]
        say("\n")
        series = self.series
        boot, floor = series.boot[_WARM_UP:], series.floor[_WARM_UP:]
        result: dict[str, Any] = {
            "runs": self.runs,
            "import_floor": percentiles(floor),
            "boot": percentiles(boot),
            "ratio_p50": round(percentile(boot, 0.50) / percentile(floor, 0.50), 4),
            "ratio_p99": round(percentile(boot, 0.99) / percentile(floor, 0.50), 4),
            "boot_seen_from_outside": percentiles(series.outside[_WARM_UP:]),
            "cpu_ms": {
                "boot": _milliseconds(series.boot_cpu[_WARM_UP:]),
                "import_floor": _milliseconds(series.floor_cpu[_WARM_UP:]),
            },
            "rss_mib": round(percentile([rss for rss, _ in idle], 0.5), 1),
            "stop_ms": _milliseconds([stop for _, stop in idle]),
            "first_boot": percentiles(first),
            "phases": {
                name: percentiles(values[_WARM_UP:]) for name, values in series.phases.items()
            },
            "floor_modules": {"count": len(modules), **self.floor_modules},
            "peers": {},
        }
        if self.peers:
            fresh = [
                etcd.start_seconds(self.directory / f"etcd-fresh-{number}") for number in range(3)
            ]
            existing = percentiles(series.etcd[_WARM_UP:])
            result["peers"]["etcd"] = {
                "version": etcd.version(),
                **existing,
                "fresh": percentiles(fresh),
                "boot_ratio_p50": round(result["boot"]["p50"] / existing["p50"], 4),
            }
        return result

    def _first_boot(self, number: int) -> float:
        with Boot(self.directory / f"fresh-{number}") as node:
            node.stop()
            say(".")
            return node.seconds

    def _modules(self) -> list[str]:
        # The first boot also imports what makes the database and the certificates: no measured
        # boot needs that, so it must not count as a floor under them.
        for arguments in ((), ("--modules", str(self.modules_file))):
            with Boot(self.data_dir, *arguments) as node:
                node.stop()
        modules = third_party(json.loads(self.modules_file.read_bytes()))
        self.modules_file.write_text(json.dumps(modules))
        return modules

    def _boot(self) -> None:
        with Boot(self.data_dir) as node:
            report = node.report()
            node.stop()
        self.series.boot.append(node.seconds)
        self.series.boot_cpu.append(node.cpu_seconds)
        self.series.outside.append(node.outside_seconds)
        for span in report.prelude:
            self._phase(span["name"], span["end"] - span["start"])
        for phase in report.phases:
            if phase["end"] is not None:
                self._phase(phase["name"], phase["end"] - phase["start"])

    def _phase(self, name: str, seconds: float) -> None:
        self.series.phases.setdefault(name, []).append(seconds)

    def _floor(self) -> None:
        result = subprocess.run(
            python("-m", "bench.floor", str(self.modules_file)),
            cwd=ROOT,
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if result.returncode != 0:
            raise BenchError(f"the import floor failed:\n{result.stderr}")
        found = json.loads(result.stdout)
        self.series.floor.append(found["seconds"])
        self.series.floor_cpu.append(found["cpu_seconds"])
        self.floor_modules = {name: found[name] for name in ("failed", "missing", "extra")}

    def _etcd(self) -> None:
        self.series.etcd.append(etcd.start_seconds(self.directory / "etcd"))

    def _idle(self) -> tuple[float, float]:
        with Boot(self.data_dir) as node:
            time.sleep(_IDLE_SECONDS)
            resident = node.resident_mib()
            say(".")
            return resident, node.stop()


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return percentiles([value * 1000 for value in seconds], 2)


def as_text(result: dict[str, Any]) -> str:
    if "rtt_ms" in result:
        return boot_datacenter.as_text(result)

    def line(name: str, figures: dict[str, float], factor: float = 1000.0) -> str:
        values = "  ".join(f"{key} {figures[key] * factor:8.1f}" for key in ("p50", "p95", "p99"))
        return f"{name:<28} {values} ms"

    lines = [
        f"{result['runs']} runs, boot and floor in turn, a fresh process each",
        "",
        line("boot to READY", result["boot"]),
        line("import floor", result["import_floor"]),
        line("first boot", result["first_boot"]),
        line("boot seen from outside", result["boot_seen_from_outside"]),
        line("CPU time, boot", result["cpu_ms"]["boot"], 1.0),
        line("CPU time, floor", result["cpu_ms"]["import_floor"], 1.0),
        line("SIGTERM to exit, idle", result["stop_ms"], 1.0),
        *(line(f"  {name}", figures) for name, figures in result["phases"].items()),
        "",
        f"boot p50 / floor p50: {result['ratio_p50']:.3f}   "
        f"boot p99 / floor p50: {result['ratio_p99']:.3f}   idle: {result['rss_mib']:.1f} MiB",
    ]
    for name, peer in result["peers"].items():
        lines += [
            line(f"{name} {peer['version']} to healthy", peer),
            line(f"{name}, fresh directory", peer["fresh"]),
            f"boot p50 / {name} p50: {peer['boot_ratio_p50']:.3f}",
        ]
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    if "rtt_ms" in result:
        boot_datacenter.plot(result, path)
        return
    from bench.plotting import save, subplots

    bars = [("import floor", result["import_floor"]), ("boot to READY", result["boot"])]
    bars.append(("first boot", result["first_boot"]))
    for name, peer in result["peers"].items():
        bars.append((f"{name} to healthy", peer))
        bars.append((f"{name}, fresh", peer["fresh"]))
    figure, (left, right) = subplots(1, 2, width=11.0, height=4.2)
    positions = range(len(bars))
    middle = [figures["p50"] * 1000 for _, figures in bars]
    worst = [max(0.0, figures["p99"] - figures["p50"]) * 1000 for _, figures in bars]
    colours = ["#7c8796", "#2f6fab", "#8fb4d8", "#d9822b", "#eebd8a"][: len(bars)]
    left.barh(positions, middle, xerr=[[0] * len(bars), worst], color=colours, capsize=4)
    left.set_yticks(positions, [name for name, _ in bars])
    left.invert_yaxis()
    left.set_xlabel("ms, p50 (whisker: p99)")
    left.set_title(f"boot / floor: {result['ratio_p50']:.2f} (n = {result['runs']})")
    names = list(result["phases"])
    right.barh(
        range(len(names)),
        [result["phases"][name]["p50"] * 1000 for name in names],
        color="#2f6fab",
    )
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    right.set_xlabel("ms, p50")
    right.set_title("where a boot's time goes")
    save(figure, path, result["environment"])
