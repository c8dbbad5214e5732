"""A lock between processes, for the files that the node and the command line both change."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from novacron.security.errors import LockedError, storage_failure

_PATIENCE = 5.0
"""Seconds. A holder writes one small file; one that takes longer hangs on its disk."""


@contextlib.contextmanager
def held(path: Path, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold an exclusive ``flock`` on *path*, which is created and never removed: removing a lock
    file lets two processes lock two different files of the same name.

    Blocks up to *patience* seconds: call it in a worker thread.

    Raises:
      LockedError: somebody else held it all that time.
      StorageFailedError: the file cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise storage_failure("lock", path, exc) from exc
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockedError(
                        f"cannot lock {path}",
                        why=f"another process has held it for {patience:g} s",
                        remedy="see which with `fuser` on that file, and end it if it hangs",
                    ) from None
                # Polled, since a blocking flock has no deadline and cannot be interrupted.
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
