"""What the engine remembers of one component: its place in the graph, its life, its record."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from novacron.boot.events import describe_error
from novacron.boot.life import Life
from novacron.boot.registry import Definition
from novacron.boot.retry import Backoff
from novacron.component import (
    ComponentState,
    ComponentStatus,
    Health,
    HealthDepth,
    HealthState,
    JsonObject,
)
from novacron.errors import NovaCronError

_log = logging.getLogger("novacron.boot")

_SERVING = (ComponentState.READY, ComponentState.DEGRADED)
UNCHECKED = Health(HealthState.UNKNOWN, "not checked yet")


class Unit:
    """Mutable; only the Trio thread touches it. Times are seconds since process start."""

    __slots__ = (
        "_deep_trouble",
        "attempts",
        "backoff",
        "component",
        "criticality",
        "dependents",
        "eligible",
        "entered",
        "failure",
        "failure_error",
        "fallback_life",
        "fell_back",
        "health",
        "hosts",
        "life",
        "lost_at",
        "name",
        "phase",
        "ready",
        "requires",
        "restorations",
        "restoring",
        "retry_sleep",
        "sleep_scope",
        "start_seconds",
        "started",
        "state",
        "stop_asked",
        "stop_error",
        "stopped",
        "tries",
        "wants",
        "wishers",
    )

    def __init__(self, definition: Definition, backoff: Backoff) -> None:
        self.name = definition.name
        self.phase = definition.phase
        self.criticality = definition.criticality
        self.component = definition.component
        self.requires: list[Unit] = []
        self.wants: list[Unit] = []
        self.dependents: list[Unit] = []
        """Units that require this one."""
        self.wishers: list[Unit] = []
        """Units that want this one."""
        self.backoff = backoff
        self.state = ComponentState.PENDING
        self.life: Life | None = None
        self.fallback_life: Life | None = None
        self.hosts = 0
        """Tasks that carry a life of this component; 0 means nothing of it runs."""
        self.stop_asked = False
        self.stop_error: BaseException | None = None
        self.sleep_scope: trio.CancelScope | None = None
        self.eligible: float | None = None
        self.started: float | None = None
        self.ready: float | None = None
        """``started`` and ``ready`` belong to the boot; the report keeps them whatever comes."""
        self.entered = 0.0
        """When the newest start began, in the boot or later."""
        self.start_seconds: float | None = None
        self.stopped: float | None = None
        self.attempts: list[JsonObject] = []
        """The attempts of the boot, for the report; those of later restorations are only counted."""
        self.tries = 0
        self.retry_sleep = 0.0
        self.fell_back = False
        """The boot left it on its fallback."""
        self.restorations = 0
        self.restoring = False
        self.lost_at: float | None = None
        self.failure: JsonObject | None = None
        self.failure_error: BaseException | None = None
        self.health = UNCHECKED
        """The answer that says most: see :meth:`note_health`."""
        self._deep_trouble = False

    @property
    def serving(self) -> bool:
        return self.state in _SERVING

    def move(self, state: ComponentState) -> None:
        self.state = state
        self.component.available = state in _SERVING

    def note_ready(self) -> None:
        """It serves in full, and nothing found out before says anything about that."""
        self._deep_trouble = False
        self.health = UNCHECKED
        self.move(ComponentState.READY)

    def note_health(self, depth: HealthDepth, health: Health) -> None:
        """Keep an answer. A shallow look that finds nothing does not take back what a deep one
        found: only the next deep look can."""
        if not self.serving:
            return
        if depth is not HealthDepth.SHALLOW:
            self._deep_trouble = health.state is not HealthState.HEALTHY
        elif self._deep_trouble and health.state is HealthState.HEALTHY:
            return
        self.health = health

    def note_failure(self, error: BaseException, at: float) -> None:
        if not isinstance(error, NovaCronError):
            # A fault of our own: where it was raised is what whoever mends it has to know.
            _log.error("%s met an unexpected exception", self.name, exc_info=error)
        self.failure_error = error
        self.health = Health(HealthState.UNHEALTHY, str(error))
        self.failure = {
            **describe_error(error),
            "attempt": self.tries,
            "elapsed": round(at - self.entered, 6) if self.tries else 0.0,
        }

    def request_stop(self, reason: Exception) -> None:
        """Ask everything of this component that runs to end; its hosts do the rest."""
        self.stop_asked = True
        if self.sleep_scope is not None:
            self.sleep_scope.cancel()
        for life in (self.life, self.fallback_life):
            if life is not None:
                life.cancel_start(reason)
                life.stop_requested.set()

    def force_stop(self) -> None:
        for life in (self.life, self.fallback_life):
            if life is not None:
                life.force()

    def status(self) -> ComponentStatus:
        return ComponentStatus(
            name=self.name,
            phase=self.phase,
            criticality=self.criticality,
            state=self.state,
            health=self.health,
            requires=tuple(unit.name for unit in self.requires),
            wants=tuple(unit.name for unit in self.wants),
            attempts=self.tries,
            restorations=self.restorations,
            start_seconds=self.start_seconds,
            failure=self.failure,
        )

    def record(self, phase_started: float | None) -> JsonObject:
        """This unit's entry in the boot report."""
        return {
            "name": self.name,
            "phase": str(self.phase),
            "criticality": str(self.criticality),
            "requires": [unit.name for unit in self.requires],
            "wants": [unit.name for unit in self.wants],
            "state": str(self.state),
            "phase_started": _rounded(phase_started),
            "eligible": _rounded(self.eligible),
            "started": _rounded(self.started),
            "ready": _rounded(self.ready),
            "attempts": self.attempts,
            "fallback": self.fell_back,
            "retry_sleep": _rounded(self.retry_sleep),
            "stopped": _rounded(self.stopped),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def link(definitions: list[Definition], make_backoff: Callable[[], Backoff]) -> dict[str, Unit]:
    """Units by name, in the definitions' order, with their neighbours filled in."""
    units = {d.name: Unit(d, make_backoff()) for d in definitions}
    for definition in definitions:
        unit = units[definition.name]
        for name in dict.fromkeys(definition.requires):
            unit.requires.append(units[name])
            units[name].dependents.append(unit)
        for name in dict.fromkeys(definition.wants):
            unit.wants.append(units[name])
            units[name].wishers.append(unit)
    return units
