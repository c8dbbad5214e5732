"""The parts of a manual page that argparse has no place for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

EXIT_CODES = {
    "0": "done",
    "1": "failed; standard error says what, why and what to do",
    "2": "the command line was wrong",
    "78": "the configuration is invalid",
}

ENVIRONMENT = {
    "NOVACRON_<SECTION>__<KEY>": "sets a configuration key, e.g. NOVACRON_API__PORT",
    "NOVACRON_DATA_DIR": "the node's data directory (system.data_dir)",
}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the layout of descriptions; one width everywhere, so that the reference page and a
    terminal show the same."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=96)


def manual(
    *,
    examples: Sequence[tuple[str, str]] = (),
    files: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    exit_codes: Mapping[str, str] | None = None,
) -> str:
    """The text below the options: examples, files, environment, exit codes.

    The last two start from what all commands share; a value of ``""`` leaves an entry out.
    """
    parts = []
    if examples:
        rows = [f"  {command}\n      {meaning}" for command, meaning in examples]
        parts.append("examples:\n" + "\n".join(rows))
    if files:
        parts.append("files:\n" + _rows(files))
    parts.append("environment:\n" + _rows({**ENVIRONMENT, **(environment or {})}))
    parts.append("exit codes:\n" + _rows({**EXIT_CODES, **(exit_codes or {})}))
    return "\n\n".join(parts)


def _rows(entries: Mapping[str, str]) -> str:
    shown = {name: text for name, text in entries.items() if text}
    width = max(map(len, shown), default=0)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in shown.items())
