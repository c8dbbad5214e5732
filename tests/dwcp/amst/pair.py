"""Two nodes in one process that move files to each other: real sessions on loopback, links in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from novacron.boot.retry import RetryPolicy
from novacron.config.schema import AmstSettings, HdeSettings
from novacron.dwcp.amst.memory import Faults, MemoryLink, MemoryWire
from novacron.dwcp.amst.transfers import SendRequest, Transfer, Transfers
from novacron.dwcp.hde.blocks.cutting import find_cut
from novacron.dwcp.hde.blocks.library import BlockLibrary
from tests.network.authority import Certificates
from tests.network.conftest import Node, until

CHUNK = 65536


class Wires:
    """The one link that two nodes have, made where somebody wants it."""

    def __init__(self, nursery: trio.Nursery, first: str, second: str) -> None:
        self.faults = Faults()
        self.made = 0
        self._nursery = nursery
        self._nodes = first, second
        self._wire: MemoryWire | None = None
        self._links: dict[str, MemoryLink] = {}

    def lose(self, why: str = "the cable was pulled") -> None:
        if self._wire is not None:
            self._wire.lose(why)
            self._wire = None
            self._links = {}

    def link_of(self, node: str) -> MemoryLink:
        if self._wire is None or self._wire.ended:
            self.made += 1
            self._wire = MemoryWire(self._nursery, self.faults)
            first, second = self._wire.links(*self._nodes)
            self._links = {self._nodes[0]: first, self._nodes[1]: second}
        return self._links[node]

    def present(self, node: str) -> MemoryLink | None:
        if self._wire is None or self._wire.ended:
            return None
        return self._links[node]


class OneSide:
    """The registry of links of one node."""

    def __init__(self, wires: Wires, node: str) -> None:
        self._wires = wires
        self._node = node

    async def link_to(self, node: str) -> MemoryLink:
        await trio.lowlevel.checkpoint()
        return self._wires.link_of(self._node)

    def find(self, link_id: bytes) -> MemoryLink | None:
        link = self._wires.present(self._node)
        return link if link is not None and link.link_id == link_id else None


class Side:
    """A node: its network lives on, its transfers may die and come back."""

    def __init__(
        self,
        node: Node,
        data: Path,
        wires: Wires,
        hde: HdeSettings | None = None,
        **settings: Any,
    ) -> None:
        self.node = node
        self.data = data
        self.files = data / "transfers"
        self.settings = AmstSettings(chunk_bytes=CHUNK, **settings)
        self.hde = hde
        self._wires = wires
        self._scope = trio.CancelScope()
        self._gone = trio.Event()
        self.transfers: Transfers

    @property
    def id(self) -> str:
        return self.node.id

    async def live(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        self.transfers = Transfers(
            self.node.network,
            OneSide(self._wires, self.id),
            self.data,
            self.settings,
            random=lambda: 0.5,
            retry=RetryPolicy(delay=0.02, max_delay=0.2),
            blocks=self._library(),
        )
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await self.transfers.start(nursery)
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            for method in list(self.node.network._handlers):
                self.node.network.remove_handler(method)
            self._gone.set()

    def _library(self) -> BlockLibrary | None:
        if self.hde is None:
            return None
        return BlockLibrary(self.data / "dwcp" / "blocks", self.hde, *find_cut())

    async def wait_indexed(self) -> None:
        library = self.transfers.blocks
        assert library is not None
        await until(lambda: library.statistics()["files_waiting"] == 0, within=30)

    async def die(self) -> None:
        """Without a word, as by kill -9."""
        self._scope.cancel()
        await self._gone.wait()
        self._wires.lose("the node died")

    async def stop(self) -> None:
        await self.transfers.stop()
        self._scope.cancel()
        await self._gone.wait()

    def parts(self) -> list[Path]:
        """What is left of unfinished files."""
        return [path for path in self.files.rglob("*.novacron-part") if path.is_file()]

    def journals(self) -> list[Path]:
        return [path for path in (self.data / "dwcp" / "incoming").rglob("*") if path.is_file()]


class Pair:
    def __init__(self, nursery: trio.Nursery, wires: Wires, a: Side, b: Side) -> None:
        self.nursery = nursery
        self.wires = wires
        self.a = a
        self.b = b

    async def send(self, *paths: Path, to: str = "", **options: Any) -> Transfer:
        return await self.a.transfers.send(
            SendRequest(
                node=self.b.id,
                paths=tuple(str(path) for path in paths),
                path=to or paths[0].name,
                **options,
            )
        )

    def received(self) -> Transfer:
        """The transfer as the receiver sees it."""
        (found,) = self.b.transfers.transfers()
        return found

    async def wait_state(self, transfer: Transfer, *states: str) -> None:
        with trio.fail_after(30):
            while transfer.state not in states:
                await transfer.wait_changed()

    async def wait_moved(self, transfer: Transfer, size: int) -> None:
        await until(lambda: transfer.progress().moved_bytes >= size, within=30)

    async def pause(self, transfer: Transfer) -> None:
        """Until nothing is on its way any more."""
        await transfer.pause()
        moved = -1
        while moved != (moved := transfer.progress().moved_bytes):
            await trio.sleep(0.05)

    async def revive(self, side: Side) -> None:
        await self.nursery.start(side.live)


@asynccontextmanager
async def pair(
    directory: Path, certificates: Callable[[int], Certificates], **settings: Any
) -> AsyncIterator[Pair]:
    """Two nodes that see each other; all is over after 60 s."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            first = await Node(1, certificates(1)).start(nursery)
            second = await Node(2, certificates(2), seeds=(first.address,)).start(nursery)
            await first.wait_session(second)
            await second.wait_session(first)
            wires = Wires(nursery, first.id, second.id)
            sides = []
            for node, name in ((first, "a"), (second, "b")):
                data = directory / name
                data.mkdir(mode=0o700, exist_ok=True)
                sides.append(Side(node, data, wires, **settings))
            found = Pair(nursery, wires, *sides)
            for side in sides:
                await found.revive(side)
            yield found
            for side in sides:
                await side.stop()
            nursery.cancel_scope.cancel()


def random_file(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
