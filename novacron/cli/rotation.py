"""``novacron pki rotate``: replace the authority's key while the cluster runs."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import StoredNode, Subparsers, add_action, duration
from novacron.cli.tables import as_json, pairs, table

if TYPE_CHECKING:
    from novacron.security.rotation import Progress, Rotation

LOOK_EVERY = 0.5
"""Seconds between looks while ``status --wait`` waits; nodes report within about two."""
BEHIND = 1
"""Exit code of ``status`` while a node is not ready for the next step."""


def register(actions: Subparsers) -> None:
    """Add ``rotate`` and its actions to those of ``pki``."""
    parser = actions.add_parser(
        "rotate",
        help="replace the authority's key while the cluster runs",
        description="Replace the key of the cluster's authority, on the node that holds it, beside the\n"
        "running nodes. Nobody is restarted, and no node that belongs to the cluster is refused at any\n"
        "moment: first every node trusts both authorities, then each has its certificate issued by\n"
        "the new one, then the old one is forgotten. Each step is one command; cut short anywhere, run\n"
        "it again. A node that is down may miss all of it but the last step.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron pki rotate begin", "have both authorities trusted"),
                ("novacron pki rotate status --wait 5m", "until every node has said that it does"),
                ("novacron pki rotate issue", "have the new authority issue; all nodes renew"),
                (
                    "novacron pki rotate status --wait 5m",
                    "until every node uses what it was issued",
                ),
                ("novacron pki rotate finish", "forget the old authority and destroy its key"),
            ],
            files={
                "DATA_DIR/pki/ca.pem": "which authorities are trusted, the one that issues first, and "
                "the signed list that says so",
                "DATA_DIR/pki/ca.key": "the old authority's key until the rotation is finished, then "
                "the new one's",
                "DATA_DIR/pki/ca-….key": "the new authority's key meanwhile: back it up, too",
                "DATA_DIR/pki/rotation.json": "what the nodes have reported",
            },
        ),
    )
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)

    begin = add_action(
        steps,
        "begin",
        "make the new key, and have every node trust both authorities",
        "Make the new authority's key and certificate beside the old, and a list that names both,\n"
        "signed by both. It goes from node to node within seconds. Nothing else changes yet, and\n"
        "`novacron pki rotate abort` takes it back.",
        [("novacron pki rotate begin --json", "for scripts")],
    )
    begin.set_defaults(run=begin_rotation)

    status = add_action(
        steps,
        "status",
        "show how far the rotation and each node is",
        "Show which step was taken, which comes next, and which nodes are not ready for it. Known\n"
        "nodes are those that have a valid certificate (see `novacron certificate list`).",
        [
            ("novacron pki rotate status", "who is behind, and with what"),
            ("novacron pki rotate status --wait 10m", "return as soon as nobody is"),
        ],
        {
            "0": "every node is ready for the next step, or no rotation is going on",
            str(
                BEHIND
            ): "a node is not ready; or failed, and standard error says what, why and what to do",
        },
    )
    status.add_argument(
        "--wait",
        metavar="TIME",
        type=duration,
        help="wait so long until every node is ready, like 90s or 10m",
    )
    status.set_defaults(run=show_rotation)

    issue = add_action(
        steps,
        "issue",
        "have the new authority issue from now on",
        "Have the new authority issue every certificate, join tokens name it, and revocation lists be\n"
        "signed by it. Nodes renew their certificates at once, and make their sessions anew with\n"
        "them. A node that has not heard of the new authority yet is served all the same: certificates\n"
        "come with a handover, the old authority's word for the new one. Join tokens from before stay\n"
        "valid until the rotation is finished. From here there is no way back but another rotation.",
        [("novacron pki rotate issue --json", "for scripts")],
    )
    issue.set_defaults(run=issue_anew)

    finish = add_action(
        steps,
        "finish",
        "forget the old authority, and destroy its key",
        "Have the new authority trusted alone, and destroy the old one's key. Refused while a known\n"
        "node uses a certificate of the old authority or has not said which ones it trusts; it is\n"
        "named. Sessions with certificates of the old authority end, and join tokens from before the\n"
        "step `issue` are revoked.",
        [
            ("novacron pki rotate finish", "once `status` says that every node is ready"),
            (
                "novacron pki rotate finish --force",
                "leave behind who is not: the node has to join again",
            ),
        ],
    )
    finish.add_argument(
        "--force",
        action="store_true",
        help="also where nodes are not ready; they have to join again",
    )
    finish.set_defaults(run=finish_rotation)

    abort = add_action(
        steps,
        "abort",
        "give the new authority up, before it has issued",
        "Have the old authority trusted alone again, and remove the new key. Possible until the step\n"
        "`issue`.",
        [("novacron pki rotate abort", "nothing has happened")],
    )
    abort.set_defaults(run=abort_rotation)


def _open(args: argparse.Namespace, *, change: bool) -> tuple[StoredNode, Rotation]:
    from novacron.trust.founding import open_rotation

    node = StoredNode(args, change=change)
    return node, open_rotation(node.directory, node.settings, node.keyring)


def _record(node: StoredNode, step: str, rotation: Rotation, **details: object) -> None:
    before = rotation.progress()
    target = f"authority:{(before.new or before.old)[:16]}"
    node.record(f"authority.{step}", target, stage=before.stage, **details)


def begin_rotation(args: argparse.Namespace) -> int:
    node, rotation = _open(args, change=True)
    _record(node, "begin", rotation)
    progress = rotation.begin()
    return _done(
        args,
        progress,
        f"The authority {progress.new} was made. Both are trusted by list {progress.number}, which "
        "the nodes take within seconds.",
    )


def show_rotation(args: argparse.Namespace) -> int:
    _, rotation = _open(args, change=False)
    progress = rotation.progress()
    deadline = time.monotonic() + (args.wait or 0.0)
    said = -1
    while progress.behind and time.monotonic() < deadline:
        left = len(progress.behind)
        if left != said and not args.json:
            print(
                f"waiting for {left} of {len(progress.nodes)} nodes: "
                + ", ".join(node.node_id[:8] for node in progress.behind[:8])
                + (" …" if left > 8 else ""),
                file=sys.stderr,
            )
            said = left
        time.sleep(LOOK_EVERY)
        progress = rotation.progress()
    _print(args, progress)
    return BEHIND if progress.behind else 0


def issue_anew(args: argparse.Namespace) -> int:
    node, rotation = _open(args, change=True)
    _record(node, "issue", rotation)
    progress = rotation.issue()
    behind = len(progress.behind)
    return _done(
        args,
        progress,
        f"The authority {progress.new} issues from now on. {behind} of {len(progress.nodes)} nodes "
        "are to have their certificates renewed by it, which they do at once.",
    )


def finish_rotation(args: argparse.Namespace) -> int:
    node, rotation = _open(args, change=True)
    behind = [each.node_id for each in rotation.progress().behind]
    _record(node, "finish", rotation, forced=args.force, behind=behind)
    progress, voided = rotation.finish(lambda: _renew_own(node), force=args.force)
    if args.json:
        left = behind if args.force else []
        print(as_json({**progress.describe(), "revoked_tokens": voided, "left_behind": left}))
        return 0
    print(f"The authority {progress.old} is trusted alone now. The old one's key is destroyed.")
    if voided:
        print(f"Revoked {voided} join tokens of the old authority.")
    if behind:
        print(f"Left behind, and to join again: {', '.join(behind)}.")
    print(
        "A running cluster knows it within seconds. Back up secrets/ and pki/; older backups of them "
        "hold the old key: destroy those that you do not need for what was encrypted."
    )
    return 0


def abort_rotation(args: argparse.Namespace) -> int:
    node, rotation = _open(args, change=True)
    _record(node, "abort", rotation)
    progress = rotation.abort()
    return _done(
        args, progress, f"The authority {progress.old} is trusted alone; the new key is removed."
    )


def _renew_own(node: StoredNode) -> None:
    from novacron.cli.certificate import own_material

    own_material(node).material()


def _done(args: argparse.Namespace, progress: Progress, sentence: str) -> int:
    if args.json:
        print(as_json(progress.describe()))
        return 0
    print(sentence)
    if progress.stage != "none":
        print("Next: novacron pki rotate status --wait 5m, then " + progress.next)
    return 0


def _print(args: argparse.Namespace, progress: Progress) -> None:
    described = progress.describe()
    if args.json:
        print(as_json(described))
        return
    nodes: list[dict[str, Any]] = described.pop("nodes")
    print(pairs({name.replace("_", " "): value for name, value in described.items()}))
    if nodes:
        columns = ("node_id", "roots", "certificate", "valid_until", "lacks")
        print()
        print(table(columns, [[node[column] for column in columns] for node in nodes]))
