"""A boot as an SVG waterfall: who waited, who worked, who slept, and what the length hung on.

Written by hand, element by element: a drawing library would be the heaviest import of the whole
node, for rectangles and text. Colours are told apart without colour vision by brightness, and every
state also differs in shape (thin, full, hatched, crossed).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from novacron.boot.analysis.critical_path import efficiency, names, steps
from novacron.boot.analysis.svg import Canvas
from novacron.boot.analysis.text import duration, outcome
from novacron.boot.report import Report, finished

if TYPE_CHECKING:
    from novacron.boot.report import ComponentRecord, PhaseRecord

_ROW: Final = 20.0
_BAR: Final = 12.0
_PLOT_WIDTH: Final = 860.0
_CHARACTER: Final = 6.7
_BOLD_CHARACTER: Final = 7.9
"""Mean advance of the 12 px sans-serif text; generous, so that long names never reach the bars."""

_INK: Final = "#1c2430"
_QUIET: Final = "#66717f"
_GRID: Final = "#dde2e8"
_WORK: Final = "#2f6fab"
_WAIT: Final = "#b9c3ce"
_FAILED: Final = "#b3261e"
_FALLBACK: Final = "#d9822b"
_READY: Final = "#1b7f4b"
_PRELUDE: Final = "#7c8796"
_BANDS: Final = {
    "pre_init": "#e3eef8",
    "core": "#e6f3ea",
    "services": "#f6efdf",
    "post_init": "#efe8f5",
}


class Waterfall:
    """Lays one report out. Rows go down, time goes right."""

    def __init__(self, report: Report) -> None:
        self.report: Final = report
        self.path: Final = frozenset(names(report))
        labels = [_BOLD_CHARACTER * len(record["name"]) for record in report.components]
        labels += [_CHARACTER * len(record["name"]) for record in report.prelude]
        self.left: Final = 30.0 + max([*labels, _CHARACTER * len("checkpoints")])
        self.end: Final = max(report.last_moment, 0.001)
        # A little air on the right, so that the READY line is not the frame.
        self.scale: Final = _PLOT_WIDTH / (self.end * 1.02)
        rights = [
            self._x(finished(record) or self.end) + 24 + _CHARACTER * len(_remark(record, self.end))
            for record in report.components
            if record["attempts"]
        ]
        self.canvas: Final = Canvas(max([*rights, self.left + _PLOT_WIDTH + 80]))
        self.anchors: Final[dict[str, float]] = {}
        """Centre line of each component's row."""

    def draw(self) -> str:
        self._title()
        top = self.canvas.height
        self.canvas.height += 22.0
        self._prelude()
        for phase in self.report.phases:
            self._phase(phase)
        self._never_entered()
        self._checkpoints()
        bottom = self.canvas.height
        self._axis(top, bottom)
        self._connect()
        self._legend()
        return self.canvas.document(self._summary())

    def _x(self, moment: float) -> float:
        return self.left + moment * self.scale

    def _summary(self) -> str:
        return f"NovaCron boot {self.report.boot_id}: {outcome(self.report)}"

    def _title(self) -> None:
        import time

        report, canvas = self.report, self.canvas
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.started))
        colour = _FAILED if report.failure is not None else _INK
        canvas.text(
            16, 30, f"Boot {report.boot_id[:8]}: {outcome(report)}", size=19, fill=colour, bold=True
        )
        entered = sum(1 for record in report.components if record["attempts"])
        details = f"{when}, {entered} of {len(report.components)} components entered, schedule {report.data['schedule']}"
        found = efficiency(report)
        if found is not None:
            details += f", parallel efficiency {found:.3f}"
        canvas.text(16, 50, details, fill=_QUIET)
        canvas.height = 62.0
        failure = report.failure
        if failure is not None:
            why = f": {failure['why']}" if failure["why"] else ""
            self._note(f"{failure['what']}{why}", _FAILED)
        degraded = report.data["degraded"]
        for entry in degraded[:5]:
            self._note(f"{entry['name']} is degraded: {entry['why']}", _FALLBACK)
        if len(degraded) > 5:
            self._note(f"and {len(degraded) - 5} more are degraded", _FALLBACK)

    def _note(self, words: str, colour: str) -> None:
        room = int((self.canvas.width - 32) / _CHARACTER)
        words = words if len(words) <= room else words[: room - 1] + "…"
        self.canvas.text(16, self.canvas.height + 8, words, fill=colour)
        self.canvas.height += 18.0

    def _row(self, label: str, *, bold: bool = False, fill: str = _INK) -> float:
        """Start a row; returns the vertical position of its bar."""
        top = self.canvas.height
        self.canvas.height += _ROW
        self.canvas.text(self.left - 10, top + 14.5, label, anchor="end", bold=bold, fill=fill)
        return top + (_ROW - _BAR) / 2

    def _bar(self, start: float, end: float, y: float, style: str, hint: str) -> None:
        x, width = self._x(start), max((end - start) * self.scale, 1.2)
        canvas = self.canvas
        if style == "wait":
            canvas.rect(x, y + _BAR / 2 - 1.5, width, 3, _WAIT, hint=hint)
        elif style == "sleep":
            canvas.rect(x, y, width, _BAR, "url(#sleep)", hint=hint, stroke="#a9771b")
        elif style == "failed":
            canvas.rect(x, y, width, _BAR, "#f3d3d0", hint=hint, stroke=_FAILED)
            reach = min(width / 2, 4.0)
            middle = x + width / 2
            canvas.line(middle - reach, y + 2, middle + reach, y + _BAR - 2, _FAILED, 1.6)
            canvas.line(middle - reach, y + _BAR - 2, middle + reach, y + 2, _FAILED, 1.6)
        else:
            colour = {"work": _WORK, "fallback": _FALLBACK, "prelude": _PRELUDE}[style]
            canvas.rect(x, y, width, _BAR, colour, hint=hint)

    def _label(self, end: float, y: float, words: str, fill: str = _QUIET) -> None:
        self.canvas.text(self._x(end) + 6, y + 10, words, size=11, fill=fill, halo=True)

    def _prelude(self) -> None:
        for record in self.report.prelude:
            y = self._row(record["name"], fill=_QUIET)
            took = duration(record["end"] - record["start"])
            self._bar(record["start"], record["end"], y, "prelude", f"{record['name']} {took}")
            self._label(record["end"], y, took)

    def _phase(self, phase: PhaseRecord) -> None:
        members = sorted(
            (
                record
                for record in self.report.components
                if record["phase"] == phase["name"] and record["attempts"]
            ),
            key=lambda record: (record["attempts"][0]["start"], finished(record) or self.end),
        )
        end = phase["end"] if phase["end"] is not None else self.end
        top = self.canvas.height + 4
        height = 22.0 + _ROW * len(members)
        colour = _BANDS.get(phase["name"], "#eceff3")
        self.canvas.rect(8, top, self.canvas.width - 16, height, colour, opacity=0.45)
        width = max((end - phase["start"]) * self.scale, 2.0)
        self.canvas.rect(self._x(phase["start"]), top, width, height, colour, stroke="#c5ced8")
        words = f"{phase['name']}, {duration(end - phase['start'])}"
        if phase["outcome"] not in ("ready", None):
            words += f", {phase['outcome']}"
        bad = phase["outcome"] in ("failed", "timeout")
        self.canvas.text(16, top + 15, words, bold=True, fill=_FAILED if bad else _INK)
        self.canvas.height = top + 20.0
        for record in members:
            self._component(record)
        self.canvas.height = top + height

    def _component(self, record: ComponentRecord) -> None:
        critical = record["name"] in self.path
        y = self._row(record["name"], bold=critical)
        self.anchors[record["name"]] = y + _BAR / 2
        attempts = record["attempts"]
        began = record["phase_started"]
        first = attempts[0]["start"]
        name = record["name"]
        if began is not None and first > began:
            self._bar(began, first, y, "wait", f"{name} waited {duration(first - began)}")
        previous = first
        for attempt in attempts:
            start = attempt["start"]
            end = attempt["end"] if attempt["end"] is not None else self.end
            if start > previous:
                hint = (
                    f"{name} slept {duration(start - previous)} before attempt {attempt['number']}"
                )
                self._bar(previous, start, y, "sleep", hint)
            hint = f"{name}, attempt {attempt['number']}: {attempt['outcome']} after {duration(end - start)}"
            if attempt["error"] is not None:
                hint += f", {attempt['error']['what']}"
            self._bar(start, end, y, "work" if attempt["outcome"] == "ready" else "failed", hint)
            previous = end
        end = finished(record) or previous
        if end > previous and record["fallback"]:
            hint = f"{name} began to serve on its fallback in {duration(end - previous)}"
            self._bar(previous, end, y, "fallback", hint)
        if critical:
            self.canvas.rect(
                self._x(first), y + _BAR, max((end - first) * self.scale, 1.2), 3, _INK
            )
        fill = _QUIET if record["ready"] is not None else _FAILED
        self._label(end, y, _remark(record, self.end), "#9a5510" if record["fallback"] else fill)

    def _never_entered(self) -> None:
        skipped = [record["name"] for record in self.report.components if not record["attempts"]]
        if not skipped:
            return
        self.canvas.height += 6.0
        room = max(20, int((self.canvas.width - 140) / _CHARACTER))
        line = ""
        lines = []
        for name in skipped:
            candidate = f"{line}, {name}" if line else name
            if len(candidate) > room:
                lines.append(line + ",")
                candidate = name
            line = candidate
        lines.append(line)
        for index, words in enumerate(lines):
            self.canvas.height += 17.0
            if index == 0:
                self.canvas.text(16, self.canvas.height - 4, "never entered:", fill=_QUIET)
            self.canvas.text(112, self.canvas.height - 4, words, fill=_QUIET)

    def _checkpoints(self) -> None:
        if not self.report.checkpoints:
            return
        self.canvas.height += 6.0
        y = self._row("checkpoints", fill=_QUIET) + _BAR / 2
        first = 1
        records = self.report.checkpoints
        for number, record in enumerate(records, 1):
            x = self._x(record["at"])
            hint = f"{record['name']} at {duration(record['at'])}, took {duration(record['took'])}"
            self.canvas.diamond(x, y, 4.5, _INK, hint)
            # Checkpoints on one spot share a label: "1-2".
            if number < len(records) and self._x(records[number]["at"]) - x < 18:
                continue
            words = str(number) if first == number else f"{first}-{number}"
            self.canvas.text(x + 6, y + 4, words, size=11, fill=_QUIET, halo=True)
            first = number + 1

    def _axis(self, top: float, bottom: float) -> None:
        step = tick_step(self.end)
        unit, factor, digits = ("ms", 1000.0, 0) if self.end < 2.0 else ("s", 1.0, 1)
        if step * factor < 1.0 and unit == "ms":
            digits = 1
        count = int(self.end / step) + 1
        seconds = self.report.seconds
        marked = self._x(seconds) if seconds is not None else -math.inf
        for index in range(count):
            moment = index * step
            x = self._x(moment)
            self.canvas.behind_line(x, top + 20, x, bottom, _GRID)
            if abs(x - marked) < 20:
                continue
            words = f"{moment * factor:.{digits}f}"
            for y in (top + 14, bottom + 14):
                self.canvas.text(
                    x,
                    y,
                    words + (f" {unit}" if index == 0 else ""),
                    size=11,
                    fill=_QUIET,
                    anchor="middle",
                )
        if seconds is not None:
            failed = self.report.failure is not None
            colour = _FAILED if failed else _READY
            x = self._x(seconds)
            self.canvas.line(x, top + 4, x, bottom, colour, 1.5)
            word = "FAILED" if failed else "READY"
            self.canvas.text(x + 5, top + 4, word, size=11, fill=colour, bold=True, halo=True)
        self.canvas.height = bottom + 22.0

    def _connect(self) -> None:
        """Join the critical path's bars, each end to the next start."""
        previous: tuple[float, float] | None = None
        for step in steps(self.report):
            if step.kind != "component":
                continue
            y = self.anchors[step.name] + _BAR / 2 + 1.5
            if previous is not None:
                x, before = previous
                turn = self._x(step.start)
                self.canvas.polyline([(x, before), (turn, before), (turn, y)], _INK)
            previous = (self._x(step.end), y)

    def _legend(self) -> None:
        canvas = self.canvas
        y = canvas.height + 6
        x = 16.0
        entries = (
            ("wait", "waiting"),
            ("work", "working"),
            ("failed", "failed attempt"),
            ("sleep", "sleep before a retry"),
            ("fallback", "starting its fallback"),
        )
        for style, words in entries:
            start = (x - self.left) / self.scale
            self._bar(start, start + 26 / self.scale, y, style, words)
            canvas.text(x + 32, y + 10, words)
            x += 32 + _CHARACTER * len(words) + 22
        canvas.rect(x, y + 5, 26, 3, _INK)
        canvas.text(x + 32, y + 10, "critical path (bold names)")
        canvas.height = y + 26
        if self.report.checkpoints:
            words = "checkpoints: " + ", ".join(
                f"{number} {record['name']} ({duration(record['took'])})"
                for number, record in enumerate(self.report.checkpoints, 1)
            )
            canvas.text(16, canvas.height + 4, words, size=11, fill=_QUIET)
            canvas.height += 16
        canvas.height += 6


def _remark(record: ComponentRecord, now: float) -> str:
    """What stands beside a bar: how long, how often, how it ended."""
    attempts = record["attempts"]
    words = duration((finished(record) or now) - attempts[0]["start"])
    if len(attempts) > 1:
        words += f", {len(attempts)} attempts"
    if record["fallback"]:
        words += ", on its fallback"
    elif record["ready"] is None:
        words += f", {attempts[-1]['outcome']}"
    return words


def tick_step(span: float) -> float:
    """The distance between ticks that gives about ten on *span* seconds: 1, 2 or 5 times 10^n."""
    rough = max(span, 1e-6) / 10
    magnitude = 10.0 ** math.floor(math.log10(rough))
    for factor in (1.0, 2.0, 5.0):
        if rough <= factor * magnitude * 1.0001:
            return factor * magnitude
    return 10.0 * magnitude


def as_svg(report: Report) -> str:
    """The whole picture as one self-contained SVG document."""
    return Waterfall(report).draw()
