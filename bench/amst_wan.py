"""AMST on paths with delay, loss and a cap on each connection, its controller against fixed numbers of
streams and against one plain TCP connection."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import iperf3
from bench.amst_pair import SHARED_MEMORY, Setup, joined, threads, transfer, write_random
from bench.harness import BenchError, say
from bench.lab.netns import LabError
from bench.lab.relay import WanPath, wan
from novacron._native import tcp

DELAYS_MS = (5.0, 40.0)
LOSSES = (0.0, 0.001, 0.01)
FLOWS_MBPS = (0.0, 20.0)
"""Caps on each connection; 0 is none."""
FULL_DELAYS_MS = (1.0, 5.0, 20.0, 40.0, 100.0)
FULL_LOSSES = (0.0, 0.0001, 0.001, 0.01)
FULL_FLOWS_MBPS = (0.0, 50.0, 20.0, 5.0)
FIXED = (1, 4, 16, 64)
_START = 8
"""Streams a node starts with on a path that is neither loopback nor a datacenter's."""
_INTERVAL = 0.1
_WINDOW_SECONDS = 0.5
"""Over which the goodput of a moment is taken, for the time to 90 %."""
_SHARE = 0.9
_SETTLE_SECONDS = 0.5
"""On top of a round trip, until nothing of the last subject is on the path."""
_SLOW_STREAMS = 8
_SLOW_MBPS = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", type=int, default=8, help="of each subject in each cell, even (default: 8)"
    )
    parser.add_argument(
        "--rate", type=float, default=200.0, help="Mbit/s of the path (default: 200)"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="80 cells, more than an hour, instead of 12 in a quarter of an hour",
    )
    parser.add_argument("--delays", help="one way, in ms, instead of the grid's, such as 5,40")
    parser.add_argument("--losses", help="shares of the packets, such as 0,0.001")
    parser.add_argument("--flows", help="Mbit/s of each connection, 0 for no cap, such as 0,20")
    parser.add_argument(
        "--congestion",
        default="auto",
        help="of all subjects (default: auto, what a node chooses: bbr where it may)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the path's losses (default: 1)")


@dataclass(frozen=True, slots=True)
class Cell:
    delay_ms: float
    loss: float
    flow_mbps: float


@dataclass(frozen=True, slots=True)
class Options:
    seconds: int
    rate_mbps: float
    congestion: str
    seed: int


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.seconds < 2 or args.seconds % 2:
        raise BenchError("--seconds must be an even number, at least 2: the second half counts")
    if not 1 <= args.rate <= 10_000:
        raise BenchError("--rate must be 1 to 10000 Mbit/s")
    cells = _cells(args)
    options = Options(args.seconds, args.rate, _congestion(args.congestion), args.seed)
    with tempfile.TemporaryDirectory(prefix="novacron-bench-", dir=SHARED_MEMORY) as directory:
        run = _Measurement(Path(directory), options)
        try:
            rows = [run.cell(number, cell) for number, cell in enumerate(cells)]
            slow = run.slow_stream()
        except LabError as exc:
            raise BenchError(str(exc)) from exc
    say("\n")
    to_best = [row["ratio_to_best_fixed"] for row in rows]
    times = [row["adaptive"]["seconds_to_90"] for row in rows]
    return {
        "seconds": args.seconds,
        "rate_mbps": args.rate,
        "congestion": options.congestion,
        "seed": args.seed,
        "cells": rows,
        "ratio_to_best_fixed": {"worst": min(to_best), "mean": _mean(to_best)},
        "ratio_to_tcp": {
            "worst": min(row["ratio_to_tcp"] for row in rows),
            "mean": _mean([row["ratio_to_tcp"] for row in rows]),
        },
        "seconds_to_90": {
            "reached": sum(value is not None for value in times),
            "of": len(times),
            "worst": max((value for value in times if value is not None), default=None),
        },
        "slow_stream": slow,
        "peers": {"iperf3": iperf3.version()},
    }


