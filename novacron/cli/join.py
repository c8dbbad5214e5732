"""``novacron join``: let another node's authority issue this node's certificate."""

from __future__ import annotations

import argparse
import shlex

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import ArgumentError, Subparsers
from novacron.cli.tables import as_json
from novacron.config.options import add_configuration_options

DEFAULT_PORT = 7400
"""Of the REST interface, unless ``api.port`` there says otherwise."""


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "join",
        help="join the cluster of another node, with a token made there",
        description="Have the authority of another node issue this node's certificate, so that the\n"
        "nodes of its cluster trust this one. Run it while this node does not run, best before its\n"
        "first boot. The node's key is made here and stays here. Nothing is sent before the other\n"
        "side has proven to be the authority that the token was made by. Cut short anywhere, run\n"
        "the same command again.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                (
                    "novacron join 192.0.2.10 --token-file join.token",
                    "the node where `novacron token create --role node` was run",
                ),
                (
                    "novacron join a.example:7400 --token ncj_… --names b.example,192.0.2.11",
                    "with names for the certificate beyond those of the configuration",
                ),
            ],
            files={
                "DATA_DIR/pki/node.pem": "the node's key and its new certificate",
                "DATA_DIR/pki/joined.json": "which authority, since when",
                "DATA_DIR/quarantine/": "what the node had before, if it had",
            },
            exit_codes={"0": "joined", "1": "not joined; the message says why, and what to do"},
        ),
    )
    parser.add_argument(
        "address",
        metavar="HOST[:PORT]",
        help=f"REST interface of the authority's node (default port {DEFAULT_PORT})",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--token",
        metavar="TOKEN",
        help="the join token; others on this machine can see it while the command runs",
    )
    source.add_argument(
        "--token-file", metavar="FILE", help="file that holds it; - for standard input"
    )
    parser.add_argument(
        "--names",
        metavar="NAME,…",
        default="",
        help="host names and addresses that the certificate is to be valid for, besides those that "
        "the configuration tells",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="also where this node's own authority has issued certificates to others, or where it "
        "has joined another cluster",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_configuration_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from novacron.config import data_directory_for
    from novacron.config.options import load_from
    from novacron.security import documents, join_token
    from novacron.security.references import register as hide
    from novacron.trust.joining import join

    token = join_token.parse(args.token or _read_token(args.token_file))
    hide(token.secret)
    settings = load_from(args).settings
    outcome = join(
        data_directory_for(settings),
        settings,
        _address(args.address),
        token,
        names=[name.strip() for name in args.names.split(",") if name.strip()],
        force=args.force,
    )
    if args.json:
        found = outcome._asdict()
        print(as_json({**found, "not_after": documents.to_text(outcome.not_after)}))
        return 0
    print(f"Node {outcome.node_id} has joined the authority {outcome.authority}.")
    print(
        f"Its certificate {outcome.serial} is valid until {documents.to_text(outcome.not_after)} for "
        f"{', '.join(outcome.names)}; the node renews it by itself while it runs."
    )
    if outcome.left_out:
        print(f"Left out, since another node has them: {', '.join(outcome.left_out)}.")
    if outcome.set_aside:
        print("The authority it had of its own lies in quarantine/ in the data directory now.")
    if outcome.clocks_apart is not None:
        print(
            f"The clocks of the two machines are {abs(outcome.clocks_apart):.0f} s apart: "
            "set both (timedatectl set-ntp true)."
        )
    if outcome.peer and outcome.peer not in settings.network.seeds:
        print("Next, have it meet the others:")
        print(f"  network.seeds: [{outcome.peer}]")
    print(f"Start it with: novacron boot{_same_configuration(args)}")
    return 0


def _same_configuration(args: argparse.Namespace) -> str:
    options = [("--config", file) for file in args.config]
    options += [("--set", f"{each.key}={each.value}") for each in args.settings]
    if args.data_dir:
        options.append(("--data-dir", args.data_dir))
    return "".join(f" {name} {shlex.quote(value)}" for name, value in options)


def _address(text: str) -> tuple[str, int]:
    from novacron.cli.client import split_address

    _, scheme, rest = text.rpartition("://")
    if scheme and not text.startswith("https://"):
        raise ArgumentError(
            f"cannot join by way of {text}",
            why="a node joins over TLS alone",
            remedy="write HOST:PORT",
        )
    address = rest.rstrip("/")
    bare = address.startswith("[") and address.endswith("]")
    if bare or ":" not in address:
        return address.strip("[]"), DEFAULT_PORT
    return split_address(address)


def _read_token(path: str) -> str:
    import sys

    try:
        if path == "-":
            return sys.stdin.readline()
        with open(path, encoding="ascii") as file:
            return file.read(1024)
    except (OSError, UnicodeDecodeError) as exc:
        raise ArgumentError(
            f"cannot read the join token from {path}",
            why=(exc.strerror if isinstance(exc, OSError) else None) or "it is no text",
            remedy="name the file that `novacron token create --role node --output FILE` has written",
        ) from exc
