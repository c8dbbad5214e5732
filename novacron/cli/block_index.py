"""``novacron hde index``: what the node knows about the blocks of files that it received."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from novacron.cli.manual import Formatter, manual
from novacron.cli.progress import size
from novacron.cli.stored import StoredNode, Subparsers, add_action
from novacron.cli.tables import as_json, cell, table

if TYPE_CHECKING:
    from novacron.dwcp.hde.blocks.library import BlockLibrary

_FILES = {"DATA_DIR/dwcp/blocks/": "the indexes; each may be deleted while the node is stopped"}


def register(actions: Subparsers) -> None:
    """Add ``index`` to the actions of ``hde``."""
    parser = actions.add_parser(
        "index",
        help="look at and clear the index of received blocks",
        description="Look at and clear the index of the blocks of files that the node received: where it\n"
        "looks for what need not be sent to it again. Each tenant has one of its own.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron hde index show", "how much is indexed, of which tenants"),
                ("novacron hde index clear --tenant acme", "forget what one tenant has"),
            ],
            files=_FILES,
        ),
    )
    below = parser.add_subparsers(dest="index_action", metavar="ACTION", required=True)
    show = add_action(
        below,
        "show",
        "show what is indexed",
        "Show for each tenant how many files and blocks are indexed, and what the index takes.",
        [("novacron hde index show --json", "for scripts")],
    )
    show.set_defaults(run=show_index)
    clear = add_action(
        below,
        "clear",
        "forget what is indexed",
        "Forget what is indexed, of one tenant or of all. No file is touched; what is sent next moves\n"
        "whole, but for what is overwritten.",
        [("novacron hde index clear --tenant acme", "of one tenant")],
    )
    clear.add_argument("--tenant", metavar="NAME", help="whose (default: everybody's)")
    clear.set_defaults(run=clear_index)


def _library(node: StoredNode) -> BlockLibrary:
    from novacron.dwcp.hde.blocks.library import BlockLibrary

    directory = node.directory.root / "dwcp" / "blocks"
    return BlockLibrary(directory, node.settings.dwcp.hde, None, sweep=False)


def show_index(args: argparse.Namespace) -> int:
    library = _library(StoredNode(args, change=False))
    try:
        found = [facts._asdict() for facts in library.facts()]
    finally:
        library.close()
    found.sort(key=lambda facts: str(facts["tenant"]))
    if args.json:
        print(as_json({"tenants": found}))
    elif not found:
        print("nothing is indexed")
    else:
        rows = [
            [
                cell(facts["tenant"]),
                facts["files"],
                size(facts["indexed_bytes"]),
                facts["blocks"],
                size(facts["size_bytes"]),
            ]
            for facts in found
        ]
        print(table(("tenant", "files", "content", "blocks", "index"), rows))
    return 0


def clear_index(args: argparse.Namespace) -> int:
    node = StoredNode(args, change=True)
    node.record("hde.index.clear", args.tenant or "all")
    library = _library(node)
    try:
        library.clear(args.tenant)
    finally:
        library.close()
    if args.json:
        print(as_json({"cleared": args.tenant}))
    else:
        print(f"Nothing of {args.tenant or 'any tenant'} is indexed any more.")
    return 0
