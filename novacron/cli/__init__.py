"""The operator's command. Parses, calls, prints; no logic.

Only the module of the command that was asked for is imported: ``novacron version`` must not pay
for what ``novacron audit`` needs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from novacron.boot import exits

COMMANDS = {
    "boot": "boot",
    "status": "node",
    "components": "node",
    "health": "node",
    "environment": "node",
    "peers": "node",
    "version": "node",
    "send": "sending",
    "receive": "sending",
    "transfers": "transfers",
    "dwcp": "dwcp",
    "hde": "hde",
    "mode": "mode",
    "config": "config",
    "join": "join",
    "pki": "pki",
    "token": "token",
    "keys": "keys",
    "certificate": "certificate",
    "audit": "audit",
    "database": "database",
    "access": "access",
}
"""Command to the module of this package whose ``register(subparsers)`` adds it."""

DEFAULT_ACTIONS = {"transfers": "list"}
"""Command to the action that is meant when none is named."""

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command *argv* (``sys.argv[1:]`` when None); returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["boot"]:
        # Not parsed here: the node's own options are the node's business.
        from novacron.cli.boot import replace_process

        return replace_process(arguments[1:])

    from novacron.cli.parser import build_parser
    from novacron.errors import ConfigError, InvalidError, NovaCronError

    if arguments[:1] and arguments[0] in DEFAULT_ACTIONS:
        first = arguments[1] if len(arguments) > 1 else "-"
        if first.startswith("-") and first not in ("-h", "--help"):
            arguments.insert(1, DEFAULT_ACTIONS[arguments[0]])
    parser = build_parser(arguments)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as exit:  # argparse has printed its message already.
        return exit.code if isinstance(exit.code, int) else exits.USAGE
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except NovaCronError as error:
        from novacron.cli.failure import print_error

        print_error(error)
        invalid = isinstance(error, ConfigError) and isinstance(error, InvalidError)
        return exits.CONFIG if invalid else exits.FAILED
    except BrokenPipeError:
        # `novacron config show | head`: the reader has seen enough. Python would complain once
        # more when it flushes at exit, so give it somewhere to flush to.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status
