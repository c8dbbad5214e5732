"""``novacron certificate``: what the node's certificate says, and renewal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import ArgumentError, NoNodeError, StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, pairs

if TYPE_CHECKING:
    from cryptography import x509

    from novacron.security.own_material import OwnMaterial

_DAY = 86400.0


def register(subparsers: Subparsers) -> None:
    """Add ``certificate`` and its actions."""
    parser = subparsers.add_parser(
        "certificate",
        help="show and renew the node's certificate",
        description="Show and renew the certificate with which this node meets others and serves\n"
        "its API. Renewal happens by itself; these are for looking and for emergencies.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron certificate show", "names, dates, and whether anything is wrong"),
                ("novacron certificate renew", "issue a new one now"),
            ],
            files={
                "DATA_DIR/pki/node.pem": "the node's key and certificate",
                "DATA_DIR/pki/ca.pem": "the authority that others must trust",
                "DATA_DIR/pki/ca.key": "its key, encrypted by the keyring",
            },
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    show = add_action(
        actions,
        "show",
        "show and check the certificate",
        "Show the certificate, and check its chain, name, key and dates.",
        [
            ("novacron certificate show", "everything a person wants to know"),
            ("novacron certificate show --pem > node.pem", "without the key, for others"),
        ],
        {"0": "the certificate can be used", "1": "it cannot; what is wrong is listed"},
    )
    show.add_argument("--pem", action="store_true", help="print the certificate itself")
    show.set_defaults(run=show_certificate)

    renew = add_action(
        actions,
        "renew",
        "issue a new certificate",
        "Issue a new key and certificate with the node's own authority; a running node takes them\n"
        "into use within a minute, for new sessions. A node that has joined another's authority\n"
        "has a peer issue it, for which it must run.",
        [("novacron certificate renew", "after the clock was put right, for example")],
    )
    renew.set_defaults(run=renew_certificate)

    listing = add_action(
        actions,
        "list",
        "list what was issued to other nodes",
        "List the certificates that this node's authority has issued to nodes that joined it, and\n"
        "their state: valid, expired, revoked, or replaced where they are of an authority that\n"
        "`pki rotate finish` has left behind: such a node has to join again.",
        [("novacron certificate list --json", "for scripts")],
    )
    listing.set_defaults(run=list_certificates)

    revoke = add_action(
        actions,
        "revoke",
        "make a node's certificates invalid, everywhere",
        "Revoke every valid certificate of a node, or one by its serial: on the node that holds the\n"
        "authority. A running node ends the sessions at once and tells its peers, which tell theirs;\n"
        "one that is away learns of it when it meets any of them. It cannot be undone: a node that is\n"
        "to come back joins again.",
        [
            (
                "novacron certificate revoke 7d0c0c57 --reason key-compromise",
                "a node that was stolen",
            ),
            ("novacron certificate revoke 4f1e…", "one certificate, by the serial of `list`"),
        ],
    )
    revoke.add_argument(
        "target", metavar="NODE|SERIAL", help="a node's id or its beginning, or a serial"
    )
    revoke.add_argument(
        "--reason",
        choices=(
            "unspecified",
            "key-compromise",
            "superseded",
            "cessation-of-operation",
            "privilege-withdrawn",
        ),
        default="unspecified",
        help="what others are told (RFC 5280)",
    )
    revoke.set_defaults(run=revoke_certificates)


def show_certificate(args: argparse.Namespace) -> int:
    from novacron.errors import SecurityError
    from novacron.security import documents, inspection
    from novacron.security.joined_material import read_joined

    node = StoredNode(args, change=False)
    settings = node.settings.security
    outside = settings.certificate is not None
    joined = None if outside else read_joined(node.directory)
    path = Path(settings.certificate or node.directory.pki / "node.pem")
    ca_path = Path(settings.ca_certificate or node.directory.pki / "ca.pem")
    chain = inspection.load_certificates(read(path), str(path), "security.certificate")
    roots = inspection.load_certificates(read(ca_path), str(ca_path), "security.ca_certificate")
    if args.pem:
        from cryptography.hazmat.primitives import serialization

        for certificate in chain:
            print(certificate.public_bytes(serialization.Encoding.PEM).decode(), end="")
        return 0
    now = time.time()
    where = str(path)
    checks: list[Callable[[], None]] = [
        lambda: inspection.check_dates(chain[0], where, "security.certificate", now),
        lambda: inspection.check_dates(roots[0], str(ca_path), "security.ca_certificate", now),
        lambda: inspection.check_name(chain[0], _node_id(node), where, "security.certificate"),
        lambda: inspection.check_chain(chain, roots, where, "security.ca_certificate", now),
    ]
    if not outside:
        key = inspection.load_private_key(read(path), where, "")
        checks.append(lambda: inspection.check_key(chain[0], key, where, ""))
    problems = []
    for check in checks:
        try:
            check()
        except SecurityError as exc:
            problems.append(exc.why)
    not_after = chain[0].not_valid_after_utc.timestamp()
    found: dict[str, Any] = {
        "certificate": where,
        "authority": str(ca_path),
        "own_authority": not outside and joined is None,
        "node_id": inspection.node_name(chain[0]),
        "names": inspection.host_names(chain[0]),
        "serial": f"{chain[0].serial_number:x}",
        "fingerprint_sha256": _fingerprint(chain[0]),
        "authority_fingerprint_sha256": _fingerprint(roots[0]),
        "not_before": documents.to_text(chain[0].not_valid_before_utc.timestamp()),
        "not_after": documents.to_text(not_after),
        "days_left": round((not_after - now) / _DAY, 1),
        "problems": problems,
    }
    print(as_json(found) if args.json else pairs(found))
    return 1 if problems else 0


def renew_certificate(args: argparse.Namespace) -> int:
    from novacron.security import documents

    node = StoredNode(args, change=True)
    settings = node.settings
    if settings.security.certificate is not None:
        raise ArgumentError(
            "cannot renew the certificate",
            why="it was issued outside, by an authority this node has no key of",
            remedy="put a new one in its place; a running node takes it within a minute",
            key="security.certificate",
        )
    if (node.directory.pki / "joined.json").exists():
        return _renew_by_peers(args)
    source = own_material(node)
    node.record("certificate.renew", "certificate")
    material = source.material(force=True)
    found = {"serial": material.serial, "not_after": documents.to_text(material.not_after)}
    if args.json:
        print(as_json(found))
    else:
        print(f"New certificate {found['serial']}, valid until {found['not_after']}.")
    return 0


def own_material(node: StoredNode) -> OwnMaterial:
    """What issues the node's certificate, where it holds the authority."""
    from novacron.security.names import certificate_names
    from novacron.security.own_material import OwnMaterial

    settings = node.settings
    names = certificate_names(
        settings.network.listen_address,
        settings.network.advertise_address,
        settings.api.listen_address,
    )
    return OwnMaterial(
        node.directory, settings.security, _node_id(node), node.keyring(), names, time.time
    )


