"""``novacron mode``: which kind of network the node found itself in, and what it measured to say so."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any, Final

from novacron.cli.client import add_node_options
from novacron.cli.manual import Formatter, manual
from novacron.cli.node import items_of
from novacron.cli.progress import SHORT_ID, seconds, size
from novacron.cli.stored import Subparsers
from novacron.cli.tables import as_json, cell, table
from novacron.cli.watching import Follower
from novacron.config.options import add_configuration_options

LOOK_EVERY: Final = 1.0
"""Seconds; as often as the node samples unless told otherwise (``dwcp.detection.interval``)."""


def register(subparsers: Subparsers) -> None:
    """Add ``mode``."""
    parser = subparsers.add_parser(
        "mode",
        help="the network mode, and the paths it comes from",
        description="Show the node's network mode (datacenter, internet or hybrid), whether it was\n"
        "measured, and why; then the path to each peer: round trip, jitter, loss, rate, the\n"
        "scores of each mode. Where nothing was measured it says so, and gives no number.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron mode", "datacenter, internet or hybrid? Says who?"),
                ("novacron mode --watch", "again each time a mode changes, until Ctrl-C"),
                ("novacron mode --json | jq .mode", "for scripts"),
            ]
        ),
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show it again each time the mode of the node or of a path changes; with --json one "
        "line each time",
    )
    add_node_options(parser)
    add_configuration_options(parser)
    parser.set_defaults(run=show)


def show(args: argparse.Namespace) -> int:
    follower = Follower(args, lambda sentence: print(f"# {sentence}"))
    answer = follower.client.get("mode")
    if not args.watch:
        print(as_json(answer) if args.json else _shown(answer))
        return 0
    last: Any = None
    while True:
        now = _essence(answer)
        if now != last:
            _say(answer, json_line=args.json, first=last is None)
            last = now
        time.sleep(LOOK_EVERY)
        answer = follower.get("mode")


def _say(answer: Mapping[str, Any], *, json_line: bool, first: bool) -> None:
    if json_line:
        import json

        print(json.dumps(answer, ensure_ascii=False), flush=True)
        return
    stamp = time.strftime("%H:%M:%S")
    print(("" if first else "\n") + f"{stamp}\n{_shown(answer)}", flush=True)


def _essence(answer: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two answers different for who watches."""
    paths = sorted((str(p.get("peer")), str(p.get("mode"))) for p in items_of(answer, "paths"))
    return answer.get("mode"), answer.get("measured"), paths


def _shown(answer: Mapping[str, Any]) -> str:
    how = "forced" if answer.get("forced") else ""
    if not answer.get("measured"):
        how = f"{how}, unmeasured" if how else "unmeasured"
    since = answer.get("seconds")
    lines = [
        f"{cell(answer.get('mode'))}{f' ({how})' if how else ''}"
        + (f" for {seconds(since)}" if isinstance(since, int | float) else ""),
        f"  {cell(answer.get('why'))}",
    ]
    paths = items_of(answer, "paths")
    if not paths:
        lines.append("\nno paths to other nodes")
        return "\n".join(lines)
    columns = ("peer", "mode", "round_trip", "minimum", "jitter", "loss", "marked", "rate", "samples", "datacenter", "internet", "hybrid")  # fmt: skip
    lines += ["", table(columns, [_row(path) for path in paths]), ""]
    lines += [f"{_short(path)}: {cell(path.get('why'))}" for path in paths]
    return "\n".join(lines)


def _row(path: Mapping[str, Any]) -> list[Any]:
    scores = path.get("scores") or {}
    mode = "same host" if path.get("same_host") else path.get("mode") or "unmeasured"
    return [
        _short(path),
        mode,
        _time(path.get("round_trip_seconds")),
        _time(path.get("round_trip_minimum_seconds")),
        _time(path.get("jitter_seconds")),
        _percent(path.get("loss")),
        _percent(path.get("ce_share")) if path.get("ecn") else "no ECN",
        f"{size(path['rate_bps'])}/s" if path.get("rate_bps") else None,
        path.get("samples"),
        *(_number(scores.get(name)) for name in ("datacenter", "internet", "hybrid")),
    ]


def _short(path: Mapping[str, Any]) -> str:
    return cell(path.get("peer"))[:SHORT_ID]


def _time(value: Any) -> str | None:
    return f"{value * 1000:.3f} ms" if isinstance(value, int | float) else None


def _percent(value: Any) -> str | None:
    return f"{100 * value:.3g} %" if isinstance(value, int | float) else None


def _number(value: Any) -> str | None:
    return f"{value:.2f}" if isinstance(value, int | float) else None
