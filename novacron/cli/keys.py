"""``novacron keys``: the keyring's state, and rotation."""

from __future__ import annotations

import argparse

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, pairs, table


def register(subparsers: Subparsers) -> None:
    """Add ``keys`` and its actions."""
    parser = subparsers.add_parser(
        "keys",
        help="look at and rotate the node's keys",
        description="Look at and rotate the keys that the node's data are encrypted with.\n"
        "Data keys are wrapped by the master key; old ones still open old data.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron keys status", "which keys there are and how old they are"),
                ("novacron keys rotate", "encrypt with a new data key from now on"),
                ("novacron keys rotate --master", "make a new master key"),
            ],
            files={
                "DATA_DIR/secrets/master.key": "the master key, unless security.master_key says "
                "otherwise: keep a copy elsewhere",
                "DATA_DIR/secrets/keyring.json": "the data keys, wrapped",
            },
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    status = add_action(
        actions,
        "status",
        "show the keys, not what is in them",
        "Show the data keys, their age and use. Also proves that the master key opens them.",
        [("novacron keys status --json", "for scripts")],
        {"0": "the master key opens the keyring", "1": "it does not, or the keyring is damaged"},
    )
    status.set_defaults(run=show_status)

    rotate = add_action(
        actions,
        "rotate",
        "make a new data key, or a new master key",
        "Make a new data key; with --master, wrap all data keys by a new master key. Data stay as\n"
        "they are. A running node takes it over by itself, but a master key named with --to must\n"
        "then be set as security.master_key and the node be restarted.",
        [
            (
                "novacron keys rotate --master",
                "replace secrets/master.key; copy it elsewhere again",
            ),
            (
                "novacron keys rotate --master --to credential:novacron-master",
                "go over to a key that systemd passes",
            ),
        ],
    )
    rotate.add_argument("--master", action="store_true", help="replace the master key")
    rotate.add_argument(
        "--to",
        metavar="REFERENCE",
        help="with --master: the new master key, as file:PATH, env:NAME or credential:NAME "
        "(default: a new one in secrets/master.key)",
    )
    rotate.set_defaults(run=rotate_keys)


def show_status(args: argparse.Namespace) -> int:
    found = StoredNode(args, change=False).keyring().status()
    if args.json:
        print(as_json(found))
        return 0
    columns = ("id", "created", "messages_reserved", "active")
    keys = found.pop("keys")
    print(pairs(found))
    print()
    print(table(columns, [[key[column] for column in columns] for key in keys]))
    return 0


def rotate_keys(args: argparse.Namespace) -> int:
    from novacron.cli.stored import ArgumentError

    if args.to and not args.master:
        raise ArgumentError(
            "cannot use --to", why="it names a master key", remedy="add --master, or leave it out"
        )
    node = StoredNode(args, change=True)
    keyring = node.keyring()
    if not args.master:
        node.record("key.rotate", "keyring")
        id = keyring.rotate()
        print(as_json({"active": id}) if args.json else f"Data key {id} is in use now.")
        return 0
    node.record("key.rotate_master", "keyring", to=args.to or "file:")
    keyring.rotate_master(args.to)
    if args.json:
        print(as_json({"master_key": args.to or node.settings.security.master_key}))
    elif args.to:
        print(f"The keyring opens with {args.to} now. Set security.master_key to it and restart.")
    else:
        print(
            f"New master key in {node.directory.secrets / 'master.key'}. Copy it elsewhere again."
        )
    return 0
