"""Every ``sqlite3`` exception, mapped once onto the taxonomy."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from novacron.database.store import (
    DatabaseConflictError,
    DatabaseCorruptError,
    DatabaseFullError,
    DatabaseInvalidError,
    DatabaseLimitError,
    DatabaseTransientError,
    DatabaseUnavailableError,
)
from novacron.errors import DatabaseError
from novacron.units import KIB

_CONFLICTS = frozenset(
    (
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
        sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
    )
)
FULL_BYTES = 64 * KIB
"""Free space below which a failed write is taken for a full disk: twice what SQLite allocates at
once for the index of its log."""

DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT))
"""Primary codes that say the bytes are wrong, whatever was asked."""


def primary_code(error: sqlite3.Error) -> int:
    """The low byte of the result code: the class of failure (https://sqlite.org/rescode.html)."""
    code: int = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR
    return code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_damage(error: Exception) -> bool:
    """Whether *error*, met while serving, can only come from bytes that are not what was written.

    Text that is not UTF-8 counts: what writes here writes UTF-8, and the driver reports it without
    a result code.
    """
    if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode"):
        return primary_code(error) in DAMAGE
    return isinstance(error, UnicodeDecodeError) or (
        isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode")
    )


def map_error(error: Exception, path: Path, *, read_only: bool = False) -> DatabaseError:
    """The error to raise for *error*, which a statement on the database at *path* caused.

    No message repeats a parameter's value: values may be secrets.
    """
    if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode"):
        return _map_code(error, path, read_only)
    if is_damage(error):
        return _corrupt(path, "it holds text that cannot be read")
    if isinstance(error, MemoryError):
        return DatabaseLimitError(
            "a value or a result is too large for the database",
            why="SQLite got no memory for it (SQLITE_NOMEM)",
            remedy="send or ask for less at once, or give the node more memory",
        )
    # Raised by the module itself, before SQLite saw anything: a parameter is missing or has a
    # type or size that cannot be stored.
    return DatabaseInvalidError(
        "the database refused a statement",
        why=str(error),
        remedy="this is a defect in NovaCron; report it with this message",
    )


def _is_full(directory: Path) -> bool:
    """SQLite reports a log index or a page that finds no space as an input/output error."""
    try:
        place = os.statvfs(directory)
    except OSError:
        return False
    return place.f_bavail * place.f_frsize < FULL_BYTES


def _map_code(error: sqlite3.Error, path: Path, read_only: bool) -> DatabaseError:
    code = primary_code(error)
    why = f"SQLite says “{error}” ({error.sqlite_errorname})"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return DatabaseTransientError(
            f"the database {path} is locked",
            why="another process kept its lock longer than database.busy_timeout",
            remedy=f"find it with “fuser {path}” and end it, or raise the timeout",
            key="database.busy_timeout",
        )
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path.parent)):
        return DatabaseFullError(
            f"the database {path} cannot grow",
            why="no space is left on its file system, or a quota is used up; "
            "nothing of the change was kept",
            remedy=f"free space below {path.parent}, or move the file and set database.path",
            key="database.path",
        )
    if code in DAMAGE:
        return _corrupt(path, why)
    if code == sqlite3.SQLITE_READONLY:
        if read_only:
            return DatabaseInvalidError(
                "a changing statement was sent through a read",
                why=why,
                remedy="this is a defect in NovaCron; report it with this message",
            )
        return DatabaseUnavailableError(
            f"the database {path} cannot be written",
            why=f"the file or its file system is read-only; {why}",
            remedy=f"mount the file system writable, or give this user write access to {path} "
            "and its directory",
            key="database.path",
        )
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return DatabaseUnavailableError(
            f"the database {path} cannot be opened",
            why=why,
            remedy="give this user read and write access to the file and its directory",
            key="database.path",
        )
    if code == sqlite3.SQLITE_IOERR:
        return DatabaseUnavailableError(
            f"reading or writing the database {path} failed",
            why=why,
            remedy="look at the kernel's log for the disk below it",
            key="database.path",
        )
    if code == sqlite3.SQLITE_CONSTRAINT:
        kind = (
            DatabaseConflictError if error.sqlite_errorcode in _CONFLICTS else DatabaseInvalidError
        )
        return kind("the database refused a change", why=str(error))
    if code in (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_NOMEM):
        return DatabaseLimitError(
            "a value or a result is too large for the database",
            why=why,
            remedy="send less at once",
        )
    if code == sqlite3.SQLITE_SCHEMA:
        return DatabaseTransientError("the schema changed while a statement ran", why=why)
    return DatabaseInvalidError(
        "the database refused a statement",
        why=why,
        remedy="this is a defect in NovaCron; report it with this message",
    )


def _corrupt(path: Path, why: str) -> DatabaseCorruptError:
    return DatabaseCorruptError(
        f"the database {path} is damaged",
        why=why,
        remedy="restart the node: it sets the file aside, keeps it, and restores a backup",
        key="database.path",
    )
