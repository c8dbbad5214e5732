"""How analyses put times and tables into words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from novacron.boot.report import Report


def duration(seconds: float | None) -> str:
    """A duration with three or four figures that matter: ``0.4 ms``, ``251.0 ms``, ``3.420 s``."""
    if seconds is None:
        return "-"
    if abs(seconds) < 0.99995:
        return f"{seconds * 1000:.1f} ms"
    if abs(seconds) < 99.9995:
        return f"{seconds:.3f} s"
    return f"{seconds:.1f} s"


def heading(report: Report) -> str:
    """Which boot this is and how it ended, in one line."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.started))
    return f"boot {report.boot_id[:8]} of {when}: {outcome(report)}"


def outcome(report: Report) -> str:
    if report.seconds is None:
        return f"{report.state}, not over yet"
    if report.failure is not None:
        where = report.failure.get("component") or report.failure["error"]
        return f"failed after {duration(report.seconds)} ({where})"
    if report.state in ("ready", "stopped", "stopping"):
        return f"ready after {duration(report.seconds)}"
    return f"{report.state} after {duration(report.seconds)}"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[Literal["<", ">"]]
) -> str:
    """Columns two spaces apart, no trailing blanks."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = (
            f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
