"""What a boot's length was made of, and how much shorter its graph would have allowed it to be.

The path is read off the recorded times, from the end backwards: in each phase the component that
finished last, before it the dependency that finished last, and so on to the start of the phase.
Together with the prelude and the gaps between phases the steps tile the whole boot: their sum is
its length, and what nothing in the report explains is a step of its own, ``unexplained``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from novacron.boot.analysis.text import duration, heading, table
from novacron.boot.report import Report, finished

if TYPE_CHECKING:
    from novacron.boot.report import ComponentRecord, PhaseRecord

_TOLERANCE: Final = 0.001
"""A start this soon after a dependency's end was caused by it: the loop needs time to turn."""

_SHOWN: Final = 0.0005


class Step:
    """One stretch of the path. *kind*: ``prelude``, ``wait``, ``component``, ``barrier`` (between
    two phases: checkpoint and hand-over) or ``unexplained``."""

    __slots__ = ("because", "end", "kind", "name", "phase", "start")

    def __init__(
        self, kind: str, name: str, start: float, end: float, phase: str = "", because: str = ""
    ) -> None:
        self.kind: Final = kind
        self.name: Final = name
        self.start: Final = start
        self.end: Final = end
        self.phase: Final = phase
        self.because: Final = because

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "phase": self.phase,
            "start": round(self.start, 6),
            "end": round(self.end, 6),
            "seconds": round(self.seconds, 6),
            "because": self.because,
        }


def steps(report: Report) -> list[Step]:
    """The path from process start to READY (or to the failure), without holes or overlaps."""
    path: list[Step] = []
    moment = 0.0
    for record in sorted(report.prelude, key=lambda record: record["start"]):
        moment = _fill(path, moment, record["start"], "unexplained", "before " + record["name"])
        if record["end"] > moment:
            path.append(Step("prelude", record["name"], moment, record["end"]))
            moment = record["end"]
    for phase in report.phases:
        before = "before " + phase["name"]
        kind = "barrier" if path and path[-1].phase else "unexplained"
        because = _checkpoints(report, moment, phase["start"])
        moment = _fill(
            path, moment, phase["start"], "barrier" if because else kind, before, because
        )
        for component, cause in _chain(report, phase):
            start, end = component["started"], finished(component)
            if start is None or end is None or end < max(start, moment):
                continue
            kind = "wait"
            moment = _fill(path, moment, start, kind, component["name"], cause, phase["name"])
            path.append(Step("component", component["name"], moment, end, phase["name"], cause))
            moment = end
        if phase["end"] is not None:
            moment = _fill(
                path, moment, phase["end"], "barrier", "end of " + phase["name"], "", phase["name"]
            )
    end = report.seconds
    if end is not None:
        _fill(
            path, moment, end, "barrier", "after the last phase", _checkpoints(report, moment, end)
        )
    return path


def names(report: Report) -> list[str]:
    """The components on the path, in order."""
    return [step.name for step in steps(report) if step.kind == "component"]


def limit(report: Report) -> float:
    """Seconds that the graph's longest chain of component times needs, phase after phase."""
    total = 0.0
    for phase in report.phases:
        members = {
            record["name"]: record
            for record in report.components
            if record["phase"] == phase["name"] and finished(record) is not None
        }
        ends: dict[str, float] = {}
        # Whoever started first depends on nobody who started later: start order is a topological
        # order, because a dependency has finished before its dependent starts.
        for record in sorted(members.values(), key=lambda record: record["started"] or 0.0):
            dependencies = [ends.get(name, 0.0) for name in _dependencies(record)]
            ends[record["name"]] = max(dependencies, default=0.0) + _taken(record)
        total += max(ends.values(), default=0.0)
    return total


def efficiency(report: Report) -> float | None:
    """:func:`limit` divided by what the phases really took, first to last start's end; 1.0 is the
    best any schedule can do. None before a component has finished."""
    actual = 0.0
    for phase in report.phases:
        ends = [
            end
            for record in report.components
            if record["phase"] == phase["name"] and (end := finished(record)) is not None
        ]
        actual += max(ends, default=phase["start"]) - phase["start"]
    return min(1.0, limit(report) / actual) if actual > 0 else None


def as_json(report: Report) -> dict[str, Any]:
    path = steps(report)
    return {
        "boot_id": report.boot_id,
        "seconds": report.seconds,
        "sum": round(sum(step.seconds for step in path), 6),
        "explained": round(_explained(path), 6),
        "components": [step.name for step in path if step.kind == "component"],
        "limit": round(limit(report), 6),
        "efficiency": efficiency(report),
        "steps": [step.as_json() for step in path],
    }


