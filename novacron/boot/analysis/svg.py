"""A page of SVG that grows downwards: the five shapes a waterfall needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_FONT: Final = "'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif"

_HATCH: Final = (
    '<pattern id="sleep" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fdf3d7"/>'
    '<rect width="2.4" height="6" fill="#e0a526"/></pattern>'
)


class Canvas:
    """Collects shapes. ``height`` is where the next row begins, and in the end the page's height."""

    def __init__(self, width: float) -> None:
        self.width: Final = width
        self.height = 0.0
        self._background: list[str] = []
        self._shapes: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        *,
        hint: str = "",
        stroke: str = "",
        opacity: float = 1.0,
    ) -> None:
        """*hint* is shown when the pointer rests on the shape."""
        attributes = (
            f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"'
        )
        if stroke:
            attributes += f' stroke="{stroke}" stroke-width="1"'
        if opacity < 1.0:
            attributes += f' opacity="{opacity}"'
        shape = f"<rect {attributes}>{_title(hint)}</rect>" if hint else f"<rect {attributes}/>"
        self._shapes.append(shape)

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str, width: float) -> None:
        self._shapes.append(_line(x1, y1, x2, y2, stroke, width))

    def behind_line(self, x1: float, y1: float, x2: float, y2: float, stroke: str) -> None:
        """A grid line, under everything else."""
        self._background.append(_line(x1, y1, x2, y2, stroke, 1.0))

    def polyline(self, points: Sequence[tuple[float, float]], stroke: str) -> None:
        path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        self._shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.2"/>'
        )

    def diamond(self, x: float, y: float, reach: float, fill: str, hint: str) -> None:
        points = f"{x:.2f},{y - reach:.2f} {x + reach:.2f},{y:.2f} {x:.2f},{y + reach:.2f} {x - reach:.2f},{y:.2f}"
        self._shapes.append(f'<polygon points="{points}" fill="{fill}">{_title(hint)}</polygon>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12,
        fill: str = "#1c2430",
        anchor: str = "start",
        bold: bool = False,
        halo: bool = False,
    ) -> None:
        """*halo*: a white rim that keeps the words readable over lines."""
        attributes = f'x="{x:.2f}" y="{y:.2f}" font-size="{size:g}" fill="{fill}"'
        if anchor != "start":
            attributes += f' text-anchor="{anchor}"'
        if bold:
            attributes += ' font-weight="bold"'
        if halo:
            attributes += ' stroke="#ffffff" stroke-width="2.5" paint-order="stroke" stroke-linejoin="round" stroke-opacity="0.85"'
        self._shapes.append(f"<text {attributes}>{escape(words)}</text>")

    def document(self, description: str) -> str:
        """The page. *description* is its accessible name."""
        width, height = f"{self.width:.0f}", f"{self.height:.0f}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                f'viewBox="0 0 {width} {height}" font-family="{_FONT}" role="img">',
                _title(description),
                f"<defs>{_HATCH}</defs>",
                f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
                *self._shapes_below_bars(),
                "</svg>",
                "",
            ]
        )

    def _shapes_below_bars(self) -> list[str]:
        return [*self._background, *self._shapes]


def escape(words: str) -> str:
    """*words* as XML character data; what XML 1.0 cannot hold at all becomes a visible mark."""
    kept = "".join(
        character
        if character >= " " and not "\ud800" <= character <= "\udfff" and character not in "￾￿"
        else "�"
        for character in words
    )
    return (
        kept.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>"


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, width: float) -> str:
    return (
        f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" '
        f'stroke="{stroke}" stroke-width="{width:g}"/>'
    )
