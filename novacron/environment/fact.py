"""What is known about the machine, one fact a probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from novacron.component import JsonObject
from novacron.environment.machine import Machine
from novacron.errors import EnvironmentProbeError, UnavailableError
from novacron.record import Record

Value = Any
"""JSON-serialisable."""


class FactUnknownError(EnvironmentProbeError, UnavailableError):
    """A probe cannot say: its fact is unknown, for the reason in this error."""

    code = "environment.fact_unknown"


class Probe(Record):
    """One question to the machine. ``ask`` runs in a worker thread and may block; whatever it
    raises makes the fact unknown."""

    name: str
    ask: Callable[[Machine], Value]
    patient: bool = False
    """May wait until the node is READY: imports something heavy that nobody needs before."""


class Fact(Record):
    state: str
    """``known``, ``unknown`` (see ``reason``) or ``pending``."""
    value: Value = None
    reason: str = ""
    took_ms: float | None = None

    def as_json(self) -> JsonObject:
        return self._asdict()


PENDING = Fact("pending")
