"""``novacron boot``: become ``python -m novacron.boot``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from novacron.cli.manual import Formatter


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``boot`` to the list of commands; :func:`novacron.cli.main` never parses it."""
    parser = subparsers.add_parser(
        "boot",
        help="start a node in this process",
        description="Start a node. The same as `python -m novacron.boot`, and takes the same "
        "options: see `novacron boot --help`.",
        formatter_class=Formatter,
        add_help=False,
    )
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTION", help="of the node")
    parser.set_defaults(run=lambda args: replace_process(args.options))


def replace_process(options: Sequence[str]) -> int:
    """Replace this process by the node's, so that signals and the service manager reach it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "novacron.boot", *options])
