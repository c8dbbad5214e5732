"""The composition root: which components make a node, from which settings.

Orchestration and the ML engine are not here yet: a component that is not real is not
registered.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from novacron.boot.checkpoint import BootState
from novacron.boot.engine import Engine
from novacron.boot.events import Event
from novacron.boot.node_view import BootRecord, EngineView
from novacron.boot.options import EngineOptions, HealthOptions, StopBudget
from novacron.boot.registry import Definition, Registry
from novacron.boot.retry import RetryPolicy
from novacron.boot.undo import JournalledUndoLog
from novacron.boot.unit import Unit
from novacron.component import (
    Component,
    JsonObject,
    NodeView,
    Phase,
    Progress,
    ReloadableComponent,
    UndoLog,
)
from novacron.config import LoadedConfiguration
from novacron.config.schema import Settings
from novacron.data_directory import DataDirectory
from novacron.errors import ConfigError
from novacron.readiness import ReadyFile
from novacron.record import Record

_log = logging.getLogger("novacron.node")


def component_classes() -> list[type[Component]]:
    """Every component of a node, in the order ties are broken."""
    from novacron.anchoring import Anchoring
    from novacron.api import Api
    from novacron.cache import Cache
    from novacron.config import Configuration
    from novacron.database import Database
    from novacron.dwcp import Dwcp
    from novacron.environment import Environment, Identity, Resources
    from novacron.log import Logger
    from novacron.monitoring import Monitoring
    from novacron.network import Network
    from novacron.readiness import (
        BackgroundJobs,
        Discovery,
        ReadySignal,
        StartupMetrics,
        SystemHealth,
    )
    from novacron.security import Security
    from novacron.trust import Trust

    return [
        Configuration,
        Logger,
        Environment,
        Identity,
        Resources,
        Security,
        Database,
        Cache,
        Network,
        Trust,
        Anchoring,
        Dwcp,
        Api,
        Monitoring,
        SystemHealth,
        StartupMetrics,
        Discovery,
        BackgroundJobs,
        ReadySignal,
    ]


def engine_options(settings: Settings) -> EngineOptions:
    boot = settings.boot
    return EngineOptions(
        schedule=boot.schedule,
        max_concurrency=boot.max_concurrency,
        retry=RetryPolicy(
            attempts=boot.retry.attempts,
            delay=boot.retry.delay,
            factor=boot.retry.factor,
            max_delay=boot.retry.max_delay,
            jitter=boot.retry.jitter,
            reset_after=boot.retry.reset_after,
        ),
        deadlines={phase: getattr(boot.deadlines, phase) for phase in Phase},
        total=boot.deadlines.total,
        stop=StopBudget(boot.stop.drain, boot.stop.cleanup, boot.stop.force),
        health=_health_options(settings),
        start_timeouts=dict(boot.start_timeout),
    )


def _health_options(settings: Settings) -> HealthOptions:
    health = settings.boot.health
    return HealthOptions(health.interval, health.deep_interval, health.cache, health.failures)


class _ProgressDesk:
    """Takes progress from components and passes it to the engine, which is made after them."""

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def advance(self, component: str, message: str, *, extend: float = 5.0) -> None:
        if self.engine is not None:
            self.engine.progress(component, message, extend)


class Composition(Record):
    """A node that is put together and not started."""

    engine: Engine
    definitions: list[Definition]
    view: EngineView


def resolve(
    loaded: LoadedConfiguration, data: DataDirectory, values: dict[Any, object] | None = None
) -> list[Definition]:
    """Check the graph and construct every component.

    *values* are what the engine provides; without them the result can be looked at, not started.

    Raises GraphError.
    """
    registry = Registry(
        {LoadedConfiguration: loaded, DataDirectory: data, ReadyFile: ReadyFile(None)}
    )
    settings = loaded.settings
    registry.provide(Settings, settings)
    for section in type(settings).model_fields:
        value = getattr(settings, section)
        registry.provide(type(value), value)
    inert = EngineView(BootRecord("", os.getpid(), 0.0))
    for kind, value in {
        NodeView: inert,
        UndoLog: None,
        Progress: _ProgressDesk(),
        **(values or {}),
    }.items():
        registry.provide(kind, value)
    for component_class in component_classes():
        registry.add(component_class)
    return registry.resolve(settings.boot.criticality)


def check_component_names(loaded: LoadedConfiguration) -> None:
    """Keys that name a component name one there is. Apart from loading, because the configuration
    stands below the components and does not know them.

    Raises:
      ConfigInvalidError: lists every name that is wrong, with its place.
    """
    boot = loaded.settings.boot
    named: dict[str, Mapping[str, object]] = {
        "criticality": boot.criticality,
        "start_timeout": boot.start_timeout,
    }
    if not any(named.values()):
        return
    from novacron.config.errors import ConfigInvalidError, Problem, nearest

    known = sorted(component.name for component in component_classes())
    problems = []
    for field, names in named.items():
        for name in names:
            if name not in known:
                key = f"boot.{field}.{name}"
                guess = nearest(name, known)
                problems.append(
                    Problem(
                        key,
                        loaded.source(key),
                        "there is no such component",
                        "a name of " + ", ".join(known),
                        f"boot.{field}.{guess}" if guess else "",
                    )
                )
    if problems:
        raise ConfigInvalidError(problems)


def compose(
    loaded: LoadedConfiguration,
    data: DataDirectory,
    record: BootRecord,
    state: BootState,
    *,
    publish: Callable[[Event], None],
    save_report: Callable[[JsonObject], str | None],
    elapsed: Callable[[], float],
    ready_file: ReadyFile,
) -> Composition:
    """Put a node together. *state* belongs to the caller, who closes it.

    Raises GraphError: the graph cannot be booted; nothing was started.
    """
    view = EngineView(record)
    progress = _ProgressDesk()
    definitions = resolve(
        loaded,
        data,
        {
            NodeView: view,
            UndoLog: JournalledUndoLog(state),
            Progress: progress,
            ReadyFile: ready_file,
        },
    )
    configuration = loaded.as_dict()
    record.configuration_digest = loaded.digest
    state.describe_configuration(loaded.digest, configuration)
    engine = Engine(
        definitions,
        engine_options(loaded.settings),
        view,
        publish=publish,
        state=state,
        save_report=save_report,
        elapsed=elapsed,
        data_dir=str(data.root),
        log_file=str(data.log / "novacron.log") if loaded.settings.system.log_file else None,
    )
    progress.engine = engine
    return Composition(engine, definitions, view)


def new_boot_id() -> str:
    return os.urandom(16).hex()


async def reload(composition: Composition) -> None:
    """Read the configuration again and apply what can be applied without a restart.

    The other changed keys are named in the log and stay as they are. An invalid configuration
    changes nothing.
    """
    from novacron.config import Configuration
    from novacron.config.component import changes, merged

    units = composition.engine.runtime.units
    configuration = units["configuration"].component
    assert isinstance(configuration, Configuration)
    try:
        loaded = await configuration.reread()
    except ConfigError as exc:
        _log.error("the configuration was not reloaded: %s", exc)
        return
    found = changes(configuration.loaded, loaded)
    applied = [change for change in found if change.reloadable]
    refused = [change.key for change in found if not change.reloadable]
    for unit in units.values():
        await _reload_one(unit, loaded, {change.key for change in applied})
    if refused:
        _log.error("these changed keys need a restart and stay as they are: %s", ", ".join(refused))
        loaded = merged(configuration.loaded, loaded, [change.key for change in applied])
    configuration.adopt(loaded)
    composition.engine.change_health(_health_options(loaded.settings))
    _log.info(
        "configuration reloaded", extra={"changed": {change.key: change.new for change in applied}}
    )


async def _reload_one(unit: Unit, loaded: LoadedConfiguration, changed: set[str]) -> None:
    component = unit.component
    if not isinstance(component, ReloadableComponent) or not changed & component.reloadable_keys:
        return
    sections = {key.split(".", 1)[0] for key in component.reloadable_keys}
    for section in sections:
        try:
            await component.reload(getattr(loaded.settings, section))
        except Exception:
            _log.exception(
                "a component did not take its new settings", extra={"component": unit.name}
            )
