"""Copies of the database: made before a migration, restored after damage or a failed boot.

All functions block; call them in a worker thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from novacron.database.connection import open_reader
from novacron.database.schema import SchemaState, read_state
from novacron.database.sqlite_errors import map_error
from novacron.durable import fsync_directory
from novacron.errors import DatabaseError

COPY_PAGES = 1024
"""Pages copied between two reports of progress: 4 MiB, some milliseconds."""

SIDE_FILES = ("-wal", "-shm")


def backup_directory(database: Path) -> Path:
    return database.parent / "backups"


def make_backup(
    raw: sqlite3.Connection,
    database: Path,
    revision: str,
    *,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Copy *database*, open as *raw*, consistently and durably; the copy's path.

    The name is ``<database>-<UTC time>-v<revision>.db``, so that names sort by age.

    Raises:
      DatabaseError: no space, or the source cannot be read. No partial copy is left.
    """
    directory = backup_directory(database)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = directory / f"{database.stem}-{stamp}-v{revision}.db"
    temporary = directory / f".{target.name}.tmp"

    def report(_status: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(f"backing up the database, {total - remaining} of {total} pages")

    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        _remove(temporary)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY, 0o600))
        copy = sqlite3.connect(temporary, isolation_level=None)
        try:
            raw.backup(copy, pages=COPY_PAGES, progress=report)
            # A backup stands alone: one file, no log beside it.
            copy.execute("PRAGMA journal_mode=DELETE").close()
        finally:
            copy.close()
        sync_file(temporary)
        os.rename(temporary, target)
        fsync_directory(directory)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, sqlite3.Error):
            raise map_error(error, target) from error
        raise
    return target


def list_backups(database: Path) -> list[Path]:
    """Newest first."""
    directory = backup_directory(database)
    prefix = f"{database.stem}-"
    with contextlib.suppress(FileNotFoundError):
        names = [
            name
            for name in os.listdir(directory)
            if name.startswith(prefix) and name.endswith(".db")
        ]
        return [directory / name for name in sorted(names, reverse=True)]
    return []


def prune_backups(database: Path, keep: int) -> None:
    """Remove all but the *keep* newest."""
    for old in list_backups(database)[keep:]:
        old.unlink(missing_ok=True)


def newest_good_backup(
    database: Path, known: tuple[str, ...], node_id: str
) -> tuple[Path, SchemaState] | None:
    """The newest copy that is intact, of this node and not newer than the code; or None."""
    for candidate in list_backups(database):
        try:
            state = _inspect(candidate, known)
        except (sqlite3.Error, DatabaseError, OSError, UnicodeDecodeError):
            continue
        if state.revision is not None and state.node_id in (None, node_id):
            return candidate, state
    return None


def restore(backup: Path, database: Path) -> None:
    """Put a copy of *backup* in the place of *database*; *backup* stays.

    What lay at *database* is replaced: set it aside first if it is worth anything.

    Raises:
      OSError: no space or no permission; *database* is untouched.
    """
    ready = prepare_copy(backup, database)
    # The log goes first: an old log beside a new file would be replayed into it.
    for suffix in SIDE_FILES:
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    fsync_directory(database.parent)
    os.rename(ready, database)
    fsync_directory(database.parent)


def replacement(database: Path) -> Path:
    """Where what is to take the place of *database* lies, complete and durable, for a moment."""
    return database.with_name(f".{database.name}.replacement")


def prepare_copy(backup: Path, database: Path) -> Path:
    """Copy *backup* to :func:`replacement`, which exists only when it is complete."""
    temporary, ready = database.with_name(f".{database.name}.copying"), replacement(database)
    _remove(temporary)
    try:
        shutil.copyfile(backup, temporary)
        os.chmod(temporary, 0o600)
        sync_file(temporary)
        os.rename(temporary, ready)
    except BaseException:
        _remove(temporary)
        raise
    fsync_directory(database.parent)
    return ready


def undo_migration(arguments: Mapping[str, Any]) -> None:
    """The undo handler ``restore_backup``: bring back the database as it was before a migration.

    Does nothing if the migration never committed (the database still has the old revision), if it
    was undone already, if the backup is gone, or if another file has taken the place of the one that
    was migrated (an operator restored a backup). Called by the engine when a boot fails after the
    migration, perhaps in a later process.
    """
    backup, database = Path(arguments["backup"]), Path(arguments["database"])
    if not backup.is_file():
        return
    born = _birth(backup)
    if born is not None and _birth(database) not in (None, born):
        return
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        raw = open_reader(database)
        try:
            rows = raw.execute("SELECT version_num FROM alembic_version").fetchall()
        finally:
            raw.close()
        if rows == [(arguments["revision"],)]:
            return
    restore(backup, database)


def _birth(database: Path) -> object:
    """When *database* was made: a copy has it too, a file that replaced it has its own. None where
    that cannot be read."""
    with (
        contextlib.suppress(sqlite3.Error, UnicodeDecodeError),
        contextlib.closing(open_reader(database)) as raw,
    ):
        row = raw.execute("SELECT created FROM node_identity").fetchone()
        return None if row is None else row[0]
    return None


def _inspect(candidate: Path, known: tuple[str, ...]) -> SchemaState:
    raw = open_reader(candidate)
    try:
        if raw.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError(f"{candidate} is damaged")
        return read_state(raw, candidate, known)
    finally:
        raw.close()


def sync_file(path: Path) -> None:
    """Wait until what was written to *path* is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", *SIDE_FILES):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
