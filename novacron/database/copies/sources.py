"""A file that an operator named: a backup, or a SQLite database."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from novacron.database.copies.reading import BackupFile, unreadable
from novacron.database.copies.sqlite_tables import SqliteSnapshot
from novacron.database.copies.tables import BackupInvalidError, Report, Snapshot
from novacron.database.copies.wire import MAGIC
from novacron.database.store import DatabaseUnavailableError

_SQLITE = b"SQLite format 3\0"


def open_file(path: Path, *, busy_timeout: float) -> BackupFile | SqliteSnapshot:
    """Whichever it is, by its first bytes. Whoever gets it closes it.

    Raises:
      DatabaseError: it is neither, or not usable; says why.
    """
    try:
        # A pipe cannot be read twice, and might never be written to.
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
            raise DatabaseUnavailableError(
                f"cannot read {path}",
                why="it is no regular file, and what is checked first is read again",
                remedy="copy it to a file, and name that",
            )
        with open(path, "rb") as file:
            head = file.read(len(_SQLITE))
    except OSError as error:
        raise unreadable(path, error) from error
    if head.startswith(MAGIC[: len(head)]) and head:
        return BackupFile(path)
    if head == _SQLITE:
        return SqliteSnapshot(path, busy_timeout=busy_timeout)
    raise BackupInvalidError(
        f"{path} is no backup",
        why="it is empty" if not head else "it is neither a backup of NovaCron's nor a SQLite file",
        remedy="name a file that “novacron database backup” wrote, or a copy of a node's "
        "novacron.db",
    )


def verify_file(source: Snapshot, report: Report) -> None:
    """Read *source* to its end before anything is done with it; of a SQLite file every page.

    Raises:
      DatabaseError: it is damaged.
    """
    if isinstance(source, BackupFile):
        source.verify(report)
    elif isinstance(source, SqliteSnapshot):
        report("checking the file", 0, 0, 0)
        source.verify()
