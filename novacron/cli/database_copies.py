"""``novacron database backup|restore|copy``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.cli.stored import StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, cell

if TYPE_CHECKING:
    from novacron.database.copies.outcome import Occupant, Restored
    from novacron.database.copies.tables import Snapshot
    from novacron.database.operations import Operations


def register_copies(actions: Subparsers) -> None:
    """Add the three to ``database``'s actions."""
    backup = add_action(
        actions,
        "backup",
        "write a backup while the node runs",
        "Write everything in the database, as it is at one moment, to one compressed file with\n"
        "mode 0600. Nodes go on working. The file fits both engines, and this version of the\n"
        "schema or a later one. It is there whole or not at all, and never replaces another. Keep\n"
        "it where the database's disk is not. Secrets, certificates and the audit log are not in\n"
        "it: copy DATA_DIR/secrets and DATA_DIR/pki as well.",
        [
            ("novacron database backup", "to database/backups/, with the time in its name"),
            ("novacron database backup /mnt/backup/node1-$(date +%F).ncb", "to another disk"),
        ],
    )
    backup.add_argument("file", metavar="FILE", nargs="?", help="a file that does not exist")
    backup.set_defaults(run=make_backup)

    restore = add_action(
        actions,
        "restore",
        "replace the database by a backup",
        "Replace everything in the database by what is in FILE: a backup of either engine, or a\n"
        "copy of a node's SQLite file. FILE is checked to its end before anything is touched. What\n"
        "will be replaced is said, and asked about. An older schema is migrated to the newest.\n"
        "Interrupted at any moment, the database is as it was, or restored, and nothing between.\n"
        "A SQLite file that is replaced is kept beside the new one; the node must be stopped.\n"
        "What is replaced on PostgreSQL is written to a backup first, in the same transaction.",
        [
            ("novacron database restore /mnt/backup/node1.ncb", "after looking at what it says"),
            ("novacron database restore node1.ncb --yes --json", "for scripts"),
        ],
    )
    restore.add_argument("file", metavar="FILE", help="the backup")
    _add_replacing(restore)
    restore.set_defaults(run=restore_backup)


def _add_replacing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask before replacing something")
    parser.add_argument(
        "--force",
        action="store_true",
        help="PostgreSQL: also while nodes are registered as running on it",
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="take another node's or cluster's data as this one's",
    )
    parser.add_argument(
        "--discard",
        action="store_true",
        help="PostgreSQL: write no backup of what is replaced, for instance because it is damaged",
    )


def make_backup(args: argparse.Namespace) -> int:
    from novacron.cli.database import operations_of
    from novacron.cli.database_progress import Advance
    from novacron.cli.parser import version
    from novacron.cli.progress import size
    from novacron.database.copies.writing import explain, write_backup

    node = StoredNode(args, change=True)
    source = operations_of(node)
    if args.file:
        path = Path(args.file)
    else:
        try:
            source.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, source.backups) from error
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = source.backups / f"novacron-{stamp}.ncb"
    started = time.monotonic()
    with Advance(silent=args.json) as report:
        snapshot = source.open_snapshot()
        try:
            node.record("database.backup", source.place, file=str(path.absolute()))
            made = write_backup(snapshot, path, version(), report)
        finally:
            snapshot.close()
    took = time.monotonic() - started
    if args.json:
        document = {
            "file": str(made.path),
            "size": made.size,
            "sha256": made.sha256,
            "seconds": round(took, 3),
            **_header(snapshot),
        }
        print(as_json(document))
    else:
        rows = made.header.rows
        print(f"{made.path}: {rows} rows, {size(made.size)}, in {took:.1f} s.")
        print(f"SHA-256 at its end: {made.sha256}")
    return 0


