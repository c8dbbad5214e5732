"""``docs/reference/cli.md``, generated from the parsers.

``python -m novacron.cli.reference`` writes it anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from novacron.cli.parser import build_parser


def _pages(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _pages(child)


def reference_markdown() -> str:
    """Every command's ``--help``, as one page."""
    lines = [
        "# The novacron command",
        "",
        "Generated from the command's own help by `python -m novacron.cli.reference`; do not edit.",
    ]
    for page in _pages(build_parser()):
        level = min(page.prog.count(" ") + 2, 4)
        lines += [
            "",
            f"{'#' * level} {page.prog}",
            "",
            "```text",
            page.format_help().rstrip(),
            "```",
        ]
    return "\n".join(lines) + "\n"


def path(root: Path) -> Path:
    """Where it lies in the repository at *root*."""
    return root / "docs" / "reference" / "cli.md"


if __name__ == "__main__":
    path(Path(__file__).parents[2]).write_text(reference_markdown(), encoding="utf-8")
