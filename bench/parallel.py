"""What each schedule gets out of a graph, against what the graph allows.

The components really sleep, in the real engine. ``limit`` = sum of work / critical path is the most
any schedule can gain over one after the other; ``efficiency`` = speed-up / limit.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.graphs import Graph, node_graph, random_graph, reference, reference_whole
from bench.harness import BenchError, percentile, run_worker, say
from bench.node import Boot

SCHEDULES = ("sequential", "level", "dataflow")
_REFERENCE_SCALE = 1 / 20
_NODE_SCALE = 10.0
"""Most of the node's components take less than a millisecond, the resolution of a sleep."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repeat", type=int, default=5, help="runs of each schedule on each graph (default: 5)"
    )
    parser.add_argument(
        "--random", type=int, default=5, help="random graphs of 50 components (default: 5)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.repeat < 1 or args.random < 0:
        raise BenchError("--repeat must be at least 1, --random at least 0")
    graphs = [
        (reference().scaled(_REFERENCE_SCALE), _REFERENCE_SCALE),
        (reference_whole().scaled(_REFERENCE_SCALE), _REFERENCE_SCALE),
        *((random_graph(50, seed), 1.0) for seed in range(1, args.random + 1)),
        (_booted_node().scaled(_NODE_SCALE), _NODE_SCALE),
    ]
    return {
        "repeat": args.repeat,
        "graphs": [{**_measured(graph, args.repeat), "scale": scale} for graph, scale in graphs],
    }


def _booted_node() -> Graph:
    """The node's graph with the times of its second boot: the first one makes keys."""
    say("node ")
    with tempfile.TemporaryDirectory(prefix="novacron-bench-") as directory:
        data_dir = Path(directory) / "data"
        for _ in range(2):
            with Boot(data_dir) as node:
                report = node.report()
                node.stop()
        return node_graph(report)


def _measured(graph: Graph, repeat: int) -> dict[str, Any]:
    say(f"\n{graph.name} ")
    taken: dict[str, list[float]] = {schedule: [] for schedule in SCHEDULES}
    for _ in range(repeat):
        # In turn, so that a slow moment of the machine meets every schedule.
        for schedule in SCHEDULES:
            request = {
                "graph": graph.as_json(),
                "schedule": schedule,
                "max_concurrency": len(graph.nodes),
            }
            found = run_worker("bench.engine", request, timeout=60 + 5 * graph.work)
            taken[schedule].append(found["start"])
            say(".")
    return figures(graph, {name: percentile(values, 0.5) for name, values in taken.items()})


def figures(graph: Graph, seconds: Mapping[str, float]) -> dict[str, Any]:
    """The bench's row for *graph*, from the median seconds of each schedule."""
    speedup = seconds["sequential"] / seconds["dataflow"]
    return {
        "name": graph.name,
        "components": len(graph.nodes),
        **{schedule: round(seconds[schedule], 6) for schedule in SCHEDULES},
        "work": round(graph.work, 6),
        "critical_path": round(graph.critical_path, 6),
        "limit": round(graph.limit, 4),
        "speedup": round(speedup, 4),
        "efficiency": round(speedup / graph.limit, 4),
        # Stricter: a late timer makes the sequential boot longer too, which flatters the speed-up.
        "critical_path_over_dataflow": round(graph.critical_path / seconds["dataflow"], 4),
    }


def as_text(result: dict[str, Any]) -> str:
    lines = [
        "seconds (median); limit = work / critical path, efficiency = speed-up / limit",
        "",
        f"{'graph':<26} {'n':>4} {'sequential':>11} {'level':>8} {'dataflow':>9} "
        f"{'critical':>9} {'limit':>6} {'speedup':>8} {'efficiency':>11} {'cp/dataflow':>12}",
    ]
    lines += [
        f"{row['name']:<26} {row['components']:>4} {row['sequential']:>11.3f} {row['level']:>8.3f} "
        f"{row['dataflow']:>9.3f} {row['critical_path']:>9.3f} {row['limit']:>6.2f} "
        f"{row['speedup']:>8.2f} {row['efficiency']:>11.3f} "
        f"{row['critical_path_over_dataflow']:>12.3f}"
        for row in result["graphs"]
    ]
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    rows = result["graphs"]
    figure, axes = subplots(1, 1, width=10.0, height=0.62 * len(rows) + 1.6)
    colours = {"level": "#8fb4d8", "dataflow": "#2f6fab"}
    for offset, (schedule, colour) in enumerate(colours.items()):
        axes.barh(
            [index + 0.36 * offset - 0.18 for index in range(len(rows))],
            [row["sequential"] / row[schedule] for row in rows],
            height=0.34,
            color=colour,
            label=schedule,
        )
    for index, row in enumerate(rows):
        axes.plot([row["limit"]] * 2, [index - 0.4, index + 0.4], color="#1c2430", linewidth=2)
    axes.plot([], [], color="#1c2430", linewidth=2, label="what the graph allows")
    axes.set_yticks(range(len(rows)), [f"{r['name']} ({r['components']})" for r in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times faster than one after the other")
    axes.legend(loc="lower right", frameon=False)
    save(figure, path, result["environment"])
