"""The component that serves ``/metrics``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import trio

from novacron import observe
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
from novacron.config.schema import MonitoringSettings
from novacron.http import HttpServer, Limits, listener_address, listener_port, open_listener
from novacron.http.asgi import Receive, Scope, Send, find_header, respond, respond_problem
from novacron.monitoring.series import (
    Series,
    bounded,
    node_series,
    observed_series,
    trio_series,
)
from novacron.network import Network

log = logging.getLogger("novacron.monitoring")

LAG_INTERVAL = 1.0
"""Seconds between two looks at the loop: often enough to catch a stall of a scrape interval,
seldom enough to cost an idle node nothing."""

SCRAPE_TIMEOUT = 10.0
"""Prometheus's own default scrape_timeout: past it nobody waits for the answer."""

MAX_CONNECTIONS = 64
"""A few Prometheus servers and a person with curl."""

_lag = observe.Gauge(
    "novacron_trio_loop_lag_seconds", "How late the loop last woke a task that slept."
)
_lag_spread = observe.Histogram(
    "novacron_trio_loop_lag_distribution_seconds",
    "How late the loop wakes tasks that sleep, sampled each second.",
)
_scrape_seconds = observe.Gauge(
    "novacron_metrics_scrape_seconds", "Time the scrape before this one took."
)


class Monitoring(ObservableComponent):
    """Serves the node's metrics in Prometheus text and OpenMetrics, without authentication: it
    binds loopback unless told otherwise, and holds no secret."""

    name: ClassVar[str] = "monitoring"
    phase: ClassVar[Phase] = Phase.SERVICES
    criticality: ClassVar[Criticality] = Criticality.WARNING

    def __init__(self, network: Network, settings: MonitoringSettings, node: NodeView) -> None:
        self._network = network
        self._settings = settings
        self._node = node
        self._server: HttpServer | None = None
        self._port = 0
        self._scrapes = 0
        self._rendering = trio.Semaphore(1)

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Bind and serve.

        Raises:
          PortTakenError, PortDeniedError, AddressUnavailableError, AddressInvalidError: see
            :func:`novacron.http.open_listener`.
        """
        settings = self._settings
        listener = await open_listener(
            settings.listen_address, settings.port, section="monitoring", again=self._port
        )
        self._port = listener_port(listener)
        self._server = HttpServer("metrics", self._app, Limits(max_connections=MAX_CONNECTIONS))
        address = listener_address(listener)
        await nursery.start(self._server.serve, listener)
        nursery.start_soon(self._measure_lag)
        self._node.publish_address("metrics", address)

    async def health_check(self, depth: HealthDepth) -> Health:
        if self._server is None:
            return Health(HealthState.UNHEALTHY, "the metrics listener is not up")
        return HEALTHY

    def statistics(self) -> Mapping[str, Any]:
        server = self._server
        return {"scrapes": self._scrapes, "connections": server.connections if server else 0}

    async def drain(self) -> None:
        # Metrics are how one watches a node drain: they go on until shutdown.
        return

    async def shutdown(self) -> None:
        if self._server is not None:
            self._server.abort()
            self._server = None

    async def _measure_lag(self) -> None:
        while True:
            due = trio.current_time() + LAG_INTERVAL
            await trio.sleep_until(due)
            late = trio.current_time() - due
            _lag.set(late)
            _lag_spread.observe(late)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
        elif scope["path"] != "/metrics":
            await respond_problem(
                send, 404, "Not Found", "metrics are at /metrics", code="monitoring.no_route"
            )
        elif scope["method"] not in ("GET", "HEAD"):
            await respond_problem(
                send,
                405,
                "Method Not Allowed",
                "metrics are read with GET",
                code="monitoring.method",
                headers=[(b"allow", b"GET, HEAD")],
            )
        else:
            await self._scrape(scope, send)

    async def _scrape(self, scope: Scope, send: Send) -> None:
        accept = (find_header(scope["headers"], b"accept") or b"").decode("latin-1")
        started = trio.current_time()
        with trio.move_on_after(SCRAPE_TIMEOUT) as deadline:
            # One at a time: scrapes that pile up would take all worker threads from the node.
            async with self._rendering:
                text, content_type = await trio.to_thread.run_sync(
                    _render, self._series(), accept, abandon_on_cancel=True
                )
        if deadline.cancelled_caught:
            await respond_problem(
                send,
                503,
                "Service Unavailable",
                "the metrics could not be rendered in time",
                code="monitoring.deadline",
                headers=[(b"retry-after", b"1")],
            )
            return
        self._scrapes += 1
        _scrape_seconds.set(trio.current_time() - started)
        await respond(send, 200, text, content_type.encode("latin-1"))

    def _series(self) -> list[Series]:
        """Everything there is to export, copied on the loop, where it changes."""
        return bounded(
            [
                *node_series(self._node),
                *trio_series(
                    trio.lowlevel.current_statistics(),
                    trio.to_thread.current_default_thread_limiter().statistics(),
                ),
                *observed_series(),
            ]
        )


def _render(series: list[Series], accept: str) -> tuple[bytes, str]:
    from novacron.monitoring.exposition import render

    return render(series, accept)
