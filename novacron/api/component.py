"""The component that serves the REST interface.

Its start has two halves. The listener is bound and answers the probes as soon as Hypercorn is
imported; FastAPI, ten times that cost, is imported and the application built in a worker thread
meanwhile. Ready means that the interface answers, not that it will.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from novacron.api.probes import Front
from novacron.api.rate import Buckets
from novacron.api.services import Services
from novacron.boot.report_store import ReportStore
from novacron.cache import Cache
from novacron.component import (
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeView,
    ObservableComponent,
    Phase,
    ReloadableComponent,
)
from novacron.config import LoadedConfiguration
from novacron.config.schema import ApiSettings
from novacron.data_directory import DataDirectory
from novacron.database import Database
from novacron.dwcp import Dwcp
from novacron.environment import Environment, Identity
from novacron.http import HttpServer, Limits, listener_address, listener_port, open_listener
from novacron.network import Network
from novacron.security import Security
from novacron.trust import Trust

if TYPE_CHECKING:
    from novacron.api.cluster_tokens import ClusterTokens

PROBE_TIMEOUT = 0.5
"""Seconds for the deep check's connection to ourselves; half of what the check may take."""


class Api(ReloadableComponent, ObservableComponent):
    """REST under ``/api/v1``, and ``/livez``, ``/readyz``, ``/startupz``."""

    name: ClassVar[str] = "api"
    phase: ClassVar[Phase] = Phase.SERVICES
    criticality: ClassVar[Criticality] = Criticality.CRITICAL
    reloadable_keys: ClassVar[frozenset[str]] = frozenset({"api.rate_limit", "api.rate_burst"})

    def __init__(
        self,
        security: Security,
        database: Database,
        cache: Cache | None,
        network: Network | None,
        trust: Trust | None,
        dwcp: Dwcp | None,
        environment: Environment,
        identity: Identity,
        configuration: LoadedConfiguration,
        settings: ApiSettings,
        directory: DataDirectory,
        node: NodeView,
    ) -> None:
        self._security = security
        self._settings = settings
        self._node = node
        self._services = Services(
            node=node,
            identity=identity,
            security=security,
            database=database,
            cache=cache,
            network=network,
            trust=trust,
            dwcp=dwcp,
            environment=environment,
            configuration=configuration,
            reports=ReportStore(directory),
            api=self,
            cluster_tokens=_cluster_tokens(database, cache, configuration),
        )
        self._buckets = Buckets(settings.rate_limit, settings.rate_burst)
        self._front: Front | None = None
        self._server: HttpServer | None = None
        self._address = ""
        self._port = 0

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Bind, answer probes, then build and serve the interface.

        Raises:
          PortTakenError, PortDeniedError, AddressUnavailableError, AddressInvalidError: see
            :func:`novacron.http.open_listener`.
          PolicyError: a route declares no role; the release is broken.
        """
        settings = self._settings
        tls = self._tls()
        listener = await open_listener(
            settings.listen_address, settings.port, section="api", again=self._port
        )
        self._port = listener_port(listener)
        self._address = listener_address(listener)
        front = self._front = Front(self._node)
        limits = Limits(max_connections=settings.max_connections)
        self._server = HttpServer("api", front, limits, tls)
        await nursery.start(self._server.serve, listener)
        front.inner = await trio.to_thread.run_sync(
            _build, self._services, self._buckets, settings, abandon_on_cancel=True
        )
        self._node.publish_address("rest", self._address)

    async def reload(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._buckets.adjust(settings.rate_limit, settings.rate_burst)

    async def health_check(self, depth: HealthDepth) -> Health:
        if self._front is None or self._front.inner is None:
            return Health(HealthState.UNHEALTHY, "the listener is not up")
        if depth is not HealthDepth.SHALLOW and not await self._accepts():
            return Health(HealthState.UNHEALTHY, f"nothing accepts on {self._address}")
        return Health(HealthState.HEALTHY)

    def statistics(self) -> Mapping[str, Any]:
        return {
            "address": self._address,
            "tls": self._encrypted,
            "connections": self._server.connections if self._server else 0,
            "callers": len(self._buckets),
        }

    async def drain(self) -> None:
        if self._front is not None:
            self._front.draining = True
        if self._server is not None:
            await self._server.drain()

    async def shutdown(self) -> None:
        if self._server is not None:
            self._server.abort()
        self._server = self._front = None

    @property
    def _encrypted(self) -> bool:
        if self._settings.tls == "auto":
            return not _is_loopback(self._settings.listen_address)
        return self._settings.tls == "on"

    def _tls(self) -> ssl.SSLContext | None:
        if not self._encrypted:
            return None
        # The certificates' own context: a renewed certificate is in it without a restart.
        context = self._security.certificates.api_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def _accepts(self) -> bool:
        host, _, port = self._address.rpartition(":")
        with trio.move_on_after(PROBE_TIMEOUT):
            try:
                stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
            except OSError:
                return False
            await stream.aclose()
            return True
        return False


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "localhost")


def _build(services: Services, buckets: Buckets, settings: ApiSettings) -> Any:
    from novacron.api.application import build
    from novacron.api.gate import Gate

    return Gate(
        build(services),
        services.security,
        buckets,
        max_request_bytes=settings.max_request_bytes,
        request_timeout=settings.request_timeout,
        cluster_tokens=services.cluster_tokens,
    )


def _cluster_tokens(
    database: Database, cache: Cache | None, configuration: LoadedConfiguration
) -> ClusterTokens | None:
    settings = configuration.settings
    if settings.database.engine != "postgresql":
        return None
    from novacron.api.cluster_tokens import ClusterTokens

    return ClusterTokens(database, cache, settings.security.cluster_token_seconds)


def prefetch() -> None:
    """Import what serving will need: Hypercorn first, then FastAPI. The entry point does so before
    the event loop starts (ADR 60); harmless at any time, and everything works without it."""
    import novacron.http

    novacron.http.prefetch()
    import novacron.api.application
    import novacron.api.gate
