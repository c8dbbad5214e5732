"""Commands that ask the running node: status, components, health, environment, peers, version."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from novacron.cli.client import NodeNotRunningError, add_node_options, client_for
from novacron.cli.manual import Formatter, manual
from novacron.cli.tables import as_json, cell, pairs, table
from novacron.config.options import add_configuration_options

_FILES = {
    "DATA_DIR/run/node.json": "where the running node serves",
    "DATA_DIR/secrets/admin.token": "the token sent, unless --token-file names another",
    "DATA_DIR/pki/ca.pem": "the authority trusted, unless --ca-file names another",
}

UNHEALTHY = 1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the six commands."""
    _add(
        subparsers,
        "status",
        status,
        "how the node is",
        "Show the node's state, since when, what is degraded and why, and where it serves.",
        [
            ("novacron status", "the node of the default data directory"),
            ("novacron status --json | jq .state", "for scripts"),
        ],
    )
    _add(
        subparsers,
        "components",
        components,
        "the node's components",
        "Show each component's phase, class, state, health, start time and restorations.",
        [("novacron components", "a table, one line a component")],
    )
    health_parser = _add(
        subparsers,
        "health",
        health,
        "check the node's components",
        "Ask every component how it is. Exit code 1 when one is unhealthy.",
        [
            ("novacron health", "the latest answers, at most a few seconds old"),
            ("novacron health --depth full", "look hard, up to five seconds"),
        ],
        {"1": "a component is unhealthy, or the node could not be asked"},
    )
    health_parser.add_argument(
        "--depth",
        choices=("shallow", "deep", "full"),
        default="shallow",
        help="how hard to look: up to 0.1, 1 or 5 seconds (default: %(default)s)",
    )
    _add(
        subparsers,
        "environment",
        environment,
        "what machine the node found",
        "Show the facts the node found about its machine and its network.",
        [("novacron environment", "all facts; unknown where a probe timed out")],
    )
    _add(
        subparsers,
        "peers",
        peers,
        "the node's sessions with others",
        "Show the nodes this one holds sessions with: address, round trip, jitter and loss.",
        [("novacron peers", "a table, one line a peer")],
    )
    _add(
        subparsers,
        "version",
        version,
        "versions of this command and of the node",
        "Show the version of this command, of its Python, and of the node if one runs.",
        [("novacron version", "both versions")],
    )


def _add(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    description: str,
    examples: Sequence[tuple[str, str]],
    exit_codes: Mapping[str, str] | None = None,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=help,
        description=description,
        formatter_class=Formatter,
        epilog=manual(examples=examples, files=_FILES, exit_codes=exit_codes),
    )
    add_node_options(parser)
    add_configuration_options(parser)
    parser.set_defaults(run=run)
    return parser


def status(args: argparse.Namespace) -> int:
    answer = client_for(args).get("status")
    print(as_json(answer) if args.json else pairs(answer))
    return 0


_COMPONENT_COLUMNS = ("name", "phase", "criticality", "state", "health", "start_seconds", "attempts", "restorations")  # fmt: skip


def components(args: argparse.Namespace) -> int:
    answer = client_for(args).get("components")
    if args.json:
        print(as_json(answer))
        return 0
    rows = items_of(answer, "components")
    print(
        table(
            _COMPONENT_COLUMNS, [[_short(row.get(c)) for c in _COMPONENT_COLUMNS] for row in rows]
        )
    )
    for row in rows:
        failure = row.get("failure")
        if isinstance(failure, Mapping):
            print(
                f"\n{cell(row.get('name'))} failed: {cell(failure.get('what') or failure.get('error'))}"
            )
            for label in ("why", "remedy", "key"):
                if failure.get(label):
                    print(f"  {label + ':':<8}{cell(failure[label])}")
    return 0


def health(args: argparse.Namespace) -> int:
    answer = client_for(args).get(f"health?depth={args.depth}")
    rows = items_of(answer, "components")
    unhealthy = any(row.get("state") == "unhealthy" for row in rows)
    if args.json:
        print(as_json(answer))
    else:
        columns = ("name", "state", "message")
        print(table(columns, [[row.get(column) for column in columns] for row in rows]))
    return UNHEALTHY if unhealthy else 0


def environment(args: argparse.Namespace) -> int:
    answer = client_for(args).get("environment")
    print(as_json(answer) if args.json else pairs(answer.get("facts", answer)))
    return 0


def peers(args: argparse.Namespace) -> int:
    answer = client_for(args).get("peers")
    if args.json:
        print(as_json(answer))
        return 0
    for title, rows in (("peers", items_of(answer, "peers")), ("seeds", items_of(answer, "seeds"))):
        if rows:
            columns = list(rows[0])
            print(table(columns, [[row.get(column) for column in columns] for row in rows]))
        elif title == "peers":
            print("no sessions with other nodes")
    return 0


def version(args: argparse.Namespace) -> int:
    from novacron.cli.parser import version as own_version

    found: dict[str, Any] = {"command": own_version(), "python": platform.python_version()}
    try:
        answer = client_for(args).get("version")
    except NodeNotRunningError:
        found["node"] = None
    else:
        found["node"] = answer.get("version") if isinstance(answer, Mapping) else None
    print(as_json(found) if args.json else pairs(found))
    return 0


def items_of(answer: Any, name: str) -> list[Mapping[str, Any]]:
    """The rows in *answer*: a list, a list under *name*, or a mapping by name."""
    if isinstance(answer, Mapping):
        answer = answer.get(name, answer)
    if isinstance(answer, Mapping):
        answer = [
            {"name": key, **value} for key, value in answer.items() if isinstance(value, Mapping)
        ]
    return [row for row in answer if isinstance(row, Mapping)] if isinstance(answer, list) else []


def _short(value: Any) -> Any:
    """Of a health object, the state and what it says."""
    if isinstance(value, Mapping):
        message = value.get("message")
        return f"{value.get('state', '-')}" + (f" ({message})" if message else "")
    return value
