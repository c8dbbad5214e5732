"""The third activity: this node can be found, by other nodes and by the operator's command.

Until nodes form clusters, discovery is local: a row in the database, and ``run/node.json`` in the
data directory, which names the process and its addresses for ``novacron status`` and its kin.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import trio

from novacron.component import Announcer, Criticality, NodeView, Phase, UndoHandler, UndoLog
from novacron.data_directory import DataDirectory
from novacron.database import Database
from novacron.database.registrations import deregister, register
from novacron.durable import remove_durably, write_atomically
from novacron.environment import Identity
from novacron.errors import BootError, TransientError
from novacron.readiness.metrics import StartupMetrics

RUN_FILE = "node.json"


class RegistrationError(BootError, TransientError):
    code = "boot.registration"


def _remove_run_file(arguments: Mapping[str, Any]) -> None:
    remove_durably(Path(arguments["path"]))


class Discovery(Announcer):
    name = "discovery"
    phase = Phase.POST_INIT
    criticality = Criticality.WARNING
    undo_handlers: ClassVar[Mapping[str, UndoHandler]] = {"remove_run_file": _remove_run_file}

    def __init__(
        self,
        node: NodeView,
        data: DataDirectory,
        undo: UndoLog,
        identity: Identity,
        database: Database,
        startup_metrics: StartupMetrics | None,
    ) -> None:
        self._node = node
        self._path = data.run / RUN_FILE
        self._undo = undo
        self._identity = identity
        self._database = database
        self._step: str | None = None
        self._registered = False
        self._published: dict[str, str] | None = None

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Raises RegistrationError."""
        self._step = await self._undo.record(
            self.name, "remove_run_file", {"path": str(self._path)}, until_stop=True
        )
        await self._publish()

    async def announce(self) -> None:
        """Raises RegistrationError."""
        if self._published != self._node.addresses:
            await self._publish()

    async def _publish(self) -> None:
        addresses = self._node.addresses
        document = {
            "pid": os.getpid(),
            "boot_id": self._node.boot_id,
            "node_id": self._identity.node_id,
            "addresses": addresses,
        }
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._path, json.dumps(document).encode() + b"\n")
        except OSError as exc:
            raise RegistrationError(
                f"{self._path} cannot be written",
                why=exc.strerror or str(exc),
                remedy="free some space in the data directory, or make it writable",
                key="system.data_dir",
            ) from exc
        self._registered = True
        await register(
            self._database.store,
            self._identity.node_id,
            self._node.boot_id,
            addresses,
            started=self._node.started_at,
        )
        self._published = addresses

    async def shutdown(self) -> None:
        try:
            if self._registered:
                self._registered = False
                await deregister(self._database.store, self._identity.node_id, self._node.boot_id)
        finally:
            # Whatever became of the database: nobody may take this process for a running one.
            if self._step is not None:
                step, self._step = self._step, None
                await trio.to_thread.run_sync(remove_durably, self._path)
                await self._undo.discharge(step)
