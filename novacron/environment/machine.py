"""Where probes read: the machine's files under one root, so that a test can lay out another."""

from __future__ import annotations

import errno
import os

from novacron.record import Record

MAX_FILE_BYTES = 4 * 1024 * 1024
"""/proc/cpuinfo of a 1024-CPU host is 1.5 MiB; a larger file is not one of ours."""

CHUNK_BYTES = 65536
"""A sysctl allocates what the caller asks for before it looks, and fails with ENOMEM at 4 MiB."""

ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP}
)
"""How the kernel says that an attribute does not exist or does not apply (``speed`` of a link that
is down is EINVAL). Permission and I/O errors are not here: those leave the fact unknown."""


class Machine(Record):
    root: str = "/"
    data_directory: str = "/"

    def path(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def read(self, path: str) -> str:
        """The text of a file.

        Raises:
          OSError: as ``open`` does, or EFBIG for a file past :data:`MAX_FILE_BYTES`.
        """
        data = b""
        descriptor = os.open(self.path(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            while chunk := os.read(descriptor, CHUNK_BYTES):
                data += chunk
                if len(data) > MAX_FILE_BYTES:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        finally:
            os.close(descriptor)
        return data.decode("utf-8", "replace")

    def read_if_there(self, path: str) -> str | None:
        """The stripped text of a file, None where it does not exist or does not apply."""
        try:
            return self.read(path).strip()
        except OSError as exc:
            if exc.errno in ABSENT:
                return None
            raise

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def list(self, path: str) -> list[str]:
        """The sorted names in a directory; empty where there is none."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError as exc:
            if exc.errno in ABSENT:
                return []
            raise

    def link_name(self, path: str) -> str | None:
        """The last part of where a symbolic link points; None where there is none."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError as exc:
            if exc.errno in ABSENT:
                return None
            raise
