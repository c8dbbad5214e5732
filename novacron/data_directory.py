"""Where everything a node keeps lies, named once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from novacron.durable import fsync_directory, write_durably
from novacron.record import Record


class DataDirectory(Record):
    """The node's data directory. Only the two quarantines touch the disk."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def identity(self) -> Path:
        return self.root / "identity.json"

    @property
    def boot(self) -> Path:
        """Checkpoints, the undo journal, reports, the last known good configuration."""
        return self.root / "boot"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def database(self) -> Path:
        return self.root / "database"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        """State of the running process only; a crash may leave it behind."""
        return self.root / "run"

    @property
    def quarantine_area(self) -> Path:
        return self.root / "quarantine"

    def quarantine(self, path: Path) -> Path:
        """Move an unreadable *path* aside, never overwriting, and return where it lies now.

        Raises:
          OSError: the move failed; *path* is untouched.
        """
        target = self._quarantine_place(path)
        os.rename(path, target)
        fsync_directory(self.quarantine_area)
        fsync_directory(path.parent)
        return target

    def quarantine_copy(self, path: Path) -> Path:
        """Like :meth:`quarantine` for a file whose readable part is still needed where it is.

        Raises:
          OSError: the copy failed.
        """
        target = self._quarantine_place(path)
        write_durably(target, path.read_bytes())
        return target

    def _quarantine_place(self, path: Path) -> Path:
        if not self.quarantine_area.is_dir():
            self.quarantine_area.mkdir(mode=0o700, exist_ok=True)
            fsync_directory(self.root)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = self.quarantine_area / f"{path.name}.{stamp}"
        attempt = 0
        while target.exists():
            attempt += 1
            target = self.quarantine_area / f"{path.name}.{stamp}.{attempt}"
        return target
