"""The cache component: hits in memory, hits in Redis against the bare driver, and how soon a change
reaches another node's memory, with both ways of coherency.

Each sample is a process of its own; in each round all take their turn. The driver is coredis on one
connection pool, on the same server. Redis hits are of keys that are read for the first time: each
costs the component the read, and the place in memory where the next one is found.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.cache_worker import KEYS
from bench.harness import BenchError, interleaved, run_worker, say
from bench.series import Series
from bench.servers.redis import RedisServer

COHERENCIES = ("tracking", "pubsub")
MANY = 16
_PREFIX = "bench:"
_WARM_UP = 1
_VALUE_BYTES = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=int, default=5, help="samples of each, interleaved (default: 5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="length of a sample (default: 1)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.rounds < 1 or args.seconds <= 0:
        raise BenchError("--rounds and --seconds must be positive")
    series = Series(_WARM_UP)
    with RedisServer(config=["enable-debug-command local"]) as server:
        requests = dict(_requests(server.address, args.seconds))
        fill(server, requests["tracking write 1"])

        def sample(name: str) -> None:
            series.add(name, **run_worker("bench.cache_worker", requests[name], timeout=120))
            say(".")

        interleaved(
            [lambda name=name: sample(name) for name in requests],  # type: ignore[misc]
            args.rounds,
            _WARM_UP,
        )
        say("\n")
    return {"rounds": args.rounds, "seconds": args.seconds, **_figures(series)}


def fill(server: RedisServer, request: dict[str, Any]) -> None:
    """Give *server*, which no node has used yet, the values that are read. A node has to come first: it
    takes what was there before it for another server's, and throws it away."""
    run_worker("bench.cache_worker", {**request, "seconds": 0.1}, timeout=60)
    server.command("DEBUG", "POPULATE", KEYS, f"{_PREFIX}v:key", _VALUE_BYTES)


def _requests(address: str, seconds: float) -> list[tuple[str, dict[str, Any]]]:
    common = {"seconds": seconds, "address": address, "prefix": _PREFIX}
    memory = {**common, "subject": "memory_hits", "engine": "memory"}
    found = [
        ("memory get_nowait", {**memory, "work": "get_nowait"}),
        ("memory get", {**memory, "work": "get"}),
    ]
    found += [
        (
            f"driver {work} {tasks}",
            {**common, "subject": "driver", "work": work, "tasks": tasks},
        )
        for tasks in (1, MANY)
        for work in ("read", "write")
    ]
    for coherency in COHERENCIES:
        redis = {**common, "engine": "redis", "coherency": coherency}
        for tasks in (1, MANY):
            found += [
                (f"{coherency} read {tasks}", {**redis, "subject": "redis_hits", "tasks": tasks}),
                (
                    f"{coherency} write {tasks}",
                    {**redis, "subject": "redis_writes", "tasks": tasks},
                ),
            ]
        found += [
            (
                f"{coherency} first level",
                {**redis, "subject": "memory_hits", "work": "get_nowait"},
            ),
            (f"{coherency} invalidation", {**redis, "subject": "invalidations"}),
        ]
    return found


def _figures(series: Series) -> dict[str, Any]:
    def rate(name: str) -> float:
        return round(series.median("rate", name), 1)

    def latency(name: str) -> dict[str, float]:
        return {figure: round(series.median(figure, name), 1) for figure in ("p50_us", "p99_us")}

    result: dict[str, Any] = {
        "memory": {"get_nowait_per_s": rate("memory get_nowait"), "get_per_s": rate("memory get")},
        "driver": {
            f"{work}_{tasks}": {"rate": rate(f"driver {work} {tasks}")}
            | latency(f"driver {work} {tasks}")
            for tasks in (1, MANY)
            for work in ("read", "write")
        },
    }
    for coherency in COHERENCIES:
        figures: dict[str, Any] = {}
        for tasks in (1, MANY):
            for work in ("read", "write"):
                name = f"{coherency} {work} {tasks}"
                figures[f"{work}_{tasks}"] = {
                    "rate": rate(name),
                    "of_driver": round(rate(name) / rate(f"driver {work} {tasks}"), 4),
                    **latency(name),
                }
        figures["first_level_hits_per_s"] = rate(f"{coherency} first level")
        figures["invalidation"] = latency(f"{coherency} invalidation")
        result[coherency] = figures
    return result


def as_text(result: dict[str, Any]) -> str:
    memory = result["memory"]
    lines = [
        f"median of {result['rounds']} samples of {result['seconds']:g} s, all in turn",
        "",
        f"hits in memory: {memory['get_nowait_per_s']:,.0f}/s (get_nowait), "
        f"{memory['get_per_s']:,.0f}/s (get)",
        "",
        f"{'Redis':<22} {'rate/s':>10} {'of driver':>10} {'p50 us':>9} {'p99 us':>9}",
    ]
    for subject in ("driver", *COHERENCIES):
        for name, figures in result[subject].items():
            if isinstance(figures, dict) and "rate" in figures:
                share = f"{figures['of_driver']:10.2f}" if "of_driver" in figures else " " * 10
                lines.append(
                    f"{subject + ' ' + name:<22} {figures['rate']:10,.0f} {share} "
                    f"{figures['p50_us']:9.0f} {figures['p99_us']:9.0f}"
                )
    lines.append("")
    for coherency in COHERENCIES:
        found = result[coherency]
        lines.append(
            f"{coherency}: a change is seen after {found['invalidation']['p50_us']:.0f} us (p50), "
            f"{found['invalidation']['p99_us']:.0f} us (p99); first level "
            f"{found['first_level_hits_per_s']:,.0f} hits/s"
        )
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    figure, (left, right) = subplots(1, 2, width=11.0, height=3.8)
    names = [f"{work}_{tasks}" for tasks in (1, MANY) for work in ("read", "write")]
    height = 0.8 / (1 + len(COHERENCIES))
    for index, subject in enumerate(("driver", *COHERENCIES)):
        left.barh(
            [position + height * index for position in range(len(names))],
            [result[subject][name]["rate"] for name in names],
            height=height,
            label=subject,
        )
    left.set_yticks([position + height for position in range(len(names))], names)
    left.set_xlabel("operations a second")
    left.legend(frameon=False)
    right.barh(
        COHERENCIES,
        [result[name]["invalidation"]["p99_us"] for name in COHERENCIES],
        color="#8fb4d8",
    )
    right.barh(
        COHERENCIES,
        [result[name]["invalidation"]["p50_us"] for name in COHERENCIES],
        color="#2f6fab",
    )
    right.set_xlabel("us until another node has not the old value (dark: p50, light: p99)")
    save(figure, path, result["environment"])