def _renew_by_peers(args: argparse.Namespace) -> int:
    from novacron.cli.client import NodeNotRunningError, client_for

    args.address = args.token_file = args.ca_file = None
    try:
        client = client_for(args)
    except NodeNotRunningError as exc:
        raise NodeNotRunningError(
            "cannot renew the certificate",
            why="this node has joined another's authority, which it asks by way of its peers, and it "
            "does not run",
            remedy="start it; if its certificate has expired, join again: `novacron join`",
        ) from exc
    found = client.post("certificate/renew", None, "renew the certificate")
    if args.json:
        print(as_json(found))
    else:
        print(f"New certificate {found['serial']}, valid until {found['not_after']}.")
    return 0


def list_certificates(args: argparse.Namespace) -> int:
    from novacron.cli.tables import table
    from novacron.security import roots
    from novacron.security.ledger import Ledger

    node = StoredNode(args, change=False)
    now = time.time()
    entries = Ledger(node.directory).read()
    authorities = node.directory.pki / "ca.pem"
    document = roots.read(read(authorities), str(authorities)) if entries else None
    former = document.forgotten() if document is not None else ()
    found = [entry.describe(now, former) for entry in entries]
    if args.json:
        print(as_json({"certificates": found}))
        return 0
    columns = ("node_id", "serial", "state", "not_after", "names")
    rows = [[entry[column] for column in columns] for entry in found]
    print(table(columns, rows))
    return 0


def revoke_certificates(args: argparse.Namespace) -> int:
    from novacron.trust.founding import open_issuer

    node = StoredNode(args, change=True)
    issuer = open_issuer(node.directory, node.settings, node.keyring)
    node.record("certificate.revoke", f"certificate:{args.target[:64]}", reason=args.reason)
    serials = issuer.revoke(args.target, args.reason)
    if args.json:
        print(as_json({"revoked": serials}))
    else:
        print(f"Revoked {', '.join(serials) if serials else 'nothing: none of them is valid'}.")
        print("A running node ends their sessions within two seconds and tells the others.")
    return 0


def _node_id(node: StoredNode) -> str:
    from novacron.environment.identity import decode_identity

    try:
        return str(decode_identity(node.directory.identity.read_bytes()))
    except (OSError, ValueError) as exc:
        raise NoNodeError(
            f"cannot read the node's identity {node.directory.identity}",
            why=exc.strerror or "" if isinstance(exc, OSError) else str(exc),
            remedy="restore it from a backup, or start the node once",
            key="system.node_id",
        ) from exc


def _fingerprint(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256()).hex(":")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise NoNodeError(
            f"cannot read the certificate {path}",
            why=exc.strerror or type(exc).__name__,
            remedy="start the node once, or correct the path",
            key="security.certificate",
        ) from exc
