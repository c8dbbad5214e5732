"""``novacron token``: make, list, rotate and revoke API tokens."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TextIO

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import StoredNode, Subparsers, add_action, duration
from novacron.cli.tables import as_json, table

_ROOM = 512
"""Bytes. The longest token, a node's, has 136."""


def register(subparsers: Subparsers) -> None:
    """Add ``token`` and its actions."""
    parser = subparsers.add_parser(
        "token",
        help="make, list, rotate and revoke API tokens",
        description="Make, list, rotate and revoke the tokens that let programs and people use the API.\n"
        "Works on the data directory, with or without a running node; a running one takes\n"
        "over the change with the next request. With --cluster a running node is asked, and\n"
        "the tokens are those that every node sharing its database takes.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                (
                    "novacron token create prometheus --role viewer --ttl 90d",
                    "may look, for 90 days; printed once, never again",
                ),
                ("novacron token list", "all of them, without the secrets"),
                (
                    "novacron token rotate 5f0c2b9d41e7a836 --grace 1h",
                    "a new secret; the old one is accepted for an hour more",
                ),
                ("novacron token revoke 5f0c2b9d41e7a836", "from the next request on"),
                ("novacron token create ci --role operator --cluster", "every node takes it"),
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
            (
                "novacron token create acme --role operator --resource tenant:acme "
                "--resource directory:/srv/acme",
                "may move files of one tenant, below one directory",
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
        "--resource",
        action="append",
        metavar="KIND:NAME",
        help="narrow it to tenant:NAME or directory:/PATH, with * at the end for all that begin so; "
        "may be given several times (default: everything the role gives)",
    )
    create.add_argument(
        "--output", metavar="FILE", help="write it to a new file with mode 0600, do not print it"
    )
    _add_cluster(create)
    create.set_defaults(run=create_token)

    listing = add_action(
        actions,
        "list",
        "list the tokens",
        "List every token, and those that expired or were revoked in the last 30 days.",
        [("novacron token list --json", "for scripts")],
    )
    _add_cluster(listing)
    listing.set_defaults(run=list_tokens)

    rotate = add_action(
        actions,
        "rotate",
        "give a token a new secret",
        "Give a token a new secret and print it. For the time of grace the old one is accepted as\n"
        "well: put the new one wherever the old one is, and nobody is refused. Id, name, role and\n"
        "resources stay. In secrets/admin.token it is replaced by this command.",
        [
            ("novacron token rotate 5f0c2b9d41e7a836 --grace 1d --ttl 90d", "also renews it"),
            ("novacron token rotate 5f0c2b9d41e7a836 --grace 0", "the old one has leaked"),
        ],
    )
    rotate.add_argument("id", metavar="ID", help="the id, not the token")
    rotate.add_argument(
        "--grace",
        type=_grace,
        default=3600.0,
        metavar="TIME",
        help="how long the old secret is still accepted: 0, 90s, 30m, 12h, up to 30d (default: 1h)",
    )
    rotate.add_argument(
        "--ttl",
        type=duration,
        metavar="TIME",
        help="how long the token is valid from now on (default: as long as before)",
    )
    rotate.add_argument(
        "--output", metavar="FILE", help="write it to a new file with mode 0600, do not print it"
    )
    _add_cluster(rotate)
    rotate.set_defaults(run=rotate_token)

    revoke = add_action(
        actions,
        "revoke",
        "make a token invalid",
        "Make a token invalid, from the next request on. Twice is harmless.",
        [("novacron token revoke 5f0c2b9d41e7a836", "by the id that `list` shows")],
    )
    revoke.add_argument("id", metavar="ID", help="the id, not the token")
    _add_cluster(revoke)
    revoke.set_defaults(run=revoke_token)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    from novacron.cli.client import add_address_options

    parser.add_argument(
        "--cluster",
        action="store_true",
        help="tokens of every node that shares the running node's database",
    )
    add_address_options(parser)


def create_token(args: argparse.Namespace) -> int:
    from novacron.security.resources import EVERYTHING, check_patterns

    _check_arguments(args)
    if args.role == "node":
        return _create_join_token(args)
    resources = list(check_patterns(args.resource or EVERYTHING))
    made = _create_shared if args.cluster else _create_here
    id, secret = made(args, resources)
    if args.json:
        document = {"id": id, "name": args.name, "role": args.role, "resources": resources}
        print(as_json(document if args.output else {**document, "token": secret}))
    elif args.output:
        print(f"Token {id} is in {args.output}.")
    else:
        print(secret)
    return 0


def _create_here(args: argparse.Namespace, resources: list[str]) -> tuple[str, str]:
    from novacron.security.tokens import Tokens

    node = StoredNode(args, change=True)
    tokens = Tokens(node.directory)
    created = tokens.create_blocking(args.name, args.role, args.ttl, resources)
    try:
        details = {"name": args.name, "role": args.role, "resources": resources}
        node.record("token.create", f"token:{created.id}", **details)
        if args.output:
            _write_new(args.output, created.secret)
    except BaseException:
        # A token nobody has, or nobody knows of, is not left valid.
        tokens.revoke_blocking(created.id)
        raise
    return created.id, created.secret


