"""One node per data directory, held by the kernel so that no crash leaves it locked."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from novacron.data_directory import DataDirectory
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
            data.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            data.boot.mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise DataDirectoryUnusableError(
                f"the data directory {data.root} cannot be used",
                why=f"{exc.strerror or exc} ({exc.filename})",
                remedy="make it writable for this user, or name another one",
                key="system.data_dir",
            ) from exc
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
                remedy="name one on a file system that has locks",
                key="system.data_dir",
            ) from exc
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(
                self._descriptor, json.dumps({"pid": os.getpid(), "boot_id": boot_id}).encode(), 0
            )
        except OSError as exc:
            self.release()
            raise DataDirectoryUnusableError(
                f"the data directory {data.root} cannot be written",
                why=exc.strerror or str(exc),
                remedy="free some space there, or name another one",
                key="system.data_dir",
            ) from exc

    def release(self) -> None:
        """Free the lock. The file stays: removing it would race with the next holder."""
        os.close(self._descriptor)


def _holder(path: Path) -> str:
    try:
        owner = json.loads(path.read_bytes())
        return f"pid {int(owner['pid'])}, boot {owner['boot_id']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process id is unknown"
