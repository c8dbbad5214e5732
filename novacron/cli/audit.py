"""``novacron audit``: verify, read and export the audit log."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from novacron.cli import audit_anchors
from novacron.cli.manual import Formatter, manual
from novacron.cli.parser import version as release
from novacron.cli.stored import ArgumentError, StoredNode, Subparsers, add_action, duration
from novacron.cli.tables import as_json, cell, table
from novacron.security.audit_export import COLUMNS, FORMATS, Selection


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
                ("novacron audit verify --anchors", "... not even by root of this machine?"),
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
        "beside the node. Prints the hash of the last record: keep it elsewhere, and compare. Or have\n"
        "that done where nodes share a PostgreSQL: --anchors finds a chain that was made anew as a\n"
        "whole, and an end that was cut off together with the head.",
        [
            ("novacron audit verify", "this node's log"),
            ("novacron audit verify --anchors", "against what the shared database has of it"),
            (
                "novacron audit verify --path /evidence/audit --anchors anchors.json",
                "a copy, on a machine that is not the suspect",
            ),
            ("novacron audit verify --after 5120", "past damage that was looked into"),
            ("novacron audit verify --path audit.jsonl", "an exported file, which has no head"),
        ],
        {"0": "every record is as it was written", "1": "it is not; what is wrong is listed"},
    )
    _add_after(verify)
    verify.add_argument(
        "--path",
        metavar="PATH",
        help="verify an exported file (JSON lines or CSV), or the audit-*.jsonl files in a "
        "directory, without a head",
    )
    verify.add_argument(
        "--filtered",
        action="store_true",
        help="with --path: records were left out of the export, which is no damage",
    )
    audit_anchors.add_verify_options(verify)
    verify.set_defaults(run=verify_log)
    audit_anchors.register(actions)

    show = add_action(
        actions,
        "show",
        "print records",
        "Print the newest records, oldest first. Does not verify them.",
        [
            ("novacron audit show", "the last 20"),
            ("novacron audit show --actor token:5f0c2b9d41e7a836", "what one token did"),
            ("novacron audit show --outcome denied --since 24h", "who was denied what today"),
        ],
    )
    show.add_argument(
        "--last", type=int, default=20, metavar="N", help="how many (default: %(default)s)"
    )
    _add_selection(show)
    show.set_defaults(run=show_log)

    export = add_action(
        actions,
        "export",
        "copy records to one file",
        "Write records to standard output or a new file with mode 0600. JSON lines are the log's\n"
        "own lines; CSV holds the same; CEF is for collectors that want it. `verify --path` checks\n"
        "the first two.",
        [
            ("novacron audit export --after 5120 | gzip > audit.jsonl.gz", "the records since"),
            (
                "novacron audit export --format csv --since 2026-01-01 --until 2026-02-01 "
                "--output january.csv",
                "a month, for a spreadsheet",
            ),
            ("novacron audit export --format cef --since 1h | logger -t novacron", "into syslog"),
        ],
        {"0": "all of it is exported", "1": "damaged lines were left out; how many is said"},
    )
    _add_after(export)
    _add_selection(export)
    export.add_argument("--format", choices=FORMATS, default="jsonl", help="(default: %(default)s)")
    export.add_argument("--output", metavar="FILE", help="a file that does not exist")
    export.set_defaults(run=export_log)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--action", dest="only", metavar="PREFIX", help="only actions that begin so"
    )
    parser.add_argument("--actor", metavar="PREFIX", help="only actors that begin so")
    parser.add_argument(
        "--outcome", choices=("started", "success", "denied", "failure"), help="only those"
    )
    parser.add_argument(
        "--since",
        type=moment,
        metavar="TIME",
        help="from then on: 2026-01-31, 2026-01-31T12:00:00Z, or 24h for the last day",
    )
    parser.add_argument("--until", type=moment, metavar="TIME", help="before then")


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

    node: StoredNode | None = None
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
    # Before the log is read: then each is of a record that must be there.
    anchors = audit_anchors.chosen_anchors(args, node)
    found = verify(directory, head, after=args.after, filtered=args.filtered, anchors=anchors)
    if args.json:
        print(as_json(found.document()))
    else:
        for problem in found.problems:
            print(problem)
        verdict = "Nothing was changed." if found.ok else audit_anchors.complaint(found)
        span = f" {found.first_seq} to {found.last_seq}" if found.records else ""
        print(f"{found.records} records{span} in {found.files} files. {verdict}")
        if found.pruned_through:
            print(
                f"Records 1 to {found.pruned_through} were removed because they were old, as the "
                f"log notes; verified from {found.first_seq} on."
            )
        if anchored := audit_anchors.verdict(found):
            print(anchored)
        if found.last_hash:
            print(f"Hash of record {found.last_seq}: {found.last_hash}")
    return 0 if found.ok else 1


def show_log(args: argparse.Namespace) -> int:
    node = StoredNode(args, change=False)
    selection = _selection(args)
    newest: deque[dict[str, Any]] = deque(maxlen=max(1, args.last))
    for line in _lines(node.directory.audit):
        record = _record(line)
        if record is not None and selection.takes(record):
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
        try:
            with os.fdopen(descriptor, "wb") as file:
                count, damaged = _copy(node.directory.audit, args, file.write)
        except BaseException as exc:
            # Half of it would pass for all of it: what is there verifies.
            os.unlink(args.output)
            if isinstance(exc, OSError):
                raise ArgumentError(
                    f"cannot write {args.output}",
                    why=exc.strerror or type(exc).__name__,
                    remedy="free space there, or name a file on another file system",
                ) from exc
            raise
        document = {"records": count, "damaged": damaged, "file": args.output}
        print(as_json(document) if args.json else f"{count} records are in {args.output}.")
    else:
        count, damaged = _copy(node.directory.audit, args, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
    if damaged:
        print(
            f"{damaged} damaged lines were left out; see `novacron audit verify`.", file=sys.stderr
        )
    return 1 if damaged else 0


def _copy(
    directory: Path, args: argparse.Namespace, write: Callable[[bytes], object]
) -> tuple[int, int]:
    """The records that were written, and the lines that could not be."""
    from novacron.security.audit_export import header, render

    selection, version = _selection(args), release()
    # A copy of everything has the damaged lines too: whoever verifies it must find them.
    faithful = args.format == "jsonl" and selection.is_everything
    count = damaged = 0
    write(header(args.format).encode())
    for line in _lines(directory):
        record = _record(line)
        if record is None:
            if faithful:
                write(line + b"\n")
                count += 1
            else:
                damaged += 1
        elif selection.takes(record):
            write(render(record, line, args.format, version).encode("utf-8", "backslashreplace"))
            count += 1
    return count, damaged


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in *line*, which is not verified; None where it is not one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not record.keys() >= set(COLUMNS):
        return None
    return record if isinstance(record["seq"], int) else None


def _selection(args: argparse.Namespace) -> Selection:
    return Selection(
        after=getattr(args, "after", 0),
        since=args.since,
        until=args.until,
        actor=args.actor or "",
        action=args.only or "",
        outcome=args.outcome or "",
    )


def moment(text: str) -> float:
    """Seconds since the epoch of a date, a time, or a duration before now; for argparse."""
    import time
    from datetime import UTC, datetime

    if text[-1:] in "smhd" and text[:-1].replace(".", "", 1).isdecimal():
        return time.time() - duration(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "write 2026-01-31, 2026-01-31T12:00:00Z or 24h; without a zone it is UTC"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


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
