"""The life of a node's share in a PostgreSQL database: found, checked and migrated at boot, looked at
while it serves.

A boot whose database is in order pays for connecting and one round trip more. Further connections
are opened when they are needed. A server that is away at boot fails the boot, which is tried again
(``boot.retry``); one that goes away later does not: the node stays, is degraded, and goes on when
the server is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import trio

from novacron.component import HEALTHY, Health, HealthDepth, HealthState
from novacron.database.life import Surroundings
from novacron.database.postgresql import PostgresqlStore
from novacron.database.postgresql_connection import Connection
from novacron.database.postgresql_dial import dial
from novacron.database.postgresql_lineage import Lineages
from novacron.database.postgresql_schema import ClusterState, check_owner, read_state
from novacron.database.postgresql_target import Endpoint, Target
from novacron.database.schema import revisions
from novacron.database.store import DatabaseCorruptError, DatabaseSchemaError
from novacron.errors import DatabaseError

logger = logging.getLogger("novacron.database")

_BEAT = (
    "INSERT INTO node_heartbeat (node_id, boot_id, beat) VALUES (:node_id, :boot_id, :beat)"
    " ON CONFLICT (node_id) DO UPDATE SET boot_id = excluded.boot_id, beat = excluded.beat"
    " RETURNING boot_id, (SELECT authority FROM cluster_identity WHERE slot = 1)"
)


class PostgresqlLife:
    """A :class:`~novacron.database.life.Life`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._settings = around.settings
        self._store: PostgresqlStore | None = None
        self._authorities: tuple[str, ...] = ()
        self._lineages = Lineages()

    # --- Boot ------------------------------------------------------------------------------------

    async def open(self, nursery: trio.Nursery) -> PostgresqlStore:
        target = Target(
            self._settings.postgresql,
            query_timeout=self._settings.query_timeout,
            lineages=self._lineages,
        )
        self._authorities = self._around.security.certificates.cluster_hashes()
        try:
            connection = await self._open_connection(target)
        except BaseException:
            target.close()
            raise
        store = self._store = PostgresqlStore(target)
        store.pool.adopt(connection)
        nursery.start_soon(store.keep)
        return store

    async def _open_connection(self, target: Target) -> Connection:
        """A connection to a database that is ours and of the newest schema."""
        connection = await dial(target)
        try:
            state = await self._look_at(connection)
            if state.revision != revisions()[-1] or state.authority is None:
                await self._migrate(target, connection.endpoint, state)
                state = await self._look_at(connection)
                if state.revision != revisions()[-1]:
                    raise DatabaseCorruptError(
                        f"the database at {connection.where} was not migrated",
                        why=f"its schema is still version {state.revision}",
                        key="database.postgresql.name",
                    )
        except BaseException:
            connection.close()
            raise
        return connection

    async def _look_at(self, connection: Connection) -> ClusterState:
        state = await read_state(connection, self._settings.query_timeout)
        check_owner(state.authority, self._authorities, connection.where)
        connection.lineage = state.lineage
        self._lineages.check(state.lineage, connection.where)
        return state

    async def _migrate(self, target: Target, endpoint: Endpoint, state: ClusterState) -> None:
        from novacron.database.postgresql_migrate import upgrade

        newest = revisions()[-1]
        before = state.revision or "none"
        self._report(f"migrating the database from version {before} to {newest}")
        await trio.to_thread.run_sync(
            partial(
                upgrade,
                target,
                endpoint,
                self._authorities[0],
                progress=self._report_from_thread,
            )
        )
        logger.info(
            "database migrated",
            extra={"server": endpoint.address, "from": state.revision, "to": newest},
        )

    def _report(self, message: str) -> None:
        self._around.progress.advance(self._around.name, message, extend=10.0)

    def _report_from_thread(self, message: str) -> None:
        # Also how a wait for another node is given up when the boot is.
        trio.from_thread.check_cancelled()
        trio.from_thread.run_sync(self._report, message)

    # --- Serving ---------------------------------------------------------------------------------

    async def health(self, depth: HealthDepth) -> Health:
        """Unhealthy, which has a node restarted, is only what a restart may help or must reveal:
        damage, and another cluster's database. A server that is away is degraded."""
        store = self._store
        if store is None:
            return Health(HealthState.UNKNOWN, "not open")
        if store.absence is not None:
            return Health(HealthState.DEGRADED, store.absence.describe())
        if depth is HealthDepth.SHALLOW:
            return HEALTHY
        # A little less than the check may take, so that what is slow has a name.
        seconds = depth.deadline * 0.8
        started = time.perf_counter()
        try:
            await self._beat(store, seconds)
            if depth is HealthDepth.FULL:
                findings = await store.check(within=seconds)
                if findings:
                    return Health(HealthState.UNHEALTHY, "; ".join(findings))
        except (DatabaseCorruptError, DatabaseSchemaError) as error:
            return Health(HealthState.UNHEALTHY, str(error))
        except DatabaseError as error:
            return Health(HealthState.DEGRADED, str(error))
        refusal = store.pool.refusal
        if refusal is not None:
            return Health(
                HealthState.DEGRADED, f"reads and writes, and gets no more connections: {refusal}"
            )
        if store.pool.lookout.rival is not None:
            return Health(HealthState.DEGRADED, str(store.pool.lookout.rival))
        elapsed = round(time.perf_counter() - started, 6)
        return Health(
            HealthState.HEALTHY,
            "reads and writes",
            {"seconds": elapsed, "server": store.pool.server},
        )

    async def _beat(self, store: PostgresqlStore, seconds: float) -> None:
        """A real write and a real read, and whose database it is by now, in one round trip."""
        boot_id = self._around.node.boot_id
        row = await store.execute_for_row(
            _BEAT,
            {"node_id": self._around.identity.node_id, "boot_id": boot_id, "beat": time.time()},
            within=seconds,
        )
        if row is None or row[0] != boot_id:
            raise DatabaseCorruptError(
                f"the database at {store.pool.server} does not keep what is written",
                why="the heartbeat read back is not the one written",
                remedy="look for triggers or rules on its tables",
                key="database.postgresql.name",
            )
        check_owner(row[1], self._authorities, store.pool.server)

    def statistics(self) -> Mapping[str, Any]:
        store = self._store
        if store is None:
            return {}
        found: dict[str, Any] = {"server": store.pool.server, **store.statistics()._asdict()}
        if store.absence is not None:
            found["away_since"] = store.absence.since
        return found

    async def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            await store.close()
