"""Whether this host is enough for a node: size, disk, ports."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import trio

from novacron.component import (
    HEALTHY,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeView,
    ObservableComponent,
    Phase,
)
from novacron.config import LoadedConfiguration
from novacron.config.schema import (
    ApiSettings,
    DwcpSettings,
    MonitoringSettings,
    NetworkSettings,
    ResourcesSettings,
)
from novacron.data_directory import DataDirectory
from novacron.environment.data_access import (
    DataDirectoryFullError,
    check_writable,
    data_directory_error,
)
from novacron.environment.detection import Environment
from novacron.environment.host_class import (
    Measured,
    Minimum,
    Shortfall,
    classify,
    shortfalls,
    size,
)
from novacron.environment.machine import Machine
from novacron.environment.ports import Listener, check_ports
from novacron.environment.probes import cgroup, cpu, disk, interfaces, memory
from novacron.errors import EnvironmentProbeError, InvalidError, NovaCronError
from novacron.record import Record

logger = logging.getLogger("novacron.environment.resources")


class HostBelowMinimumError(EnvironmentProbeError, InvalidError):
    """The host has less than the configuration asks for, and ``resources.enforce`` is strict."""

    code = "environment.host_below_minimum"


class Survey(Record):
    """What one look at the host found."""

    measured: Measured
    reasons: Mapping[str, str]
    """By measured field: what narrows it below the host's own, or why it is unknown."""
    free_disk_bytes: int


NOT_SURVEYED = Survey(Measured(), {}, 0)


