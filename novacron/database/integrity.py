"""Telling a sound database file from a damaged one, and setting a damaged one aside whole.

Looking never changes the file: it is opened read-only, and neither the file nor its log is
written, so that what lies in the quarantine is what was found, byte for byte. (SQLite rebuilds the
``-shm`` index from the log whenever it opens a database; it holds no data of its own.)

All functions block; call them in a worker thread.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from novacron.data_directory import DataDirectory
from novacron.database.backup import SIDE_FILES
from novacron.database.sqlite_errors import DAMAGE, primary_code
from novacron.database.store import DatabaseCorruptError
from novacron.durable import fsync_directory

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_DAMAGE_AT_BOOT = DAMAGE | {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH}


def is_damage(error: Exception) -> bool:
    """Whether *error*, met while a database is opened, speaks of its bytes.

    Every statement of the boot is constant and right, so that even “no such table” and text that
    is not UTF-8 (which has no result code) can only come from the file.
    """
    if isinstance(error, DatabaseCorruptError | UnicodeDecodeError):
        # The latter: SQLite's own message quoted a damaged name.
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    return not hasattr(error, "sqlite_errorcode") or primary_code(error) in _DAMAGE_AT_BOOT


def check_header(path: Path) -> None:
    """Find what SQLite is too lenient about.

    Raises:
      DatabaseCorruptError: empty, cut short, not SQLite, or with a format version that would make
        SQLite treat a writable file as read-only.
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(_HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    if not header:
        raise _damaged(path, "it is empty")
    if len(header) < _HEADER_BYTES:
        raise _damaged(path, f"it is cut short to {len(header)} bytes")
    if not header.startswith(_MAGIC):
        raise _damaged(path, "it is not a SQLite file")
    if header[18] not in (1, 2) or header[19] not in (1, 2):
        raise _damaged(path, "its header names an unknown format")
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    if page_size and size % page_size and not _has_log(path):
        # SQLite pads the last page with zeros and finds nothing wrong. With a log, a crash while
        # the file grew explains it, and the log holds the page.
        raise _damaged(path, f"it is cut short: {size} bytes are not whole pages of {page_size}")


def check_pages(
    raw: sqlite3.Connection, path: Path, *, full: bool, progress: Callable[[str], None] | None
) -> None:
    """Let SQLite check every page (*full*: and every index against its table).

    Raises:
      DatabaseCorruptError: with the first findings.
      sqlite3.Error: damage so bad that the check itself ends.
    """
    if progress is not None:
        last = time.monotonic()

        def report() -> int:
            nonlocal last
            now = time.monotonic()
            if now - last >= 1.0:
                last = now
                progress("checking the database file")
            return 0

        raw.set_progress_handler(report, 100_000)
    try:
        pragma = "integrity_check" if full else "quick_check"
        findings = [
            str(row[0]).removeprefix("*** in database main ***")
            for row in raw.execute(f"PRAGMA {pragma}(3)")
            if row[0] != "ok"
        ]
    finally:
        raw.set_progress_handler(None, 0)
    if findings:
        raise _damaged(path, "; ".join(" ".join(str(f).split()) for f in findings)[:300])


def set_aside(path: Path, data: DataDirectory) -> Path:
    """Move *path*, its log and its index into the quarantine together; the directory they are in.

    Killed at any moment, :func:`finish_set_aside` completes it: the file itself is moved first, so
    that a log which is still in place belongs to the file that is not.

    Raises:
      OSError: nothing more could be moved; nothing was overwritten.
    """
    box = _box(path)
    box.mkdir(mode=0o700, exist_ok=True)
    for suffix in ("", *SIDE_FILES):
        source = Path(f"{path}{suffix}")
        if os.path.lexists(source):
            os.rename(source, box / source.name)
    fsync_directory(box)
    fsync_directory(path.parent)
    return _quarantine(box, data)


def finish_set_aside(path: Path, data: DataDirectory) -> Path | None:
    """Complete a :func:`set_aside` that a crash cut short; where the files lie, or None."""
    box = _box(path)
    if not box.is_dir():
        return None
    if (box / path.name).exists():
        if path.exists():
            # Someone put a new file in place meanwhile: its log is not ours to take.
            return _quarantine(box, data)
        return set_aside(path, data)
    if not any(box.iterdir()):
        box.rmdir()
        return None
    return _quarantine(box, data)


def set_orphans_aside(path: Path, data: DataDirectory) -> Path | None:
    """A log without its database would be replayed into the next file of that name."""
    if path.exists() or not any(Path(f"{path}{suffix}").exists() for suffix in SIDE_FILES):
        return None
    return set_aside(path, data)


def keep_copy(path: Path, data: DataDirectory) -> Path:
    """Copy *path* and its side files into the quarantine; the directory they are in.

    For a database that is usable but has lost changes: it stays, and so does what was found.

    Raises:
      OSError: no space for the copy.
    """
    box = path.with_name(f"{path.name}.damaged-log")
    if box.is_dir():
        shutil.rmtree(box)
    box.mkdir(mode=0o700)
    for suffix in ("", *SIDE_FILES):
        source = Path(f"{path}{suffix}")
        if source.exists():
            shutil.copyfile(source, box / source.name)
    return _quarantine(box, data)


def _has_log(path: Path) -> bool:
    try:
        return os.stat(f"{path}-wal").st_size > 0
    except FileNotFoundError:
        return False


def _box(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _quarantine(box: Path, data: DataDirectory) -> Path:
    try:
        return data.quarantine(box)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # database.path lies on another file system: set it aside there.
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target, attempt = box.with_name(f"{box.name}.{stamp}"), 0
    while target.exists():
        attempt += 1
        target = box.with_name(f"{box.name}.{stamp}.{attempt}")
    os.rename(box, target)
    fsync_directory(box.parent)
    return target


def _damaged(path: Path, why: str) -> DatabaseCorruptError:
    return DatabaseCorruptError(
        f"the database {path} is damaged",
        why=why,
        remedy="restart the node: it sets the file aside, keeps it, and restores a backup",
        key="database.path",
    )
