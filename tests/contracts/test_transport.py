"""What every transport under peer sessions must do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from novacron.network.errors import ConnectError, TlsError
from novacron.network.memory import MemoryNetwork
from novacron.network.tcp_tls import TlsDialer, open_tls_listener
from novacron.network.transport import Dialer, Listener, Stream, split_address
from novacron.protocol.events import ConnectionLostError
from tests.network.authority import Authority, Certificates, node_id


@dataclass
class Ground:
    """A listener, a dialer it trusts and one it does not, and the certificates they show."""

    listener: Listener
    dialer: Dialer
    stranger: Dialer
    server_certificate: bytes
    client_certificate: bytes

    async def connect(self, dialer: Dialer | None = None) -> tuple[Stream, Stream]:
        """The dialled and the accepted end."""
        ends: dict[str, Stream] = {}

        async def accept() -> None:
            incoming = await self.listener.accept()
            try:
                ends["far"] = await incoming.handshake()
            finally:
                if "far" not in ends:
                    incoming.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            ends["near"] = await (dialer or self.dialer).dial(*self.where)
        return ends["near"], ends["far"]

    @property
    def where(self) -> tuple[str, int]:
        return split_address(self.listener.address, "")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificates]:
    directory: Path = tmp_path_factory.mktemp("contract")
    ours, theirs = Authority(directory, "ours"), Authority(directory, "theirs")
    return {
        "server": Certificates(ours, node_id(1)),
        "client": Certificates(ours, node_id(2)),
        "stranger": Certificates(theirs, node_id(3)),
    }


async def tls_ground(certificates: dict[str, Certificates]) -> Ground:
    server, client = certificates["server"], certificates["client"]
    stranger = certificates["stranger"]
    # It trusts everybody, so that it is the listener who has to refuse.
    context = stranger.client_context()
    context.load_verify_locations(server.authority.path)
    return Ground(
        await open_tls_listener("127.0.0.1", 0, server.server_context),
        TlsDialer(client.client_context),
        TlsDialer(lambda: context),
        server.der,
        client.der,
    )


async def memory_ground(certificates: dict[str, Certificates]) -> Ground:
    network = MemoryNetwork(lambda certificate: "stranger" if certificate == b"stranger" else "")
    return Ground(
        network.listen(b"server"),
        network.dialer(b"client"),
        network.dialer(b"stranger"),
        b"server",
        b"client",
    )


@pytest.fixture(params=[tls_ground, memory_ground], ids=["tcp_tls", "memory"])
def open_ground(
    request: pytest.FixtureRequest, certificates: dict[str, Certificates]
) -> Callable[[], Any]:
    make: Callable[[dict[str, Certificates]], Awaitable[Ground]] = request.param

    @asynccontextmanager
    async def opened() -> AsyncIterator[Ground]:
        with trio.fail_after(20):
            ground = await make(certificates)
            try:
                yield ground
            finally:
                ground.listener.close()

    return opened


async def close_both(*streams: Stream) -> None:
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(stream.aclose)


async def read_exactly(stream: Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = await stream.receive_some()
        assert chunk, "the stream ended early"
        data += chunk
    return data


async def test_each_end_knows_the_others_certificate(open_ground: Callable[[], Any]) -> None:
    async with open_ground() as ground:
        near, far = await ground.connect()
        assert near.peer_certificate == ground.server_certificate
        assert far.peer_certificate == ground.client_certificate
        assert near.peer_address == ground.listener.address
        split_address(far.peer_address.replace(":0", ":1"), "")
        assert near.same_host
        assert far.same_host
        await close_both(near, far)


async def test_what_the_kernel_knows_of_a_connection_is_told_until_it_is_closed(
    open_ground: Callable[[], Any],
) -> None:
    async with open_ground() as ground:
        near, far = await ground.connect()
        for _ in range(4):
            await near.send_all(b"there")
            await read_exactly(far, 5)
            await far.send_all(b"and back")
            await read_exactly(near, 8)
        for end in (near, far):
            found = end.tcp_info()
            # A transport that is no TCP says nothing at all.
            assert found is None or (found.rtt_us > 0 and found.segments_out >= 4)
        assert (near.tcp_info() is None) == (far.tcp_info() is None)
        await close_both(near, far)
        assert near.tcp_info() is None
        assert far.tcp_info() is None


async def test_bytes_arrive_whole_and_in_order_both_ways_at_once(
    open_ground: Callable[[], Any],
) -> None:
    async with open_ground() as ground:
        near, far = await ground.connect()
        pieces = [bytes([number % 256]) * (1 + number * 37 % 40_000) for number in range(60)]
        everything = b"".join(pieces)

        async def send(stream: Stream) -> None:
            for piece in pieces:
                await stream.send_all(piece)

        async def check(stream: Stream) -> None:
            assert await read_exactly(stream, len(everything)) == everything

        async with trio.open_nursery() as nursery:
            for stream in (near, far):
                nursery.start_soon(send, stream)
                nursery.start_soon(check, stream)
        await close_both(near, far)


async def test_a_sender_waits_for_a_reader_that_does_not_read(
    open_ground: Callable[[], Any],
) -> None:
    async with open_ground() as ground:
        near, far = await ground.connect()
        with trio.move_on_after(0.3) as scope:
            while True:
                await near.send_all(bytes(1 << 20))
        assert scope.cancelled_caught
        await close_both(near, far)


async def test_what_was_sent_before_a_close_still_arrives(open_ground: Callable[[], Any]) -> None:
    async with open_ground() as ground:
        near, far = await ground.connect()
        await far.send_all(b"unread")  # what a plain close would answer with a reset
        await near.send_all(b"last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.aclose)
            assert await read_exactly(far, 10) == b"last words"
            assert await far.receive_some() == b""
            await far.aclose()


async def test_a_closed_stream_says_so_and_may_be_closed_again(
    open_ground: Callable[[], Any],
) -> None:
    async with open_ground() as ground:
        near, far = await ground.connect()
        await close_both(near, far)
        await near.aclose()
        with pytest.raises(ConnectionLostError):
            await near.receive_some()
        with pytest.raises(ConnectionLostError):
            await near.send_all(b"x")


async def test_sending_to_an_end_that_is_gone_fails(open_ground: Callable[[], Any]) -> None:
    async with open_ground() as ground:
        near, far = await ground.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.aclose)
            with pytest.raises(ConnectionLostError):
                while True:
                    await near.send_all(bytes(65536))
        await near.aclose()


async def test_nobody_there_is_a_connect_error(open_ground: Callable[[], Any]) -> None:
    async with open_ground() as ground:
        where = ground.where
        ground.listener.close()
        with pytest.raises(ConnectError, match="cannot connect to") as caught:
            await ground.dialer.dial(*where)
        assert caught.value.retryable


async def test_a_stranger_is_refused_and_gets_no_byte(open_ground: Callable[[], Any]) -> None:
    async with open_ground() as ground:
        outcome: list[BaseException] = []

        async def accept() -> None:
            incoming = await ground.listener.accept()
            with pytest.raises(TlsError, match="certificate is not accepted") as caught:
                await incoming.handshake()
            outcome.append(caught.value)
            incoming.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            # The dialler may think that all is well until it reads, as in TLS 1.3.
            with pytest.raises((TlsError, ConnectionLostError)):
                near = await ground.stranger.dial(*ground.where)
                try:
                    received = await near.receive_some()
                    assert received == b""
                    raise ConnectionLostError("the stream ended")
                finally:
                    await near.aclose()
        assert len(outcome) == 1


async def test_a_dropped_connection_ends_at_the_other_end(open_ground: Callable[[], Any]) -> None:
    async with open_ground() as ground:

        async def drop() -> None:
            (await ground.listener.accept()).close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop)
            with pytest.raises(ConnectionLostError):
                near = await ground.dialer.dial(*ground.where)
                assert await near.receive_some() == b""
                await near.aclose()
                raise ConnectionLostError("the stream ended")


async def test_a_closed_listener_wakes_who_waits_in_accept(open_ground: Callable[[], Any]) -> None:
    async with open_ground() as ground:
        woken = trio.Event()

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ground.listener.accept()
            woken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            ground.listener.close()
            await woken.wait()
        with pytest.raises(trio.ClosedResourceError):
            await ground.listener.accept()


async def test_receiving_may_be_cancelled_and_loses_nothing(open_ground: Callable[[], Any]) -> None:
    async with open_ground() as ground:
        near, far = await ground.connect()
        received = b""
        for number in range(20):
            with trio.move_on_after(0.001):
                received += await far.receive_some()
            await near.send_all(bytes([number]) * 100)
        received += await read_exactly(far, 2000 - len(received))
        assert received == b"".join(bytes([number]) * 100 for number in range(20))
        await close_both(near, far)
