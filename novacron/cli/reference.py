"""``docs/reference/cli.md``, generated from the parsers.

``python -m novacron.cli.reference`` writes it anew. Made from what the parsers hold and not from
their help: Python's releases lay that out differently, and the page must not change with them.
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


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
    ]


def _metavar(action: argparse.Action) -> str:
    if action.choices is not None and action.metavar is None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def _words(action: argparse.Action) -> str:
    """An option with its value, or an argument."""
    if not action.option_strings:
        return _metavar(action)
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    return ", ".join(f"{option}{value}" for option in action.option_strings)


def _synopsis(parser: argparse.ArgumentParser) -> str:
    parts = [parser.prog]
    actions = _shown(parser)
    parts += [
        f"{action.option_strings[-1]} {_metavar(action)}"
        for action in actions
        if action.option_strings and action.required
    ]
    if any(action.option_strings and not action.required for action in actions):
        parts.append("[OPTION …]")
    for action in actions:
        if action.option_strings:
            continue
        name = _metavar(action)
        several = {"*": f"[{name} …]", "?": f"[{name}]", "+": f"{name} …"}
        several[argparse.REMAINDER] = f"[{name} …]"
        several[argparse.PARSER] = f"{name} …"
        parts.append(several.get(str(action.nargs), name))
    return " ".join(parts)


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    actions = _shown(parser)
    commands = [a for a in actions if isinstance(a, argparse._SubParsersAction)]
    for command in commands:
        yield ""
        yield f"| {_metavar(command)} | |"
        yield "|---|---|"
        for choice in command._choices_actions:
            yield f"| `{choice.dest}` | {_cell(choice.help or '')} |"
    others = [action for action in actions if action not in commands]
    if others:
        yield ""
        yield "| argument | meaning |"
        yield "|---|---|"
        for action in others:
            text = formatter._expand_help(action) if action.help else ""
            yield f"| `{_cell(_words(action))}` | {_cell(text)} |"


def _manual(epilog: str, shared: list[str]) -> Iterator[str]:
    """The blocks of :func:`novacron.cli.manual.manual`, but for those that all commands share."""
    for block in epilog.split("\n\n"):
        if not block or block in shared:
            continue
        title, *rows = block.splitlines()
        yield ""
        yield title.capitalize()
        yield ""
        if title == "examples:":
            for command, meaning in zip(rows[::2], rows[1::2], strict=True):
                yield f"- `{command.strip()}`: {meaning.strip()}"
        else:
            for row in rows:
                name, _, meaning = row.strip().partition("  ")
                yield f"- `{name}`: {meaning.strip()}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def reference_markdown() -> str:
    """Every command: synopsis, what it does, arguments, examples, files, exit codes."""
    lines = [
        "# The novacron command",
        "",
        "Generated from the parsers by `python -m novacron.cli.reference`; do not edit.",
        "Every command also has `--help`. Environment and exit codes are those of `novacron` unless a",
        "command says otherwise.",
    ]
    root = build_parser()
    shared = (root.epilog or "").split("\n\n")
    for page in _pages(root):
        level = min(page.prog.count(" ") + 2, 4)
        lines += ["", f"{'#' * level} {page.prog}", "", f"    {_synopsis(page)}"]
        if page.description:
            lines += ["", page.description]
        lines += _rows(page)
        lines += _manual(page.epilog or "", shared if page.prog != "novacron" else [])
    return "\n".join(lines) + "\n"


def path(root: Path) -> Path:
    """Where it lies in the repository at *root*."""
    return root / "docs" / "reference" / "cli.md"


if __name__ == "__main__":
    path(Path(__file__).parents[2]).write_text(reference_markdown(), encoding="utf-8")
