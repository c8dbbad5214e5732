"""What changed from one boot to another: who became slower, came, went, or ended differently."""

from __future__ import annotations

from typing import Any, Final

from novacron.boot.analysis.blame import blame
from novacron.boot.analysis.text import duration, heading, table
from novacron.boot.report import Report

SLOWER_BY_SHARE: Final = 0.20
SLOWER_BY_SECONDS: Final = 0.020
"""Both must hold before a difference is flagged: a share alone flags the noise of a 1 ms component,
an amount alone that of a 10 s one."""


class Change:
    """One thing compared. *before* and *after* are seconds, None where the boot lacks it."""

    __slots__ = ("after", "after_state", "before", "before_state", "kind", "name")

    def __init__(
        self,
        kind: str,
        name: str,
        before: float | None,
        after: float | None,
        before_state: str = "",
        after_state: str = "",
    ) -> None:
        self.kind: Final = kind
        self.name: Final = name
        self.before: Final = before
        self.after: Final = after
        self.before_state: Final = before_state
        self.after_state: Final = after_state

    @property
    def delta(self) -> float:
        return (self.after or 0.0) - (self.before or 0.0)

    @property
    def flags(self) -> list[str]:
        """``slower``, ``faster``, ``appeared``, ``disappeared``, ``state``."""
        found = []
        if self.before_state != self.after_state:
            if not self.before_state:
                return ["appeared"]
            if not self.after_state:
                return ["disappeared"]
            found.append("state")
        if self.before is None or self.after is None:
            return found
        if _exceeds(self.before, self.after):
            found.append("slower")
        elif _exceeds(self.after, self.before):
            found.append("faster")
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "delta": round(self.delta, 6),
            "before_state": self.before_state or None,
            "after_state": self.after_state or None,
            "flags": self.flags,
        }


def changes(before: Report, after: Report) -> list[Change]:
    """Everything both boots can be compared in: the whole, prelude, phases, components."""
    found = [Change("boot", "total", before.seconds, after.seconds, _ended(before), _ended(after))]
    preludes = [
        {record["name"]: record["end"] - record["start"] for record in report.prelude}
        for report in (before, after)
    ]
    found += _paired("prelude", preludes[0], preludes[1], {}, {})
    phases = [
        {
            record["name"]: record["end"] - record["start"]
            for record in report.phases
            if record["end"] is not None
        }
        for report in (before, after)
    ]
    outcomes = [
        {record["name"]: record["outcome"] or "unfinished" for record in report.phases}
        for report in (before, after)
    ]
    found += _paired("phase", phases[0], phases[1], outcomes[0], outcomes[1])
    own = [{entry.name: entry.own for entry in blame(report)} for report in (before, after)]
    states = [
        {
            record["name"]: _ended_as(record["state"], record["ready"], record["fallback"])
            for record in report.components
        }
        for report in (before, after)
    ]
    components = _paired("component", own[0], own[1], states[0], states[1])
    return found + sorted(components, key=lambda change: (-abs(change.delta), change.name))


def as_json(before: Report, after: Report) -> dict[str, Any]:
    compared = changes(before, after)
    return {
        "before": before.boot_id,
        "after": after.boot_id,
        "flagged": [change.name for change in compared if change.flags],
        "changes": [change.as_json() for change in compared],
    }


def as_text(before: Report, after: Report) -> str:
    compared = changes(before, after)
    lines = [f"before: {heading(before)}", f"after:  {heading(after)}", ""]
    shown = [change for change in compared if change.kind != "component" or change.flags]
    rows = [
        (
            "!" if change.flags else "",
            change.kind,
            change.name,
            duration(change.before),
            duration(change.after),
            _delta(change),
            ", ".join(_word(change, flag) for flag in change.flags),
        )
        for change in shown
    ]
    header = ("", "", "", "before", "after", "change", "")
    lines.append(table(header, rows, ("<", "<", "<", ">", ">", ">", "<")))
    quiet = len(compared) - len(shown)
    lines += [
        "",
        f"{quiet} component{'s' if quiet != 1 else ''} not shown: the same within "
        f"{SLOWER_BY_SHARE:.0%} or {duration(SLOWER_BY_SECONDS)}.",
    ]
    return "\n".join(lines)


def _exceeds(reference: float, value: float) -> bool:
    # Rounded to the microsecond the reports are written in, so that "20 ms" is 20 ms.
    delta = round(value - reference, 6)
    return delta >= SLOWER_BY_SECONDS and delta >= round(SLOWER_BY_SHARE * reference, 6)


def _paired(
    kind: str,
    before: dict[str, float],
    after: dict[str, float],
    before_states: dict[str, str],
    after_states: dict[str, str],
) -> list[Change]:
    ordered = dict.fromkeys([*before_states, *before, *after_states, *after])
    return [
        Change(
            kind,
            name,
            before.get(name),
            after.get(name),
            before_states.get(name, "present" if name in before else ""),
            after_states.get(name, "present" if name in after else ""),
        )
        for name in ordered
    ]


def _ended(report: Report) -> str:
    if report.failure is not None:
        return "failed"
    return "degraded" if report.data["degraded"] else "ready"


def _ended_as(state: str, ready: float | None, fallback: bool) -> str:
    """How a component's *start* ended: the reports may be of boots since stopped."""
    if state in ("stopping", "stopped"):
        if ready is None:
            return "failed"
        return "degraded" if fallback else "ready"
    return state


def _delta(change: Change) -> str:
    if change.before is None or change.after is None:
        return ""
    share = f" ({change.delta / change.before:+.0%})" if change.before > 0.0005 else ""
    sign = "+" if change.delta >= 0 else "-"
    return f"{sign}{duration(abs(change.delta))}{share}"


def _word(change: Change, flag: str) -> str:
    if flag == "state":
        return f"{change.before_state} -> {change.after_state}"
    return flag
