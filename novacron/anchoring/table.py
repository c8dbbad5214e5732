"""The table of the anchors. Rows are added and, where the database lets the nodes, old ones removed;
none is ever changed."""

from __future__ import annotations

from typing import Final, Protocol

from novacron.database.store import Parameters, Reader
from novacron.security.audit_anchors import AuditAnchor

KEPT: Final = 5_000
"""Anchors of a node that stay: 17 days of five-minute ones, 1.5 MB at 310 bytes. The newest alone vouches for
the whole log; older ones say since when a log that was rewritten is not what it was."""
QUERY_TIMEOUT: Final = 5.0
"""Seconds for one statement here. Nobody waits for it but the stop of the node, which has its own bound."""

_MAY_CHANGE: Final = (
    "SELECT has_table_privilege('audit_anchor', 'UPDATE, DELETE, TRUNCATE')"
    " OR pg_has_role(c.relowner, 'MEMBER') OR pg_has_role(n.nspowner, 'MEMBER')"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = to_regclass('audit_anchor')"
)
"""The owner of a table can grant himself what he has not, and that of the schema can drop the table."""


_COLUMNS: Final = "node_id, seq, hash, recorded"
_OF_ONE: Final = (
    f"SELECT {_COLUMNS} FROM audit_anchor WHERE node_id = :node_id"
    " ORDER BY seq DESC, recorded DESC LIMIT :kept"
)
_NEWEST_OF_EACH: Final = (
    "WITH RECURSIVE nodes(id) AS (SELECT min(node_id) FROM audit_anchor UNION ALL"
    " SELECT (SELECT min(node_id) FROM audit_anchor WHERE node_id > nodes.id) FROM nodes"
    " WHERE nodes.id IS NOT NULL), newest AS (SELECT id, (SELECT max(seq) FROM audit_anchor"
    " WHERE node_id = nodes.id) AS seq FROM nodes WHERE id IS NOT NULL LIMIT :kept)"
    " SELECT a.node_id, a.seq, a.hash, a.recorded FROM newest JOIN audit_anchor a"
    " ON a.node_id = newest.id AND a.seq = newest.seq"
    " ORDER BY a.recorded DESC, a.node_id, a.hash LIMIT :kept"
)
"""From one node to the next along the key: a server reads two rows a node where it would read millions."""


class AnchorStore(Reader, Protocol):
    """What this needs of a :class:`novacron.database.Store`."""

    @property
    def engine(self) -> str: ...

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int: ...


class AnchorTable:
    """Each method raises DatabaseError."""

    def __init__(self, database: AnchorStore) -> None:
        self._database = database

    async def add(self, anchor: AuditAnchor) -> bool:
        """Note *anchor*; False where it is noted already."""
        added = await self._database.execute(
            f"INSERT INTO audit_anchor ({_COLUMNS})"
            " VALUES (:node_id, :seq, :hash, :recorded) ON CONFLICT DO NOTHING",
            anchor._asdict(),
            within=QUERY_TIMEOUT,
        )
        return added > 0

    async def around(self, node_id: str, seq: int) -> list[AuditAnchor]:
        """The newest anchors at or before the record *seq*, and all after it (a hundred in all): what a
        log that ends with *seq* can be asked about. Oldest first."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM audit_anchor WHERE node_id = :node_id"
            " AND seq >= COALESCE((SELECT max(seq) FROM audit_anchor"
            " WHERE node_id = :node_id AND seq <= :seq), 0) ORDER BY seq, recorded LIMIT 100",
            {"node_id": node_id, "seq": seq},
            within=QUERY_TIMEOUT,
        )
        return [AuditAnchor(*row) for row in rows]

    async def newest(self, node_id: str) -> list[AuditAnchor]:
        """The last :data:`KEPT` of the node *node_id*, or where that is empty the newest of each; newest
        first."""
        rows = await self._database.fetch_all(
            _OF_ONE if node_id else _NEWEST_OF_EACH,
            {"kept": KEPT} | ({"node_id": node_id} if node_id else {}),
            limit=KEPT,
            within=QUERY_TIMEOUT,
        )
        return [AuditAnchor(*row) for row in rows]

    async def may_change(self) -> bool:
        """Whether the database lets the nodes change or remove anchors. SQLite always does."""
        if self._database.engine != "postgresql":
            return True
        row = await self._database.fetch_one(_MAY_CHANGE, within=QUERY_TIMEOUT)
        return row is None or bool(row[0])

    async def thin(self, node_id: str) -> int:
        """Remove all but the newest :data:`KEPT` of *node_id*; how many went."""
        return await self._database.execute(
            "DELETE FROM audit_anchor WHERE node_id = :node_id AND seq <= (SELECT seq"
            " FROM audit_anchor WHERE node_id = :node_id ORDER BY seq DESC LIMIT 1 OFFSET :kept)",
            {"node_id": node_id, "kept": KEPT},
            within=QUERY_TIMEOUT,
        )
