"""``novacron database``: look after the database from outside of the node."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import NoNodeError, StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, cell, pairs, table

if TYPE_CHECKING:
    from novacron.database.inspection import Verification
    from novacron.database.operations import Operations
    from novacron.units import NodeId

PENDING = 3

_FILES = {
    "DATA_DIR/database/novacron.db": "the database, unless database.path says otherwise",
    "DATA_DIR/database/backups/*.ncb": "backups that were given no name",
    "DATA_DIR/database/backups/*.db": "copies made before a migration",
    "DATA_DIR/database/novacron.db.replaced.*": "what a restoration replaced; remove it when sure",
}


def register(subparsers: Subparsers) -> None:
    """Add ``database`` and its actions."""
    from novacron.cli.database_copies import register_copies

    parser = subparsers.add_parser(
        "database",
        help="check, migrate, back up and restore the database",
        description="Look after the node's database from outside of the node: its file, or the\n"
        "server that database.engine names. Works whether the node runs or not, where not said\n"
        "otherwise. What changes something is in the audit log.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron database status", "is it usable, and is anything to be done?"),
                ("novacron database backup", "a consistent backup while the node runs"),
                ("novacron database verify BACKUP", "is this backup whole?"),
                ("novacron database restore BACKUP", "put it back"),
            ],
            files=_FILES,
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    status = add_action(
        actions,
        "status",
        "show what the database is and how it is",
        "Show engine, place, version of the schema, owner, size, rows, pending migrations and the\n"
        "last backups; of a server also its version, its role and this connection's encryption.\n"
        "Changes nothing.",
        [
            ("novacron database status", "for people"),
            ("novacron database status --json | jq -r .state", "for scripts"),
        ],
        {
            "0": "usable, its schema is the newest",
            "1": "not usable; it says why",
            "3": "migrations are pending, or there is no database yet; the next boot does it",
        },
    )
    status.set_defaults(run=show_status)

    migrate = add_action(
        actions,
        "migrate",
        "bring the schema to the newest version",
        "Run the pending migrations, as the next boot would. Copies a SQLite file to\n"
        "database/backups/ first; the node must be stopped. On PostgreSQL one process migrates at\n"
        "a time, and the others wait for it.",
        [
            ("novacron database migrate --dry-run", "what would be run"),
            ("novacron database migrate", "run it now, and not at the next boot"),
        ],
        {"0": "the schema is the newest", "3": "with --dry-run: migrations are pending"},
    )
    migrate.add_argument("--dry-run", action="store_true", help="only say what would be run")
    migrate.set_defaults(run=migrate_schema)

    verify = add_action(
        actions,
        "verify",
        "look for damage, in the database or in a backup",
        "Check the database: its pages (PostgreSQL: its indexes, where the extension amcheck is\n"
        "installed), its schema against the code's, references between tables, and whose it is.\n"
        "With BACKUP, check that file instead: every row of it, and its checksum. Changes nothing.",
        [
            ("novacron database verify", "the database, every index against its table"),
            ("novacron database verify --quick", "the same without the indexes' content"),
            ("novacron database verify /mnt/backup/node1.ncb", "a backup, before it is needed"),
        ],
        {"0": "nothing is wrong", "1": "something is; it is listed"},
    )
    verify.add_argument(
        "backup", metavar="BACKUP", nargs="?", help="a backup or a copy of the file"
    )
    verify.add_argument("--quick", action="store_true", help="do not read the indexes' content")
    verify.set_defaults(run=verify_database)

    register_copies(actions)


def node_id_of(node: StoredNode) -> NodeId:
    """Which node's data directory it is.

    Raises:
      NoNodeError: its identity cannot be read.
    """
    from novacron.environment.identity import decode_identity

    path = node.directory.identity
    try:
        return decode_identity(path.read_bytes())
    except OSError as error:
        why = error.strerror or type(error).__name__
    except ValueError as error:
        why = str(error)
    raise NoNodeError(
        f"cannot read which node this is from {path}",
        why=why,
        remedy="start the node once, or bring back its identity.json",
        key="system.data_dir",
    )


def operations_of(node: StoredNode, engine: str | None = None) -> Operations:
    from novacron.database.operations import operations

    return operations(
        node.settings.database,
        node.directory,
        node_id_of(node),
        lambda: authorities_of(node),
        engine,
    )


def authorities_of(node: StoredNode) -> tuple[str, ...]:
    """What names the cluster that the node is of: the hash of its first authority's key, then of those
    that it trusts and of those it trusted before.

    Raises:
      CertificateError: there is none, or it cannot be read.
      RootsError: the list of them is damaged.
    """
    from novacron.cli.certificate import read
    from novacron.security import inspection
    from novacron.security import roots as trust_roots

    outside = node.settings.security.ca_certificate
    path = Path(outside) if outside else node.directory.pki / "ca.pem"
    data = read(path)
    roots = inspection.load_certificates(data, str(path), "security.ca_certificate")
    trusted = [inspection.key_hash(root.public_key()) for root in roots]
    document = None if outside else trust_roots.read(data, str(path))
    if document is None:
        return tuple(trusted)
    return tuple(dict.fromkeys((document.cluster, *trusted, *document.former)))


def show_status(args: argparse.Namespace) -> int:
    found = operations_of(StoredNode(args, change=False)).status()
    if args.json:
        print(as_json(found))
    else:
        _print_status(found)
    if found["state"] == "unusable":
        return 1
    return 0 if found["state"] == "current" else PENDING


def _print_status(found: dict[str, Any]) -> None:
    from novacron.cli.progress import size

    tables, backups = found.pop("tables"), found.pop("backups")
    shown = {name.replace("_", " "): value for name, value in found.items() if value is not None}
    if found["size"] is not None:
        shown["size"] = size(found["size"])
    shown["pending"] = ", ".join(found["pending"]) or "nothing"
    print(pairs(shown))
    if tables:
        print()
        print(table(("table", "rows"), [[row["table"], row["rows"]] for row in tables]))
    print()
    if backups:
        rows = [[row["made"], size(row["size"]), row["file"]] for row in backups]
        print(table(("backup", "size", "file"), rows))
    else:
        print("There are no backups beside it.")


def migrate_schema(args: argparse.Namespace) -> int:
    from novacron.cli.database_progress import Advance

    node = StoredNode(args, change=not args.dry_run)
    target = operations_of(node)
    pending = [f"{step.revision} {step.name}" for step in target.pending()]
    if args.dry_run or not pending:
        if args.json:
            print(as_json({"pending": pending, "migrated": False}))
        elif pending:
            print("These would be run, in one transaction:")
            print("\n".join(f"  {step}" for step in pending))
        else:
            print("The schema is the newest.")
        return PENDING if pending else 0
    node.record("database.migrate", target.place, steps=pending)
    with Advance(silent=args.json) as report:
        done = target.migrate(report)
    if args.json:
        document = {"pending": [], "migrated": True, "from": done.before, "to": done.after}
        print(as_json(document | {"backup": None if done.backup is None else str(done.backup)}))
        return 0
    print(f"Migrated from version {done.before or 'none'} to {done.after}.")
    if done.backup is not None:
        print(f"As it was before: {done.backup}")
    return 0


def verify_database(args: argparse.Namespace) -> int:
    if args.backup:
        return _verify_backup(args)
    from novacron.cli.database_progress import Advance

    target = operations_of(StoredNode(args, change=False))
    with Advance(silent=args.json):
        done = target.verify(full=not args.quick)
    _print_findings(target.place, done, as_document=args.json)
    return 1 if done.findings else 0


def _print_findings(place: str, done: Verification, *, as_document: bool) -> None:
    found = done.findings
    if as_document:
        rows = [{"what": one.what, "remedy": one.remedy} for one in found]
        print(as_json({"place": place, "ok": not found, "findings": rows, "notes": done.notes}))
        return
    for one in found:
        print(f"{cell(one.what)}. {one.remedy[:1].upper()}{one.remedy[1:]}.")
    for note in done.notes:
        print(f"Note: {cell(note)}.")
    count = "1 finding." if len(found) == 1 else f"{len(found)} findings."
    print(f"{place}: " + (count if found else "nothing is wrong."))


def _verify_backup(args: argparse.Namespace) -> int:
    from novacron.cli.database_copies import describe
    from novacron.cli.database_progress import Advance
    from novacron.config.options import load_from
    from novacron.database.copies.sources import open_file, verify_file
    from novacron.database.copies.tables import BackupInvalidError
    from novacron.database.inspection import Finding, Verification
    from novacron.database.store import DatabaseCorruptError

    busy_timeout = load_from(args).settings.database.busy_timeout
    try:
        source = open_file(Path(args.backup), busy_timeout=busy_timeout)
        try:
            with Advance(silent=args.json) as report:
                verify_file(source, report)
            document = describe(source)
        finally:
            source.close()
    except (BackupInvalidError, DatabaseCorruptError) as error:
        # What was asked for, and so an answer and no failure of the command.
        finding = Finding(error.why or error.what, error.remedy)
        _print_findings(args.backup, Verification([finding], []), as_document=args.json)
        return 1
    if args.json:
        print(as_json(document | {"ok": True}))
    else:
        rows = document.pop("tables")
        print(pairs(document))
        print()
        print(table(("table", "rows"), [[row["table"], row["rows"]] for row in rows]))
        print("\nNothing is wrong with it.")
    return 0
