"""``novacron dwcp``: what data moves with, as wanted and as it is, and the links with their streams."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from novacron.cli.client import add_node_options, client_for
from novacron.cli.manual import Formatter, manual
from novacron.cli.node import items_of
from novacron.cli.progress import SHORT_ID, size
from novacron.cli.stored import Subparsers
from novacron.cli.tables import as_json, cell, pairs, table
from novacron.config.options import add_configuration_options


def register(subparsers: Subparsers) -> None:
    """Add ``dwcp``."""
    parser = subparsers.add_parser(
        "dwcp",
        help="what the node moves data with",
        description="Show what the node moves data with: protocol, encryption and RDMA as the\n"
        "configuration wants them, as they are, and why they differ; then each link to\n"
        "another node, and with --streams each of its streams.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron dwcp", "is it version 3, encrypted, over RDMA? If not, why?"),
                ("novacron dwcp --streams", "round trip, rate and losses of every connection"),
            ]
        ),
    )
    parser.add_argument("--streams", action="store_true", help="also list the streams of each link")
    add_node_options(parser)
    add_configuration_options(parser)
    parser.set_defaults(run=show)


def show(args: argparse.Namespace) -> int:
    answer = client_for(args).get("dwcp")
    if args.json:
        print(as_json(answer))
        return 0
    choices = {
        name: value
        for name, value in answer.items()
        if isinstance(value, Mapping) and "wanted" in value
    }
    rows = [
        [name, *(value.get(column) for column in ("wanted", "got", "why"))]
        for name, value in choices.items()
    ]
    rest = {
        name: value
        for name, value in answer.items()
        if name not in choices and name != "links" and value is not None
    }
    if rest:
        print(pairs(rest))
    print(table(("", "wanted", "got", "why"), rows))
    links = items_of(answer, "links")
    if not links:
        print("\nno links to other nodes")
    for link in links:
        print()
        print(_headline(link, answer.get("rdma") or {}))
        if args.streams:
            streams = items_of(link, "streams")
            columns = ("id", "state", "mover", "rtt", "rate", "sent", "received", "retransmits", "congestion")  # fmt: skip
            print(table(columns, [_stream(stream) for stream in streams]))
    return 0


def _headline(link: Mapping[str, Any], node_rdma: Mapping[str, Any]) -> str:
    streams = items_of(link, "streams")
    counters = link.get("counters") or {}
    crypt = "encrypted" if link.get("encrypted") else "not encrypted"
    lines = [
        f"{cell(link.get('peer'))}: version {cell(link.get('protocol'))} over "
        f"{cell(link.get('mover'))}, {crypt}, {len(streams)} {'stream' if len(streams) == 1 else 'streams'}",
        f"  sent {size(counters.get('sent_bytes', 0))}, "
        f"received {size(counters.get('received_bytes', 0))}, "
        f"sent twice {size(counters.get('resent_bytes', 0))}",
    ]
    if link.get("why"):
        lines.append(f"  reduced: {cell(link['why'])}")
    rdma = link.get("rdma") or {}
    # A node without RDMA said so above.
    if rdma.get("why") and rdma["why"] != node_rdma.get("why"):
        lines.append(f"  no RDMA: {cell(rdma['why'])}")
    return "\n".join([*lines, *_path_lines(link)])


def _path_lines(link: Mapping[str, Any]) -> list[str]:
    """What kind of path it is, and how it is sent on."""
    lines = []
    path = link.get("path") or {}
    if path.get("name"):
        lines.append(f"  path: {cell(path['name'])} ({cell(path.get('why'))})")
    congestion = link.get("congestion") or {}
    if congestion.get("wanted") or congestion.get("got"):
        line = f"  congestion control: wanted {cell(congestion.get('wanted'))}, got {cell(congestion.get('got'))}"
        if congestion.get("other_end"):
            line += f", the other end {cell(congestion['other_end'])}"
        lines.append(line + (f"; {cell(congestion['why'])}" if congestion.get("why") else ""))
    queue = link.get("queue") or {}
    if queue.get("state"):
        line = f"  queue: {cell(queue['state'])}"
        if queue.get("pace_bps"):
            line += f", paced at {size(queue['pace_bps'])}/s"
        if queue.get("least_rtt_us"):
            line += (
                f", round trip {queue.get('rtt_us', 0) / 1000:.1f} ms"
                f" of at least {queue['least_rtt_us'] / 1000:.1f} ms"
            )
        lines.append(line + (f" ({cell(queue['why'])})" if queue.get("why") else ""))
    return lines


def _stream(stream: Mapping[str, Any]) -> list[Any]:
    rtt = stream.get("rtt_us")
    rate = stream.get("delivery_rate")
    return [
        str(stream.get("id", ""))[:SHORT_ID],
        stream.get("state"),
        stream.get("mover"),
        f"{rtt / 1000:.1f} ms" if rtt else None,
        f"{size(rate)}/s" if rate else None,
        size(stream.get("sent_bytes", 0)),
        size(stream.get("received_bytes", 0)),
        stream.get("total_retrans"),
        stream.get("congestion") or None,
    ]
