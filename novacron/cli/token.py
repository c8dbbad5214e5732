"""``novacron token``: make, list and revoke API tokens."""

from __future__ import annotations

import argparse
import sys

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import StoredNode, Subparsers, add_action, duration
from novacron.cli.tables import as_json, table


def register(subparsers: Subparsers) -> None:
    """Add ``token`` and its actions."""
    parser = subparsers.add_parser(
        "token",
        help="make, list and revoke API tokens",
        description="Make, list and revoke the tokens that let programs and people use the API.\n"
        "Works on the data directory, with or without a running node; a running one takes\n"
        "over the change with the next request.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                (
                    "novacron token create prometheus --role viewer --ttl 90d",
                    "may look, for 90 days; printed once, never again",
                ),
                ("novacron token list", "all of them, without the secrets"),
                ("novacron token revoke 5f0c2b9d41e7a836", "from the next request on"),
            ],
            files={
                "DATA_DIR/secrets/tokens.json": "hashes of the tokens",
                "DATA_DIR/secrets/join-tokens.json": "hashes of the tokens for nodes",
                "DATA_DIR/secrets/admin.token": "the administrator's token of the first boot",
            },
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = add_action(
        actions,
        "create",
        "make a token",
        "Make a token and print it. The node keeps only a hash: nothing prints it again.",
        [
            (
                "novacron token create backup --role operator --ttl 12h --output backup.token",
                "into a file that only you can read",
            ),
            (
                "novacron token create --role node --ttl 10m",
                "for `novacron join` on another machine",
            ),
        ],
    )
    create.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="who will use it, 1 to 64 characters; may be left out for a node",
    )
    create.add_argument(
        "--role",
        choices=("viewer", "operator", "admin", "node"),
        required=True,
        help="what it may do: look, change, or also manage tokens and keys; node: let another "
        "machine join this node's authority, once",
    )
    create.add_argument(
        "--ttl",
        type=duration,
        metavar="TIME",
        help="how long it is valid: 90s, 30m, 12h, 30d (default: until it is revoked; for a node "
        "10m)",
    )
    create.add_argument(
        "--node-id",
        metavar="UUID",
        help="with --role node: the only node that it lets in, also where that id is in use",
    )
    create.add_argument(
        "--output", metavar="FILE", help="write it to a new file with mode 0600, do not print it"
    )
    create.set_defaults(run=create_token)

    listing = add_action(
        actions,
        "list",
        "list the tokens",
        "List every token, and those that expired or were revoked in the last 30 days.",
        [("novacron token list --json", "for scripts")],
    )
    listing.set_defaults(run=list_tokens)

    revoke = add_action(
        actions,
        "revoke",
        "make a token invalid",
        "Make a token invalid, from the next request on. Twice is harmless.",
        [("novacron token revoke 5f0c2b9d41e7a836", "by the id that `list` shows")],
    )
    revoke.add_argument("id", metavar="ID", help="the id, not the token")
    revoke.set_defaults(run=revoke_token)


def create_token(args: argparse.Namespace) -> int:
    from novacron.security.tokens import Tokens

    _check_arguments(args)
    node = StoredNode(args, change=True)
    if args.role == "node":
        return _create_join_token(args, node)
    tokens = Tokens(node.directory)
    created = tokens.create_blocking(args.name, args.role, args.ttl)
    try:
        node.record("token.create", f"token:{created.id}", name=args.name, role=args.role)
        if args.output:
            _write_new(args.output, created.secret)
    except BaseException:
        # A token nobody has, or nobody knows of, is not left valid.
        tokens.revoke_blocking(created.id)
        raise
    if args.json:
        document = {"id": created.id, "name": args.name, "role": args.role}
        print(as_json(document if args.output else {**document, "token": created.secret}))
    elif args.output:
        print(f"Token {created.id} is in {args.output}.")
    else:
        print(created.secret)
    return 0


def _check_arguments(args: argparse.Namespace) -> None:
    from novacron.cli.stored import ArgumentError

    if args.node_id is not None and args.role != "node":
        raise ArgumentError(
            "cannot use --node-id", why="only --role node has use for it", remedy="leave it out"
        )
    if args.name is None and args.role != "node":
        raise ArgumentError(
            "cannot make the token",
            why="it has no name",
            remedy=f"say who will use it: novacron token create NAME --role {args.role}",
        )


def _create_join_token(args: argparse.Namespace, node: StoredNode) -> int:
    from novacron.security.inspection import key_hash
    from novacron.security.join_tokens import DEFAULT_TTL, JoinTokens
    from novacron.trust.founding import in_the_way, open_issuer

    issuer = open_issuer(node.directory, node.settings, node.keyring)
    authority = key_hash(issuer.authority.certificate().public_key())
    warnings = in_the_way(node.settings)
    tokens = JoinTokens(node.directory)
    id, secret = tokens.create_blocking(args.name or "", args.ttl or DEFAULT_TTL, args.node_id)
    text = f"{secret}_{authority}"
    try:
        node.record("token.create", f"token:{id}", name=args.name or "", role="node")
        if args.output:
            _write_new(args.output, text)
    except BaseException:
        tokens.revoke_blocking(id)
        raise
    if args.json:
        document = {"id": id, "role": "node", "authority": authority, "warnings": warnings}
        print(as_json(document if args.output else {**document, "token": text}))
        return 0
    for warning in warnings:
        print(f"novacron: {warning}", file=sys.stderr)
    print(f"Token {id} is in {args.output}." if args.output else text)
    return 0


def list_tokens(args: argparse.Namespace) -> int:
    from novacron.security.join_tokens import JoinTokens
    from novacron.security.tokens import Tokens

    node = StoredNode(args, change=False)
    tokens = Tokens(node.directory)
    tokens.open_blocking(create=False)
    found = tokens.list() + JoinTokens(node.directory).list()
    if args.json:
        print(as_json({"tokens": found}))
    else:
        columns = ("id", "name", "role", "state", "created", "expires")
        print(table(columns, [[entry[column] for column in columns] for entry in found]))
    return 0


def revoke_token(args: argparse.Namespace) -> int:
    from novacron.security.join_tokens import JoinTokens
    from novacron.security.tokens import Tokens

    node = StoredNode(args, change=True)
    joins = JoinTokens(node.directory)
    tokens = joins if joins.knows(args.id) else Tokens(node.directory)
    node.record("token.revoke", f"token:{args.id[:32]}")
    tokens.revoke_blocking(args.id)
    print(as_json({"revoked": args.id}) if args.json else f"Token {args.id} is not valid any more.")
    return 0


def _write_new(path: str, secret: str) -> None:
    import os

    from novacron.cli.stored import ArgumentError

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ArgumentError(
            f"cannot create {path}",
            why=exc.strerror or type(exc).__name__,
            remedy="name a file that does not exist, in a directory you may write to",
        ) from exc
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