def restore_backup(args: argparse.Namespace) -> int:
    from novacron.cli.database import operations_of
    from novacron.database.copies.sources import open_file

    node = StoredNode(args, change=True)
    target = operations_of(node)
    busy_timeout = node.settings.database.busy_timeout
    source = open_file(Path(args.file), busy_timeout=busy_timeout)
    try:
        return replace(args, node, target, source, "restore")
    finally:
        source.close()


def replace(
    args: argparse.Namespace,
    node: StoredNode,
    target: Operations,
    source: Snapshot,
    what: str,
) -> int:
    """Check *source*, say what it replaces in *target*, ask, and do it."""
    from novacron.cli.database_progress import Advance
    from novacron.database.copies.loading import check_revision
    from novacron.database.copies.sources import verify_file
    from novacron.database.operations import check_adoption

    check_revision(source)
    if not args.adopt:
        check_adoption(source, target)
    with Advance(silent=args.json) as report:
        verify_file(source, report)
    with target.alone(what, force=args.force):
        there = target.occupant()
        if there is not None:
            _confirm(args, target, there)
        node.record(
            f"database.{what}",
            target.place,
            source=source.place,
            replaces=None if there is None else {"rows": there.rows, "fault": there.fault},
        )
        with Advance(silent=args.json) as report:
            done = target.restore(source, report, keep=not args.discard)
    _say_restored(args, target, source, there, done)
    return 0


def _confirm(args: argparse.Namespace, target: Operations, there: Occupant) -> None:
    from novacron.database.copies.tables import DatabaseNotEmptyError

    words = _words(there)
    if not args.json or not args.yes:
        print(f"{target.place} will be replaced: {words}.", file=sys.stderr)
    if args.yes:
        return
    if sys.stdin.isatty() and not args.json:
        print("Replace it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
        raise DatabaseNotEmptyError(f"{target.place} was left as it is", why="you did not say yes")
    raise DatabaseNotEmptyError(
        f"{target.place} was left as it is",
        why=f"it is there already ({words}), and there is nobody to ask",
        remedy="add --yes if it is to be replaced",
    )


def _words(there: Occupant) -> str:
    from novacron.cli.progress import size

    parts = [f"{there.rows} rows", size(there.size)]
    if there.revision is not None:
        parts.append(f"schema version {there.revision}")
    if there.owner is not None:
        parts.append(f"of {there.owner}")
    if there.fault:
        parts.append(f"damaged ({cell(there.fault)})")
    return ", ".join(parts)


def _say_restored(
    args: argparse.Namespace,
    target: Operations,
    source: Snapshot,
    there: Occupant | None,
    done: Restored,
) -> None:
    if args.json:
        document = {
            "place": target.place,
            "source": source.place,
            "revision": done.revision,
            "replaced": None if there is None else there._asdict(),
            "kept": None if done.kept is None else str(done.kept),
            "tables": [one._asdict() for one in done.tables],
        }
        print(as_json(document))
        return
    rows = sum(one.rows for one in done.tables)
    print(f"{target.place} holds {rows} rows of {source.place}, read back and compared.")
    if source.revision != done.revision:
        print(f"It was migrated from version {source.revision} to {done.revision}.")
    if done.kept is not None:
        print(f"What was there before: {done.kept}")


def _header(source: Snapshot) -> dict[str, Any]:
    return {
        "engine": source.engine,
        "revision": source.revision,
        "owner": None if source.owner is None else str(source.owner),
        "rows": sum(table.rows for table in source.tables),
        "tables": [{"table": table.name, "rows": table.rows} for table in source.tables],
    }


def describe(source: Snapshot) -> dict[str, Any]:
    """What a checked backup says of itself."""
    from novacron.database.copies.reading import BackupFile
    from novacron.database.inspection import instant

    document: dict[str, Any] = {"file": source.place}
    if isinstance(source, BackupFile):
        document |= {
            "made": instant(source.header.created),
            "novacron": source.header.version,
            "size": source.size,
            "sha256": source.sha256,
        }
    return document | _header(source)
