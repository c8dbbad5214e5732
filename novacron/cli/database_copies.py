"""``novacron database backup|restore|copy``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.cli.stored import ArgumentError, StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, cell, table

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
    restore.add_argument("--yes", action="store_true", help="do not ask before replacing something")
    restore.add_argument(
        "--force",
        action="store_true",
        help="PostgreSQL: also while nodes are registered as running on it",
    )
    _add_replacing(restore)
    restore.set_defaults(run=restore_backup)

    copy = add_action(
        actions,
        "copy",
        "go over from SQLite to PostgreSQL",
        "Copy everything in a node's SQLite file to the PostgreSQL database that the configuration\n"
        "names, in one transaction, read it back there, and compare counts and checksums. The file\n"
        "is only read, and stays. The copy belongs to this node's cluster and no longer to a node.\n"
        "Stop the node before, copy, set database.engine to postgresql, and start it.",
        [
            (
                "novacron database copy --from sqlite:/var/lib/novacron/database/novacron.db "
                "--to postgresql",
                "this node's database, to the configured server",
            ),
            (
                "novacron database copy --from sqlite: --to postgresql",
                "the same, from where this node keeps it",
            ),
        ],
    )
    copy.add_argument(
        "--from",
        dest="source",
        metavar="sqlite:PATH",
        required=True,
        help="the file; without PATH this node's",
    )
    copy.add_argument(
        "--to", choices=("postgresql",), required=True, help="the database.postgresql configured"
    )
    copy.add_argument(
        "--force",
        action="store_true",
        help="replace what is there, and do not mind nodes that run on either",
    )
    _add_replacing(copy)
    copy.set_defaults(run=copy_database)


def _add_replacing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="take another node's or cluster's data as this one's, or replace its database",
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
    from novacron.database.copies.writing import unused_name, write_backup

    node = StoredNode(args, change=True)
    source = operations_of(node)
    path = Path(args.file) if args.file else unused_name(source.backups, "novacron")
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


def copy_database(args: argparse.Namespace) -> int:
    from contextlib import nullcontext

    from novacron.cli.database import operations_of
    from novacron.database.copies.replacing import stopped_node
    from novacron.database.copies.sqlite_tables import SqliteSnapshot

    kind, colon, name = args.source.partition(":")
    if kind != "sqlite" or not colon:
        raise ArgumentError(
            f"cannot copy from {args.source}",
            why="only a SQLite file can be copied",
            remedy="write sqlite:PATH; from PostgreSQL take a backup and restore that",
        )
    node = StoredNode(args, change=True)
    target = operations_of(node, args.to)
    own = Path(node.settings.database.path or node.directory.database / "novacron.db")
    path = Path(name) if name else own
    # What a node writes after the copy began would stay behind.
    mine = path.exists() and own.exists() and path.samefile(own)
    stopped = mine and not args.force
    with stopped_node(node.directory, "copy") if stopped else nullcontext():
        source = SqliteSnapshot(path, busy_timeout=node.settings.database.busy_timeout)
        try:
            return replace(args, node, target, source, "copy")
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
    from novacron.database.operations import check_adoption, check_occupant

    check_revision(source)
    if not args.adopt:
        check_adoption(source, target)
    with Advance(silent=args.json) as report:
        verify_file(source, report)
    with target.alone(what, force=args.force):
        there = target.occupant()
        if not args.adopt:
            check_occupant(there, target)
        if there is not None and (there.rows or there.fault):
            _confirm(args, target, there, yes=args.force if what == "copy" else args.yes)
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


def _confirm(args: argparse.Namespace, target: Operations, there: Occupant, *, yes: bool) -> None:
    from novacron.database.copies.tables import DatabaseNotEmptyError

    words = _words(there)
    if not args.json or not yes:
        print(f"{target.place} will be replaced: {words}.", file=sys.stderr)
    if yes:
        return
    if args.action == "copy":
        raise DatabaseNotEmptyError(
            f"{target.place} is not empty",
            why=f"it holds {words}",
            remedy="name an empty database, or add --force if that is to be replaced",
            key="database.postgresql.name",
        )
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
    if args.action == "copy":
        columns = ("table", "rows", "checksum")
        print(table(columns, [[one.table, one.rows, one.checksum] for one in done.tables]))
        print("\nCounts and checksums are the same on both sides.")
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
