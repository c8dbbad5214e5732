"""``novacron audit``: verify, read and export the audit log."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import ArgumentError, StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, cell, table


def register(subparsers: Subparsers) -> None:
    """Add ``audit`` and its actions."""
    parser = subparsers.add_parser(
        "audit",
        help="verify, read and export the audit log",
        description="Verify, read and export the log of who did what on this node.\n"
        "Each record holds the hash of the one before: a change, a gap or a missing end shows.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron audit verify", "was anything changed since it was written?"),
                ("novacron audit show --last 50 --action token", "what was done with tokens"),
                ("novacron audit export --output audit.jsonl", "everything, for another system"),
            ],
            files={
                "DATA_DIR/audit/audit-*.jsonl": "the records, one JSON object a line",
                "DATA_DIR/secrets/audit.head": "number and hash of the last one",
            },
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    verify = add_action(
        actions,
        "verify",
        "look for changed, removed and reordered records",
        "Check every record against the one before it, and the last against the head. Can run\n"
        "beside the node. Prints the hash of the last record: keep it elsewhere, and compare.",
        [
            ("novacron audit verify", "this node's log"),
            ("novacron audit verify --after 5120", "past damage that was looked into"),
            ("novacron audit verify --path audit.jsonl", "an exported file, which has no head"),
        ],
        {"0": "every record is as it was written", "1": "it is not; what is wrong is listed"},
    )
    _add_after(verify)
    verify.add_argument(
        "--path",
        metavar="DIR",
        help="verify the audit-*.jsonl files in DIR instead, without a head",
    )
    verify.set_defaults(run=verify_log)

    show = add_action(
        actions,
        "show",
        "print records",
        "Print the newest records, oldest first. Does not verify them.",
        [
            ("novacron audit show", "the last 20"),
            ("novacron audit show --actor token:5f0c2b9d41e7a836", "what one token did"),
        ],
    )
    show.add_argument(
        "--last", type=int, default=20, metavar="N", help="how many (default: %(default)s)"
    )
    show.add_argument("--action", dest="only", metavar="PREFIX", help="only actions that begin so")
    show.add_argument("--actor", metavar="PREFIX", help="only actors that begin so")
    show.set_defaults(run=show_log)

    export = add_action(
        actions,
        "export",
        "copy all records to one file",
        "Write all records, as they are, to standard output or a new file with mode 0600.",
        [("novacron audit export --after 5120 | gzip > audit.jsonl.gz", "the records since")],
    )
    _add_after(export)
    export.add_argument("--output", metavar="FILE", help="a file that does not exist")
    export.set_defaults(run=export_log)


def _add_after(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--after",
        type=int,
        default=0,
        metavar="SEQ",
        help="only records after the one with this number",
    )


def verify_log(args: argparse.Namespace) -> int:
    from novacron.security.audit_files import audit_files
    from novacron.security.audit_head import AuditHead
    from novacron.security.audit_verification import verify

    if args.path:
        directory, head = Path(args.path), None
        if not directory.is_file() and not audit_files(directory):
            raise ArgumentError(
                f"cannot verify {directory}",
                why="it is no file, and holds no audit-*.jsonl",
                remedy="name an exported file, or the directory that holds the log's files",
            )
    else:
        node = StoredNode(args, change=False)
        directory = node.directory.audit
        head = AuditHead(node.directory.secrets / "audit.head")
    found = verify(directory, head, after=args.after)
    if args.json:
        print(as_json(found.document()))
    else:
        for problem in found.problems:
            print(problem)
        verdict = (
            "Nothing was changed."
            if found.ok
            else "The log was changed; see docs/runbook/audit-broken.md."
        )
        span = f" {found.first_seq} to {found.last_seq}" if found.records else ""
        print(f"{found.records} records{span} in {found.files} files. {verdict}")
        if found.last_hash:
            print(f"Hash of record {found.last_seq}: {found.last_hash}")
    return 0 if found.ok else 1


def show_log(args: argparse.Namespace) -> int:
    node = StoredNode(args, change=False)
    newest: deque[dict[str, Any]] = deque(maxlen=max(1, args.last))
    for line in _lines(node.directory.audit):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if not isinstance(record, dict):
            continue
        if args.only and not str(record.get("action")).startswith(args.only):
            continue
        if args.actor and not str(record.get("actor")).startswith(args.actor):
            continue
        newest.append(record)
    if args.json:
        print(as_json({"records": list(newest)}))
        return 0
    columns = ("seq", "time", "action", "actor", "target", "outcome", "source")
    print(table(columns, [[cell(record.get(column)) for column in columns] for record in newest]))
    return 0


def export_log(args: argparse.Namespace) -> int:
    import os

    node = StoredNode(args, change=False)
    if args.output:
        try:
            descriptor = os.open(
                args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except OSError as exc:
            raise ArgumentError(
                f"cannot create {args.output}",
                why=exc.strerror or type(exc).__name__,
                remedy="name a file that does not exist, in a directory you may write to",
            ) from exc
        with os.fdopen(descriptor, "wb") as file:
            count = _copy(node.directory.audit, args.after, file.write)
        document = {"records": count, "file": args.output}
        print(as_json(document) if args.json else f"{count} records are in {args.output}.")
    else:
        _copy(node.directory.audit, args.after, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
    return 0


def _copy(directory: Path, after: int, write: Any) -> int:
    count = 0
    for line in _lines(directory):
        if after:
            try:
                if int(json.loads(line)["seq"]) <= after:
                    continue
            except (ValueError, KeyError, TypeError):
                # Damaged lines are exported too: whoever verifies the copy must find them.
                pass
        write(line + b"\n")
        count += 1
    return count


def _lines(directory: Path) -> Iterator[bytes]:
    from novacron.security.audit_files import audit_files
    from novacron.security.errors import storage_failure

    for path in audit_files(directory):
        try:
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield line[:-1]
        except OSError as exc:
            raise storage_failure("read", path, exc) from exc
