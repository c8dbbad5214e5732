"""``novacron pki``: the authority that the nodes of a cluster trust; to replace its key is in
:mod:`novacron.cli.rotation`."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from novacron.cli.manual import Formatter, manual
from novacron.cli.rotation import register as register_rotation
from novacron.cli.stored import ArgumentError, StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, pairs

if TYPE_CHECKING:
    from novacron.config.schema import Settings
    from novacron.data_directory import DataDirectory


def register(subparsers: Subparsers) -> None:
    """Add ``pki`` and its actions."""
    parser = subparsers.add_parser(
        "pki",
        help="make, show and replace the cluster's certificate authority",
        description="Make, show and replace the certificate authority of a cluster. One node holds its key;\n"
        "the others join it with tokens made there. Every node makes an authority of its own at its\n"
        "first boot, so that a cluster can begin with any node.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron pki init --name berlin", "before the first boot of the first node"),
                ("novacron pki show", "the hash that join tokens end with"),
                ("novacron pki rotate begin", "replace its key, without a restart"),
            ],
            files={
                "DATA_DIR/pki/ca.key": "the authority's key, encrypted by the keyring: back it up "
                "together with secrets/",
                "DATA_DIR/pki/ca.pem": "its certificate",
                "DATA_DIR/pki/issued.json": "what it has issued to other nodes",
                "DATA_DIR/pki/crl.pem": "what was revoked",
            },
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = add_action(
        actions,
        "init",
        "make the authority, or show that it is there",
        "Make the authority and the keys it needs, on a node that has not booted yet. One that has\n"
        "booted has one already, which is kept. Again is harmless.",
        [("novacron pki init --name berlin", "a name for people, in the authority's certificate")],
    )
    init.add_argument("--name", metavar="NAME", help="the cluster's name, 1 to 40 characters")
    init.set_defaults(run=init_authority)
    show = add_action(
        actions,
        "show",
        "show the authority that this node trusts",
        "Show the authority that this node trusts, whether it is its own or another node's.",
        [("novacron pki show --json", "for scripts")],
    )
    show.set_defaults(run=show_authority)
    register_rotation(actions)


def init_authority(args: argparse.Namespace) -> int:
    from novacron.config import data_directory_for
    from novacron.config.options import load_from
    from novacron.trust.founding import found

    settings = load_from(args).settings
    directory = data_directory_for(settings)
    name = args.name
    if name is not None and not (0 < len(name) <= 40 and name.isprintable()):
        raise ArgumentError(
            "cannot name the cluster so",
            why="a name has 1 to 40 printable characters",
            remedy="choose another",
        )
    made = found(directory, settings, name or "")
    description = _describe(directory, settings)
    if args.json:
        print(as_json({"made": made, **description}))
        return 0
    print("The authority was made." if made else "The authority is there already.")
    print(pairs(description))
    return 0


def show_authority(args: argparse.Namespace) -> int:
    node = StoredNode(args, change=False)
    description = _describe(node.directory, node.settings)
    print(as_json(description) if args.json else pairs(description))
    return 0


def _describe(directory: DataDirectory, settings: Settings) -> dict[str, Any]:
    from pathlib import Path

    from novacron.cli.certificate import read
    from novacron.security import documents, inspection
    from novacron.security import roots as trust_roots
    from novacron.security.joined_material import read_joined
    from novacron.security.ledger import Ledger

    outside = settings.security.ca_certificate
    joined = None if outside else read_joined(directory)
    path = Path(outside) if outside else directory.pki / "ca.pem"
    data = read(path)
    roots = inspection.load_certificates(data, str(path), "security.ca_certificate")
    document = None if outside else trust_roots.read(data, str(path))
    found: dict[str, Any] = {
        "authority": inspection.key_hash(roots[0].public_key()),
        "name": inspection.authority_name(roots[0]),
        "held": "outside" if outside else "by another node" if joined else "by this node",
        "certificate": str(path),
        "not_after": documents.to_text(roots[0].not_valid_after_utc.timestamp()),
        "revocation_list": _list_number(directory, roots),
    }
    if document is not None:
        found["roots"] = document.number
        found["stage"] = document.stage
        found["cluster"] = document.cluster
        found["also_trusted"] = [inspection.key_hash(each.public_key()) for each in roots[1:]]
    if joined:
        found["joined"] = documents.to_text(joined.since)
        found["joined_by_way_of"] = joined.source
    elif not outside:
        now = time.time()
        live = [entry for entry in Ledger(directory).read() if entry.live(now)]
        found["nodes"] = len({entry.node_id for entry in live})
    return found


def _list_number(directory: DataDirectory, roots: Any) -> int:
    from novacron.errors import SecurityError
    from novacron.security.revocations import check_list

    try:
        return check_list((directory.pki / "crl.pem").read_bytes(), roots).number
    except (OSError, SecurityError):
        return 0
