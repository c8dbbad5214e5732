"""The index of one tenant: in which files of this node which blocks lie.

An SQLite file. What it says is a hint: whoever uses it reads the block and checks its SHA-256, so an
index that is old, damaged or made up costs time and nothing else. That is also why eight bytes of the
digest are enough here, and why a damaged index is thrown away without a word to anybody.

Everything here blocks on the disk: call it in a worker thread. Several threads may use one index.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from novacron.dwcp.hde.blocks.core import SCHEME, Block
from novacron.record import Record

logger = logging.getLogger("novacron.dwcp.blocks")

FORMAT: Final = 1
CANDIDATES: Final = 4
"""Places of one block that are told of: more would only help whoever fills an index with copies."""
_BATCH: Final = 4096
_BUSY_SECONDS: Final = 5.0
_SCHEMA: Final = """
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path BLOB UNIQUE NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, used_at REAL NOT NULL,
    blocks INTEGER NOT NULL, whole INTEGER NOT NULL
);
CREATE TABLE blocks (
    key INTEGER NOT NULL, file INTEGER NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (key, file, offset)
) WITHOUT ROWID;
CREATE INDEX blocks_of_file ON blocks (file);
COMMIT;
"""


class Stamp(Record):
    """What a file looked like when it was indexed. With the time of its last change of any kind: a
    file that came in its place may have its size, its time and, since they are used again, its inode.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class Place(Record):
    """Where a block may lie."""

    file: int
    path: bytes
    stamp: Stamp
    offset: int
    size: int


class IndexFacts(Record):
    tenant: str
    files: int
    blocks: int
    size_bytes: int
    """Of the index."""
    indexed_bytes: int
    """Of the files."""


def file_name(tenant: str) -> str:
    """Of a tenant's index: no path, and no other tenant's, can be written as a name."""
    return hashlib.sha256(b"novacron tenant" + tenant.encode()).hexdigest()[:32] + ".sqlite"


