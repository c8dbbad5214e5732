"""Whole nodes at a bottleneck with a deep queue: what congestion prevention does to the queue, to goodput
and to those who share the path."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import iperf3
from bench.acp_scenarios import (
    FAIRNESS,
    Bottleneck,
    beside_tcp,
    halved,
    one_transfer,
    two_transfers,
)
from bench.amst_pair import SHARED_MEMORY, write_random
from bench.harness import BenchError, percentile, say
from bench.lab.netns import LabError

PARTS = ("queue", "transfers", "tcp", "halved")
CONGESTION = "bbr,cubic,reno"
_MARGIN_SECONDS = 20.0
"""On top of what is measured and waited for, for which a transfer must not come to its end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="what to measure (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="of everything (default: 1)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=8.0,
        help="of each measurement, after it settled (default: 8)",
    )
    parser.add_argument("--rate", type=float, default=100.0, help="Mbit/s (default: 100)")
    parser.add_argument("--delay", type=float, default=5.0, help="one way, in ms (default: 5)")
    parser.add_argument(
        "--queue-ms",
        type=float,
        default=400.0,
        help="what may wait at the bottleneck (default: 400)",
    )
    parser.add_argument(
        "--congestion", default=CONGESTION, help="congestion controls (default: %(default)s)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.rounds < 1:
        raise BenchError("--rounds must be at least 1")
    if not 2 <= args.seconds <= 120:
        raise BenchError("--seconds must be 2 to 120")
    if not 1 <= args.rate <= 500:
        raise BenchError("--rate must be 1 to 500 Mbit/s, as the path is made of a process")
    parts = _words(args.parts, PARTS)
    place = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="novacron-bench-", dir=place) as directory:
        source = Path(directory) / "source"
        path = Bottleneck(
            Path(directory), source, args.rate, args.delay, args.queue_ms, args.seconds
        )
        write_random(source, int(args.rate * 1e6 / 8 * (3 * args.seconds + _MARGIN_SECONDS)))
        rows = _rows(path, parts, _words(args.congestion), args.rounds)
    say("\n")
    if all("error" in row for found in rows.values() for row in found):
        raise BenchError("nothing could be measured: " + next(iter(rows.values()))[0]["error"])
    return {
        "rate_mbps": args.rate,
        "delay_ms": args.delay,
        "queue_ms": args.queue_ms,
        "seconds": args.seconds,
        "rounds": args.rounds,
        **rows,
        **summary(rows),
        "peers": {"iperf3": iperf3.version()},
    }


def _words(words: str, known: Sequence[str] | None = None) -> tuple[str, ...]:
    found = tuple(word.strip() for word in words.split(","))
    for word in found:
        if not word or (known is not None and word not in known):
            raise BenchError(f"{word!r} is none of {', '.join(known or ('a name',))}")
    return found


