"""The newest time this node has seen, kept so that a clock that went back is noticed.

A dead battery or a wrong virtual clock puts a host into the past, where certificates are not valid
yet and tokens never expire. Nothing on the machine tells the right time before the network is up,
but what was seen before is a lower bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.security import documents
from novacron.security.errors import storage_failure


class ClockRecord:
    """``secrets/clock.json``. All methods but :meth:`behind` block on the disk."""

    def __init__(self, directory: DataDirectory, *, now: Callable[[], float] = time.time) -> None:
        self.path = directory.secrets / "clock.json"
        self._directory = directory
        self._now = now
        self.newest = 0.0
        """Seconds since the epoch; 0 before anything was seen."""

    def load(self) -> str | None:
        """Read what earlier boots have seen; returns a warning if the file was unusable.

        Raises:
          StorageFailedError: it cannot be read.
        """
        try:
            body = documents.decode(self.path.read_bytes())
            self.newest = max(self.newest, documents.from_text(body["newest"]))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        except (ValueError, KeyError, OverflowError):
            where = self._directory.quarantine(self.path)
            return (
                f"The record of the newest time seen was damaged and lies in {where} now; "
                "a clock that was set back before this boot goes unnoticed."
            )
        return None

    def behind(self) -> float:
        """Seconds by which the clock is behind the newest time seen; negative when it is not."""
        return self.newest - self._now()

    def advance(self) -> None:
        """Keep the present time if it is the newest.

        Raises:
          StorageFailedError: it cannot be kept.
        """
        now = self._now()
        if now <= self.newest:
            return
        try:
            body = {"version": 1, "newest": documents.to_text(now)}
            write_durably(self.path, documents.encode(body), mode=0o600)
        except OSError as exc:
            raise storage_failure("write", self.path, exc) from exc
        self.newest = now
