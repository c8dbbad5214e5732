"""How a transfer was encoded, as a table and in sentences."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from novacron.cli.progress import ratio, seconds, size
from novacron.cli.tables import cell, table

_WAYS = (("zero", "zeros"), ("raw", "raw"), ("lz4", "lz4"), ("zstd", "zstd"))
SHOWN_DECISIONS = 8


def encoding(coding: Mapping[str, Any]) -> str:
    """*coding* is the member of a transfer that the API has under that name."""
    if not coding["bytes"]:
        return "encoding: nothing was encoded yet"
    rows = [_row(name, coding[way]) for way, name in _WAYS if coding[way]["chunks"]]
    chunks = sum(coding[way]["chunks"] for way, _ in _WAYS)
    rows.append(
        [
            "in all",
            chunks,
            size(coding["bytes"]),
            size(coding["wire_bytes"]),
            ratio(coding["ratio"]) if coding["ratio"] is not None else None,
        ]
    )
    if coding["delta"]["chunks"]:
        rows.append(_row("as differences", coding["delta"]))
    lines = [table(("encoding", "chunks", "content", "on the wire", "ratio"), rows)]
    lines += _notes(coding)
    spent = {stage: spent for stage, spent in coding["cpu_seconds"].items() if spent >= 0.0005}
    if spent:
        total = seconds(sum(spent.values()))
        stages = ", ".join(f"{cell(stage)} {seconds(value)}" for stage, value in spent.items())
        lines += ["", f"CPU: {total} ({stages})"]
    decisions = coding["decisions"]
    if decisions:
        lines += ["", "last changes of the codec:"]
        lines += [f"  {_decision(one)}" for one in decisions[-SHOWN_DECISIONS:]]
    return "\n".join(lines)


def _row(name: str, coded: Mapping[str, Any]) -> list[Any]:
    content, wire = coded["bytes"], coded["wire_bytes"]
    shown = ratio(content / wire) if wire else None
    return [name, coded["chunks"], size(content), size(wire), shown]


def _notes(coding: Mapping[str, Any]) -> list[str]:
    notes = []
    if coding["delta"]["chunks"]:
        notes.append("differences are among lz4, zstd and raw as well")
    if coding["refused_bases"]:
        notes.append(
            f"{coding['refused_bases']} chunks were sent whole: the receiver held something else"
        )
    if coding["budget_chunks"]:
        notes.append(
            f"{coding['budget_chunks']} chunks were sent as they are: the CPU for encoding was used up "
            "[dwcp.hde.cpu]"
        )
    return ["", *notes] if notes else []


def _decision(one: Mapping[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(one["at"]))
    parts = [f"link {size(one['link_bps'])}/s" if one["link_bps"] else ""]
    if one["encode_bps"]:
        parts.append(f"a thread encodes {size(one['encode_bps'])}/s")
    if one["ratio"] > 0:
        parts.append(ratio(one["ratio"]))
    figures = ", ".join(part for part in parts if part)
    shown = f" ({figures})" if figures else ""
    return f"{at} {cell(one['before'])} to {cell(one['after'])}: {cell(one['why'])}{shown}"
