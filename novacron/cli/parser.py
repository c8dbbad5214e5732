"""The parser, put together from the modules that own the commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from novacron.cli import COMMANDS
from novacron.cli.manual import Formatter, manual

_DESCRIPTION = "Run, ask and look after a NovaCron node."


def build_parser(arguments: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser for *arguments*: with one command when they name it, with all otherwise."""
    parser = argparse.ArgumentParser(
        prog="novacron",
        description=_DESCRIPTION,
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron boot", "start a node on its defaults"),
                ("novacron status", "how the node on this host is"),
                ("novacron config explain api.port", "what a key is and who set it"),
            ],
            files={
                "DATA_DIR/run/node.json": "addresses of the running node",
                "DATA_DIR/secrets/admin.token": "token of the local administrator",
                "DATA_DIR/log/novacron.log": "the node's log, JSON lines",
            },
        ),
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"novacron {version()}",
        help="print the version of this command and exit",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = arguments[0] if arguments else ""
    modules = [COMMANDS[wanted]] if wanted in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    for module in modules:
        import_module(f"novacron.cli.{module}").register(subparsers)
    return parser


def version() -> str:
    """The version of the installed package."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("novacron")
    except PackageNotFoundError:
        return "unknown (not installed)"
