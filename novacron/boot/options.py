"""What the engine must be told; the composition root makes it from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from novacron.boot.retry import RetryPolicy
from novacron.boot.schedule import ScheduleName
from novacron.component import Phase
from novacron.record import Record

DEFAULT_DEADLINES: Mapping[Phase, float] = MappingProxyType(
    {
        Phase.PRE_INIT: 10.0,
        Phase.CORE: 20.0,
        Phase.SERVICES: 20.0,
        Phase.POST_INIT: 10.0,
    }
)
"""Seconds; the maxima of the design's table."""


class StopBudget(Record):
    """Seconds for the three steps of a stop."""

    drain: float = 30.0
    cleanup: float = 10.0
    force: float = 5.0


class HealthOptions(Record):
    """Seconds between checks, seconds an answer is reused, deep failures in a row that count as
    the component's failure."""

    interval: float = 10.0
    deep_interval: float = 30.0
    cache: float = 5.0
    failures: int = 3


class EngineOptions(Record):
    schedule: ScheduleName = "dataflow"
    max_concurrency: int = 64
    retry: RetryPolicy = RetryPolicy()
    deadlines: Mapping[Phase, float] = DEFAULT_DEADLINES
    total: float = 30.0
    stop: StopBudget = StopBudget()
    health: HealthOptions | None = HealthOptions()
    """None runs no continuous checks."""
    start_timeouts: Mapping[str, float] = MappingProxyType({})
    """Seconds by component name, replacing the class's ``start_timeout``."""
