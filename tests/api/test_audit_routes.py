"""The anchors of the audit logs over the REST interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from novacron.anchoring.table import AnchorTable
from novacron.api import Api
from novacron.config import LoadedConfiguration
from novacron.config.schema import Settings
from novacron.database.schema import SQLITE_SNAPSHOT
from novacron.security import Role
from novacron.security.audit_anchors import AuditAnchor
from tests.api.calling import calling
from tests.api.cluster import sqlite_store
from tests.api.conftest import Node

FIRST, SECOND = (f"{digit * 8}-1111-4111-8111-111111111111" for digit in "12")
SHARED = {
    "database": {"engine": "postgresql", "postgresql": {"hosts": ("127.0.0.1:1",), "user": "u"}}
}


class Sharing(Node):
    """A node whose configuration says that it shares a database, which is *store*."""

    def __init__(self, node: Node, store: Any) -> None:
        self.__dict__.update(node.__dict__)
        self.configuration = LoadedConfiguration(Settings(**SHARED), "d1ge57")
        self.store = store

    def api(self, **settings: Any) -> Api:
        api = super().api(**settings)
        api._services = api._services._replace(database=self.store)
        return api


async def test_anybody_who_may_look_gets_the_anchors_of_one_node_or_the_newest_of_each(
    node: Node, tmp_path: Path
) -> None:
    async with sqlite_store(tmp_path) as store:
        script = SQLITE_SNAPSHOT.read_text()
        start = script.index("CREATE TABLE audit_anchor")
        await store.execute(script[start : script.index(";", start)])
        table = AnchorTable(store)
        anchors = [
            AuditAnchor(FIRST, 3, "a" * 64, 1_800_000_000.0),
            AuditAnchor(SECOND, 9, "b" * 64, 1_800_000_001.0),
            AuditAnchor(FIRST, 7, "c" * 64, 1_800_000_002.5),
        ]
        for anchor in anchors:
            await table.add(anchor)
        async with calling(Sharing(node, store), Role.VIEWER) as viewer:
            everything = await viewer.get("/api/v1/audit/anchors")
            one = await viewer.get(f"/api/v1/audit/anchors?node_id={FIRST}")
            wrong = await viewer.get("/api/v1/audit/anchors?node_id=x'--")
    assert everything.status_code == 200
    listed = everything.json()
    assert [entry["seq"] for entry in listed["anchors"]] == [7, 9]
    # SQLite keeps nobody from changing what is in his own file.
    assert listed["append_only"] is False
    assert one.json()["anchors"] == [anchors[2].document(), anchors[0].document()]
    assert wrong.status_code == 422


async def test_a_node_that_shares_no_database_says_that_it_has_none(node: Node) -> None:
    async with calling(node, Role.VIEWER) as viewer:
        answer = await viewer.get("/api/v1/audit/anchors")
    assert answer.json() == {"shared": False, "append_only": None, "anchors": []}
