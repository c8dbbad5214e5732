"""The work of one call: a statement and its rows, on a connection that the thread holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from novacron.database.store import DatabaseLimitError, Parameters, Row

T = TypeVar("T")


def is_change(sql: str) -> bool:
    """Whether *sql* changes rows and does nothing else, so that others may share its transaction: no
    PRAGMA or VACUUM, which work outside of one only, and nothing that ends it."""
    return sql.lstrip()[:6].upper() in {"INSERT", "UPDATE", "DELETE"}


def begin(work: Callable[[sqlite3.Connection], T], raw: sqlite3.Connection) -> T:
    # IMMEDIATE: the lock is taken here, where waiting for it is harmless, and not at the first
    # change, where SQLite could only fail.
    raw.execute("BEGIN IMMEDIATE")
    return work(raw)


def fetch_all(
    sql: str, parameters: Parameters | None, limit: int, raw: sqlite3.Connection
) -> list[Row]:
    cursor = raw.execute(sql, parameters or {})
    rows: list[Row] = cursor.fetchmany(limit + 1)
    if len(rows) > limit:
        cursor.close()
        raise DatabaseLimitError(
            "a query has too many rows",
            why=f"more than {limit}",
            remedy="stream it, or narrow it",
        )
    return rows


def fetch_one(sql: str, parameters: Parameters | None, raw: sqlite3.Connection) -> Row | None:
    cursor = raw.execute(sql, parameters or {})
    try:
        row: Row | None = cursor.fetchone()
        return row
    finally:
        cursor.close()


def execute(sql: str, parameters: Parameters | None, raw: sqlite3.Connection) -> int:
    cursor = raw.execute(sql, parameters or {})
    changed = cursor.rowcount
    # A statement with RETURNING has rows to give; they are not wanted, and an open cursor would
    # keep the implicit transaction open.
    cursor.close()
    return max(changed, 0)


def execute_many(sql: str, parameters: Sequence[Parameters], raw: sqlite3.Connection) -> int:
    return max(raw.executemany(sql, parameters).rowcount, 0)
