"""An error as one block a person can read."""

from __future__ import annotations

import sys

from novacron.errors import NovaCronError


def error_block(error: NovaCronError) -> str:
    """What failed, why, what to do, which key; each on its line."""
    from novacron.config.errors import ConfigInvalidError

    if isinstance(error, ConfigInvalidError):
        return f"novacron: {error}"
    lines = [f"novacron: {_shown(error.what)}"]
    for label, text in (("why", error.why), ("do", error.remedy), ("key", error.key)):
        if text:
            lines.append(f"  {label + ':':<5}" + _shown(text).replace("\n", "\n       "))
    return "\n".join(lines)


def _shown(text: str) -> str:
    # A part of it may be what another machine has said, which must not steer the terminal.
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)


def print_error(error: NovaCronError) -> None:
    print(error_block(error), file=sys.stderr)
