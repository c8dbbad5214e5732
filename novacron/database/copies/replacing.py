"""Puts another SQLite file in the place of a node's, keeping the one that was there.

A kill at any moment leaves the old database under its name or the new one, never a part of either,
and never neither: :func:`~novacron.database.opening.open_database` completes what is between.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from novacron.boot.lock import DataDirectoryBusyError, DataDirectoryLock
from novacron.data_directory import DataDirectory
from novacron.database import integrity
from novacron.database.backup import SIDE_FILES, replacement, sync_file
from novacron.database.connection import open_reader, open_writer
from novacron.database.copies.loading import check_revision, load
from novacron.database.copies.outcome import Occupant, Restored
from novacron.database.copies.sqlite_tables import SqliteDestination, sqlite_tables
from novacron.database.copies.tables import DatabaseInUseError, Report, Snapshot
from novacron.database.opening import explain_os_error, suspicion
from novacron.database.schema import read_state, revisions
from novacron.database.sqlite_errors import map_error
from novacron.database.store import DatabaseTransientError
from novacron.durable import fsync_directory
from novacron.errors import DatabaseError
from novacron.units import NodeId


@contextmanager
def stopped_node(data: DataDirectory, what: str) -> Iterator[None]:
    """Hold the node's own lock, so that none runs or starts meanwhile.

    Args:
      what: what cannot be done while it runs, for the message.

    Raises:
      DatabaseInUseError: a node runs on *data*.
    """
    try:
        lock = DataDirectoryLock(data, f"“novacron database {what}”")
    except DataDirectoryBusyError as error:
        raise DatabaseInUseError(
            f"cannot {what} the database while a node runs on it",
            why=f"{data.root} is in use: {error.why}",
            remedy="stop that node first (systemctl stop novacron)",
            key="system.data_dir",
        ) from error
    try:
        yield
    finally:
        lock.release()


def occupant(path: Path) -> Occupant | None:
    """What is at *path*, read-only; None if nothing is. What is damaged is described too."""
    if not path.exists():
        return None
    size = sum(_size(Path(f"{path}{suffix}")) for suffix in ("", "-wal"))
    revision, owner, rows = None, None, 0
    try:
        integrity.check_header(path)
        raw = open_reader(path)
        try:
            state = read_state(raw, path, revisions())
            revision, owner = state.revision, state.node_id
            rows = sum(table.rows for table in sqlite_tables(raw))
        finally:
            raw.close()
    except DatabaseError as error:
        return Occupant(revision, owner, rows, size, error.why or error.what)
    except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
        why = "its text cannot be read" if isinstance(error, UnicodeDecodeError) else str(error)
        return Occupant(revision, owner, rows, size, why)
    return Occupant(revision, owner, rows, size, "")


def restore_file(
    snapshot: Snapshot,
    path: Path,
    data: DataDirectory,
    node_id: NodeId,
    busy_timeout: float,
    report: Report,
) -> Restored:
    """Replace the database at *path* by a new one with everything in *snapshot*, migrated to the
    newest revision and owned by *node_id*. Call within :func:`stopped_node`.

    Raises:
      DatabaseError: *snapshot* does not fit, or there is no space. What was at *path* is untouched.
    """
    check_revision(snapshot)
    # Where a link leads: renamed over, it would be gone, and the database on another disk.
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.restoring")
    destination = SqliteDestination(temporary, node_id)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tables = load(snapshot, destination, report)
        report("waiting for the disk", 1, 1, 0)
        destination.finish()
        _check(temporary)
        kept = exchange(temporary, path, data, busy_timeout)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        destination.close()
        for suffix in ("", "-journal", *SIDE_FILES):
            with contextlib.suppress(OSError):
                Path(f"{temporary}{suffix}").unlink(missing_ok=True)
    return Restored(tables, kept, revisions()[-1])


def exchange(ready: Path, path: Path, data: DataDirectory, busy_timeout: float) -> Path | None:
    """Put *ready*, complete and durable, in the place of *path*; where what was there lies now.

    Raises:
      DatabaseTransientError: another process reads or writes *path*.
      OSError: nothing was changed.
    """
    integrity.set_orphans_aside(path, data)
    if not path.exists():
        os.rename(ready, path)
        kept = None
    elif _fold(path, busy_timeout):
        kept = _keep(path)
        # Empty by now; beside the new file they would be taken for its own.
        for suffix in SIDE_FILES:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        fsync_directory(path.parent)
        os.rename(ready, path)
    else:
        # File and log only together are what was found. Between the two renames nothing lies at
        # *path*, and the next boot puts the replacement there.
        os.rename(ready, replacement(path))
        fsync_directory(path.parent)
        kept = integrity.set_aside(path, data)
        os.rename(replacement(path), path)
    fsync_directory(path.parent)
    # It spoke of the other file.
    suspicion(path).unlink(missing_ok=True)
    return kept


def _fold(path: Path, busy_timeout: float) -> bool:
    """Bring what is in the log of *path* into the file; False if the two are too damaged for it."""
    try:
        integrity.check_header(path)
        raw = open_writer(path)
    except (DatabaseError, UnicodeDecodeError):
        return False
    except sqlite3.Error as error:
        if integrity.is_damage(error):
            return False
        raise map_error(error, path) from error
    try:
        raw.execute(f"PRAGMA busy_timeout={int(busy_timeout * 1000)}").close()
        busy, _pages, _moved = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if integrity.is_damage(error):
            return False
        raise map_error(error, path) from error
    finally:
        raw.close()
    if busy:
        raise DatabaseTransientError(
            f"the database {path} is in use",
            why="another process reads or writes it",
            remedy=f"find it with “fuser {path}” and end it",
            key="database.path",
        )
    return _size(Path(f"{path}-wal")) == 0


def _keep(path: Path) -> Path:
    """A second name for the file at *path*, so that replacing it loses nothing."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept, attempt = path.with_name(f"{path.name}.replaced.{stamp}"), 0
    while True:
        try:
            os.link(path, kept)
            break
        except FileExistsError:
            attempt += 1
            kept = path.with_name(f"{path.name}.replaced.{stamp}.{attempt}")
        except OSError:
            # A file system without links.
            shutil.copyfile(path, kept)
            os.chmod(kept, 0o600)
            sync_file(kept)
            break
    fsync_directory(path.parent)
    return kept


def _check(path: Path) -> None:
    raw = open_reader(path)
    try:
        integrity.check_pages(raw, path, full=True, progress=None)
    finally:
        raw.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
