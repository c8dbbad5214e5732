"""Stand-ins for what the engine hands a database, and ways to look at a file from outside."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import trio

from novacron.component import NodeView, Progress, UndoLog
from novacron.config.schema import DatabaseSettings
from novacron.data_directory import DataDirectory
from novacron.database.component import Database
from novacron.database.opening import Opening, Plan, open_database
from novacron.environment import Identity
from novacron.security import Security
from novacron.units import NodeId

NODE = NodeId("11111111-1111-4111-8111-111111111111")
OTHER = NodeId("22222222-2222-4222-8222-222222222222")


class FakeIdentity:
    def __init__(self, node_id: NodeId = NODE) -> None:
        self.node_id = node_id


class FakeNode:
    boot_id = "boot-1"

    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


class FakeUndo:
    def __init__(self) -> None:
        self.steps: list[tuple[str, str, Mapping[str, Any]]] = []

    async def record(
        self, component: str, kind: str, arguments: Mapping[str, Any], *, until_stop: bool = False
    ) -> str:
        await trio.lowlevel.checkpoint()
        self.steps.append((component, kind, dict(arguments)))
        return str(len(self.steps))

    async def discharge(self, step: str) -> None:
        raise AssertionError("the engine discharges what a checkpoint covers")


class FakeProgress:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def advance(self, component: str, message: str, *, extend: float = 5.0) -> None:
        self.messages.append(message)


class FakeCertificates:
    def __init__(self, authorities: tuple[str, ...]) -> None:
        self._authorities = authorities

    def cluster_hashes(self) -> tuple[str, ...]:
        return self._authorities


class FakeSecurity:
    def __init__(self, authorities: tuple[str, ...]) -> None:
        self.certificates = FakeCertificates(authorities)


class Bench:
    """One data directory and the databases booted in it."""

    def __init__(
        self,
        root: Path,
        node_id: NodeId = NODE,
        *,
        authorities: tuple[str, ...] = ("a" * 64,),
        **settings: Any,
    ) -> None:
        self.node_id = node_id
        self.data = DataDirectory(root)
        self.settings = DatabaseSettings(**settings)
        self.node = FakeNode()
        self.undo = FakeUndo()
        self.progress = FakeProgress()
        self.database = Database(
            cast(Security, FakeSecurity(authorities)),
            cast(Identity, FakeIdentity(node_id)),
            self.settings,
            self.data,
            cast(NodeView, self.node),
            cast(UndoLog, self.undo),
            cast(Progress, self.progress),
        )

    @property
    def path(self) -> Path:
        return self.database.path

    @asynccontextmanager
    async def booted(self) -> AsyncIterator[Database]:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                try:
                    await self.database.initialize(nursery)
                    yield self.database
                finally:
                    with trio.CancelScope(shield=True):
                        await self.database.shutdown()
                    nursery.cancel_scope.cancel()


def plan_for(root: Path, node_id: NodeId = NODE, *, check: str = "quick", **more: Any) -> Plan:
    data = DataDirectory(root)
    return Plan(data.database / "novacron.db", data, node_id, check, 1.0, **more)


def open_and_close(root: Path, **options: Any) -> list[str]:
    """What a boot's opening says; the connections are closed again."""
    opening: Opening = open_database(plan_for(root, **options))
    opening.close()
    return opening.notices


def rows(path: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute(sql).fetchall()


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        for statement in statements:
            raw.execute(statement)
        raw.commit()


def kept(root: Path) -> list[Path]:
    """The boxes in the quarantine."""
    area = DataDirectory(root).quarantine_area
    return sorted(area.iterdir()) if area.exists() else []