def _cells(args: argparse.Namespace) -> list[Cell]:
    grid = (
        (FULL_DELAYS_MS, FULL_LOSSES, FULL_FLOWS_MBPS)
        if args.full
        else (DELAYS_MS, LOSSES, FLOWS_MBPS)
    )
    delays = _numbers(args.delays, "--delays", grid[0])
    losses = _numbers(args.losses, "--losses", grid[1])
    flows = _numbers(args.flows, "--flows", grid[2])
    if max(losses) >= 1:
        raise BenchError("--losses are shares of the packets, below 1")
    return [Cell(*values) for values in itertools.product(delays, losses, flows)]


def _numbers(words: str | None, what: str, otherwise: Sequence[float]) -> Sequence[float]:
    if words is None:
        return otherwise
    try:
        found = [float(word) for word in words.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= value < float("inf") for value in found):
        raise BenchError(f"{what} must be numbers with commas between them, not {words!r}")
    return found


def _congestion(name: str) -> str:
    """The same for AMST and iperf3: given to both by name."""
    if name != "auto":
        return name
    return "bbr" if tcp.permitted("bbr") else tcp.default()


class _Measurement:
    def __init__(self, directory: Path, options: Options) -> None:
        self.options = options
        self.source = directory / "source"
        self.target = directory / "target"
        # Half as much again as the path could carry: what is sent for a time must not come to an end.
        write_random(self.source, int(options.rate_mbps * 1e6 / 8 * options.seconds * 1.5) + 2**24)

    def cell(self, number: int, cell: Cell) -> dict[str, Any]:
        options = self.options
        say(f"\n{cell.delay_ms:g} ms, loss {cell.loss:g}, {cell.flow_mbps:g} Mbit/s a stream ")
        found: dict[str, dict[str, Any]] = {}
        with wan(
            delay_ms=cell.delay_ms,
            loss=cell.loss,
            rate_bps=options.rate_mbps * 1e6,
            police_bps=cell.flow_mbps * 1e6 or None,
            seed=options.seed,
        ) as path:
            names = ["tcp", "adaptive", *(str(n) for n in FIXED)]
            for name in names if number % 2 == 0 else reversed(names):
                found[name] = self._tcp(path) if name == "tcp" else self._amst(path, name)
                time.sleep(_SETTLE_SECONDS + 4 * cell.delay_ms / 1000)
                say(".")
            missed = sum(path.missed())
        return _row(cell, found, missed)

    def _setup(self, streams: int, adaptive: bool = False) -> Setup:
        return Setup(
            streams=streams,
            adaptive=adaptive,
            threads=threads(),
            congestion=self.options.congestion,
        )

    def _amst(self, path: WanPath, name: str) -> dict[str, Any]:
        adaptive = name == "adaptive"
        setup = self._setup(_START if adaptive else int(name), adaptive)
        with self._joined(path, setup) as ends:
            seconds = self.options.seconds
            ends.receiver.do("expect")
            path.relay.clear()
            ends.receiver.ask("watch", seconds=seconds + 2 * _INTERVAL, interval=_INTERVAL)
            sent = ends.sender.do("send_for", seconds + 60, seconds=seconds)
            moments = ends.receiver.answer(seconds + 60)["moments"]
            queue = path.relay.statistics().ab
        came = [(at - sent["began"], count) for at, count, _ in moments]
        whole = [moment for moment in came if moment[0] <= seconds]
        result = {
            "goodput_mbps": _goodput([moment for moment in whole if moment[0] >= seconds / 2]),
            "whole_mbps": _goodput(whole),
            "streams": sent["streams"],
            "queue_mean_ms": queue.queue_mean_ms,
            "queue_peak_ms": queue.queue_peak_ms,
            "resent_bytes": sent["counters"]["resent_bytes"],
            "moments": whole,
        }
        if adaptive:
            result["decisions"] = sent["decisions"]
        return result

    def _joined(self, path: WanPath, setup: Setup) -> Any:
        return joined(
            setup,
            self.source,
            self.target,
            mapped=False,
            host=path.address_b,
            sender_prefix=path.a.command([]),
            receiver_prefix=path.b.command([]),
        )

    def _tcp(self, path: WanPath) -> dict[str, Any]:
        path.relay.clear()
        half = self.options.seconds // 2
        moved = iperf3.measure(
            1,
            seconds=half,
            omit_seconds=half,
            congestion=self.options.congestion,
            address=path.address_b,
            client_prefix=path.a.command([]),
            server_prefix=path.b.command([]),
        )
        queue = path.relay.statistics().ab
        return {
            "goodput_mbps": round(moved.gbps * 1000, 3),
            "queue_mean_ms": queue.queue_mean_ms,
            "queue_peak_ms": queue.queue_peak_ms,
        }

    def slow_stream(self) -> dict[str, Any]:
        """Eight streams that may have an eighth of the path each, one of them only a tenth of that;
        and the other seven alone."""
        say("\none slow stream ")
        rate = _SLOW_MBPS * 1e6
        alone = self._policed(_SLOW_STREAMS - 1, rate, slow=False)
        say(".")
        eight = self._policed(_SLOW_STREAMS, rate, slow=True)
        seven = (_SLOW_STREAMS - 1) * _SLOW_MBPS
        assert eight.tail_seconds is not None
        return {
            "stream_mbps": _SLOW_MBPS,
            "goodput_mbps": round(eight.gbps * 1000, 3),
            "seven_alone_mbps": round(alone.gbps * 1000, 3),
            "ratio_to_seven": round(eight.gbps / alone.gbps, 4),
            "ratio_to_seven_eighths": round(eight.gbps * 1000 / seven, 4),
            "last_percent_share": round(eight.tail_seconds / eight.seconds, 4),
        }

    def _policed(self, streams: int, rate_bps: float, *, slow: bool) -> Any:
        seconds = self.options.seconds
        size = int((_SLOW_STREAMS - 1) * rate_bps / 8 * seconds)
        with wan(delay_ms=20.0, rate_bps=_SLOW_STREAMS * rate_bps, seed=self.options.seed) as path:
            path.relay.police(rate_bps)
            if slow:
                path.relay.police(rate_bps / 10, flows="1")
            source = self.source.with_name("policed")
            write_random(source, size)
            setup = self._setup(streams)
            with joined(
                setup,
                source,
                self.target,
                mapped=False,
                host=path.address_b,
                sender_prefix=path.a.command([]),
                receiver_prefix=path.b.command([]),
            ) as ends:
                return transfer(ends, source, timeout=60 + 20 * seconds, interval=_INTERVAL / 4)


