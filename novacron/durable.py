"""Files that survive a crash: write to a temporary name, fsync, rename, fsync the directory.

A rename alone is atomic but not durable: after a power cut the directory may still name the old
file, or the new name may hold no data (ext4 with delayed allocation). All state that matters goes
through here, so that the order of the four steps exists once.

These functions block on the disk: call them in a worker thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace *path* with *data* so that a crash leaves the old content or the new, never a mix.

    Raises:
      OSError: the disk is full, the directory is missing, permission is denied. The temporary
        file is removed and the old content is untouched.
    """
    _replace(path, data, mode, sync=True)
    fsync_directory(path.parent)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Like :func:`write_durably` for a file that means nothing after a power cut, such as one that
    names a running process: readers see the old content or the new, and no disk is waited for."""
    _replace(path, data, mode, sync=False)


def _replace(path: Path, data: bytes, mode: int, *, sync: bool) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def fsync_directory(directory: Path) -> None:
    """Make renames, creations and removals inside *directory* durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_durably(path: Path) -> None:
    """Remove *path* if it is there, and make that durable."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        fsync_directory(path.parent)


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files that writers killed half-way left in *directory*, if it is there.

    Nobody else may be writing in it. What cannot be removed stays: it disturbs nobody.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if name.endswith(".tmp") and _is_temporary(name):
                with contextlib.suppress(OSError):
                    os.unlink(directory / name)


def _is_temporary(name: str) -> bool:
    """Whether :func:`_replace` makes such names: ``.<name>.<eight hex digits>.tmp``."""
    head, _, random = name.removesuffix(".tmp").rpartition(".")
    return (
        head[:1] == "."
        and len(head) > 1
        and len(random) == 8
        and not random.strip("0123456789abcdef")
    )