def as_text(report: Report) -> str:
    path = steps(report)
    total = sum(step.seconds for step in path)
    # Hundredths of a millisecond between two components are the loop turning: true, and noise.
    small = [step for step in path if step.kind in ("wait", "barrier") and step.seconds < _SHOWN]
    rows = [
        (
            duration(step.start),
            duration(step.seconds),
            f"{step.seconds / total:.0%}" if total else "",
            step.phase or step.kind,
            _words(step),
        )
        for step in path
        if step not in small
    ]
    lines = [heading(report), ""]
    if rows:
        header = ("at", "took", "share", "in", "step")
        lines.append(table(header, rows, (">", ">", ">", "<", "<")))
    else:
        lines.append("nothing was recorded")
    if small:
        lines.append(
            f"and {len(small)} waits under {duration(_SHOWN)}, "
            f"{duration(sum(step.seconds for step in small))} in all"
        )
    found = efficiency(report)
    lines += [
        "",
        f"sum {duration(total)}, of which {_explained(path):.1%} is explained; "
        f"the component graph needs at least {duration(limit(report))}"
        + (f", parallel efficiency {found:.3f}" if found is not None else ""),
    ]
    return "\n".join(lines)


def _words(step: Step) -> str:
    cause = f"  ({step.because})" if step.because else ""
    match step.kind:
        case "component":
            return f"* {step.name}{cause}"
        case "wait":
            return f"  wait for the start of {step.name}{cause}"
        case "unexplained":
            return f"  unexplained, {step.name}{cause}"
        case _:
            return f"  {step.name}{cause}"


def _explained(path: list[Step]) -> float:
    total = sum(step.seconds for step in path)
    missing = sum(step.seconds for step in path if step.kind == "unexplained")
    return 1.0 - missing / total if total else 1.0


def _fill(
    path: list[Step],
    moment: float,
    until: float,
    kind: str,
    name: str,
    because: str = "",
    phase: str = "",
) -> float:
    """Append what lies between *moment* and *until*, if anything; return where the path ends."""
    if until <= moment:
        return moment
    path.append(Step(kind, name, moment, until, phase, because))
    return until


def _checkpoints(report: Report, start: float, end: float) -> str:
    written = [
        f"checkpoint {record['name']} {duration(record['took'])}"
        for record in report.checkpoints
        if start <= record["at"] <= end
    ]
    return ", ".join(written)


def _chain(report: Report, phase: PhaseRecord) -> list[tuple[ComponentRecord, str]]:
    """The components of *phase* that determined its end, in order, each with why then."""
    members = {
        record["name"]: record
        for record in report.components
        if record["phase"] == phase["name"]
        and record["started"] is not None
        and finished(record) is not None
    }
    if not members:
        return []
    failed = report.failure.get("component") if report.failure is not None else None
    last = members.get(failed) if isinstance(failed, str) else None
    if last is None:
        last = max(members.values(), key=lambda record: (finished(record) or 0.0, record["name"]))
    chain: list[tuple[ComponentRecord, str]] = []
    seen: set[str] = set()
    current: ComponentRecord | None = last
    while current is not None and current["name"] not in seen:
        seen.add(current["name"])
        previous, cause = _before(report, current, members)
        chain.append((current, cause))
        current = previous
    return chain[::-1]


def _before(
    report: Report, record: ComponentRecord, members: dict[str, ComponentRecord]
) -> tuple[ComponentRecord | None, str]:
    """Whose end let *record* start, and in which sense."""
    started = record["started"] or 0.0
    dependency = _latest([members[name] for name in _dependencies(record) if name in members])
    ready = finished(dependency) if dependency is not None else record["phase_started"]
    ready = started if ready is None else ready
    # Under a schedule that holds components back, the one that made room is the cause. A plain
    # dataflow boot starts everything at once, where such a coincidence of times means nothing.
    schedule, at_once = report.data["schedule"], report.data["max_concurrency"]
    held_back = schedule != "dataflow" or (at_once is not None and len(members) > at_once)
    if held_back and started - ready > _TOLERANCE:
        made_room = _latest(
            [
                other
                for other in members.values()
                if other is not record and ready < (finished(other) or 0.0) <= started + 1e-6
            ]
        )
        if made_room is not None:
            return made_room, f"{schedule}: after {made_room['name']}"
    if dependency is None:
        return None, ""
    return dependency, f"after {dependency['name']}"


def _latest(records: list[ComponentRecord]) -> ComponentRecord | None:
    return max(
        (record for record in records if finished(record) is not None),
        key=lambda record: (finished(record) or 0.0, record["name"]),
        default=None,
    )


def _dependencies(record: ComponentRecord) -> list[str]:
    return [*record["requires"], *record["wants"]]


def _taken(record: ComponentRecord) -> float:
    end, start = finished(record), record["started"]
    return max(0.0, end - start) if end is not None and start is not None else 0.0
