"""Plain tables for people; no colours, so that a pipe sees what a terminal sees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def cell(value: Any) -> str:
    """*value* in one short line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={cell(item)}" for name, item in value.items()) or "-"
    # What a node answers reaches a terminal: no control characters.
    text = str(value)
    return "".join(c if c.isprintable() else "\ufffd" for c in text) or "-"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """*rows* under *columns*, each column as wide as it must be."""
    shown = [[column.upper().replace("_", " ") for column in columns]]
    shown += [[cell(value) for value in row] for row in rows]
    widths = [max(len(row[index]) for row in shown) for index in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )


def pairs(values: Mapping[str, Any], indent: int = 0) -> str:
    """*values* one a line, mappings and lists of mappings indented below their name."""
    width = max((len(name) for name in values), default=0)
    lines = []
    pad = " " * indent
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{pad}{name}:", pairs(value, indent + 2)]
        elif isinstance(value, list) and value and all(isinstance(i, Mapping) for i in value):
            lines.append(f"{pad}{name}:")
            for item in value:
                first, _, rest = pairs(item, indent + 4).partition("\n")
                lines.append(f"{pad}  - {first.strip()}" + (f"\n{rest}" if rest else ""))
        else:
            lines.append(f"{pad}{name + ':':<{width + 1}} {cell(value)}")
    return "\n".join(lines)


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
