"""The component that moves data between nodes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from novacron.component import (
    Criticality,
    DegradableComponent,
    Health,
    HealthDepth,
    HealthState,
    NodeState,
    NodeView,
    ObservableComponent,
    Phase,
    ReloadableComponent,
)
from novacron.config.schema import DwcpSettings, NetworkSettings
from novacron.data_directory import DataDirectory
from novacron.dwcp.amst.errors import DwcpUnavailableError
from novacron.dwcp.amst.service import Amst, Wanted
from novacron.dwcp.amst.transfers import Transfers
from novacron.dwcp.amst.transport import Link
from novacron.environment import Environment, Identity
from novacron.environment.path import PathMeasure
from novacron.errors import NativeError
from novacron.network import Network
from novacron.security import Security

if TYPE_CHECKING:
    from novacron.dwcp.acp.sampling import PathSampler
    from novacron.environment.modes.track import Mode

logger = logging.getLogger("novacron.dwcp")

MOST_THREADS: Final = 4
"""The engine is bound by memory bandwidth before it needs more, and VMs want the CPUs."""
START_POLL: Final = 0.1
"""Seconds between looks at whether the node is READY, which nobody waits for here."""


class Dwcp(DegradableComponent, ReloadableComponent, ObservableComponent):
    """Serves DWCP: version 3 through the C engine, or version 1 where that cannot run."""

    name: ClassVar[str] = "dwcp"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.DEGRADED
    reloadable_keys: ClassVar[frozenset[str]] = frozenset({"dwcp.amst.limit_bps"})

    def __init__(
        self,
        security: Security,
        network: Network,
        identity: Identity,
        settings: DwcpSettings,
        network_settings: NetworkSettings,
        directory: DataDirectory,
        node: NodeView,
        environment: Environment | None,
    ) -> None:
        self._security = security
        self._network = network
        self._identity = identity
        self._settings = settings
        self._network_settings = network_settings
        self._directory = directory
        self._node = node
        self._environment = environment
        self._sampler: PathSampler | None = None
        self._mode_listeners: list[Callable[[Mode], None]] = []
        self._full: Amst | None = None
        self._fallback: Amst | None = None
        self._why = ""
        self._port = 0

    @property
    def directories(self) -> tuple[str, ...]:
        """Where transfers may read and write without an administrator."""
        return self._settings.amst.directories or (str(self._directory.root / "transfers"),)

    @property
    def transfers(self) -> Transfers:
        """What moves; of the fallback while that serves.

        Raises:
          DwcpUnavailableError: the component does not serve.
        """
        serving = self._full or self._fallback
        if serving is None:
            raise DwcpUnavailableError("nothing can be moved", why="the DWCP component is down")
        return serving.transfers

    # Paths and modes -----------------------------------------------------------------------------

    def path(self, peer: str) -> PathMeasure | None:
        """What was measured of the way to *peer*; None where nothing was, and before READY."""
        return self._sampler.measure(peer) if self._sampler is not None else None

    def mode_of(self, peer: str) -> str:
        """The network mode that holds for the path to *peer*: ``dwcp.mode`` where that forces one,
        else the path's own where it was measured, else the node's."""
        environment = self._environment
        if environment is None or self._settings.mode != "auto":
            return self._settings.mode
        path = environment.path_mode(peer)
        return path.name if path is not None and path.name else environment.mode.name

    def on_mode(self, listener: Callable[[Mode], None]) -> None:
        """Have *listener* called with the node's network mode once the node is READY, and each time
        it changes, at once. It must not block. What it does may concern new connections and chunks;
        links that are open keep what was agreed on."""
        self._mode_listeners.append(listener)

    # The component contract ----------------------------------------------------------------------

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Start the engine, bind the data listener, take up interrupted transfers.

        Raises:
          DwcpUnavailableError: the C extension or libcrypto cannot be used, and version 1 was not
            asked for.
          PortTakenError, PortDeniedError, AddressUnavailableError, AddressInvalidError: about
            ``dwcp.amst.port`` and ``dwcp.amst.listen_address``.
        """
        service = self._service(v1_only=self._settings.amst.protocol == "v1")
        try:
            await service.open_engine(nursery)
        except NativeError as exc:
            self._why = f"{exc.what}: {exc.why}" if exc.why else exc.what
            raise DwcpUnavailableError(
                "protocol version 3 cannot run", why=self._why, remedy=exc.remedy
            ) from exc
        self._full = service
        if self._fallback is not None:
            # The port is its until now; from here on nothing can fail that it would still serve for.
            await self._fallback.aclose()
            self._fallback = None
        await service.open(nursery, again=self._port)
        self._opened(service, nursery)

    async def initialize_fallback(self, nursery: trio.Nursery) -> None:
        """Version 1 only."""
        self._fallback = self._service(v1_only=True, why=self._why)
        await self._fallback.open(nursery, again=self._port)
        self._opened(self._fallback, nursery)

    async def shutdown(self) -> None:
        full, self._full = self._full, None
        if full is not None:
            await full.aclose()

    async def shutdown_fallback(self) -> None:
        fallback, self._fallback = self._fallback, None
        if fallback is not None:
            await fallback.aclose()

    async def reload(self, settings: DwcpSettings) -> None:
        self._settings = settings
        if self._full is not None:
            self._full.limit(settings.amst.limit_bps)

    async def health_check(self, depth: HealthDepth) -> Health:
        serving = self._full or self._fallback
        if serving is None or not serving.listening:
            return Health(HealthState.UNHEALTHY, "the data listener is not up")
        return Health(HealthState.HEALTHY, "", {"links": len(serving.links)})

    def statistics(self) -> Mapping[str, Any]:
        serving = self._full or self._fallback
        if serving is None:
            return {"why": self._why}
        return {"mode": self._mode(), **serving.statistics()}

    def _mode(self) -> dict[str, Any]:
        wanted = self._settings.mode
        if self._environment is None:
            return {"wanted": wanted, "got": wanted, "why": ""}
        mode = self._environment.mode
        got = mode.name if mode.measured or mode.forced else f"{mode.name} (unmeasured)"
        return {"wanted": wanted, "got": got, "why": mode.why}

    def _service(self, *, v1_only: bool, why: str = "") -> Amst:
        amst = self._settings.amst
        threads = amst.threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
        return Amst(
            security=self._security,
            network=self._network,
            node_id=self._identity.node_id,
            directory=self._directory,
            settings=amst,
            acp=self._settings.acp,
            encoding=self._settings.hde,
            mode=self._settings.mode,
            mode_of=self.mode_of,
            path=self.path,
            listen_address=amst.listen_address or self._network_settings.listen_address,
            threads=threads,
            wanted=Wanted(v1_only=v1_only, why=why),
        )

    def _opened(self, service: Amst, nursery: trio.Nursery) -> None:
        self._port = service.port
        self._node.publish_address("dwcp", service.address)
        logger.info("listening for data", extra={"address": service.address})
        nursery.start_soon(self._watch_paths)

    async def _watch_paths(self) -> None:
        """Measure from READY on: no boot waits for it, nor for its import."""
        while self._node.state is NodeState.STARTING:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(START_POLL)
        if self._sampler is None:
            module = await trio.to_thread.run_sync(import_module, "novacron.dwcp.acp.sampling")
            self._sampler = module.PathSampler(
                self._network, self._present_links, self._settings.detection, self._environment
            )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sampler.run)
            if self._environment is not None:
                nursery.start_soon(self._follow_mode, self._environment)

    async def _follow_mode(self, environment: Environment) -> None:
        async for mode in environment.modes():
            for listener in self._mode_listeners:
                listener(mode)

    def _present_links(self) -> Iterator[Link]:
        serving = self._full or self._fallback
        if serving is not None:
            for keeper in serving.links:
                if keeper.link is not None:
                    yield keeper.link
