"""The handler of ``/api/v1/audit``. Imports FastAPI, as ``routes.py``."""

from __future__ import annotations

import trio
from fastapi import Request

from novacron.api.entry import Entry
from novacron.api.parameters import NODE_ID
from novacron.api.services import Services
from novacron.component import JsonObject


class AuditRoutes:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def anchors(self, request: Request) -> JsonObject:
        """Where the audit logs of the nodes stood when, as the database they share has it: the last 5,000
        anchors of a node or the newest of each, newest first; whether the database keeps the nodes from
        changing them; none where the node shares no database. `novacron audit verify --anchors` holds a
        log against them."""
        node_id = NODE_ID.read(request)
        services = self._services
        if services.configuration.settings.database.engine != "postgresql":
            return {"shared": False, "append_only": None, "anchors": []}
        from novacron.anchoring.table import AnchorTable

        table = AnchorTable(services.database)
        found = await table.newest(node_id)
        may_change = await table.may_change()
        # In a thread: a list of thousands takes the loop's time otherwise.
        documents = await trio.to_thread.run_sync(lambda: [anchor.document() for anchor in found])
        return {"shared": True, "append_only": not may_change, "anchors": documents}

    def table(self) -> list[Entry]:
        return [Entry("GET", "/audit/anchors", self.anchors, (NODE_ID,))]
