"""Reading rows, the same for a store and for a transaction in it."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from novacron.database import statements
from novacron.database.store import FETCH_LIMIT, Parameters, Row

T = TypeVar("T")


class SqliteReads(ABC):
    """The reading half of :class:`~novacron.database.store.Reader`, on whatever connection."""

    async def fetch_all(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        limit: int = FETCH_LIMIT,
        within: float | None = None,
    ) -> list[Row]:
        return await self._read(partial(statements.fetch_all, sql, parameters, limit), within)

    async def fetch_one(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> Row | None:
        return await self._read(partial(statements.fetch_one, sql, parameters), within)

    @abstractmethod
    async def _read(self, work: Callable[[sqlite3.Connection], T], within: float | None) -> T:
        """Run *work* in a worker thread, on a connection that may read, in *within* seconds."""
