"""``novacron access``: who may do what, and which rule decides."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from novacron.cli.manual import Formatter, manual
from novacron.cli.stored import ArgumentError, StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, table

if TYPE_CHECKING:
    from novacron.security.roles import Principal

ROLES = ("viewer", "operator", "admin", "node")


def register(subparsers: Subparsers) -> None:
    """Add ``access`` and its actions."""
    parser = subparsers.add_parser(
        "access",
        help="who may do what, and why",
        description="Print the one table of who may do what, and ask it. Works without a node.\n"
        "What is not in the table is denied, over REST and between nodes alike.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron access list", "every action, and the roles that may do it"),
                ("novacron access check token.create --role operator", "may it, and which rule?"),
            ],
            files={"DATA_DIR/secrets/tokens.json": "roles and resources of tokens, for --token"},
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = add_action(
        actions,
        "list",
        "print the table",
        "Print every action: the least role that may do it, whether a node's certificate may,\n"
        "whether it changes something (and so is in the audit log before it is done), and the\n"
        "kinds of resource it is decided by. What begins with amst or trust is asked by peers.",
        [("novacron access list --json", "for scripts")],
    )
    listing.set_defaults(run=list_actions)

    check = add_action(
        actions,
        "check",
        "ask the table",
        "Say whether a role or a token may do an action, and which rule decides. The node's\n"
        "own limits, like dwcp.amst.directories, come on top.",
        [
            ("novacron access check transfer.start --role operator", "may operators?"),
            (
                "novacron access check transfer.start --token 5f0c2b9d41e7a836 "
                "--resource tenant:acme --resource directory:/srv/acme/a.img",
                "may this token, for this tenant and file?",
            ),
        ],
        {"0": "it is allowed", "1": "it is denied"},
    )
    check.add_argument("name", metavar="NAME", help="the action, as `list` shows it")
    who = check.add_mutually_exclusive_group(required=True)
    who.add_argument("--role", choices=ROLES, help="a caller with this role, not narrowed")
    who.add_argument("--token", metavar="ID", help="a token of this node, by its id")
    check.add_argument(
        "--resource",
        action="append",
        metavar="KIND:NAME",
        help="what it is done to, tenant:NAME or directory:/PATH; may be given several times",
    )
    check.set_defaults(run=check_action)


def list_actions(args: argparse.Namespace) -> int:
    from novacron.security.policy import RULES

    found = [
        {
            "action": action,
            "role": rule.role.value if rule.role is not None else None,
            "node": rule.node,
            "changes": rule.changes,
            "resources": list(rule.resources),
        }
        for action, rule in sorted(RULES.items())
    ]
    if args.json:
        print(as_json({"roles": list(ROLES), "actions": found}))
    else:
        columns = ("action", "role", "node", "changes", "resources")
        print(table(columns, [[entry[column] for column in columns] for entry in found]))
    return 0


def check_action(args: argparse.Namespace) -> int:
    from novacron.security.policy import RULES, decide
    from novacron.security.roles import Role

    if args.name not in RULES:
        raise ArgumentError(
            f"there is no action {args.name[:64]!r}",
            why="no rule speaks of it, so it is denied to everybody",
            remedy="`novacron access list` prints what there is",
        )
    if args.role:
        from novacron.security.roles import Principal

        principal = Principal("role", args.role, Role(args.role))
    else:
        principal = _of_token(args)
    resources = None if args.resource is None else [_resource(text) for text in args.resource]
    decision = decide(principal, args.name, resources)
    if args.json:
        print(as_json({**decision._asdict(), "resources": list(principal.resources)}))
    else:
        print(f"{'Allowed' if decision.allowed else 'Denied'}: {decision.why}.")
        if decision.remedy:
            print(f"To be allowed: {decision.remedy}.")
    return 0 if decision.allowed else 1


def _of_token(args: argparse.Namespace) -> Principal:
    from novacron.security.roles import Principal, Role
    from novacron.security.tokens import Tokens

    tokens = Tokens(StoredNode(args, change=False).directory)
    tokens.open_blocking(create=False)
    found = next((entry for entry in tokens.list() if entry["id"] == args.token), None)
    if found is None:
        raise ArgumentError(
            f"there is no token {args.token[:32]!r}",
            why="none of this node's has this id",
            remedy="list them with `novacron token list`; name a role for one of the cluster's",
        )
    if found["state"] != "active":
        raise ArgumentError(
            f"the token {args.token} may do nothing",
            why=f"it is {found['state']}",
            remedy="make another with `novacron token create`",
        )
    return Principal("token", args.token, Role(found["role"]), tuple(found["resources"]))


def _resource(text: str) -> str:
    from novacron.security import resources

    kind, colon, name = text.partition(":")
    if not colon or kind not in resources.KINDS or not name:
        raise ArgumentError(
            f"{text[:80]!r} is no resource",
            why=f"it does not begin with one of the kinds {', '.join(resources.KINDS)}",
            remedy="write tenant:NAME or directory:/PATH",
        )
    return resources.directory(name) if kind == "directory" else text
