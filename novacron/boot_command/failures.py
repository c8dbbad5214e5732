"""Errors as an operator reads them: what failed, why, what to do, which key."""

from __future__ import annotations

from novacron.errors import NovaCronError


def explain(error: NovaCronError) -> str:
    """One block of text, ending in a newline; a list of problems is shown whole."""
    if getattr(error, "problems", ()):
        return f"{error}\n"
    lines = [f"{error.what[:1].upper()}{error.what[1:]}."]
    if error.why:
        lines.append(f"  why:    {error.why}")
    if error.remedy:
        lines.append(f"  remedy: {error.remedy}")
    if error.key:
        lines.append(f"  key:    {error.key}")
    return "\n".join(lines) + "\n"
