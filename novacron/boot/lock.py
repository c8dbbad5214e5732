"""One node per data directory, held by the kernel so that no crash leaves it locked."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path

from novacron.data_directory import DataDirectory
from novacron.durable import fsync_directory
from novacron.errors import BootError, ConflictError, InvalidError


class DataDirectoryBusyError(BootError, ConflictError):
    code = "boot.data_directory_busy"


class DataDirectoryUnusableError(BootError, InvalidError):
    code = "boot.data_directory_unusable"


class DataDirectoryLock:
    """An exclusive ``flock`` on the data directory's lock file; :meth:`release` frees it.

    The lock is taken before anything else is written, so that a second node on the same directory
    changes nothing. The file also names its holder, for the message the second node prints.
    """

    def __init__(self, data: DataDirectory, boot_id: str) -> None:
        """Raises:
        DataDirectoryBusyError: another process holds it.
        DataDirectoryUnusableError: it cannot be made or written.
        """
        self._path = data.lock
        try:
            for directory in (data.root, data.boot):
                _make_durably(directory)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise _unusable(data.root, exc) from exc
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = _holder(self._path)
            os.close(self._descriptor)
            raise DataDirectoryBusyError(
                f"the data directory {data.root} is in use",
                why=f"another node runs on it ({holder})",
                remedy="stop that node first, or give this one a data directory of its own",
                key="system.data_dir",
            ) from exc
        except OSError as exc:
            self.release()
            raise DataDirectoryUnusableError(
                f"the data directory {data.root} cannot be locked",
                why=exc.strerror or str(exc),
                remedy="set system.data_dir to a directory on a file system that has locks",
                key="system.data_dir",
            ) from exc
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(
                self._descriptor, json.dumps({"pid": os.getpid(), "boot_id": boot_id}).encode(), 0
            )
        except OSError as exc:
            self.release()
            raise _unusable(data.root, exc) from exc

    def release(self) -> None:
        """Free the lock. The file stays: removing it would race with the next holder."""
        os.close(self._descriptor)


def _make_durably(directory: Path) -> None:
    """A power cut must not take the undo journal's directory and leave the effects elsewhere."""
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fsync_directory(directory.parent)


def _unusable(root: Path, exc: OSError) -> DataDirectoryUnusableError:
    """What an operator should know about *exc*, met at the first touch of the data directory."""
    place = Path(os.fsdecode(exc.filename)) if exc.filename else root
    why = f"{exc.strerror or exc} ({place})"
    remedy = "set system.data_dir to a directory that can be written"
    if exc.errno in (errno.EACCES, errno.EPERM):
        why = f"permission denied to {_user(os.geteuid())} at {place}; {who_may(place)}"
        remedy = (
            f"run the node as the owner, give the directory to {_user(os.geteuid())} "
            f"(chown -R), or set system.data_dir to one of its own"
        )
    elif exc.errno in (errno.EEXIST, errno.ENOTDIR):
        taken = next((path for path in (place, *place.parents) if path.exists()), place)
        why = f"{taken} is there and is not a directory"
        remedy = "move it away, or set system.data_dir to a directory"
    elif exc.errno == errno.EISDIR:
        why = f"{place} is a directory, and should be a file of the node's"
        remedy = "move it away"
    elif exc.errno == errno.EROFS:
        why = "its file system is mounted read-only"
        remedy = (
            "mount it writable (the kernel makes it read-only after a disk error: see dmesg), or "
            "set system.data_dir to another file system"
        )
    elif exc.errno in (errno.ENOSPC, errno.EDQUOT):
        why = "the quota is used up" if exc.errno == errno.EDQUOT else "its file system is full"
        remedy = "free some space there, or set system.data_dir to a larger file system"
    return DataDirectoryUnusableError(
        f"the data directory {root} cannot be used", why=why, remedy=remedy, key="system.data_dir"
    )


def who_may(path: Path) -> str:
    """Owner and mode of *path*, or of the nearest directory above that can be looked at."""
    for place in (path, *path.parents):
        try:
            found = place.stat()
        except OSError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        return f"{place} belongs to {_user(found.st_uid)} and has mode {mode:04o}"
    return "its owner cannot be seen"


def _user(number: int) -> str:
    import pwd  # Only a failure pays for it.

    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _holder(path: Path) -> str:
    try:
        owner = json.loads(path.read_bytes())
        return f"pid {int(owner['pid'])}, boot {owner['boot_id']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process id is unknown"
