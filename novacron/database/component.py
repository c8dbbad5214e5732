"""The node's database: opened, checked and migrated at boot, then a store for everybody above."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import trio

from novacron.component import (
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeView,
    ObservableComponent,
    Phase,
    Progress,
    UndoHandler,
    UndoLog,
)
from novacron.config.schema import DatabaseSettings
from novacron.data_directory import DataDirectory
from novacron.database.life import Life, Surroundings
from novacron.database.store import (
    FETCH_LIMIT,
    DatabaseUnavailableError,
    Parameters,
    Row,
    Store,
    Transaction,
)
from novacron.environment import Identity
from novacron.security import Security

T = TypeVar("T")


def _undo_migration(arguments: Mapping[str, Any]) -> None:
    from novacron.database.backup import undo_migration

    undo_migration(arguments)


class Database(ObservableComponent):
    """A :class:`~novacron.database.store.Store` once it is initialized.

    The engine is imported when it is opened: a node pays for the one it has.

    Args:
      security: started first; a server's credentials and the cluster's name come from it.
    """

    name: ClassVar[str] = "database"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.CRITICAL
    undo_handlers: ClassVar[Mapping[str, UndoHandler]] = {"restore_backup": _undo_migration}

    def __init__(
        self,
        security: Security,
        identity: Identity,
        settings: DatabaseSettings,
        data: DataDirectory,
        node: NodeView,
        undo: UndoLog,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._data = data
        self._around = Surroundings(
            self.name, security, identity, settings, data, node, undo, progress
        )
        self._life: Life | None = None
        self._store: Store | None = None

    @property
    def path(self) -> Path:
        """The file of SQLite."""
        configured = self._settings.path
        return Path(configured) if configured else self._data.database / "novacron.db"

    @property
    def store(self) -> Store:
        """The open store. Raises :class:`DatabaseUnavailableError` while there is none."""
        if self._store is None:
            raise DatabaseUnavailableError(
                "the database is not open",
                why="its component has not started or has stopped",
                remedy="try again when the node is ready",
            )
        return self._store

    # --- Life ------------------------------------------------------------------------------------

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Raises DatabaseError, retryable where the server is only away."""
        if self._life is None:
            # Kept over restarts: it knows what was lost in this process.
            self._life = await self._begin()
        self._store = await self._life.open(nursery)

    async def _begin(self) -> Life:
        if self._settings.engine == "postgresql":
            # In a thread, since its driver takes a tenth of a second to import.
            return await trio.to_thread.run_sync(_postgresql_life, self._around)
        from novacron.database.sqlite_life import SqliteLife

        return SqliteLife(self.path, self._around)

    async def shutdown(self) -> None:
        self._store = None
        if self._life is not None:
            await self._life.close()

    async def health_check(self, depth: HealthDepth) -> Health:
        """Healthy says that nothing is known to be wrong. A server that is away is no reason to
        restart this node: then it is degraded."""
        if self._life is None:
            return Health(HealthState.UNKNOWN, "not open")
        return await self._life.health(depth)

    def statistics(self) -> Mapping[str, Any]:
        return {} if self._store is None or self._life is None else self._life.statistics()

    # --- The store -------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        return self.store.engine

    async def fetch_all(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        limit: int = FETCH_LIMIT,
        within: float | None = None,
    ) -> list[Row]:
        return await self.store.fetch_all(sql, parameters, limit=limit, within=within)

    async def fetch_one(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> Row | None:
        return await self.store.fetch_one(sql, parameters, within=within)

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int:
        return await self.store.execute(sql, parameters, within=within)

    def transaction(
        self, *, within: float | None = None
    ) -> AbstractAsyncContextManager[Transaction]:
        return self.store.transaction(within=within)

    async def run(
        self, work: Callable[[Transaction], Awaitable[T]], *, within: float | None = None
    ) -> T:
        return await self.store.run(work, within=within)

    def stream(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        batch_rows: int = 256,
        within: float | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[Row]]:
        return self.store.stream(sql, parameters, batch_rows=batch_rows, within=within)


def _postgresql_life(around: Surroundings) -> Life:
    from novacron.database.postgresql_life import PostgresqlLife

    return PostgresqlLife(around)
