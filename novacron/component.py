"""The contract between a component and the engine that boots it, and nothing else.

A component's constructor is its dependency list. The engine reads the type hints of ``__init__``:

* ``security: Security`` (a :class:`Component` subclass) is a requirement: started first.
* ``cache: Cache | None`` is a wish: ordered after it, started without it. The argument is ``None``
  only where this node has no such component; otherwise ask ``cache.available``.
* anything else (a settings class, :class:`NodeView`, :class:`UndoLog`, …) is a value that the
  composition root or the engine provides, looked up by its type.

Constructors store their arguments and do nothing else: all are called before anything starts.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from novacron.record import Record

if TYPE_CHECKING:
    import trio

JsonObject = dict[str, Any]


class Phase(enum.StrEnum):
    """The four boot phases, in order."""

    PRE_INIT = "pre_init"
    CORE = "core"
    SERVICES = "services"
    POST_INIT = "post_init"


class Criticality(enum.StrEnum):
    """What a component's failure means for the node."""

    CRITICAL = "critical"
    """Halt: roll back and exit 1."""
    DEGRADED = "degraded"
    """Retry, then go on with the component's fallback; restored in the background."""
    WARNING = "warning"
    """Log and go on; restored in the background."""


class HealthState(enum.StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class HealthDepth(enum.Enum):
    """How hard to look. ``deadline`` is the seconds a check of this depth may take."""

    SHALLOW = 0.1
    DEEP = 1.0
    FULL = 5.0

    @property
    def deadline(self) -> float:
        return self.value


class Health(Record):
    state: HealthState
    message: str = ""
    details: Mapping[str, Any] = MappingProxyType({})


HEALTHY = Health(HealthState.HEALTHY)


class ComponentState(enum.StrEnum):
    """Where one component is in its life; the value of the ``state`` label in metrics."""

    PENDING = "pending"
    STARTING = "starting"
    RETRYING = "retrying"
    READY = "ready"
    DEGRADED = "degraded"
    """Serving on its fallback."""
    FAILED = "failed"
    """Not serving; restored in the background unless it was critical."""
    SKIPPED = "skipped"
    """Never entered: something it requires failed first."""
    STOPPING = "stopping"
    STOPPED = "stopped"


class NodeState(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    """READY, but at least one component serves on its fallback or is down."""
    STOPPING = "stopping"
    FAILED = "failed"
    STOPPED = "stopped"


UndoHandler = Callable[[Mapping[str, Any]], None]
"""Undoes one recorded effect from its JSON arguments. Runs in a worker thread, perhaps in a later
process than the one that made the effect, perhaps twice, perhaps although the effect was never
made: it must be harmless in all of these."""


class Component(ABC):
    """One part of a node. See the module's text for how dependencies are declared."""

    name: ClassVar[str]
    """Unique, lower case, ``[a-z][a-z0-9_]*``; the key of overrides such as ``boot.criticality``."""
    phase: ClassVar[Phase]
    criticality: ClassVar[Criticality]
    start_timeout: ClassVar[float] = 10.0
    """Seconds one attempt of :meth:`initialize` may take; extended by :class:`Progress`, capped by
    the phase's deadline."""
    stop_timeout: ClassVar[float] = 5.0
    """Seconds :meth:`shutdown` may take before the engine goes on without it."""
    undo_handlers: ClassVar[Mapping[str, UndoHandler]] = {}
    """How to undo each kind of effect this component records in :class:`UndoLog`."""

    available: bool = False
    """Set by the engine: this component serves, in full or on its fallback."""

    @abstractmethod
    async def initialize(self, nursery: trio.Nursery) -> None:
        """Return when ready for dependents, never before.

        *nursery* is this component's own: every task it starts lives there; it is cancelled after
        :meth:`shutdown` has returned. A task that raises after this returned means the component
        failed at run time. May be called again after :meth:`shutdown` (restart, restoration).
        """

    async def health_check(self, depth: HealthDepth) -> Health:
        """Say how it goes, within ``depth.deadline`` seconds. Must not change anything."""
        return HEALTHY

    async def drain(self) -> None:
        """Stop accepting new work and return when the work in flight is done.

        Called before any :meth:`shutdown`, under the node's drain deadline; may be cancelled.
        """
        return

    @abstractmethod
    async def shutdown(self) -> None:
        """Release everything. Called exactly once for each time the component was entered, also
        when :meth:`initialize` failed, timed out or was cancelled half-way: copes with a half-built
        self. Runs shielded, under ``stop_timeout``."""

    async def dependency_changed(self, dependency: Component) -> None:
        """A dependency came, went, or moved to or from its fallback at run time. Its object stays
        the same; look at ``dependency.available``."""
        return


class DegradableComponent(Component):
    """A component that can serve with less after :meth:`initialize` failed for good.

    While the fallback serves, the engine calls ``initialize`` again and again to restore the
    component, and ``shutdown`` after each attempt that failed: neither may disturb the fallback.
    Once ``initialize`` returned, the fallback is shut down.
    """

    @abstractmethod
    async def initialize_fallback(self, nursery: trio.Nursery) -> None:
        """Serve dependents with less; must not need what :meth:`initialize` failed on. *nursery*
        is the fallback's own and is cancelled after :meth:`shutdown_fallback` has returned."""

    @abstractmethod
    async def shutdown_fallback(self) -> None:
        """Release what :meth:`initialize_fallback` took, also when that failed half-way."""


class Announcer(Component):
    """A component that tells the outside that the node is READY."""

    @abstractmethod
    async def announce(self) -> None:
        """Called after the last checkpoint of the boot is durable. What it raises then fails the
        boot, which is rolled back; :meth:`shutdown` takes the announcement back. Called again when
        something was restored at run time: an address may be another one now."""


class ReloadableComponent(Component):
    """The design's ``ConfigurableComponent``: takes new settings at run time (SIGHUP)."""

    reloadable_keys: ClassVar[frozenset[str]]
    """Dotted configuration keys that :meth:`reload` can apply; all others need a restart."""

    @abstractmethod
    async def reload(self, settings: Any) -> None:
        """Apply a new instance of the settings class the constructor takes. Only keys in
        :attr:`reloadable_keys` differ."""


class ObservableComponent(Component):
    """Offers figures of its own for the API's component page."""

    @abstractmethod
    def statistics(self) -> Mapping[str, Any]:
        """A JSON-serialisable snapshot; cheap, never blocks."""


class UndoLog(Protocol):
    """Where an effect that outlives the process is recorded *before* it is made."""

    async def record(
        self, component: str, kind: str, arguments: Mapping[str, Any], *, until_stop: bool = False
    ) -> str:
        """Durably note that effect *kind* of *component* is about to be made; returns the step's
        id. It is undone if the boot fails before the next checkpoint or, with *until_stop*, when
        the node dies at any time without :meth:`discharge`."""
        ...

    async def discharge(self, step: str) -> None:
        """The effect was undone, or made permanent, by the component itself."""
        ...


class Progress(Protocol):
    """Lets a slow start show that it is alive."""

    def advance(self, component: str, message: str, *, extend: float = 5.0) -> None:
        """Report progress and move the attempt's deadline to *extend* seconds from now (never past
        the phase's deadline). Also tells systemd (EXTEND_TIMEOUT_USEC) and the live view."""
        ...


class ComponentStatus(Record):
    name: str
    phase: Phase
    criticality: Criticality
    state: ComponentState
    health: Health
    requires: Sequence[str]
    wants: Sequence[str]
    attempts: int
    restorations: int
    start_seconds: float | None
    """Seconds from entering to ready, retry sleeps included; None while not ready."""
    failure: JsonObject | None
    """``{"error", "what", "why", "remedy", "key", "attempt", "elapsed"}`` of the last failure."""


class NodeView(Protocol):
    """What a component may see of the node it runs in. Provided by the engine."""

    @property
    def boot_id(self) -> str: ...
    @property
    def state(self) -> NodeState: ...
    @property
    def started_at(self) -> float:
        """Wall-clock time of the process start, seconds since the epoch."""
        ...

    @property
    def ready_seconds(self) -> float | None:
        """Seconds from the kernel's process start to READY; None before."""
        ...

    @property
    def addresses(self) -> dict[str, str]:
        """Addresses served on: ``rest``, ``metrics``, ``peer``, ``dwcp`` → ``host:port``."""
        ...

    def publish_address(self, kind: str, address: str) -> None:
        """Called by a component once its listener is bound."""
        ...

    def components(self) -> Sequence[ComponentStatus]: ...
    def component(self, name: str) -> ComponentStatus: ...
    async def health(self, depth: HealthDepth = HealthDepth.SHALLOW) -> Mapping[str, Health]:
        """Health of every component, by name; shallow answers may be up to 5 s old."""
        ...

    def degraded(self) -> Sequence[JsonObject]:
        """What serves with less or not at all: objects with ``name``, ``why``, and where known
        ``remedy``, ``key``, ``fallback``. Empty exactly when :attr:`state` is not degraded."""
        ...

    def warnings(self) -> Sequence[str]: ...
    def warn(self, message: str) -> None:
        """Add a sentence to the summary, the report and ``status`` (does not degrade the node)."""
        ...

    def report(self) -> JsonObject:
        """The boot report so far; see ``docs/reference/boot-report.md``."""
        ...

    def alive(self) -> bool:
        """Liveness: the event loop turns and no critical component is down."""
        ...
