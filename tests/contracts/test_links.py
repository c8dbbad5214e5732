"""The link contract on every implementation."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.memory import MemoryWire
from novacron.dwcp.amst.native import NativeEngine
from novacron.dwcp.amst.v1 import open_link
from novacron.dwcp.amst.wire import HELLO_BYTES
from novacron.network.memory import memory_stream_pair
from novacron.network.tcp_tls import TlsDialer, open_tls_listener
from novacron.network.transport import Stream, split_address
from tests.contracts.check_link import CASES, MAX_CHUNK, WINDOW, Case, Pair
from tests.network.authority import Authority, Certificates, node_id

STREAMS = 4

Opener = Callable[[Path], AbstractAsyncContextManager[Pair]]


@asynccontextmanager
async def v1_links(near: Stream, far: Stream) -> AsyncIterator[Pair]:
    async with trio.open_nursery() as nursery:
        links = [
            await open_link(
                stream,
                peer=peer,
                max_chunk_bytes=MAX_CHUNK,
                send_window=WINDOW,
                receive_window=WINDOW,
                nursery=nursery,
            )
            for stream, peer in ((near, "far"), (far, "near"))
        ]

        async def lose() -> None:
            await near.aclose()
            await far.aclose()

        try:
            yield Pair(links[0], links[1], lose)
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as closing:
                    for link in links:
                        closing.start_soon(link.aclose)


@asynccontextmanager
async def v1_in_memory(directory: Path) -> AsyncIterator[Pair]:
    async with v1_links(*memory_stream_pair("near:0", b"near", "far:0", b"far")) as pair:
        yield pair


@asynccontextmanager
async def v1_over_tls(directory: Path) -> AsyncIterator[Pair]:
    authority = Authority(directory)
    server, client = (Certificates(authority, node_id(number)) for number in (1, 2))
    listener = await open_tls_listener("127.0.0.1", 0, server.server_context)
    accepted: list[Stream] = []

    async def accept() -> None:
        accepted.append(await (await listener.accept()).handshake())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        dialler = TlsDialer(client.client_context)
        dialled = await dialler.dial(*split_address(listener.address, ""))
    listener.close()
    async with v1_links(dialled, accepted[0]) as pair:
        yield pair


@asynccontextmanager
async def native(directory: Path) -> AsyncIterator[Pair]:
    """Two engines of the C extension, joined by several encrypted streams."""
    keys = {
        name: os.urandom(size) for name, size in (("link_id", 16), ("secret", 32), ("context", 32))
    }
    async with trio.open_nursery() as nursery:
        engines = [await NativeEngine.open(nursery, threads=1) for _ in range(2)]
        links = [
            engine.open_link(
                peer=peer,
                initiator=peer == "far",
                encrypt=True,
                max_chunk_bytes=MAX_CHUNK,
                send_window=WINDOW,
                receive_window=WINDOW,
                codecs=("raw", "lz4", "zstd", "delta"),
                **keys,
            )
            for engine, peer in zip(engines, ("far", "near"), strict=True)
        ]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for number in range(1, STREAMS + 1):
                dialled = socket.create_connection(listener.getsockname())
                dialled.setblocking(False)
                links[0].add_dialled(dialled, number)
                accepted, _ = listener.accept()
                hello = await trio.to_thread.run_sync(
                    accepted.recv, HELLO_BYTES, socket.MSG_WAITALL
                )
                accepted.setblocking(False)
                links[1].add_accepted(accepted, hello)

        async def lose() -> None:
            for link in links:
                link.end(LinkLostError("the network is gone"))

        try:
            yield Pair(links[0], links[1], lose)
        finally:
            with trio.CancelScope(shield=True):
                for link in links:
                    await link.aclose()
                for engine in engines:
                    await engine.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def memory(directory: Path) -> AsyncIterator[Pair]:
    async with trio.open_nursery() as nursery:
        wire = MemoryWire(nursery, max_chunk_bytes=MAX_CHUNK)
        near, far = wire.links("near", "far")

        async def lose() -> None:
            wire.lose("the test wants it")
            await trio.lowlevel.checkpoint()

        try:
            yield Pair(near, far, lose)
        finally:
            await near.aclose()
            await far.aclose()


LINKS: dict[str, Opener] = {
    "memory": memory,
    "v1-memory": v1_in_memory,
    "v1-tls": v1_over_tls,
    "native": native,
}


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("link", LINKS)
async def test_a_link(link: str, case: Case, tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with LINKS[link](tmp_path) as pair:
            await case(pair, tmp_path)