class Resources(ObservableComponent):
    """Checks the host at boot; afterwards watches the free disk space."""

    name: ClassVar[str] = "resources"
    phase: ClassVar[Phase] = Phase.PRE_INIT
    criticality: ClassVar[Criticality] = Criticality.CRITICAL

    def __init__(
        self,
        settings: ResourcesSettings,
        configuration: LoadedConfiguration,
        data_directory: DataDirectory,
        api: ApiSettings,
        network: NetworkSettings,
        monitoring: MonitoringSettings,
        dwcp: DwcpSettings,
        view: NodeView,
        environment: Environment | None,
    ) -> None:
        self._settings = settings
        self._configuration = configuration
        classes = configuration.settings.boot.criticality
        self._root = data_directory.root
        self._listeners = (
            Listener("api", api.listen_address, api.port),
            Listener("network", network.listen_address, network.port),
            # Metrics and data are dispensable: a port they do not get is told by their own component,
            # which the node goes on without. Not so where somebody wrote that they are critical.
            *(
                listener
                for name, listener in (
                    (
                        "monitoring",
                        Listener("monitoring", monitoring.listen_address, monitoring.port),
                    ),
                    (
                        "dwcp",
                        Listener(
                            "dwcp.amst",
                            dwcp.amst.listen_address or network.listen_address,
                            dwcp.amst.port,
                        ),
                    ),
                )
                if classes.get(name) == "critical"
            ),
        )
        self._view = view
        self._environment = environment
        self._machine = Machine(data_directory=str(data_directory.root))
        self._survey = NOT_SURVEYED
        self._missing: list[Shortfall] = []

    async def initialize(self, nursery: trio.Nursery) -> None:
        """
        Raises:
          DataDirectoryError: the data directory cannot be written, or is nearly full.
          PortTakenError, PortDeniedError, AddressUnavailableError, AddressInvalidError: a listener
            would not get its port.
          HostBelowMinimumError: too small, where that is enforced.
        """
        # One hop to a thread for all of it; a file system that hangs leaves the thread behind and
        # the start's deadline reports it.
        self._survey = await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
        minimum = Minimum(
            self._settings.min_cpus,
            self._settings.min_memory_bytes,
            self._settings.min_disk_bytes,
        )
        self._missing = [
            self._explained(missing) for missing in shortfalls(self._survey.measured, minimum)
        ]
        self._judge()

    async def shutdown(self) -> None:
        self._missing = []

    async def health_check(self, depth: HealthDepth) -> Health:
        if depth is HealthDepth.SHALLOW:
            return HEALTHY
        with trio.move_on_after(depth.deadline / 2):
            try:
                space = await trio.to_thread.run_sync(
                    disk.measure, str(self._root), abandon_on_cancel=True
                )
            except OSError as exc:
                return Health(HealthState.DEGRADED, f"the data directory's disk: {exc.strerror}")
            if space.free_bytes < self._settings.min_free_disk_bytes:
                # Not unhealthy: stopping the node frees nothing, and its VMs may still run.
                return Health(
                    HealthState.DEGRADED,
                    f"{size(space.free_bytes)} free in {self._root}, less than "
                    f"resources.min_free_disk_bytes ({size(self._settings.min_free_disk_bytes)})",
                )
            return HEALTHY
        return Health(HealthState.DEGRADED, f"the disk of {self._root} does not answer")

    @property
    def strict(self) -> bool:
        """Whether a host below the minimum halts the boot. ``auto`` is strict where somebody wrote
        a configuration for this host, and lenient on a first try without one."""
        enforce = self._settings.enforce
        return enforce == "strict" or (enforce == "auto" and self._configuration.file_given)

    def statistics(self) -> Mapping[str, Any]:
        measured = self._survey.measured._replace(network_bps=self._network_bps())
        return {
            "class": classify(measured),
            "measured": measured._asdict(),
            "limited_by": dict(self._survey.reasons),
            "free_disk_bytes": self._survey.free_disk_bytes,
            "enforce": "strict" if self.strict else "warn",
            "shortfalls": [missing._asdict() for missing in self._missing],
        }

    def _look(self) -> Survey:
        check_writable(self._root)
        try:
            space = disk.measure(str(self._root))
        except OSError as exc:
            raise data_directory_error("measure the data directory", self._root, exc) from exc
        self._check_free(self._root, space.free_bytes)
        check_ports(self._listeners, self._machine)
        return survey(self._machine, space)

    def _check_free(self, root: Path, free_bytes: int) -> None:
        least = self._settings.min_free_disk_bytes
        if free_bytes < least:
            raise DataDirectoryFullError(
                f"too little free space in {root}",
                why=f"{size(free_bytes)} free, {size(least)} needed",
                remedy="free some space, set system.data_dir to a larger file system, or lower "
                "resources.min_free_disk_bytes",
                key="resources.min_free_disk_bytes",
            )

    def _explained(self, missing: Shortfall) -> Shortfall:
        field = missing.key.removeprefix("resources.min_")
        reason = self._survey.reasons.get(field)
        return missing._replace(text=f"{missing.text} ({reason})") if reason else missing

    def _judge(self) -> None:
        grades = classify(self._survey.measured)
        logger.info("host class: %s", grades["host"], extra={"host_class": grades})
        for field, value in self._survey.measured._asdict().items():
            if value is None and field != "network_bps":
                self._warn(
                    f"the host's {field.removesuffix('_bytes')} could not be found out, and was "
                    f"not checked: {self._survey.reasons.get(field, 'no reason known')}"
                )
        if not self._missing:
            return
        keys = ", ".join(missing.key for missing in self._missing)
        listed = ", ".join(missing.text for missing in self._missing)
        if self.strict:
            raise HostBelowMinimumError(
                "this host is below the minimum",
                why=listed,
                remedy=f"use a larger host, lower {keys}, or set resources.enforce to warn",
                key=keys,
            )
        self._warn(f"this host is below the minimum: {listed} [{keys}]")

    def _warn(self, message: str) -> None:
        # A restart of this component says nothing new.
        if message not in self._view.warnings():
            self._view.warn(message)

    def _network_bps(self) -> int | None:
        if self._environment is None:
            return None
        fact = self._environment.facts().get("interfaces")
        if fact is None or fact["state"] != "known":
            return None
        return interfaces.fastest_bps(fact["value"])


def survey(machine: Machine, space: disk.Space) -> Survey:
    """What this process may use of *machine*: its own, narrowed by affinity and control groups."""
    reasons: dict[str, str] = {}
    limit: cgroup.Limits | None = None
    try:
        limit = cgroup.limits(machine)
    except (OSError, ValueError) as exc:
        # Without the limits any number might be too high, so none is claimed.
        reasons["cpus"] = reasons["memory_bytes"] = f"control groups cannot be read ({exc})"
    cpus: float | None = None
    total: int | None = None
    if limit is not None:
        cpus = float(cpu.usable())
        if cpus < (os.cpu_count() or 0):
            reasons["cpus"] = f"affinity leaves {cpus:g} of {os.cpu_count()}"
        if limit.cpus is not None and limit.cpus < cpus:
            cpus = limit.cpus
            reasons["cpus"] = "limited by the control group's CPU quota"
        try:
            total = memory.total_bytes(machine)
        except (OSError, NovaCronError) as exc:
            reasons["memory_bytes"] = str(exc)
        if total is not None and limit.memory_bytes is not None and limit.memory_bytes < total:
            total = limit.memory_bytes
            reasons["memory_bytes"] = f"limited by control group {limit.path}"
    return Survey(Measured(cpus, total, space.total_bytes), reasons, space.free_bytes)
