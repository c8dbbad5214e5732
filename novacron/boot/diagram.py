"""Mermaid diagrams of a registry, for the documentation. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.boot.checkpoint import AFTER_PHASE, INIT_START
from novacron.boot.graph import levels
from novacron.boot.registry import PHASES, Definition
from novacron.component import Criticality

_STYLE = {
    Criticality.CRITICAL: "critical",
    Criticality.DEGRADED: "degraded",
    Criticality.WARNING: "warning",
}


def dependency_graph(definitions: Sequence[Definition]) -> str:
    """A flowchart: an arrow from each component to what must be settled before it; dotted for a
    wish; one box a phase."""
    lines = ["flowchart LR"]
    for phase in PHASES:
        lines.append(f"  subgraph {phase}")
        lines += [
            f"    {d.name}:::{_STYLE[d.criticality]}" for d in definitions if d.phase is phase
        ]
        lines.append("  end")
    for definition in definitions:
        lines += [f"  {definition.name} --> {name}" for name in definition.requires]
        lines += [f"  {definition.name} -.-> {name}" for name in definition.wants]
    lines += [
        "  classDef critical stroke:#b00020,stroke-width:2px",
        "  classDef degraded stroke:#b26a00,stroke-width:2px",
        "  classDef warning stroke:#5f6368,stroke-dasharray:4",
    ]
    return "\n".join(lines) + "\n"


def boot_sequence(definitions: Sequence[Definition]) -> str:
    """A sequence diagram: the engine, the checkpoints, and which components start together."""
    lines = ["sequenceDiagram", "  participant E as engine", "  participant D as disk"]
    lines.append(f"  E->>D: checkpoint {INIT_START}")
    for phase in PHASES:
        members = {d.name: d for d in definitions if d.phase is phase}
        edges = {n: [x for x in d.dependencies if x in members] for n, d in members.items()}
        lines.append(f"  Note over E: phase {phase}")
        lines += [f"  E->>E: initialize {', '.join(group)}" for group in levels(edges)]
        lines.append(f"  E->>D: checkpoint {AFTER_PHASE[phase]}")
    lines.append("  E->>E: announce READY")
    return "\n".join(lines) + "\n"