def _create_shared(args: argparse.Namespace, resources: list[str]) -> tuple[str, str]:
    from novacron.cli.client import client_for

    client = client_for(args)
    wanted = {
        "name": args.name,
        "role": args.role,
        "ttl": args.ttl,
        "resources": resources,
        "scope": "cluster",
    }
    created = client.post("tokens", wanted, "make the token")
    try:
        if args.output:
            _write_new(args.output, created["secret"])
    except BaseException:
        client.delete(f"tokens/{created['id']}", "revoke the token that could not be written")
        raise
    return created["id"], created["secret"]


def _check_arguments(args: argparse.Namespace) -> None:
    from novacron.cli.stored import ArgumentError

    if args.node_id is not None and args.role != "node":
        raise ArgumentError(
            "cannot use --node-id", why="only --role node has use for it", remedy="leave it out"
        )
    if args.role == "node" and (args.cluster or args.resource):
        raise ArgumentError(
            "cannot use --cluster or --resource",
            why="a join token is of the node that holds the authority, and for one node",
            remedy="leave them out",
        )
    if args.name is None and args.role != "node":
        raise ArgumentError(
            "cannot make the token",
            why="it has no name",
            remedy=f"say who will use it: novacron token create NAME --role {args.role}",
        )


def _create_join_token(args: argparse.Namespace) -> int:
    from novacron.security.inspection import key_hash
    from novacron.security.join_tokens import DEFAULT_TTL, JoinTokens
    from novacron.trust.founding import in_the_way, open_issuer

    node = StoredNode(args, change=True)
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
    columns = ["id", "name", "role", "resources", "state", "created", "expires"]
    if args.cluster:
        from novacron.cli.client import NodeUnreachableError, client_for

        answer = client_for(args).get("tokens")
        if "cluster_unavailable" in answer:
            raise NodeUnreachableError(
                "cannot list the cluster's tokens",
                why=str(answer["cluster_unavailable"]),
                remedy="try again later; without --cluster the node's own are listed",
            )
        found = [entry for entry in answer["tokens"] if entry["scope"] == "cluster"]
        columns.append("created_by")
    else:
        from novacron.security.join_tokens import JoinTokens
        from novacron.security.tokens import Tokens

        node = StoredNode(args, change=False)
        tokens = Tokens(node.directory)
        tokens.open_blocking(create=False)
        found = tokens.list() + JoinTokens(node.directory).list()
    if args.json:
        print(as_json({"tokens": found}))
    else:
        print(table(columns, [[entry[column] for column in columns] for entry in found]))
    return 0


def rotate_token(args: argparse.Namespace) -> int:
    # The file first: a secret that could not be written down must not replace the one in use.
    output = _open_new(args.output) if args.output else None
    try:
        secret = (_rotate_shared if args.cluster else _rotate_here)(args)
    except BaseException:
        if output is not None:
            output.close()
            os.unlink(args.output)
        raise
    if output is not None:
        _fill(output, secret)
    if args.json:
        document = {"id": args.id, "grace": args.grace}
        print(as_json(document if args.output else {**document, "token": secret}))
    elif args.output:
        print(f"The new secret of token {args.id} is in {args.output}.")
    else:
        print(secret)
    return 0


def _rotate_here(args: argparse.Namespace) -> str:
    from novacron.security.tokens import Tokens

    node = StoredNode(args, change=True)
    tokens = Tokens(node.directory)
    node.record("token.rotate", f"token:{args.id[:32]}", grace=args.grace)
    return tokens.rotate_blocking(args.id, args.grace, args.ttl).secret


def _rotate_shared(args: argparse.Namespace) -> str:
    from urllib.parse import quote

    from novacron.cli.client import client_for

    wanted = {"grace": args.grace, "ttl": args.ttl}
    path = f"tokens/{quote(args.id, safe='')}/rotate"
    secret: str = client_for(args).post(path, wanted, "rotate the token")["secret"]
    return secret


def _grace(text: str) -> float:
    return 0.0 if text in ("0", "0s") else duration(text)


def revoke_token(args: argparse.Namespace) -> int:
    if args.cluster:
        from urllib.parse import quote

        from novacron.cli.client import client_for

        client_for(args).delete(f"tokens/{quote(args.id, safe='')}", "revoke the token")
    else:
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
    _fill(_open_new(path), secret)


def _fill(file: TextIO, secret: str) -> None:
    with file:
        file.write(secret + "\n")
        file.truncate()


def _open_new(path: str) -> TextIO:
    """A file that was not there, with room for a token: what is put into it afterwards, perhaps when
    it is the only secret that is valid, finds no full disk. :func:`_fill` cuts it to its length."""
    from novacron.cli.stored import ArgumentError

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ArgumentError(
            f"cannot create {path}",
            why=exc.strerror or type(exc).__name__,
            remedy="name a file that does not exist, in a directory you may write to",
        ) from exc
    try:
        os.posix_fallocate(descriptor, 0, _ROOM)
    except OSError as exc:
        os.close(descriptor)
        os.unlink(path)
        raise ArgumentError(
            f"cannot write to {path}",
            why=exc.strerror or type(exc).__name__,
            remedy="free space there, or name a file on another file system; nothing was changed",
        ) from exc
    return os.fdopen(descriptor, "w")
