"""Whether the data directory can be written, and if not, what an operator should know."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from novacron.boot.lock import who_may
from novacron.errors import (
    DeniedError,
    EnvironmentProbeError,
    LimitError,
    NotFoundError,
    UnavailableError,
)

PROBE_BYTES = 4096
"""One block: a full file system refuses it, an empty file it would still take."""


class DataDirectoryError(EnvironmentProbeError):
    """The data directory cannot be used; the second axis says in which way."""

    code = "environment.data_directory"


class DataDirectoryDeniedError(DataDirectoryError, DeniedError):
    code = "environment.data_directory_denied"


class DataDirectoryReadOnlyError(DataDirectoryError, UnavailableError):
    code = "environment.data_directory_read_only"


class DataDirectoryFullError(DataDirectoryError, LimitError):
    code = "environment.data_directory_full"


class DataDirectoryMissingError(DataDirectoryError, NotFoundError):
    code = "environment.data_directory_missing"


class DataDirectoryBrokenError(DataDirectoryError, UnavailableError):
    code = "environment.data_directory_broken"


def data_directory_error(doing: str, path: Path, exc: OSError) -> DataDirectoryError:
    """The error for *exc*, met while *doing* ("store the node's identity") something to *path*."""
    what = f"cannot {doing} ({path})"
    key = "system.data_dir"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return DataDirectoryDeniedError(
            what,
            why=f"permission denied to user {os.geteuid()}; {who_may(path)}",
            remedy="run the node as the directory's owner, change the owner (chown), "
            "or set system.data_dir to a directory this user may write",
            key=key,
        )
    if exc.errno == errno.EROFS:
        return DataDirectoryReadOnlyError(
            what,
            why="the file system is read-only",
            remedy="mount it writable (after an error the kernel makes it read-only: see dmesg), "
            "or set system.data_dir to another file system",
            key=key,
        )
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        full = "the quota is used up" if exc.errno == errno.EDQUOT else _what_is_full(path)
        return DataDirectoryFullError(
            what,
            why=full,
            remedy="free some space, or set system.data_dir to a larger file system",
            key=key,
        )
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return DataDirectoryMissingError(
            what,
            why="the directory does not exist"
            if exc.errno == errno.ENOENT
            else "a parent is a file",
            remedy="create it, or set system.data_dir",
            key=key,
        )
    return DataDirectoryBrokenError(
        what,
        why=exc.strerror or str(exc),
        remedy="check the disk (dmesg shows the kernel's errors), or set system.data_dir to "
        "another one",
        key=key,
    )


def check_writable(directory: Path) -> None:
    """Write, read back and remove a small file. Not synchronised: whether the disk takes data is
    asked here, whether it keeps it is the business of each durable write.

    Raises:
      DataDirectoryError: in the class that fits.
    """
    # A name that the next boot sweeps away (novacron.durable), should this process be killed here.
    path = directory / f".writable.{os.urandom(4).hex()}.tmp"
    doing = "write to the data directory"
    try:
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    except OSError as exc:
        raise data_directory_error(doing, directory, exc) from exc
    try:
        try:
            written = os.write(descriptor, b"x" * PROBE_BYTES)
            if written != PROBE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
            os.unlink(path)
    except OSError as exc:
        raise data_directory_error(doing, directory, exc) from exc


def _what_is_full(path: Path) -> str:
    try:
        status = os.statvfs(path if path.exists() else path.parent)
    except OSError:
        return "no space left on its file system"
    if status.f_files and not status.f_favail:
        return "its file system has no inodes left"
    return f"no space left on its file system ({status.f_bavail * status.f_frsize} bytes free)"
