"""What components and the outside may see of the node: :class:`novacron.component.NodeView`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from novacron.boot.graph import critical_path
from novacron.boot.registry import PHASES
from novacron.component import (
    ComponentState,
    ComponentStatus,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    JsonObject,
    NodeState,
)
from novacron.errors import BootError, NotFoundError

if TYPE_CHECKING:
    from novacron.boot.health import HealthMonitor
    from novacron.boot.runtime import Runtime
    from novacron.boot.unit import Unit

REPORT_VERSION = 1


class UnknownComponentError(BootError, NotFoundError):
    code = "boot.unknown_component"


class BootRecord:
    """What happened, as the boot report tells it; filled in by the engine."""

    def __init__(self, boot_id: str, pid: int, started_at: float) -> None:
        self.boot_id = boot_id
        self.pid = pid
        self.started_at = started_at
        self.state = NodeState.STARTING
        self.ready_seconds: float | None = None
        self.seconds: float | None = None
        self.prelude: list[JsonObject] = []
        self.phases: list[JsonObject] = []
        self.checkpoints: list[JsonObject] = []
        self.warnings: list[str] = []
        self.rollback: JsonObject | None = None
        self.recovered: JsonObject | None = None
        self.failure: JsonObject | None = None
        self.addresses: dict[str, str] = {}
        self.configuration_digest = ""


class EngineView:
    """Made before the components, because their constructors take it; bound to the engine's parts
    before the first of them starts."""

    def __init__(self, record: BootRecord) -> None:
        self.record = record
        self._runtime: Runtime | None = None
        self._monitor: HealthMonitor | None = None

    def bind(self, runtime: Runtime, monitor: HealthMonitor) -> None:
        self._runtime = runtime
        self._monitor = monitor

    @property
    def _units(self) -> Mapping[str, Unit]:
        return {} if self._runtime is None else self._runtime.units

    @property
    def boot_id(self) -> str:
        return self.record.boot_id

    @property
    def started_at(self) -> float:
        return self.record.started_at

    @property
    def ready_seconds(self) -> float | None:
        return self.record.ready_seconds

    @property
    def addresses(self) -> dict[str, str]:
        return dict(self.record.addresses)

    def publish_address(self, kind: str, address: str) -> None:
        self.record.addresses[kind] = address

    @property
    def state(self) -> NodeState:
        if self.record.state is NodeState.READY and self.degraded():
            return NodeState.DEGRADED
        return self.record.state

    def degraded(self) -> list[JsonObject]:
        """What serves with less or not at all, and why; empty on a node that is whole."""
        found: list[JsonObject] = []
        for unit in self._units.values():
            if unit.serving and unit.state is not ComponentState.DEGRADED:
                if unit.health.state in (HealthState.DEGRADED, HealthState.UNHEALTHY):
                    entry = {"name": unit.name, "why": unit.health.message}
                    details = unit.health.details
                    found.append(entry | {n: details[n] for n in ("remedy", "key") if n in details})
                continue
            if unit.state in (ComponentState.PENDING, ComponentState.STOPPED):
                continue
            failure = unit.failure or {}
            why = failure.get("what") or f"component is {unit.state}"
            if failure.get("why"):
                why += f": {failure['why']}"
            found.append(
                {
                    "name": unit.name,
                    "why": why,
                    "remedy": failure.get("remedy", ""),
                    "key": failure.get("key", ""),
                    "fallback": unit.state is ComponentState.DEGRADED,
                }
            )
        return found

    def components(self) -> Sequence[ComponentStatus]:
        return [unit.status() for unit in self._units.values()]

    def component(self, name: str) -> ComponentStatus:
        """Raises UnknownComponentError."""
        unit = self._units.get(name)
        if unit is None:
            raise UnknownComponentError(
                f"there is no component {name}", remedy="use one of: " + ", ".join(self._units)
            )
        return unit.status()

    async def health(self, depth: HealthDepth = HealthDepth.SHALLOW) -> Mapping[str, Health]:
        return {} if self._monitor is None else await self._monitor.check_all(depth)

    def warnings(self) -> Sequence[str]:
        return tuple(self.record.warnings)

    def warn(self, message: str) -> None:
        if message not in self.record.warnings:
            self.record.warnings.append(message)

    def alive(self) -> bool:
        return self.record.state not in (NodeState.FAILED, NodeState.STOPPED) and not any(
            # One that is being restarted within its budget is no reason to kill the process.
            unit.criticality is Criticality.CRITICAL
            and unit.state in (ComponentState.FAILED, ComponentState.SKIPPED)
            and not unit.restoring
            for unit in self._units.values()
        )

    def report(self) -> JsonObject:
        record = self.record
        phases = {phase["name"]: phase for phase in record.phases}
        options = self._runtime.options if self._runtime is not None else None
        path, efficiency = self._critical_path()
        return {
            "version": REPORT_VERSION,
            "boot_id": record.boot_id,
            "pid": record.pid,
            "started": record.started_at,
            "state": str(self.state),
            "schedule": options.schedule if options else None,
            "max_concurrency": options.max_concurrency if options else None,
            "seconds": record.seconds,
            "prelude": record.prelude,
            "phases": record.phases,
            "components": [
                unit.record(phases.get(str(unit.phase), {}).get("start"))
                for unit in self._units.values()
            ],
            "checkpoints": record.checkpoints,
            "rollback": record.rollback,
            "recovered": record.recovered,
            "warnings": list(record.warnings),
            "degraded": self.degraded(),
            "failure": record.failure,
            "critical_path": path,
            "efficiency": efficiency,
            "addresses": self.addresses,
            "configuration_digest": record.configuration_digest,
        }

    def _critical_path(self) -> tuple[list[str], float | None]:
        """Names on the longest chain, phase by phase, and how much of the possible speed-up the
        boot got: the critical path's length over the time the phases really took."""
        took = {
            unit.name: unit.ready - unit.started
            for unit in self._units.values()
            if unit.ready is not None and unit.started is not None
        }
        path: list[str] = []
        length = 0.0
        for phase in PHASES:
            members = {n: u for n, u in self._units.items() if u.phase is phase and n in took}
            edges = {
                n: [d.name for d in (*u.requires, *u.wants) if d.name in members]
                for n, u in members.items()
            }
            names, seconds = critical_path(edges, took)
            path += names
            length += seconds
        spent = sum(p["end"] - p["start"] for p in self.record.phases if p["end"] is not None)
        return path, round(min(1.0, length / spent), 4) if spent > 0 and path else None
