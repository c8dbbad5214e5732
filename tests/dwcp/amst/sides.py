"""Nodes in one process with real sessions, engines, data listeners and links, all on loopback."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from novacron.config.schema import AmstSettings
from novacron.dwcp.amst.address_book import AddressBook
from novacron.dwcp.amst.congestion import Congestion
from novacron.dwcp.amst.links import Links
from novacron.dwcp.amst.listener import DataListener, open_data_listener
from novacron.dwcp.amst.native import NativeEngine, NativeLink
from novacron.dwcp.amst.rdma import Rdma
from novacron.dwcp.amst.transport import Source, Target
from novacron.dwcp.amst.v1_connections import V1Connections
from novacron.network.session import PeerSession
from tests.network.conftest import Node

CHUNK = 65536


class Relay:
    """Stands before a data listener, and can cut what runs through it."""

    def __init__(self, nursery: trio.Nursery, port: int) -> None:
        self.refuses = False
        self.accepted = 0
        self.port = 0
        self._nursery = nursery
        self._to = port
        self._scopes: set[trio.CancelScope] = set()

    @property
    def open(self) -> int:
        return len(self._scopes)

    def cut(self, count: int | None = None) -> None:
        for scope in list(self._scopes)[:count]:
            scope.cancel()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, listeners, handler_nursery=self._nursery)

    async def _carry(self, near: trio.SocketStream) -> None:
        if self.refuses:
            await near.aclose()
            return
        self.accepted += 1
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with (
                    near,
                    await trio.open_tcp_stream("127.0.0.1", self._to) as far,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(_copy, near, far, nursery.cancel_scope)
                    nursery.start_soon(_copy, far, near, nursery.cancel_scope)
            finally:
                self._scopes.discard(scope)


async def _copy(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except trio.BrokenResourceError:
        pass
    scope.cancel()


class Side:
    """One node."""

    def __init__(self, node: Node, directory: Path, mode: str, **settings: Any) -> None:
        self.node = node
        self.mode = mode
        self.versions: tuple[int, ...] = (3, 1)
        self.settings = AmstSettings(**{"chunk_bytes": CHUNK, "rdma": "off", **settings})
        self.rdma = Rdma(wanted=self.settings.rdma == "auto", device=self.settings.rdma_device)
        self.mode_of: Callable[[str], str] | None = None
        self.asks = 0
        self.links: Links
        self.relay: Relay
        self._directory = directory
        self._engine: NativeEngine | None = None
        self._listener: DataListener | None = None

    @property
    def id(self) -> str:
        return self.node.id

    async def open(self, nursery: trio.Nursery) -> None:
        if 3 in self.versions:
            self._engine = await NativeEngine.open(nursery, threads=1)
        congestion = Congestion("auto")
        listener = self._listener = await open_data_listener("127.0.0.1", 0)
        self.relay = Relay(nursery, listener.port)
        await nursery.start(self.relay.serve)
        v1 = V1Connections(self.node.security.certificates, congestion, nursery)
        self.links = Links(
            self.node.network,
            self.settings,
            mode=self.mode,
            node_id=self.id,
            engine=self._engine,
            congestion=congestion,
            book=AddressBook(self._directory / f"{self.id}.json"),
            rdma=self.rdma,
            versions=self.versions,
            open_v1=v1.keeper,
            mode_of=self.mode_of,
        )
        nursery.start_soon(self.rdma.run)
        await self.links.start(nursery, self.relay.port)
        answer = self.node.network._handlers["amst.link"]

        async def counted(session: PeerSession, body: bytes) -> bytes:
            self.asks += 1
            return await answer(session, body)

        self.node.network._handlers["amst.link"] = counted

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            await listener.run(
                find_link=self._find_native,
                serve_tls=v1.accept,
                prepare=congestion.apply,
                prepare_stream=self.links.accept,
                task_status=task_status,
            )

        await nursery.start(listen)

    def _find_native(self, link_id: bytes) -> NativeLink | None:
        link = self.links.find(link_id)
        return link if isinstance(link, NativeLink) else None

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self.links.aclose()
        if self._engine is not None:
            await self._engine.aclose()
        await self.rdma.aclose()

    def keeper(self) -> Any:
        """Of the only link."""
        (keeper,) = self.links
        return keeper


@asynccontextmanager
async def sides(*found: Side) -> AsyncIterator[trio.Nursery]:
    """Open them, and see to it that all is over after 60 s."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            opened: list[Side] = []
            try:
                for side in found:
                    await side.node.start(nursery)
                    await side.open(nursery)
                    opened.append(side)
                yield nursery
            finally:
                with trio.CancelScope(shield=True):
                    for side in opened:
                        await side.close()
            nursery.cancel_scope.cancel()


async def move(sender: Any, receiver: Any, size: int, *, number: int = 1) -> None:
    """An object from memory to memory over a link's two ends; the bytes are compared."""
    content = secrets.token_bytes(size)
    memory = bytearray(size)
    incoming = receiver.receive_object(number, 0, Target(size, memory=memory), chunk_bytes=CHUNK)
    outgoing = sender.send_object(number, 0, Source(size, memory=content), chunk_bytes=CHUNK)
    try:
        await outgoing.wait()
        await incoming.wait()
    finally:
        await outgoing.aclose()
        await incoming.aclose()
    assert bytes(memory) == content
