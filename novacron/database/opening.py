"""From a path to checked, owned, open connections: everything a boot does with the file.

One call, made in one worker thread, serves the common boot: the file is looked at, its pages are
checked, schema and owner are compared, and the connections that did this go on to serve. What is
wrong is decided here as well:

* **Damaged**: set aside whole; the newest good backup takes its place, else an empty database. The
  boot goes on and says so loudly, because a node that does not boot cannot be asked anything.
* **Not ours** (newer schema, another node's, another program's) **or not usable** (permission,
  read-only, no space): refused, untouched. Here going on would do harm or could not work.
"""

from __future__ import annotations

import errno
import os
import pwd
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from novacron.data_directory import DataDirectory
from novacron.database import integrity
from novacron.database.backup import (
    SIDE_FILES,
    backup_directory,
    newest_good_backup,
    prepare_copy,
    replacement,
    sync_file,
)
from novacron.database.connection import open_reader, open_scratch, open_writer
from novacron.database.schema import (
    SchemaState,
    apply_snapshot,
    check_owner,
    read_state,
    revisions,
    write_owner,
)
from novacron.database.sqlite_errors import is_busy, map_error
from novacron.database.store import (
    DatabaseCorruptError,
    DatabaseFullError,
    DatabaseUnavailableError,
)
from novacron.database.wal import find_log_damage
from novacron.durable import fsync_directory
from novacron.errors import DatabaseError
from novacron.record import Record
from novacron.units import MIB, NodeId

FOREGROUND_CHECK_BYTES = 4 * MIB
"""File and log together: up to here the check of a cached file takes under 4 ms and is made before
the node serves; past it, in the background while it serves."""


