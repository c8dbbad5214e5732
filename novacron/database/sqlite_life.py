"""The life of a node's SQLite file: opened, checked and migrated at boot, looked at while it serves."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from novacron.component import HEALTHY, Health, HealthDepth, HealthState
from novacron.database.backup import make_backup, prune_backups
from novacron.database.life import Surroundings
from novacron.database.opening import (
    Opening,
    Plan,
    explain_os_error,
    file_place,
    fill,
    open_database,
    suspicion,
)
from novacron.database.schema import revisions
from novacron.database.sqlite import SqliteStore
from novacron.database.store import DatabaseCorruptError, DatabaseLimitError
from novacron.errors import DatabaseError

logger = logging.getLogger("novacron.database")

BACKGROUND_CHECK_SECONDS = 3600.0
"""Longest time the check of a large file may take; at the 50 MB/s of a slow disk this is 180 GB."""


class SqliteLife:
    """A :class:`~novacron.database.life.Life`."""

    def __init__(self, path: Path, around: Surroundings) -> None:
        self._path = path
        self._around = around
        self._settings = around.settings
        self._store: SqliteStore | None = None
        self._suspect = False
        self._place: tuple[int, int] | None = None
        self._losses: list[str] = []

    async def open(self, nursery: trio.Nursery) -> SqliteStore:
        plan = Plan(
            path=self._path,
            data=self._around.data,
            node_id=self._around.identity.node_id,
            check=self._settings.integrity_check,
            busy_timeout=self._settings.busy_timeout,
            thorough=self._suspect,
            progress=self._report_from_thread,
        )
        opening = await trio.to_thread.run_sync(open_database, plan)
        if opening.writer is None:
            opening = await self._migrate(plan, opening)
        self._suspect = False
        for notice in opening.notices:
            self._around.node.warn(notice)
            logger.warning(notice, extra={"path": str(plan.path)})
        # Kept over restarts of the component: whoever runs this node has to learn of it.
        self._losses += opening.notices
        self._place = opening.place
        store = SqliteStore(
            plan.path,
            readers=self._settings.readers,
            busy_timeout=self._settings.busy_timeout,
            query_timeout=self._settings.query_timeout,
        )
        assert opening.writer is not None
        store.adopt(writer=opening.writer, reader=opening.reader)
        self._store = store
        if opening.unchecked:
            nursery.start_soon(self._check_in_background, store)
        return store

    async def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            self._suspect = self._suspect or store.damaged
            await store.close()
            if self._suspect:
                await trio.to_thread.run_sync(_note_suspicion, store.path)

    async def health(self, depth: HealthDepth) -> Health:
        """Healthy says that nothing is known to be wrong. What was lost at the boot of this
        process stays in the answer until it ends."""
        health = await self._look(depth)
        if health.state is HealthState.HEALTHY and self._losses:
            return Health(HealthState.DEGRADED, "; ".join(self._losses), health.details)
        return health

    async def _look(self, depth: HealthDepth) -> Health:
        store = self._store
        if store is None:
            return Health(HealthState.UNKNOWN, "not open")
        if store.damaged or self._suspect:
            return Health(HealthState.UNHEALTHY, f"the database {store.path} is damaged")
        if depth is HealthDepth.SHALLOW:
            return HEALTHY
        # A little less than the check may take, so that what is slow has a name.
        seconds = depth.deadline * 0.8
        started = time.perf_counter()
        try:
            if await trio.to_thread.run_sync(file_place, store.path) != self._place:
                return Health(
                    HealthState.UNHEALTHY,
                    f"the database {store.path} was moved, deleted or replaced while the node "
                    "runs: what is written now goes to the file that was there. Stop the node, "
                    "put that file back, start the node",
                )
            await self._beat(store, seconds)
            details: dict[str, Any] = {"seconds": round(time.perf_counter() - started, 6)}
            if depth is HealthDepth.FULL:
                return await self._look_at_pages(store, seconds - details["seconds"], details)
            return Health(HealthState.HEALTHY, "reads and writes", details)
        except DatabaseLimitError as error:
            return Health(HealthState.DEGRADED, str(error))
        except DatabaseError as error:
            return Health(HealthState.UNHEALTHY, str(error))
        except OSError as error:
            return Health(HealthState.UNHEALTHY, str(explain_os_error(error, store.path)))

    async def _look_at_pages(
        self, store: SqliteStore, seconds: float, details: dict[str, Any]
    ) -> Health:
        try:
            findings = await store.check(within=max(0.1, seconds))
        except DatabaseLimitError:
            return Health(
                HealthState.HEALTHY,
                "reads and writes; too large to check every page in time",
                details,
            )
        if findings:
            self._suspect = True
            return Health(HealthState.UNHEALTHY, "; ".join(findings[:3]), details)
        return Health(HealthState.HEALTHY, "reads and writes", details)

    def statistics(self) -> Mapping[str, Any]:
        if self._store is None:
            return {}
        return {"path": str(self._store.path), **self._store.statistics()._asdict()}

    async def _migrate(self, plan: Plan, opening: Opening) -> Opening:
        """Back up, note how to undo, migrate, open again."""
        current, newest = opening.state.revision, revisions()[-1]
        try:
            self._report(f"migrating the database from version {current or 'none'} to {newest}")
            if current is not None:
                backup = await trio.to_thread.run_sync(self._back_up, opening, plan, current)
                await self._around.undo.record(
                    self._around.name,
                    "restore_backup",
                    {"database": str(plan.path), "backup": str(backup), "revision": current},
                )
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(opening.close)
        # One thread call up to the open connections: a cancellation cannot come in between and
        # leave them without an owner.
        migrated = await trio.to_thread.run_sync(self._upgrade_and_open, plan, current)
        migrated.notices[:0] = opening.notices
        logger.info(
            "database migrated", extra={"path": str(plan.path), "from": current, "to": newest}
        )
        return migrated

    def _upgrade_and_open(self, plan: Plan, current: str | None) -> Opening:
        if current is None:
            fill(plan.path, plan.node_id)
            return open_database(plan)
        from novacron.database.migrate import upgrade

        upgrade(plan.path)
        # The copy just made is still needed to undo this boot, whatever is configured.
        prune_backups(plan.path, max(1, self._settings.backups))
        return open_database(plan)

    def _back_up(self, opening: Opening, plan: Plan, revision: str) -> Path:
        try:
            return make_backup(
                opening.reader, plan.path, revision, progress=self._report_from_thread
            )
        except OSError as error:
            raise explain_os_error(error, plan.path) from error

    async def _beat(self, store: SqliteStore, seconds: float) -> None:
        """A real write and a real read, of a row that is there for this."""
        await store.execute(
            "INSERT INTO node_heartbeat (node_id, boot_id, beat) VALUES (:node_id, :boot_id, :beat)"
            " ON CONFLICT (node_id) DO UPDATE SET boot_id = excluded.boot_id, beat = excluded.beat",
            {
                "node_id": self._around.identity.node_id,
                "boot_id": self._around.node.boot_id,
                "beat": time.time(),
            },
            within=seconds,
        )
        row = await store.fetch_one(
            "SELECT boot_id FROM node_heartbeat WHERE node_id = :node_id",
            {"node_id": self._around.identity.node_id},
            within=seconds,
        )
        if row != (self._around.node.boot_id,):
            raise DatabaseCorruptError(
                f"the database {store.path} does not keep what is written",
                why="the heartbeat read back is not the one written",
                remedy="see whether another node or process writes to this file",
                key="database.path",
            )

    async def _check_in_background(self, store: SqliteStore) -> None:
        """Raising here fails the component; its restart checks in the foreground and repairs."""
        findings = await store.check(within=BACKGROUND_CHECK_SECONDS)
        if findings:
            self._suspect = True
            raise DatabaseCorruptError(
                f"the database {store.path} is damaged",
                why="; ".join(findings[:3]),
                remedy="restart the node: it sets the file aside, keeps it, and restores a backup",
                key="database.path",
            )

    def _report(self, message: str) -> None:
        self._around.progress.advance(self._around.name, message, extend=10.0)

    def _report_from_thread(self, message: str) -> None:
        trio.from_thread.run_sync(self._report, message)


def _note_suspicion(path: Path) -> None:
    # Without room for it the restart within this process still knows, and a new process finds out
    # by its check.
    with contextlib.suppress(OSError):
        suspicion(path).touch(mode=0o600)
