"""The last activity: tell whoever waits that the node is READY."""

from __future__ import annotations

import json
import os
from pathlib import Path

import trio

from novacron.component import (
    Announcer,
    Criticality,
    NodeView,
    Phase,
)
from novacron.durable import remove_durably, write_atomically
from novacron.errors import BootError, InvalidError
from novacron.readiness.jobs import BackgroundJobs
from novacron.readiness.system_health import SystemHealth


class ReadyFileError(BootError, InvalidError):
    code = "boot.ready_file"


class ReadyFile:
    """Where the ready file goes; *path* None: nowhere."""

    __slots__ = ("path",)

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def check(self) -> None:
        """Whether it can be written there, as far as one can know before: a boot should not find
        that out at its very end.

        Raises ReadyFileError.
        """
        if self.path is None:
            return
        directory, why = self.path.parent, ""
        if not directory.is_dir():
            why = f"there is no directory {directory}"
        elif not os.access(directory, os.W_OK | os.X_OK):
            why = f"this user may not write to {directory}"
        elif self.path.is_dir():
            why = "it is a directory"
        if why:
            raise self.error(why)

    def error(self, why: str) -> ReadyFileError:
        return ReadyFileError(
            f"the ready file {self.path} cannot be written",
            why=why,
            remedy="create the directory or make it writable for this user, or name another file "
            "with --ready-file",
        )


class ReadySignal(Announcer):
    """Writes the ready file once the boot's last checkpoint is durable; removes it when stopping.

    The file appears under its name complete or not at all, so a script may wait for it to exist.
    """

    name = "ready_signal"
    phase = Phase.POST_INIT
    criticality = Criticality.CRITICAL

    def __init__(
        self,
        node: NodeView,
        ready_file: ReadyFile,
        system_health: SystemHealth,
        background_jobs: BackgroundJobs | None,
    ) -> None:
        self._node = node
        self._file = ready_file
        self._path = ready_file.path
        self._written = False

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Remove the ready file of an earlier node: a script must not take it for this one's.

        Raises ReadyFileError, before READY is promised.
        """
        if self._path is None:
            return
        try:
            self._file.check()
            remove_durably(self._path)
        except OSError as exc:
            raise self._file.error(exc.strerror or str(exc)) from exc

    async def announce(self) -> None:
        """Raises ReadyFileError."""
        if self._path is None:
            return
        report = self._node.report()
        document = {
            "pid": os.getpid(),
            "boot_id": self._node.boot_id,
            "seconds": report["seconds"],
            "state": str(self._node.state),
            "degraded": [entry["name"] for entry in report["degraded"]],
            "addresses": self._node.addresses,
        }
        try:
            write_atomically(self._path, json.dumps(document).encode() + b"\n", mode=0o644)
        except OSError as exc:
            raise self._file.error(exc.strerror or str(exc)) from exc
        self._written = True

    async def shutdown(self) -> None:
        if self._written and self._path is not None:
            self._written = False
            await trio.to_thread.run_sync(remove_durably, self._path)
