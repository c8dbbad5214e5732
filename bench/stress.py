"""The engine's own cost: components that do nothing, in numbers no node has."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from bench.graphs import Graph, Node
from bench.harness import BenchError, percentile, run_worker, say
from novacron.boot.report import PHASES

SIZES = (100, 1_000, 10_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repeat", type=int, default=5, help="runs of each size, a fresh process each (default: 5)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.repeat < 1:
        raise BenchError("--repeat must be at least 1")
    return {"repeat": args.repeat, "sizes": [_measured(size, args.repeat) for size in SIZES]}


def no_ops(components: int, seed: int = 1) -> Graph:
    """*components* over the four phases, each after up to two earlier ones of its phase."""
    source = random.Random(seed)
    nodes: list[Node] = []
    per_phase = -(-components // len(PHASES))
    for index in range(components):
        first = index // per_phase * per_phase
        count = min(index - first, source.randint(0, 2))
        requires = {f"c{source.randrange(first, index):05d}" for _ in range(count)}
        phase = PHASES[index // per_phase]
        nodes.append(Node(f"c{index:05d}", phase, 0.0, tuple(sorted(requires))))
    return Graph(f"{components} no-ops", tuple(nodes))


def _measured(size: int, repeat: int) -> dict[str, Any]:
    say(f"{size} ")
    graph = no_ops(size).as_json()
    request = {"graph": graph, "schedule": "dataflow", "max_concurrency": 64}
    found = []
    for _ in range(repeat):
        found.append(run_worker("bench.engine", request, timeout=300))
        say(".")
    say("\n")

    def middle(name: str) -> float:
        return percentile([run[name] for run in found], 0.5)

    return {
        "components": size,
        "start_us_per_component": round(middle("start") / size * 1e6, 2),
        "stop_us_per_component": round(middle("stop") / size * 1e6, 2),
        "peak_mib": round(middle("peak_mib"), 1),
        # What the process held before the first component was made: interpreter and trio.
        "baseline_mib": round(middle("baseline_mib"), 1),
    }


def as_text(result: dict[str, Any]) -> str:
    lines = [f"{'components':>10} {'start':>14} {'stop':>14} {'peak':>10} {'before':>10}"]
    lines += [
        f"{row['components']:>10} {row['start_us_per_component']:>11.1f} us "
        f"{row['stop_us_per_component']:>11.1f} us {row['peak_mib']:>6.1f} MiB "
        f"{row['baseline_mib']:>6.1f} MiB"
        for row in result["sizes"]
    ]
    return "\n".join([*lines, "", "per component; dataflow, 64 at once, median"])


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    rows = result["sizes"]
    figure, (left, right) = subplots(1, 2, width=9.0, height=3.6)
    sizes = [row["components"] for row in rows]
    for name, colour in (("start", "#2f6fab"), ("stop", "#d9822b")):
        values = [row[f"{name}_us_per_component"] for row in rows]
        left.plot(sizes, values, marker="o", color=colour, label=name)
    left.set_xscale("log")
    left.set_ylim(bottom=0)
    left.set_xlabel("components")
    left.set_ylabel("microseconds per component")
    left.legend(frameon=False)
    right.plot(sizes, [row["peak_mib"] for row in rows], marker="o", color="#1b7f4b")
    right.set_xscale("log")
    right.set_ylim(bottom=0)
    right.set_xlabel("components")
    right.set_ylabel("peak MiB of the process")
    save(figure, path, result["environment"])
