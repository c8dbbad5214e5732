"""``novacron audit anchors``, and the anchors that ``novacron audit verify`` holds a log against."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from novacron.cli.client import add_address_options, client_for
from novacron.cli.stored import ArgumentError, StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, table
from novacron.errors import NotFoundError, SecurityError

if TYPE_CHECKING:
    from novacron.security.audit_anchors import AuditAnchor
    from novacron.security.audit_verification import Verification


class NotAnchoredError(SecurityError, NotFoundError):
    """The node that was asked knows of no anchors."""

    code = "cli.not_anchored"


SHOWN = 50
"""Lines of a table that somebody reads."""


def register(actions: Subparsers) -> None:
    parser = add_action(
        actions,
        "anchors",
        "list where the audit logs of the nodes stood when",
        "Ask a running node for the anchors: number and hash of the last record of each node's audit\n"
        "log, noted every few minutes in the database that the nodes share. Of each node the newest, or\n"
        "of one the last 5,000, newest first.",
        [
            ("novacron audit anchors", "the newest of each node"),
            (
                "novacron audit anchors --node ID --json > anchors.json",
                "for `novacron audit verify --anchors anchors.json` on another machine",
            ),
            (
                "novacron audit anchors --address https://second.example:7400 --token-file TOKEN",
                "from a node that is not the suspect",
            ),
        ],
    )
    parser.add_argument("--node", metavar="ID", default="", help="those of the node with this id")
    add_address_options(parser)
    parser.set_defaults(run=list_anchors)


def add_verify_options(verify: argparse.ArgumentParser) -> None:
    verify.add_argument(
        "--anchors",
        metavar="FILE",
        nargs="?",
        const="",
        help="hold the log against its anchors, too: those in FILE, as `novacron audit anchors --json` "
        "prints them, or without FILE those a running node has of the shared database",
    )
    verify.add_argument(
        "--node",
        metavar="ID",
        default="",
        help="with --anchors: whose log it is (default: that of the data directory)",
    )
    add_address_options(verify)


def list_anchors(args: argparse.Namespace) -> int:
    answer = _ask(args, args.node)
    if args.json:
        print(as_json(answer))
        return 0
    entries = answer["anchors"]
    columns = ("node_id", "seq", "recorded", "hash")
    print(table(columns, [[entry[column] for column in columns] for entry in entries[:SHOWN]]))
    if len(entries) > SHOWN:
        print(f"{len(entries) - SHOWN} older ones are left out; --json prints them.")
    if not answer["append_only"]:
        print(
            "The database lets the nodes change and remove anchors: see docs/guide/security.md for the "
            "rights that keep them from it."
        )
    return 0


def _ask(args: argparse.Namespace, node_id: str) -> Any:
    answer = client_for(args).get(f"audit/anchors?node_id={quote(node_id, safe='')}")
    if not answer["shared"]:
        raise NotAnchoredError(
            "there are no anchors",
            why="the node shares no database with others",
            remedy="ask one that does with --address; or keep the hash that `novacron audit verify` prints "
            "on another machine",
            key="database.engine",
        )
    return answer


def chosen_anchors(args: argparse.Namespace, node: StoredNode | None) -> list[AuditAnchor] | None:
    """What the log is to be held against; None: nothing.

    Args:
      node: Whose log it is; None where --path says which.

    Raises:
      ArgumentError: it is not clear whose log it is.
      AnchorsInvalidError, ApiError: there is no such list to be had.
    """
    if args.anchors is None:
        if args.node:
            raise ArgumentError(
                "cannot use --node", why="only --anchors has use for it", remedy="leave it out"
            )
        return None
    from novacron.security.audit_anchors import read_anchors, read_anchors_file

    node_id = args.node or ("" if node is None else _own_id(node))
    if args.anchors:
        found = read_anchors_file(Path(args.anchors))
        nodes = Counter(anchor.node_id for anchor in found)
        if not node_id and len(nodes) == 1:
            node_id = next(iter(nodes))
    elif node_id:
        found = read_anchors(_ask(args, node_id), "the node's answer")
    if not node_id:
        raise ArgumentError(
            "cannot hold the log against anchors",
            why="--path does not say whose log it is"
            + (", and the list has several nodes'" if args.anchors else ""),
            remedy="add --node ID; `novacron version` on the node prints its id",
        )
    return [anchor for anchor in found if anchor.node_id == node_id]


def _own_id(node: StoredNode) -> str:
    from novacron.cli.database import node_id_of

    return str(node_id_of(node))


def complaint(found: Verification) -> str:
    """What is to be said of a log in which something is wrong."""
    if found.anchors is not None and not found.anchors["comparable"] and len(found.problems) == 1:
        return "Its chain is whole, and no anchor proves that it is the one that was written."
    return "The log was changed; see docs/runbook/audit-broken.md."


def verdict(found: Verification) -> str:
    """What the anchors say where nothing is wrong; empty: nothing was held against any."""
    if found.anchors is None or not found.ok:
        return ""
    newest = found.anchors["newest_fitting"]
    fitting = found.anchors["fitting"]
    older = found.anchors["before_the_first_record"]
    lines = [
        f"{fitting} anchor{' fits' if fitting == 1 else 's fit'}, the newest of record {newest['seq']}, "
        f"made at {newest['recorded']}: up to there nobody has rewritten the log."
    ]
    if found.last_seq is not None and found.last_seq > newest["seq"]:
        lines.append(
            f"The records from {newest['seq'] + 1} on are not anchored yet: for them the chain alone "
            "vouches."
        )
    if older:
        lines.append(
            f"{older} anchors are older than the log's first record, and were not compared."
        )
    return "\n".join(lines)