def _key(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big", signed=True)


class BlockIndex:
    """Made by :func:`open_index`; closed by whoever called it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()

    # Finding ---------------------------------------------------------------------------------

    def find(self, digests: Sequence[bytes]) -> list[list[Place]]:
        """For each where it may lie, at most :data:`CANDIDATES` places."""
        statement = (
            "SELECT f.id, f.path, f.size, f.mtime_ns, f.ctime_ns, f.inode, b.offset, b.size FROM blocks b "
            f"JOIN files f ON f.id = b.file WHERE b.key = ? LIMIT {CANDIDATES}"
        )
        found: list[list[Place]] = []
        with self._lock:
            for digest in digests:
                rows = self._connection.execute(statement, (_key(digest),))
                found.append(
                    [
                        Place(file, path, Stamp(size, mtime_ns, ctime_ns, inode), offset, length)
                        for file, path, size, mtime_ns, ctime_ns, inode, offset, length in rows
                    ]
                )
        return found

    def knows(self, path: bytes, stamp: Stamp) -> bool:
        """Whether the file is indexed as it is now."""
        with self._lock:
            row = self._connection.execute(
                "SELECT size, mtime_ns, ctime_ns, inode FROM files WHERE path = ? AND whole",
                (path,),
            ).fetchone()
        return row is not None and Stamp(*row) == stamp

    def has_path(self, path: bytes) -> bool:
        """Whether a file of that path is indexed, as it is now or as it was."""
        with self._lock:
            return bool(
                self._connection.execute("SELECT 1 FROM files WHERE path = ?", (path,)).fetchone()
            )

    @property
    def empty(self) -> bool:
        with self._lock:
            return self._connection.execute("SELECT 1 FROM blocks LIMIT 1").fetchone() is None

    # Changing --------------------------------------------------------------------------------

    def begin(self, path: bytes, stamp: Stamp) -> int:
        """A file is being indexed, in place of what was known of its path: its number."""
        with self._lock, self._connection:
            row = self._connection.execute(
                "SELECT id FROM files WHERE path = ?", (path,)
            ).fetchone()
            if row is not None:
                self._forget(row[0])
            cursor = self._connection.execute(
                "INSERT INTO files (path, size, mtime_ns, ctime_ns, inode, used_at, blocks, whole) "
                "VALUES (?, ?, ?, ?, ?, ?, 0, 0)",
                (path, *stamp, time.time()),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def add(self, file: int, blocks: Iterable[Block]) -> None:
        """Some more blocks of it; none where it was forgotten in the meantime."""
        rows = [(_key(digest), file, offset, size) for offset, size, digest in blocks]
        with self._lock, self._connection:
            known = self._connection.execute(
                "UPDATE files SET blocks = blocks + ? WHERE id = ?", (len(rows), file)
            )
            if known.rowcount:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)", rows
                )

    def complete(self, file: int) -> None:
        """All of it is indexed, or as much as is to be."""
        with self._lock, self._connection:
            self._connection.execute("UPDATE files SET whole = 1 WHERE id = ?", (file,))

    def touch(self, files: Iterable[int]) -> None:
        """They were of use."""
        with self._lock, self._connection:
            self._connection.executemany(
                "UPDATE files SET used_at = ? WHERE id = ?",
                [(time.time(), file) for file in files],
            )

    def forget(self, files: Iterable[int]) -> None:
        """They are not what they were."""
        with self._lock, self._connection:
            for file in files:
                self._forget(file)

    def forget_places(self, places: Iterable[Place]) -> None:
        """There is something else there."""
        with self._lock, self._connection:
            self._connection.executemany(
                "DELETE FROM blocks WHERE file = ? AND offset = ?",
                [(place.file, place.offset) for place in places],
            )

    def _forget(self, file: int) -> None:
        self._connection.execute("DELETE FROM blocks WHERE file = ?", (file,))
        self._connection.execute("DELETE FROM files WHERE id = ?", (file,))

    def evict(self) -> bool:
        """Forget the file that was of no use for longest; whether there was one."""
        with self._lock:
            row = self._connection.execute(
                "SELECT id FROM files ORDER BY used_at LIMIT 1"
            ).fetchone()
            if row is None:
                return False
            self.forget([row[0]])
            self.shrink()
            return True

    def oldest(self) -> float:
        """When the file was of use that was of no use for longest; infinite where there is none."""
        with self._lock:
            row = self._connection.execute("SELECT min(used_at) FROM files").fetchone()
        return float("inf") if row[0] is None else float(row[0])

    def clear(self) -> None:
        with self._lock, self._connection:
            self._connection.execute("DELETE FROM blocks")
            self._connection.execute("DELETE FROM files")
        self.shrink()

    def shrink(self) -> None:
        """Give back to the file system what is not needed any more."""
        with self._lock:
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # Figures ---------------------------------------------------------------------------------

    def size_bytes(self) -> int:
        """Of the index itself."""
        with self._lock:
            pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
            free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
            size = self._connection.execute("PRAGMA page_size").fetchone()[0]
        return int((pages - free) * size)

    def facts(self) -> IndexFacts:
        with self._lock:
            tenant = self._connection.execute(
                "SELECT value FROM facts WHERE name = 'tenant'"
            ).fetchone()
            files, blocks, indexed = self._connection.execute(
                "SELECT count(*), coalesce(sum(blocks), 0), coalesce(sum(size), 0) FROM files"
            ).fetchone()
        return IndexFacts(str(tenant[0]), files, blocks, self.size_bytes(), indexed)

    def close(self) -> None:
        """Harmless when repeated."""
        with self._lock:
            self._connection.close()


def open_index(directory: Path, tenant: str, *, sweep: bool = True) -> BlockIndex:
    """The index of *tenant*, made where there is none. One that is damaged, or of another format or
    way of cutting, is replaced by an empty one.

    Args:
      sweep: Forget files of which a part was indexed; not for those who are not the node, which may
        be at it.

    Raises:
      OSError: the directory cannot be used.
      sqlite3.Error: nor can the file, for another reason than what is in it.
    """
    path = directory / file_name(tenant)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return _open(path, tenant, sweep)
    except (sqlite3.DatabaseError, ValueError) as exc:
        # Its subclasses are about locks, memory and the like, not about what is in the file.
        if isinstance(exc, sqlite3.Error) and type(exc) is not sqlite3.DatabaseError:
            raise
        logger.info("an index of blocks begins anew: %s", exc, extra={"path": str(path)})
        remove_index(path)
        return _open(path, tenant, sweep)


def _open(path: Path, tenant: str, sweep: bool) -> BlockIndex:
    facts = {"format": str(FORMAT), "scheme": str(SCHEME.number), "tenant": tenant}
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level="DEFERRED", check_same_thread=False
    )
    try:
        os.chmod(path, 0o600)
        # NORMAL: a power cut may take the last transactions, never the file's soundness.
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            connection.executescript(_SCHEMA)
            with connection:
                connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        found = dict(connection.execute("SELECT name, value FROM facts").fetchall())
        if found != facts:
            raise ValueError("another version wrote it")
        index = BlockIndex(path, connection)
        if sweep:
            parts = connection.execute("SELECT id FROM files WHERE NOT whole").fetchall()
            index.forget([file for (file,) in parts])
    except BaseException:
        connection.close()
        raise
    return index


def remove_index(path: Path) -> None:
    """Raises OSError: it is still there."""
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).unlink()


def tenant_of(path: Path) -> str | None:
    """Whose index *path* is; None: of nobody, or it cannot be told."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        try:
            row = connection.execute("SELECT value FROM facts WHERE name = 'tenant'").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return None
    if row is None or file_name(str(row[0])) != path.name:
        return None
    return str(row[0])
