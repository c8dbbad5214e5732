"""``novacron keys``: the keyring's state, and making and rotating keys."""

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
                (
                    "novacron keys init --to 'pkcs11:token=novacron;object=master'",
                    "make a master key inside a hardware module",
                ),
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
        "Show the data keys, their age and use, and which master keys open them. Also proves that\n"
        "the configured one does, in its hardware module if it is in one.",
        [("novacron keys status --json", "for scripts")],
        {"0": "the master key opens the keyring", "1": "it does not, or the keyring is damaged"},
    )
    status.set_defaults(run=show_status)

    init = add_action(
        actions,
        "init",
        "make a master key",
        "Make a master key where it is to be, before the first boot or before it replaces another:\n"
        "in a file, or inside a hardware module, which it never leaves. Nothing is replaced.",
        [
            (
                "novacron keys init --to 'pkcs11:token=novacron;object=master' "
                "--set security.pkcs11_module=/usr/lib/softhsm/libsofthsm2.so "
                "--set security.pkcs11_pin=file:/etc/novacron/pin",
                "AES with 256 bits, sensitive and not extractable",
            ),
            ("novacron keys init --to file:/etc/novacron/master.key", "a file with mode 0600"),
        ],
    )
    init.add_argument(
        "--to",
        metavar="REFERENCE",
        required=True,
        help="pkcs11:token=TOKEN;object=LABEL or file:PATH",
    )
    init.set_defaults(run=make_master_key)

    rotate = add_action(
        actions,
        "rotate",
        "make a new data key, or replace the master key",
        "Make a new data key; with --master, replace the master key. Data stay as they are, and a\n"
        "running node takes it over by itself. With --to, both master keys open the keyring until\n"
        "security.master_key is set to the new one and the node reloaded (SIGHUP) or restarted.",
        [
            (
                "novacron keys rotate --master",
                "replace secrets/master.key; copy it elsewhere again",
            ),
            (
                "novacron keys rotate --master --to 'pkcs11:token=novacron;object=master'",
                "go over to a key in a hardware module",
            ),
        ],
    )
    rotate.add_argument("--master", action="store_true", help="replace the master key")
    rotate.add_argument(
        "--to",
        metavar="REFERENCE",
        help="with --master: the new master key, as file:PATH, env:NAME, credential:NAME or "
        "pkcs11:… (default: a new one in secrets/master.key)",
    )
    rotate.set_defaults(run=rotate_keys)


def show_status(args: argparse.Namespace) -> int:
    from novacron.security.providers import provider_for

    node = StoredNode(args, change=False)
    found = node.keyring().status()
    reference = node.settings.security.master_key
    if reference.startswith("pkcs11:"):
        provider = provider_for(reference, node.module_options())
        found["module"] = provider.describe_master_key(reference)
    if args.json:
        print(as_json(found))
        return 0
    columns = ("id", "created", "messages_reserved", "active")
    keys = found.pop("keys")
    found["opened_by"] = " and ".join(found["opened_by"])
    found.update({f"module_{name}": value for name, value in found.pop("module", {}).items()})
    print(pairs(found))
    print()
    print(table(columns, [[key[column] for column in columns] for key in keys]))
    return 0


def make_master_key(args: argparse.Namespace) -> int:
    from novacron.config import data_directory_for
    from novacron.config.options import load_from
    from novacron.security.module_options import ModuleOptions
    from novacron.security.providers import check_reference, provider_for

    settings = load_from(args).settings
    directory = data_directory_for(settings)
    options = ModuleOptions.of(settings.security, directory, insist=True)
    provider = provider_for(args.to, options)
    check_reference(args.to)
    # On a node that has run it is recorded like any other key; before the first boot there is none.
    if directory.secrets.is_dir():
        StoredNode(args, change=True).record("key.make_master", "keyring", to=args.to)
    made = provider.make_master_key(args.to)
    if args.json:
        print(as_json(made))
    else:
        print(
            f"Made the master key {args.to}. Set security.master_key to it before the first boot; "
            "on a node that has booted, run `novacron keys rotate --master --to` with it first."
        )
    return 0


def rotate_keys(args: argparse.Namespace) -> int:
    from novacron.cli.stored import ArgumentError
    from novacron.security.providers import check_reference

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
    if args.to:
        # Before it is recorded: what is no reference may be a secret that was pasted here.
        check_reference(args.to)
    node.record("key.rotate_master", "keyring", to=args.to or "file:")
    keyring.rotate_master(args.to)
    if args.json:
        print(as_json({"master_key": args.to or node.settings.security.master_key}))
    elif args.to:
        print(
            f"The keyring opens with {args.to} as well now. Set security.master_key to it and reload "
            "the node (systemctl reload novacron); the one before then no longer opens it."
        )
    else:
        print(
            f"New master key in {node.directory.secrets / 'master.key'}. Copy it elsewhere again."
        )
    return 0