class Opening:
    """What :func:`open_database` found. Whoever gets it closes the connections.

    ``writer`` is None while a migration is pending; see ``state``. ``notices`` are sentences the
    operator must see: each tells of something that is lost. ``unchecked``: the file is too large
    for a check before serving. ``place``: the open file, as :func:`file_place` finds it.
    """

    __slots__ = ("notices", "place", "reader", "state", "unchecked", "writer")

    def __init__(
        self,
        reader: sqlite3.Connection,
        writer: sqlite3.Connection | None,
        state: SchemaState,
        notices: list[str] | None = None,
        unchecked: bool = False,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.state = state
        self.notices = notices if notices is not None else []
        self.unchecked = unchecked
        self.place: tuple[int, int] | None = None

    def close(self) -> None:
        self.reader.close()
        if self.writer is not None:
            self.writer.close()


class Plan(Record):
    """How to open."""

    path: Path
    data: DataDirectory
    node_id: NodeId
    check: str
    """``quick``, ``full`` or ``off``, as ``database.integrity_check``."""
    busy_timeout: float
    thorough: bool = False
    """Check now whatever the size: damage was met in this file before."""
    progress: Callable[[str], None] | None = None


def open_database(plan: Plan) -> Opening:
    """Open the database of *plan*, making or repairing it where needed. Blocks.

    Raises:
      DatabaseError: refused or not usable; says why. The file is untouched.
    """
    try:
        return _open(plan)
    except OSError as error:
        raise explain_os_error(error, plan.path) from error
    except sqlite3.Error as error:
        raise map_error(error, plan.path) from error


def _open(plan: Plan) -> Opening:
    path = plan.path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    notices = _finish_earlier(plan)
    created = False
    for _ in range(3):
        if not path.exists():
            _create(plan, notices)
            created = True
        _check_access(path)
        try:
            opening = _inspect(plan, notices, skip_pages=created)
            break
        except (sqlite3.Error, DatabaseCorruptError, UnicodeDecodeError) as error:
            if not integrity.is_damage(error):
                raise
            notices.append(_replace_damaged(plan, error))
    else:
        raise DatabaseUnavailableError(
            f"the database {path} is damaged again as soon as it is written",
            why="three files in a row could not be read back",
            remedy="look at the kernel's log for the disk below it",
            key="database.path",
        )
    try:
        suspicion(path).unlink(missing_ok=True)
        if not _marker(path).exists():
            _marker(path).touch(mode=0o600)
            fsync_directory(path.parent)
        if opening.state.revision == revisions()[-1]:
            recovered = _size(Path(f"{path}-wal")) > 0
            opening.writer = _open_writer_patiently(plan)
            opening.place = file_place(path)
            if recovered:
                # After a crash: start the log afresh, so that no leftover of a torn commit is
                # ever taken for one that was lost (see wal.py).
                opening.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            if opening.state.node_id is None:
                write_owner(opening.writer, plan.node_id, time.time())
    except BaseException:
        opening.close()
        raise
    return opening


def suspicion(path: Path) -> Path:
    """The file whose presence says that damage was met in *path* while the node served from it:
    the next opening checks every page first, whatever its size and the configuration."""
    return path.with_name(f"{path.name}.suspect")


def _inspect(plan: Plan, notices: list[str], *, skip_pages: bool) -> Opening:
    path = plan.path
    integrity.check_header(path)
    reader = _open_patiently(plan)
    try:
        known = revisions()
        size = sum(_size(Path(f"{path}{suffix}")) for suffix in ("", "-wal"))
        suspect = plan.thorough or suspicion(path).exists()
        unchecked = (suspect or plan.check != "off") and not skip_pages
        if unchecked and (suspect or size <= FOREGROUND_CHECK_BYTES):
            _check_pages(plan, reader)
            unchecked = False
        state = read_state(reader, path, known)
        check_owner(state, path, plan.node_id)
        if unchecked and state.revision != known[-1]:
            # A damaged file is neither worth a backup nor safe to migrate.
            _check_pages(plan, reader)
            unchecked = False
        if (lost := find_log_damage(path)) is not None:
            kept = integrity.keep_copy(path, plan.data)
            notices.append(
                f"the log of the database {path} was damaged: the last {lost.commits_lost} "
                f"changes are lost, the database is as it was before them. File and log as they "
                f"were found are kept in {kept}"
            )
    except BaseException:
        reader.close()
        raise
    return Opening(reader, None, state, notices, unchecked)


def _check_pages(plan: Plan, reader: sqlite3.Connection) -> None:
    integrity.check_pages(reader, plan.path, full=plan.check == "full", progress=plan.progress)


def _open_patiently(plan: Plan) -> sqlite3.Connection:
    give_up = time.monotonic() + plan.busy_timeout
    while True:
        reader = open_reader(plan.path)
        try:
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return reader
        except sqlite3.OperationalError as error:
            reader.close()
            if not is_busy(error) or time.monotonic() >= give_up:
                raise
            time.sleep(0.01)
        except BaseException:
            reader.close()
            raise


def _open_writer_patiently(plan: Plan) -> sqlite3.Connection:
    """Ready means that it can be written: the lock for that is taken and given back. Costs no wait
    for the disk."""
    give_up = time.monotonic() + plan.busy_timeout
    while True:
        writer: sqlite3.Connection | None = None
        try:
            writer = open_writer(plan.path)
            writer.execute("BEGIN IMMEDIATE").close()
            writer.execute("ROLLBACK").close()
            return writer
        except BaseException as error:
            if writer is not None:
                writer.close()
            locked = isinstance(error, sqlite3.OperationalError) and is_busy(error)
            if not locked or time.monotonic() >= give_up:
                raise
            time.sleep(0.01)


def file_place(path: Path) -> tuple[int, int] | None:
    """Which file *path* names at this moment: device and inode, None where there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _finish_earlier(plan: Plan) -> list[str]:
    """Complete or clear away what a boot that was killed left; what to tell about it."""
    path = plan.path
    ready = replacement(path)
    rests = (
        integrity.finish_set_aside(path, plan.data),
        integrity.set_orphans_aside(path, plan.data),
    )
    notices = [
        f"parts of a damaged database were found and kept in {rest}"
        for rest in rests
        if rest is not None
    ]
    for name in os.listdir(path.parent):
        if not name.startswith(f".{path.name}."):
            continue
        if name == ready.name and not path.exists():
            # Prepared before the damaged file was moved away, so it is whole.
            os.rename(ready, path)
            fsync_directory(path.parent)
            if _marker(path).exists():
                notices.append(
                    f"the database {path} was damaged; an earlier boot set it aside in "
                    f"{plan.data.quarantine_area} and was killed before it could say so. A "
                    "backup, or an empty database where there was none, has taken its place"
                )
        else:
            path.with_name(name).unlink()
    return notices


def _replace_damaged(plan: Plan, error: Exception) -> str:
    """The replacement is whole before the damaged file moves: without space for it nothing does,
    and a kill in between is completed by the next boot."""
    path = plan.path
    if isinstance(error, DatabaseError):
        why = error.why
    elif hasattr(error, "sqlite_errorcode"):
        why = f"SQLite says “{error}”"
    else:
        # The driver's own message would quote the stored value.
        why = "it holds text that cannot be read"
    good = newest_good_backup(path, revisions(), plan.node_id)
    if good is None:
        ready = _make_new(plan)
        # Must be there for good before the damaged file goes.
        fsync_directory(path.parent)
        how = "There was no good backup: the node started with an empty database"
    else:
        backup, _state = good
        ready = prepare_copy(backup, path)
        made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(backup.stat().st_mtime))
        how = f"The backup {backup.name} of {made} was restored; later changes are missing"
    kept = integrity.set_aside(path, plan.data)
    os.rename(ready, path)
    fsync_directory(path.parent)
    return (
        f"the database {path} was damaged ({why}); it is kept unchanged in {kept}. {how}; see the "
        "runbook database-corrupt"
    )


def _create(plan: Plan, notices: list[str]) -> None:
    path = plan.path
    if _marker(path).exists():
        notices.append(
            f"the database {path} was there at an earlier boot and is gone; the node started "
            f"with an empty one (backups: {backup_directory(path)})"
        )
    os.rename(_make_new(plan), path)
    fsync_directory(path.parent)


def _make_new(plan: Plan) -> Path:
    """Make an empty database under another name: whatever lies under its own name was whole once,
    and a kill at the first boot leaves no half of one. The caller syncs the directory."""
    path = plan.path
    temporary, ready = path.with_name(f".{path.name}.new"), replacement(path)
    _remove(temporary)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY, 0o600))
        fill(temporary, plan.node_id, scratch=True)
        sync_file(temporary)
        os.rename(temporary, ready)
    except DatabaseFullError as error:
        _remove(temporary)
        raise _full(path) from error
    except BaseException:
        _remove(temporary)
        raise
    return ready


def fill(path: Path, node_id: NodeId, *, scratch: bool = False) -> None:
    """Bring the empty database at *path* to the newest schema and make it *node_id*'s. Blocks.

    *scratch*: nothing reads the file before the caller has synced it.

    Raises:
      DatabaseError: mapped from SQLite; the database is as it was.
    """
    try:
        raw = open_scratch(path) if scratch else open_writer(path)
        try:
            if apply_snapshot(raw, node_id, time.time()):
                raw.execute("PRAGMA journal_mode=WAL").close()
                return
        finally:
            raw.close()
        from novacron.database.migrate import upgrade

        upgrade(path)
        raw = open_writer(path)
        try:
            write_owner(raw, node_id, time.time())
        finally:
            raw.close()
    except sqlite3.Error as error:
        raise map_error(error, path) from error


def _marker(path: Path) -> Path:
    """An empty file that says a database was here, so that its loss is noticed."""
    return path.with_name(f"{path.name}.created")


def explain_os_error(error: OSError, path: Path) -> DatabaseError:
    """The error to raise for *error*, met while handling the files of the database at *path*."""
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(path)
    if error.errno == errno.EROFS:
        return _read_only(path)
    return DatabaseUnavailableError(
        f"the database {path} cannot be opened",
        why=f"{why}: {error.filename or path}; this process runs as {_user()}",
        remedy="give this user read and write access to the file and its directory, "
        "or set database.path",
        key="database.path",
    )


def _check_access(path: Path) -> None:
    """Say plainly what SQLite would report as “unable to open” or, worse, at the first change."""
    if path.is_dir():
        raise DatabaseUnavailableError(
            f"the database {path} cannot be opened",
            why="it is a directory",
            remedy="set database.path to a file",
            key="database.path",
        )
    for place, need in ((path, os.R_OK | os.W_OK), (path.parent, os.R_OK | os.W_OK | os.X_OK)):
        if os.access(place, need, effective_ids=True):
            continue
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            raise _read_only(path)
        status = place.stat()
        raise DatabaseUnavailableError(
            f"the database {path} cannot be opened for writing",
            why=f"permission denied: {place} has mode {status.st_mode & 0o7777:04o} and belongs to "
            f"{_name(status.st_uid)}; this process runs as {_user()}",
            remedy=f"“chown -R {_user()} {path.parent}”, or set database.path",
            key="database.path",
        )


def _full(path: Path) -> DatabaseFullError:
    return DatabaseFullError(
        f"the database {path} cannot be made or repaired",
        why="no space is left on its file system, or a quota is used up",
        remedy=f"free some space on the file system of {path.parent}, or set database.path to "
        "another one",
        key="database.path",
    )


def _read_only(path: Path) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"the database {path} cannot be written",
        why="its file system is mounted read-only",
        remedy="remount it writable, or set database.path",
        key="database.path",
    )


def _user() -> str:
    return _name(os.geteuid())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", *SIDE_FILES):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
