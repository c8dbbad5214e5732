"""Which component took how long, and whether it waited, worked or slept between attempts.

For each component: wait + work + sleep + fallback = its end - the start of its phase. Sums over
components mean nothing in a parallel boot; ``critical_path`` says what the boot's length was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from novacron.boot.analysis.text import duration, heading, table
from novacron.boot.report import Report, finished

if TYPE_CHECKING:
    from novacron.boot.report import ComponentRecord


class Blame:
    """Seconds of one component's start, by what they went into."""

    __slots__ = ("attempts", "fallback", "name", "phase", "sleep", "state", "wait", "work")

    def __init__(self, record: ComponentRecord) -> None:
        attempts = record["attempts"]
        ended = [attempt["end"] or attempt["start"] for attempt in attempts]
        first = attempts[0]["start"]
        began = record["phase_started"]
        self.name: Final = record["name"]
        self.phase: Final = record["phase"]
        self.state: Final = record["state"]
        self.attempts: Final = len(attempts)
        self.wait: Final = first - (first if began is None else began)
        """From the start of the phase to the first attempt: dependencies, slots, the loop."""
        self.work: Final = sum(
            end - attempt["start"] for end, attempt in zip(ended, attempts, strict=True)
        )
        self.sleep: Final = sum(
            max(0.0, later["start"] - end) for end, later in zip(ended, attempts[1:], strict=False)
        )
        """Between attempts."""
        rest = max(0.0, (finished(record) or ended[-1]) - ended[-1])
        self.fallback: Final = rest if record["fallback"] else 0.0
        """From the last failed attempt to serving on the fallback."""

    @property
    def total(self) -> float:
        """Seconds from the start of the phase to the end."""
        return self.wait + self.own

    @property
    def own(self) -> float:
        """What the component itself is to blame for."""
        return self.work + self.sleep + self.fallback

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "phase": self.phase,
            "state": self.state,
            "attempts": self.attempts,
            "wait": round(self.wait, 6),
            "work": round(self.work, 6),
            "retry_sleep": round(self.sleep, 6),
            "fallback": round(self.fallback, 6),
            "total": round(self.total, 6),
        }


def blame(report: Report) -> list[Blame]:
    """Every component that was entered, the most expensive first."""
    entered = [Blame(record) for record in report.components if record["attempts"]]
    return sorted(entered, key=lambda entry: (-entry.own, entry.name))


def as_json(report: Report) -> dict[str, Any]:
    return {
        "boot_id": report.boot_id,
        "seconds": report.seconds,
        "components": [entry.as_json() for entry in blame(report)],
    }


def as_text(report: Report) -> str:
    entries = blame(report)
    rows = [
        (
            duration(entry.own),
            duration(entry.work),
            duration(entry.sleep) if entry.attempts > 1 else "",
            duration(entry.wait),
            entry.phase,
            entry.name,
            _remark(entry),
        )
        for entry in entries
    ]
    lines = [heading(report), ""]
    if rows:
        header = ("own", "work", "retry sleep", "waited", "phase", "component", "")
        lines.append(table(header, rows, (">", ">", ">", ">", "<", "<", "<")))
    else:
        lines.append("no component was entered")
    skipped = sorted(record["name"] for record in report.components if not record["attempts"])
    if skipped:
        lines += ["", f"never entered: {', '.join(skipped)}"]
    lines += [
        "",
        "own = work + retry sleep + start of the fallback; waited: from the start of the phase.",
        "Components start side by side, so their times do not add up: see critical-path.",
    ]
    return "\n".join(lines)


def _remark(entry: Blame) -> str:
    remarks = []
    if entry.state not in ("ready", "stopped"):
        remarks.append(entry.state)
    if entry.attempts > 1:
        remarks.append(f"{entry.attempts} attempts")
    if entry.fallback:
        remarks.append(f"fallback took {duration(entry.fallback)}")
    return ", ".join(remarks)
