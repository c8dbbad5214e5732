"""Writes a backup file: whole under its name, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgpack  # type: ignore[import-untyped]

from novacron.database.copies.tables import (
    BackupExistsError,
    BackupInvalidError,
    Report,
    Row,
    Snapshot,
    Table,
)
from novacron.database.copies.wire import (
    BATCH_BYTES,
    LENGTH,
    MAX_CONTENT,
    MAX_ITEMS,
    Header,
    encode_header,
)
from novacron.database.store import DatabaseFullError, DatabaseUnavailableError
from novacron.durable import fsync_directory
from novacron.errors import DatabaseError
from novacron.record import Record

LEVEL = 3
"""Zstandard's default: at 300 MB/s a core it is faster than rows come, and higher levels save some
percent only."""


class Backup(Record):
    """A backup that was written."""

    path: Path
    header: Header
    size: int
    """Bytes."""
    sha256: str
    """The one at its end, over everything before it."""


def write_backup(snapshot: Snapshot, path: Path, version: str, report: Report) -> Backup:
    """Write everything in *snapshot* to the new file *path*, mode 0600, in bounded memory.

    Returns when the file and its name are on the disk. Killed before, it leaves nothing under
    *path*.

    Raises:
      BackupExistsError: *path* is there; it is never replaced.
      DatabaseFullError: no space is left for it; nothing stays.
      DatabaseError: it cannot be written, or *snapshot* cannot be read.
    """
    header = Header(
        version,
        snapshot.revision,
        snapshot.engine,
        snapshot.owner,
        time.time(),
        snapshot.tables,
    )
    try:
        with _new_file(path) as file:
            digest = _write(snapshot, header, file, report)
            report("waiting for the disk", header.rows, header.rows, file.tell())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
    except OSError as error:
        raise explain(error, path) from error
    return Backup(path, header, size, digest)


def _write(snapshot: Snapshot, header: Header, file: BinaryIO, report: Report) -> str:
    import zstandard

    hashed = hashlib.sha256()
    compress = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress
    done = size = 0

    def put(data: bytes) -> None:
        nonlocal size
        hashed.update(data)
        file.write(data)
        size += len(data)

    put(encode_header(header))
    for index, table in enumerate(header.tables):
        count = 0
        for content, rows in _batches(index, table, snapshot.rows(table)):
            frame = compress(content)
            put(LENGTH.pack(len(frame)))
            put(frame)
            count += rows
            report(f"writing {table.name}", done + count, header.rows, size)
        if count != table.rows:
            raise BackupInvalidError(
                f"the backup of {snapshot.place} would not be consistent",
                why=f"{table.name} had {table.rows} rows and now has {count}",
                remedy="make it again; if this comes again, report it with this message",
            )
        done += count
    put(LENGTH.pack(0))
    file.write(hashed.digest())
    return hashed.hexdigest()


def _batches(index: int, table: Table, rows: Iterator[Row]) -> Iterator[tuple[bytes, int]]:
    """The content of frames, each with the number of its rows."""
    packer = msgpack.Packer(autoreset=True)
    parts: list[bytes] = []
    size = 0

    def content() -> bytes:
        head = packer.pack_array_header(2) + packer.pack(index)
        return bytes(head + packer.pack_array_header(len(parts)) + b"".join(parts))

    for row in rows:
        try:
            packed = packer.pack(list(row))
        except UnicodeEncodeError as error:
            raise _unfit(table, "text that is not UTF-8") from error
        if len(packed) > MAX_CONTENT // 2:
            raise _unfit(table, f"{len(packed)} bytes, more than the format takes")
        if parts and (size + len(packed) > BATCH_BYTES or len(parts) == MAX_ITEMS):
            yield content(), len(parts)
            parts, size = [], 0
        parts.append(packed)
        size += len(packed)
    if parts:
        yield content(), len(parts)


def _unfit(table: Table, why: str) -> BackupInvalidError:
    return BackupInvalidError(
        f"a row of {table.name} cannot be put into a backup",
        why=f"it holds {why}",
        remedy="see novacron database verify",
    )


def unused_name(directory: Path, stem: str) -> Path:
    """A name for a backup made now in *directory*, which is made if it is not there.

    Raises:
      DatabaseError: the directory cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, directory) from error
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path, attempt = directory / f"{stem}-{stamp}.ncb", 0
    while os.path.lexists(path):
        attempt += 1
        path = directory / f"{stem}-{stamp}.{attempt}.ncb"
    return path


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file without a name, which becomes *path* when the block is left without an error."""
    if os.path.lexists(path):
        raise _exists(path)
    descriptor, temporary = _open(path)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            yield file
        # link() and not rename(): it does not replace what somebody put there meanwhile.
        try:
            if temporary is None:
                # Python follows the link in /proc only where a directory is given too, which an
                # absolute path makes nothing of.
                os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
            else:
                os.link(temporary, path)
        except FileExistsError as error:
            raise _exists(path) from error
        except OSError as error:
            if temporary is None or error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            # A file system without links (FAT on a stick).
            os.rename(temporary, path)
        fsync_directory(path.parent)
    finally:
        os.close(descriptor)
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _open(path: Path) -> tuple[int, Path | None]:
    """A descriptor, and the temporary name where the file system cannot do without one."""
    try:
        return os.open(path.parent, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600), None
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(temporary, flags, 0o600), temporary


def _exists(path: Path) -> BackupExistsError:
    if path.is_dir():
        return BackupExistsError(
            f"cannot write the backup {path}",
            why="that is a directory",
            remedy="name a file in it that does not exist",
        )
    return BackupExistsError(
        f"cannot write the backup {path}",
        why="there is a file of that name, and backups are never replaced",
        remedy="name another file, or move that one away",
    )


def explain(error: OSError, path: Path) -> DatabaseError:
    """What to raise for *error*, met while *path* was written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DatabaseFullError(
            f"the backup {path} cannot be written",
            why="no space is left on its file system, or a quota is used up; nothing of it stays",
            remedy="free space there, or name a file on another file system",
        )
    return DatabaseUnavailableError(
        f"the backup {path} cannot be written",
        why=error.strerror or type(error).__name__,
        remedy="name a file in a directory that is there and that you may write to",
    )
