"""The state diagrams of ``docs/reference/peer-protocol.md``, drawn from the tables."""

from __future__ import annotations

from novacron.protocol.states import ENDED, RECEIVE, SEND, SETTLED, State


def state_diagram() -> str:
    """A mermaid ``stateDiagram-v2`` of every transition; Error, which leads to ``failed`` from
    everywhere, is one note instead of sixteen arrows."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for verb, table in (("send", SEND), ("receive", RECEIVE)):
        for state, row in table.items():
            for message, successor in row.items():
                if successor is not State.FAILED:
                    arrows.setdefault((state, successor), []).append(f"{verb} {message.__name__}")
    for state, successor in SETTLED.items():
        arrows.setdefault((state, successor), []).append("no request open")
    lines = [
        "stateDiagram-v2",
        "    [*] --> start: initiator",
        "    [*] --> await_hello: acceptor",
    ]
    for (state, successor), labels in arrows.items():
        lines.append(f"    {state} --> {successor}: {', '.join(labels)}")
    lines += [f"    {state} --> [*]" for state in sorted(ENDED)]
    lines += [
        "    note right of failed",
        "        Error sent or received, a violation, a deadline or",
        "        the end of the connection, from any other state",
        "    end note",
    ]
    return "\n".join(lines) + "\n"
