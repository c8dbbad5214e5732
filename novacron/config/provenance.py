"""Where the value of a key came from."""

from __future__ import annotations

from typing import Any

from novacron.record import Record


class Source(Record):
    """One place that can set keys; ``str()`` is what an operator reads."""

    layer: str
    """``default``, ``profile``, ``file``, ``environment``, ``command line`` or ``restored``."""
    name: str = ""
    """The profile, the file, the variable or the flag."""
    line: int = 0
    """In the file, from 1; 0 where there is none."""
    column: int = 0

    def __str__(self) -> str:
        if self.layer == "file":
            return f"{self.name}:{self.line}" if self.line else self.name
        if self.layer == "profile":
            return f"profile {self.name} (dwcp.mode)"
        return self.name or self.layer


DEFAULT = Source("default")


class Entry(Record):
    """A value as a layer gave it, not yet validated."""

    value: Any
    source: Source


Path = tuple[str, ...]
"""A key as its parts: ``("api", "port")``."""


class Override(Record):
    """A value from the command line: of ``--set KEY=VALUE``, or of a flag of its own."""

    key: str
    value: Any
    """Text is read as in an environment variable; anything else is taken as it is."""
    flag: str = "--set"