def _row(cell: Cell, found: dict[str, dict[str, Any]], missed: int) -> dict[str, Any]:
    adaptive = found["adaptive"]
    fixed = {str(n): found[str(n)] for n in FIXED}
    best = max(fixed, key=lambda name: fixed[name]["goodput_mbps"])
    top = fixed[best]["goodput_mbps"]
    for one in (adaptive, *fixed.values()):
        one["seconds_to_90"] = seconds_to(one.pop("moments"), _SHARE * top)
    return {
        "delay_ms": cell.delay_ms,
        "loss": cell.loss,
        "flow_mbps": cell.flow_mbps,
        "adaptive": adaptive,
        "fixed": fixed,
        "tcp": found["tcp"],
        "best_fixed": int(best),
        "ratio_to_best_fixed": round(adaptive["goodput_mbps"] / max(top, 1e-6), 4),
        "ratio_to_tcp": round(
            adaptive["goodput_mbps"] / max(found["tcp"]["goodput_mbps"], 1e-6), 4
        ),
        "missed_packets": missed,
    }


def _goodput(moments: Sequence[tuple[float, int]]) -> float:
    """Mbit/s between the first and the last of them."""
    (begin, first), (end, last) = moments[0], moments[-1]
    return round((last - first) * 8 / 1e6 / (end - begin), 3)


