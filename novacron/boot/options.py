"""What the engine must be told; the composition root makes it from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from novacron.boot.retry import RetryPolicy
from novacron.boot.schedule import ScheduleName
from novacron.component import Phase

DEFAULT_DEADLINES = {
    Phase.PRE_INIT: 10.0,
    Phase.CORE: 20.0,
    Phase.SERVICES: 20.0,
    Phase.POST_INIT: 10.0,
}
"""Seconds; the maxima of the design's table."""


@dataclass(frozen=True, slots=True)
class StopBudget:
    """Seconds for the three steps of a stop."""

    drain: float = 30.0
    cleanup: float = 10.0
    force: float = 5.0


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """Seconds between checks, seconds an answer is reused, deep failures in a row that count as
    the component's failure."""

    interval: float = 10.0
    deep_interval: float = 30.0
    cache: float = 5.0
    failures: int = 3


@dataclass(frozen=True, slots=True)
class EngineOptions:
    schedule: ScheduleName = "dataflow"
    max_concurrency: int = 64
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    deadlines: Mapping[Phase, float] = field(default_factory=lambda: dict(DEFAULT_DEADLINES))
    total: float = 30.0
    stop: StopBudget = field(default_factory=StopBudget)
    health: HealthOptions | None = field(default_factory=HealthOptions)
    """None runs no continuous checks."""
    start_timeouts: Mapping[str, float] = field(default_factory=dict)
    """Seconds by component name, replacing the class's ``start_timeout``."""
