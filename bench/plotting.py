"""Figures with matplotlib, which is imported only when one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.harness import BenchError


def subplots(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, Any]:
    """A figure of *width* by *height* inches and its axes.

    Raises:
      BenchError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as exc:
        raise BenchError("--plot needs matplotlib: pip install 'novacron[bench]'") from exc
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), constrained_layout=True)
    for one in axes.flat if hasattr(axes, "flat") else [axes]:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, path: Path, environment: dict[str, Any]) -> None:
    """Write *figure* with the machine it was measured on as a caption."""
    commit = (environment["commit"] or "unknown")[:10]
    caption = (
        f"{environment['cpu']}, {environment['cores']} cores, Linux {environment['kernel']}, "
        f"Python {environment['python']}, commit {commit}, {environment['date'][:10]}"
    )
    figure.supxlabel(caption, fontsize=7, color="#66717f")
    figure.savefig(path, dpi=130)
