"""``novacron transfers``: list, watch, pause, resume, cancel and limit them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from novacron.cli.client import add_node_options, client_for
from novacron.cli.encoding import encoding
from novacron.cli.manual import Formatter, manual
from novacron.cli.node import items_of
from novacron.cli.progress import ENDED, SHORT_ID, View, fraction, open_screen, seconds, size
from novacron.cli.stored import Subparsers
from novacron.cli.tables import as_json, cell, pairs, table
from novacron.cli.transfer_arguments import rate
from novacron.cli.watching import Follower, follow
from novacron.config.options import add_configuration_options

FAILED = 1


def register(subparsers: Subparsers) -> None:
    """Add ``transfers`` and its actions."""
    parser = subparsers.add_parser(
        "transfers",
        help="list, watch and control transfers",
        description="List, watch and control what the node of this host sends and receives.\n"
        "Without an action it lists. An ID may be cut to its first four or more characters.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron transfers", "those under way, and those that ended lately"),
                ("novacron transfers watch", "how they go, until all have ended"),
                ("novacron transfers limit 5f0c 50M", "leave something for others"),
            ],
            files={"DATA_DIR/dwcp/": "what the node knows about transfers that were interrupted"},
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = _add(
        actions,
        "list",
        "list the transfers",
        "List transfers under way and those that ended lately, newest first.",
        [("novacron transfers list --active --json", "for scripts")],
    )
    listing.add_argument("--active", action="store_true", help="only those under way")
    listing.set_defaults(run=list_transfers)

    show = _add(
        actions,
        "show",
        "show everything about a transfer",
        "Show everything the node knows about one transfer: how far it is, how its content was\n"
        "encoded and why, and what CPU that took.",
        [("novacron transfers show 5f0c", "by the first characters of its id")],
    )
    show.add_argument("id", metavar="ID", help="the transfer's id")
    show.set_defaults(run=show_transfer)

    watch = _add(
        actions,
        "watch",
        "watch transfers until they end",
        "Show transfers until they end: bars on a terminal, else a line now and then. Ctrl-C stops\n"
        "the watching, not the transfers.",
        [
            ("novacron transfers watch", "all that are under way"),
            ("novacron transfers watch 5f0c --json", "each change of one, an object a line"),
        ],
        {
            "0": "all of them are done",
            "1": "one failed or was cancelled",
            "130": "interrupted; the transfers go on",
        },
    )
    watch.add_argument("ids", nargs="*", metavar="ID", help="which (default: all under way)")
    watch.set_defaults(run=watch_transfers)

    for name, doing, description in (
        (
            "pause",
            "stop moving data",
            "Stop moving data, and keep what is there. `resume` goes on.",
        ),
        ("resume", "go on with paused transfers", "Go on with paused transfers."),
        (
            "cancel",
            "end transfers for good",
            "End transfers for good. Partial files are removed, complete ones stay.",
        ),
    ):
        action = _add(
            actions, name, doing, description, [(f"novacron transfers {name} 5f0c", doing)]
        )
        action.add_argument("ids", nargs="+", metavar="ID", help="the transfers' ids")
        action.set_defaults(run=change_transfers)

    limit = _add(
        actions,
        "limit",
        "set how fast a transfer may be",
        "Set how fast a transfer may be, from now on. dwcp.amst.limit_bps limits all together.",
        [
            ("novacron transfers limit 5f0c 800Mbit", "100 million bytes a second"),
            ("novacron transfers limit 5f0c none", "as fast as it goes"),
        ],
    )
    limit.add_argument("id", metavar="ID", help="the transfer's id")
    limit.add_argument(
        "rate",
        type=rate,
        metavar="RATE",
        help="bytes a second: 500k, 10M, 1.5G (thousands), 64MiB (of 1024), bits: 800Mbit; or none",
    )
    limit.set_defaults(run=limit_transfer)


def _add(
    actions: Subparsers,
    name: str,
    help: str,
    description: str,
    examples: Sequence[tuple[str, str]],
    exit_codes: Mapping[str, str] | None = None,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name,
        help=help,
        description=description,
        formatter_class=Formatter,
        epilog=manual(examples=examples, exit_codes=exit_codes),
    )
    add_node_options(parser)
    add_configuration_options(parser)
    return parser


_COLUMNS = ("id", "direction", "peer", "state", "done", "size", "rate", "left", "files", "path")


def _row(view: View) -> list[Any]:
    path = view["destination"] if view["role"] == "receiver" else (view["paths"] or [""])[0]
    more = len(view["paths"]) - 1 if view["role"] == "sender" else 0
    moving = view["state"] in ("moving", "finishing")
    eta = view["eta_seconds"]
    return [
        view["id"][:SHORT_ID],
        view["direction"],
        str(view["peer"])[:SHORT_ID],
        view["state"],
        f"{fraction(view):.0%}",
        size(view["bytes_total"]),
        f"{size(view['rate_bps'])}/s" if moving else None,
        seconds(eta) if moving and eta is not None else None,
        f"{view['files_done']}/{view['files_total']}",
        f"{path} and {more} more" if more > 0 else path,
    ]


def list_transfers(args: argparse.Namespace) -> int:
    answer = client_for(args).get(f"transfers?state={'active' if args.active else 'all'}")
    if args.json:
        print(as_json(answer))
        return 0
    views = items_of(answer, "transfers")
    if not views:
        print("no transfers")
        return 0
    print(table(_COLUMNS, [_row(view) for view in views]))
    for view in views:
        if view["state"] == "failed" and view["why"]:
            print(f"\n{view['id'][:SHORT_ID]} failed: {cell(view['why'])}")
            if view["remedy"]:
                print(f"  remedy: {cell(view['remedy'])}")
    return 0


_SIZES = (
    "bytes_total",
    "bytes_done",
    "bytes_moved",
    "bytes_zero",
    "bytes_deduplicated",
    "bytes_resent",
    "wire_bytes",
)


def show_transfer(args: argparse.Namespace) -> int:
    view = client_for(args).get(f"transfers/{_id(args.id)}")
    if args.json:
        print(as_json(view))
        return 0
    shown = dict(view)
    for name in _SIZES:
        shown[name] = f"{shown[name]} ({size(shown[name])})"
    for name in ("created_at", "started_at", "finished_at", "deadline_at"):
        shown[name] = _clock(shown[name])
    coding = shown.pop("coding")
    shown["rate_bps"] = f"{size(shown['rate_bps'])}/s"
    shown["wire_rate_bps"] = f"{size(shown['wire_rate_bps'])}/s"
    print(pairs(shown))
    print()
    print(encoding(coding))
    return 0


def watch_transfers(args: argparse.Namespace) -> int:
    screen = open_screen(sys.stdout, silent=args.json)
    follower = Follower(args, screen.say)

    def print_object(view: View) -> None:
        print(json.dumps(view, ensure_ascii=False), flush=True)

    try:
        views = follow(
            follower,
            [_id(id) for id in args.ids],
            screen,
            print_object if args.json else lambda view: None,
        )
    finally:
        screen.close()
    if not args.json:
        for view in views:
            # A bar is gone now, and a line was printed when the state changed: one word is enough.
            why = f": {cell(view['why'])}" if view["why"] else ""
            print(f"{view['id'][:SHORT_ID]} {view['state']}{why}")
        if not views:
            print("no transfers under way")
    return FAILED if any(view["state"] in ENDED - {"done"} for view in views) else 0


def change_transfers(args: argparse.Namespace) -> int:
    client = client_for(args)
    views = [
        client.post(f"transfers/{_id(id)}/{args.action}", None, f"{args.action} transfer {id}")
        for id in args.ids
    ]
    _print_changed(args, views)
    return 0


def limit_transfer(args: argparse.Namespace) -> int:
    body = {"limit_bps": args.rate}
    path = f"transfers/{_id(args.id)}/limit"
    _print_changed(args, [client_for(args).post(path, body, f"limit transfer {args.id}")])
    return 0


def _print_changed(args: argparse.Namespace, views: Sequence[View]) -> None:
    if args.json:
        print(as_json({"transfers": views}))
        return
    for view in views:
        limit = f", at most {size(view['limit_bps'])}/s" if view["limit_bps"] else ""
        print(f"{view['id']} {view['state']}{limit}")


def _id(text: str) -> str:
    """*text* as a part of a path, whatever was typed: the node judges it."""
    from urllib.parse import quote

    return quote(text.lower(), safe="") or "-"


def _clock(at: float | None) -> str | None:
    import time

    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
