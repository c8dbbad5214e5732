"""The component that moves data between nodes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import trio

from novacron.component import (
    Criticality,
    DegradableComponent,
    Health,
    HealthDepth,
    HealthState,
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
from novacron.environment import Identity
from novacron.errors import NativeError
from novacron.network import Network
from novacron.security import Security

logger = logging.getLogger("novacron.dwcp")

MOST_THREADS: Final = 4
"""The engine is bound by memory bandwidth before it needs more, and VMs want the CPUs."""


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
    ) -> None:
        self._security = security
        self._network = network
        self._identity = identity
        self._settings = settings
        self._network_settings = network_settings
        self._directory = directory
        self._node = node
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
        self._opened(service)

    async def initialize_fallback(self, nursery: trio.Nursery) -> None:
        """Version 1 only."""
        self._fallback = self._service(v1_only=True, why=self._why)
        await self._fallback.open(nursery, again=self._port)
        self._opened(self._fallback)

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
        return serving.statistics() if serving is not None else {"why": self._why}

    def _service(self, *, v1_only: bool, why: str = "") -> Amst:
        amst = self._settings.amst
        threads = amst.threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
        return Amst(
            security=self._security,
            network=self._network,
            node_id=self._identity.node_id,
            directory=self._directory,
            settings=amst,
            encoding=self._settings.hde,
            mode=self._settings.mode,
            listen_address=amst.listen_address or self._network_settings.listen_address,
            threads=threads,
            wanted=Wanted(v1_only=v1_only, why=why),
        )

    def _opened(self, service: Amst) -> None:
        self._port = service.port
        self._node.publish_address("dwcp", service.address)
        logger.info("listening for data", extra={"address": service.address})