def seconds_to(moments: Sequence[tuple[float, int]], mbps: float) -> float | None:
    """When the goodput of the last half second was at least *mbps* for the first time; None: never.
    *moments* are seconds and bytes so far."""
    for at, count in moments:
        before = [moment for moment in moments if moment[0] <= at - _WINDOW_SECONDS]
        if before and (count - before[-1][1]) * 8 / 1e6 / (at - before[-1][0]) >= mbps:
            return round(at, 2)
    return None


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rate_mbps']:g} Mbit/s, {result['congestion']}, {result['seconds']:g} s each; "
        "goodput in Mbit/s of the second half, queue: mean ms",
        "",
        f"{'ms':>4}{'loss':>8}{'a flow':>8} |{'TCP':>7}"
        + "".join(f"{n:>7}" for n in FIXED)
        + f" |{'adaptive':>9}{'streams':>9}{'queue':>7}{'to 90 %':>9}{'/ best':>8}{'/ TCP':>7}",
    ]
    for row in result["cells"]:
        adaptive = row["adaptive"]
        reached = adaptive["seconds_to_90"]
        lines.append(
            f"{row['delay_ms']:>4g}{row['loss']:>8g}{row['flow_mbps'] or '-':>8} |"
            f"{row['tcp']['goodput_mbps']:>7.1f}"
            + "".join(f"{row['fixed'][str(n)]['goodput_mbps']:>7.1f}" for n in FIXED)
            + f" |{adaptive['goodput_mbps']:>9.1f}{adaptive['streams']:>9}"
            f"{adaptive['queue_mean_ms']:>7.1f}"
            + (f"{reached:>7.1f} s" if reached is not None else f"{'never':>9}")
            + f"{row['ratio_to_best_fixed']:>8.2f}{row['ratio_to_tcp']:>7.2f}"
            + (f"  ({row['missed_packets']} packets missed)" if row["missed_packets"] else "")
        )
    slow = result["slow_stream"]
    ratios = result["ratio_to_best_fixed"]
    lines += [
        "",
        f"adaptive / best fixed: worst {ratios['worst']:.3f}, mean {ratios['mean']:.3f}; "
        f"/ one TCP connection: worst {result['ratio_to_tcp']['worst']:.3f}",
        f"one of eight streams at a tenth: {slow['goodput_mbps']:.1f} Mbit/s, "
        f"{slow['ratio_to_seven']:.3f} of the other seven alone, "
        f"{slow['ratio_to_seven_eighths']:.3f} of their caps; "
        f"the last 1 % took {slow['last_percent_share'] * 100:.1f} % of the time",
    ]
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    cells = result["cells"]
    figure, (left, right) = subplots(1, 2, width=12.0, height=max(3.0, 0.35 * len(cells)))
    positions = range(len(cells))
    best = [row["fixed"][str(row["best_fixed"])]["goodput_mbps"] for row in cells]
    left.barh(positions, best, color="#d7dce2", label="best fixed number")
    left.barh(
        positions,
        [row["adaptive"]["goodput_mbps"] for row in cells],
        height=0.5,
        color="#2f6fab",
        label="adaptive",
    )
    left.plot(
        [row["tcp"]["goodput_mbps"] for row in cells],
        list(positions),
        "o",
        color="#d9822b",
        label="one TCP connection",
    )
    left.set_yticks(
        positions,
        [f"{c['delay_ms']:g} ms, {c['loss']:g}, {c['flow_mbps'] or '-'}" for c in cells],
    )
    left.invert_yaxis()
    left.set_xlabel("Mbit/s")
    left.legend(fontsize=7)
    right.barh(positions, [row["adaptive"]["queue_mean_ms"] for row in cells], color="#7c8796")
    right.set_yticks(positions, [str(row["adaptive"]["streams"]) for row in cells])
    right.invert_yaxis()
    right.set_xlabel("queueing delay of the adaptive one, mean ms (left: streams)")
    save(figure, path, result["environment"])
