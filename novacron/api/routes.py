"""The handlers of ``/api/v1``. Imports FastAPI: imported off the loop, see ``component.py``.

A handler trusts the gate: its caller is known and allowed, and a change is on record. It returns
a dict or raises an error of the taxonomy. It takes at most the request, and reads its parameters
with :mod:`novacron.api.parameters`: a parameter in a signature makes FastAPI import pydantic's
first version as well, which costs a boot 16 ms (ADR 0061).
"""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import trio
from fastapi import Request

from novacron import __version__
from novacron.api.access import caller
from novacron.api.audit_routes import AuditRoutes
from novacron.api.entry import Entry, NotHereError
from novacron.api.parameters import BOOT_ID, COMPONENT, DEPTH, KEY
from novacron.api.services import Services
from novacron.api.token_routes import TokenRoutes
from novacron.api.transfers import TransferRoutes
from novacron.api.trust import TrustRoutes
from novacron.api.views import (
    component_view,
    health_view,
    node_status,
    overall_health,
    report_summary,
)
from novacron.component import Component, HealthDepth, JsonObject


class Routes:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def status(self) -> JsonObject:
        """The node: identity, state, addresses, what is degraded and why, warnings."""
        return node_status(self._services.node, self._services.identity.node_id)

    async def version(self) -> JsonObject:
        """The release that runs, and on what."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "api": "v1",
            "node_id": self._services.identity.node_id,
        }

    async def whoami(self, request: Request) -> JsonObject:
        """The caller as the node knows it: by token or certificate, its role, and what it is narrowed
        to."""
        principal = caller(request)
        return {
            "kind": principal.kind,
            "name": principal.name,
            "role": principal.role.value,
            "resources": list(principal.resources),
        }

    async def health(self, request: Request) -> JsonObject:
        """Health of every component, and of the node as its worst. Shallow answers at once and may
        be 5 s old; deep may take 1 s, full 5 s."""
        depth = DEPTH.read(request)
        found = await self._services.node.health(HealthDepth[depth.upper()])
        return {
            "state": overall_health([health.state for health in found.values()]).value,
            "depth": depth,
            "components": {name: health_view(health) for name, health in found.items()},
        }

    async def components(self) -> JsonObject:
        """Every component: state, health, dependencies, attempts, the last failure."""
        return {
            "components": [component_view(status) for status in self._services.node.components()]
        }

    async def component(self, request: Request) -> JsonObject:
        """One component, with its figures where it has any."""
        name = COMPONENT.read(request)
        status = self._services.node.component(name)
        return component_view(status, self._component(name))

    async def boot_report(self) -> JsonObject:
        """The report of this boot: phases, components, attempts, checkpoints, critical path."""
        return self._services.node.report()

    async def boot_reports(self) -> JsonObject:
        """The boots whose reports are kept, newest first."""
        reports, problems = await trio.to_thread.run_sync(self._services.reports.newest)
        return {
            "reports": [report_summary(report.to_json()) for report in reports],
            "unreadable": [str(problem) for problem in problems],
        }

    async def kept_report(self, request: Request) -> JsonObject:
        """A kept boot report, by its boot id or the first four or more characters of one."""
        boot_id = BOOT_ID.read(request)
        report = await trio.to_thread.run_sync(self._services.reports.find, boot_id)
        return report.to_json()

    async def configuration(self) -> JsonObject:
        """Every key's value, without secrets; where they came from, and their digest."""
        loaded = self._services.configuration
        return {
            "digest": loaded.digest,
            "files": [str(path) for path in loaded.files],
            "values": loaded.redacted(),
        }

    async def explanation(self, request: Request) -> JsonObject:
        """One key: value, default, source, meaning, what is accepted."""
        return asdict(self._services.configuration.explain(KEY.read(request)))

    async def facts(self) -> JsonObject:
        """What is known about the machine, one fact a probe."""
        return {"facts": _plain(self._services.environment.facts())}

    async def refresh(self) -> JsonObject:
        """Ask the machine again, and answer with the new facts."""
        await self._services.environment.refresh()
        return {"facts": _plain(self._services.environment.facts())}

    async def mode(self) -> JsonObject:
        """The network mode of the node, whether it was measured or forced, and why; each path with
        what was measured of it and the score of each mode; the latest switches. What was not measured
        is null."""
        return self._services.environment.mode_report()

    async def peers(self) -> JsonObject:
        """Sessions with other nodes, their measured links, and the configured seeds."""
        network = self._services.network
        if network is None:
            raise NotHereError("there are no peers", why="this node runs without the network")
        figures = network.statistics()
        return {"peers": figures["peers"], "seeds": figures["seeds"]}

    def table(self) -> list[Entry]:
        return [
            Entry("GET", "/status", self.status),
            Entry("GET", "/version", self.version),
            Entry("GET", "/whoami", self.whoami),
            Entry("GET", "/health", self.health, (DEPTH,)),
            Entry("GET", "/components", self.components),
            Entry("GET", "/components/{name}", self.component, (COMPONENT,)),
            Entry("GET", "/boot", self.boot_report),
            Entry("GET", "/boot/reports", self.boot_reports),
            Entry("GET", "/boot/reports/{boot_id}", self.kept_report, (BOOT_ID,)),
            Entry("GET", "/configuration", self.configuration),
            Entry("GET", "/configuration/{key}", self.explanation, (KEY,)),
            Entry("GET", "/environment", self.facts),
            Entry("POST", "/environment/refresh", self.refresh),
            Entry("GET", "/peers", self.peers),
            Entry("GET", "/mode", self.mode),
            *TransferRoutes(self._services).table(),
            *TokenRoutes(self._services).table(),
            *TrustRoutes(self._services).table(),
            *AuditRoutes(self._services).table(),
        ]

    def _component(self, name: str) -> Component | None:
        services = self._services
        known: tuple[Component | None, ...] = (
            services.security,
            services.database,
            services.cache,
            services.network,
            services.trust,
            services.dwcp,
            services.environment,
            services.api,
        )
        return next((c for c in known if c is not None and c.name == name), None)


def _plain(facts: Any) -> JsonObject:
    return {
        name: fact.as_json() if hasattr(fact, "as_json") else fact for name, fact in facts.items()
    }
