"""``novacron send`` and ``novacron receive``: files to another node, and from one."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from novacron.cli import EXIT_INTERRUPTED
from novacron.cli.client import add_node_options
from novacron.cli.manual import Formatter, manual
from novacron.cli.progress import Screen, View, open_screen, summary
from novacron.cli.stored import Subparsers, duration
from novacron.cli.tables import as_json, cell
from novacron.cli.transfer_arguments import codec, local_path, rate, split_sources, split_target
from novacron.cli.watching import Follower, follow
from novacron.config.options import add_configuration_options
from novacron.errors import ApiError, ConflictError, NovaCronError, UnavailableError

FAILED = 1

_EXIT_CODES = {
    "0": "everything is there, and was checked",
    "1": "it failed or was cancelled; standard error says why",
    "130": "interrupted: the transfer was cancelled",
}
_FILES = {
    "DATA_DIR/run/node.json": "where the running node serves",
    "DATA_DIR/transfers/": "what paths of a node are relative to, unless dwcp.amst.directories is set",
    "PATH/.NAME.XXXXXXXX.novacron-part": "a file that is not complete yet",
}


class TransferFailedError(ApiError, UnavailableError):
    """A transfer ended without being done."""

    code = "cli.transfer_failed"


class TransferCancelledError(ApiError, ConflictError):
    """Somebody cancelled it."""

    code = "cli.transfer_cancelled"


def register(subparsers: Subparsers) -> None:
    """Add ``send`` and ``receive``."""
    send_parser = _add(
        subparsers,
        "send",
        "send files to another node",
        "Have the node of this host send files to another one, and show how it goes. A file has its\n"
        "name at the other end when all of it is there and was checked. Interrupted transfers\n"
        "continue by themselves, also over a restart of either node.",
        [
            ("novacron send disk.qcow2 node-2:images/", "into a directory there"),
            ("novacron send -r templates 7669:/srv/images/", "a directory, to a node by its id"),
            ("novacron send --limit 200Mbit --detach big.img node-2:big.img", "gently, and later"),
            ("novacron send --overwrite disk.img node-2:disk.img", "a new version: what changed"),
            ("novacron send --codec off vault.img node-2:", "nothing about its content shows"),
            ("novacron send a.img b.img [2001:db8::2]:7401:in/", "two files, to an address"),
        ],
    )
    send_parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="file of this host, or directory with --recursive"
    )
    send_parser.add_argument(
        "target",
        metavar="NODE:PATH",
        help="where to: the node's id, the first characters of one, or host[:port] of its peer "
        "listener; then a path in its dwcp.amst.directories, relative to the first. With / at its "
        "end, or for several files, a directory",
    )
    send_parser.add_argument(
        "--codec",
        type=codec,
        metavar="CODEC",
        help="how it is encoded: auto (what gets it over soonest), off (as it is; for machines whose "
        "content must not show in the size of what is sent), lz4, zstd, zstd:LEVEL (default: "
        "dwcp.hde.codec)",
    )
    send_parser.set_defaults(run=send)

    receive_parser = _add(
        subparsers,
        "receive",
        "receive files from another node",
        "Have another node send files to the node of this host, and show how it goes. They must lie\n"
        "in the other node's dwcp.amst.directories. For the rest it is as `novacron send`.",
        [
            ("novacron receive node-2:images/disk.qcow2 .", "into this directory"),
            ("novacron receive -r 7669:templates /srv/images/", "a directory, with what it holds"),
        ],
    )
    receive_parser.add_argument(
        "sources", nargs="+", metavar="NODE:PATH", help="what to receive, all from one node"
    )
    receive_parser.add_argument(
        "path", metavar="PATH", help="where to, on this host; a directory with / at its end"
    )
    receive_parser.set_defaults(run=receive)


def _add(
    subparsers: Subparsers,
    name: str,
    help: str,
    description: str,
    examples: list[tuple[str, str]],
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=help,
        description=description,
        formatter_class=Formatter,
        epilog=manual(examples=examples, files=_FILES, exit_codes=_EXIT_CODES),
    )
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="directories with what they hold"
    )
    parser.add_argument(
        "--limit",
        type=rate,
        default=0,
        metavar="RATE",
        help="bytes a second at most: 500k, 10M, 1.5G (thousands), 64MiB (of 1024), or bits: "
        "800Mbit (default: none)",
    )
    parser.add_argument(
        "--priority",
        choices=("urgent", "normal", "background"),
        default="normal",
        help="its share of a link beside others, 16 to 4 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--deadline",
        type=duration,
        metavar="TIME",
        help="fail if it is not done in 90s, 30m, 12h or 2d (default: never)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--on-change",
        choices=("refuse", "restart"),
        default="refuse",
        help="when a file changes while it is sent: fail, or send it anew (default: %(default)s)",
    )
    parser.add_argument(
        "--dedup",
        choices=("auto", "always", "never"),
        help="whether what the receiver holds in other files is looked for, and not moved "
        "(default: dwcp.hde.dedup)",
    )
    parser.add_argument(
        "--tenant",
        metavar="NAME",
        help="whose files these are; nothing of another tenant is made use of (default: "
        "dwcp.hde.tenant)",
    )
    parser.add_argument(
        "--detach", action="store_true", help="print the transfer's id and leave it to the node"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_node_options(parser)
    add_configuration_options(parser)
    return parser


def send(args: argparse.Namespace) -> int:
    node, path = split_target(args.target)
    paths = [local_path(one) for one in args.paths]
    return _run(args, {"direction": "send", "node": node, "paths": paths, "path": path})


def receive(args: argparse.Namespace) -> int:
    node, paths = split_sources(args.sources)
    path = local_path(args.path)
    return _run(args, {"direction": "receive", "node": node, "paths": paths, "path": path})


def _run(args: argparse.Namespace, request: dict[str, Any]) -> int:
    request |= {
        "recursive": args.recursive,
        "overwrite": args.overwrite,
        "on_change": args.on_change,
        "priority": args.priority,
        "limit_bps": args.limit,
        "deadline_seconds": args.deadline,
    }
    # What is left to the node's configuration is not said.
    chosen = {name: getattr(args, name, None) for name in ("codec", "tenant", "dedup")}
    request |= {name: value for name, value in chosen.items() if value is not None}
    screen = open_screen(sys.stderr, silent=args.json or args.quiet or args.detach)
    try:
        return _run_on(screen, args, request)
    finally:
        screen.close()


def _run_on(screen: Screen, args: argparse.Namespace, request: dict[str, Any]) -> int:
    follower = Follower(args, screen.say)
    try:
        view = follower.client.post("transfers", request, f"{request['direction']} the files")
    except KeyboardInterrupt:
        print(
            "novacron: interrupted before the node told the transfer's id; see `novacron transfers` "
            "whether it began",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    if args.detach:
        if not args.quiet:
            print(as_json(view) if args.json else view["id"])
        return 0
    try:
        [view] = follow(follower, [view["id"]], screen)
    except KeyboardInterrupt:
        screen.close()
        return _cancel(follower, view["id"])
    screen.close()
    return _report(view, args)


def _cancel(follower: Follower, id: str) -> int:
    try:
        follower.client.post(f"transfers/{id}/cancel", None, "cancel the transfer")
    except NovaCronError as error:
        from novacron.cli.failure import print_error

        print_error(error)
        print(f"novacron: transfer {id} may still be under way", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(
        f"novacron: cancelled transfer {id}. With --detach it goes on without this command, and "
        "`novacron transfers watch` shows it.",
        file=sys.stderr,
    )
    return EXIT_INTERRUPTED


def _report(view: View, args: argparse.Namespace) -> int:
    if args.json:
        print(as_json(view))
    elif view["state"] == "done" and not args.quiet:
        print(summary(view))
        for skipped in view["skipped"]:
            print(f"not sent: {cell(skipped['path'])}: {cell(skipped['why'])}", file=sys.stderr)
        more = view["files_skipped"] - len(view["skipped"])
        if more > 0:
            print(f"not sent: {more} more", file=sys.stderr)
    if view["state"] == "done":
        return 0
    if not args.json:
        raise_failure(view)
    return FAILED


def raise_failure(view: View) -> None:
    """Raises:
    TransferFailedError, TransferCancelledError: with what the node says of it."""
    kind = TransferCancelledError if view["state"] == "cancelled" else TransferFailedError
    verb = "was cancelled" if view["state"] == "cancelled" else "failed"
    why = [cell(view["why"])] if view["why"] else []
    why += [f"{cell(error['path'])}: {cell(error['why'])}" for error in view["errors"]]
    raise kind(
        f"transfer {view['id']} {verb}",
        why="\n".join(why),
        remedy=cell(view["remedy"]) if view["remedy"] else "",
    )
