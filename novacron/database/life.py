"""What the component asks of an engine's life: to open a store, to look at it, to close it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import trio

from novacron.component import Health, HealthDepth, NodeView, Progress, UndoLog
from novacron.config.schema import DatabaseSettings
from novacron.data_directory import DataDirectory
from novacron.database.store import Store
from novacron.environment import Identity
from novacron.record import Record
from novacron.security import Security


class Surroundings(Record):
    """What the component was given."""

    name: str
    """Of the component."""
    security: Security
    identity: Identity
    settings: DatabaseSettings
    data: DataDirectory
    node: NodeView
    undo: UndoLog
    progress: Progress


class Life(Protocol):
    """One engine, from boot to stop; opened again after a restart of the component."""

    async def open(self, nursery: trio.Nursery) -> Store:
        """A store that is checked, ours, and of the newest schema. Its tasks live in *nursery*.

        Raises:
          DatabaseError: it cannot be used; retryable where trying again may help.
        """
        ...

    async def close(self) -> None:
        """Close what :meth:`open` opened, also when that was cut short. Harmless when repeated."""
        ...

    async def health(self, depth: HealthDepth) -> Health: ...

    def statistics(self) -> Mapping[str, Any]: ...