def _rows(
    path: Bottleneck, parts: Sequence[str], congestion: Sequence[str], rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """By part; a scenario that failed has ``error`` instead of figures."""
    scenarios: dict[str, list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]] = {
        "queue": [
            ({"congestion": name, "acp": acp}, partial(one_transfer, path, name, acp))
            for name in congestion
            for acp in ("off", "on")
        ],
        "transfers": [
            (
                {"fairness": name, "streams": list(streams)},
                partial(two_transfers, path, name, streams),
            )
            for name in FAIRNESS
            for streams in ((0, 0), (8, 2))
        ],
        "tcp": [({"fairness": name}, partial(beside_tcp, path, name)) for name in FAIRNESS],
        "halved": [({"acp": acp}, partial(halved, path, acp)) for acp in ("off", "on")],
    }
    rows: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        say(f"\n{part} ")
        done: list[list[dict[str, Any]]] = []
        for _ in range(rounds):
            done.append([])
            for _, scenario in scenarios[part]:
                try:
                    done[-1].append(scenario())
                except (BenchError, LabError) as exc:
                    done[-1].append({"error": str(exc)})
                say(".")
        rows[part] = [
            what | medians([one[number] for one in done])
            for number, (what, _) in enumerate(scenarios[part])
        ]
    return rows


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure that all rounds have as a number; of the rest that of the last round. Of rounds
    that failed the error, if none did not."""
    good = [one for one in rounds if "error" not in one]
    if not good:
        return dict(rounds[-1])
    result: dict[str, Any] = {}
    for key, last in good[-1].items():
        values = [one[key] for one in good]
        numbers = all(isinstance(value, int | float) for value in values)
        result[key] = round(percentile(values, 0.5), 4) if numbers else last
    if len(good) < len(rounds):
        result["failed_rounds"] = [one["error"] for one in rounds if "error" in one]
    return result


def summary(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The figures that are asked for first; null where nothing was measured for them."""

    def of(part: str, key: str, **where: Any) -> list[float]:
        return [
            row[key]
            for row in rows.get(part, ())
            if row.get(key) is not None and all(row[name] == value for name, value in where.items())
        ]

    return {
        "rtt_ratio": {
            acp: max(of("queue", "rtt_ratio", acp=acp), default=None) for acp in ("off", "on")
        },
        "link_share": {
            acp: min(of("queue", "link_share", acp=acp), default=None) for acp in ("off", "on")
        },
        "jain_transfers": {
            name: min(of("transfers", "jain", fairness=name), default=None) for name in FAIRNESS
        },
        "jain_tcp": {
            name: min(of("tcp", "jain", fairness=name), default=None) for name in FAIRNESS
        },
        "seconds_to_react": {
            acp: next(iter(of("halved", "seconds_to_react", acp=acp)), None)
            for acp in ("off", "on")
        },
    }


def as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rate_mbps']:g} Mbit/s, {2 * result['delay_ms']:g} ms round trip, "
        f"{result['queue_ms']:g} ms of queue; {result['seconds']:g} s each"
    ]
    tables = {
        "queue": (
            "congestion",
            "acp",
            "goodput_mbps",
            "link_share",
            "added_ms_mean",
            "added_ms_peak",
            "rtt_ratio",
            "streams_open",
            "dropped_packets",
        ),
        "transfers": ("fairness", "streams", "mbps", "jain", "added_ms_mean"),
        "tcp": ("fairness", "mbps", "jain", "added_ms_mean"),
        "halved": ("acp", "seconds_to_react", "added_ms_peak", "link_share"),
    }
    for part, columns in tables.items():
        if part not in result:
            continue
        lines += ["", "".join(f"{column:>18}" for column in (part, *columns))]
        for row in result[part]:
            if "error" in row:
                what = ", ".join(f"{k} {v}" for k, v in row.items() if k != "error")
                lines.append(f"{'':>18}{what}: {row['error']}")
                continue
            lines.append(f"{'':>18}" + "".join(f"{_cell(row.get(name)):>18}" for name in columns))
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " / ".join(_cell(one) for one in value)
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return "-" if value is None else str(value)


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    figure, (left, right) = subplots(1, 2, width=11.0, height=4.2)
    rows = [row for row in result.get("queue", ()) if "error" not in row]
    labels = [f"{row['congestion']}\n{row['acp']}" for row in rows]
    colours = ["#2f6fab" if row["acp"] == "on" else "#7c8796" for row in rows]
    left.bar(labels, [row["rtt_ratio"] for row in rows], color=colours)
    left.axhline(2.5, color="#d9822b", linewidth=1)
    left.set_ylabel("smoothed / least round trip")
    left.set_title("with congestion prevention off and on")
    jain = {
        f"{name}\n{part}": value
        for part in ("transfers", "tcp")
        for name, value in result[f"jain_{part}"].items()
        if value is not None
    }
    right.bar(list(jain), list(jain.values()), color="#2f6fab")
    right.set_ylim(0, 1)
    right.set_ylabel("Jain's index")
    right.set_title(f"n = {result['rounds']}")
    save(figure, path, result["environment"])
