"""What a boot would do: who starts after whom, when, and how long the worst case takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from novacron.boot.graph import levels
from novacron.boot.options import EngineOptions
from novacron.boot.registry import PHASES, Definition
from novacron.component import JsonObject


def plan(
    definitions: Sequence[Definition],
    options: EngineOptions,
    durations: Mapping[str, float] | None = None,
) -> JsonObject:
    """The plan as a JSON object. Times are seconds from the start of the first phase.

    *durations*: seconds each component took in an earlier boot; without them the plan knows the
    order and the limits, and ``expected`` is null.
    """
    phases: list[JsonObject] = []
    begin = 0.0
    latest = 0.0
    for phase in PHASES:
        members = {d.name: d for d in definitions if d.phase is phase}
        edges = {n: [x for x in d.dependencies if x in members] for n, d in members.items()}
        groups = levels(edges)
        expected = _expected(edges, groups, durations, begin)
        components = [
            {
                "name": name,
                "level": level,
                "criticality": str(members[name].criticality),
                "requires": list(members[name].requires),
                "wants": list(members[name].wants),
                "expected_start": expected.get(name, (None, None))[0],
                "expected_ready": expected.get(name, (None, None))[1],
                **_worst(members[name], options),
            }
            for level, group in enumerate(groups)
            for name in group
        ]
        deadline = options.deadlines[phase]
        worst = min(deadline, _longest_chain(edges, groups, components))
        latest += worst
        ends = [end for _, end in expected.values() if end is not None]
        begin = max(ends, default=begin)
        phases.append(
            {
                "name": str(phase),
                "deadline": deadline,
                "worst_case": round(worst, 3),
                "components": components,
            }
        )
    return {
        "schedule": options.schedule,
        "max_concurrency": options.max_concurrency,
        "retry_schedule": options.retry.schedule(),
        "retry_jitter": options.retry.jitter,
        "phases": phases,
        "expected": round(begin, 3) if durations else None,
        "worst_case": round(min(latest, options.total), 3),
        "deadline": options.total,
    }


def _worst(definition: Definition, options: EngineOptions) -> dict[str, Any]:
    timeout = options.start_timeouts.get(definition.name, definition.component.start_timeout)
    attempts = options.retry.attempts
    sleeping = sum(options.retry.schedule()) * (1 + options.retry.jitter)
    return {
        "start_timeout": timeout,
        "attempts": attempts,
        "worst_case": round(attempts * timeout + sleeping, 3),
    }


def _longest_chain(
    edges: Mapping[str, Sequence[str]],
    groups: Sequence[Sequence[str]],
    components: Sequence[JsonObject],
) -> float:
    worst = {component["name"]: component["worst_case"] for component in components}
    finish: dict[str, float] = {}
    for group in groups:
        for name in group:
            finish[name] = worst[name] + max((finish[d] for d in edges[name]), default=0.0)
    return max(finish.values(), default=0.0)


def _expected(
    edges: Mapping[str, Sequence[str]],
    groups: Sequence[Sequence[str]],
    durations: Mapping[str, float] | None,
    begin: float,
) -> dict[str, tuple[float | None, float | None]]:
    if not durations:
        return {}
    found: dict[str, tuple[float | None, float | None]] = {}
    finish: dict[str, float] = {}
    for group in groups:
        for name in group:
            start = max((finish[d] for d in edges[name]), default=begin)
            finish[name] = start + durations.get(name, 0.0)
            found[name] = (round(start, 6), round(finish[name], 6))
    return found


def as_text(value: JsonObject) -> str:
    """The plan for a person."""
    lines = [
        f"Schedule {value['schedule']}, at most {value['max_concurrency']} components at once.",
        "Retries after "
        + ", ".join(f"{delay:g}" for delay in value["retry_schedule"])
        + f" s (each ± {value['retry_jitter']:.0%}).",
    ]
    for phase in value["phases"]:
        lines.append("")
        lines.append(
            f"{phase['name']}: deadline {phase['deadline']:g} s, "
            f"worst case {phase['worst_case']:g} s"
        )
        for component in phase["components"]:
            after = component["requires"] + [f"{name}?" for name in component["wants"]]
            expected = component["expected_start"]
            when = f"+{expected:.3f} s" if expected is not None else f"level {component['level']}"
            lines.append(
                f"  {component['name']:<18} {component['criticality']:<9} {when:<10} "
                f"{component['attempts']} x {component['start_timeout']:g} s"
                + (f"  after {', '.join(after)}" if after else "")
            )
    lines.append("")
    if value["expected"] is not None:
        lines.append(f"Expected, by the last boot's times: {value['expected']:.3f} s.")
    lines.append(f"Worst case: {value['worst_case']:g} s; then the boot is rolled back.")
    lines.append("A name with ? is a wish: waited for, and done without if it fails.")
    return "\n".join(lines) + "\n"
