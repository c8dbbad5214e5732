"""What the data listener does with connections, on loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from novacron.dwcp.amst import listener as listening
from novacron.dwcp.amst.errors import LinkLostError, StreamDeniedError
from novacron.dwcp.amst.listener import DataListener, open_data_listener
from novacron.dwcp.amst.metrics import CONNECTIONS_REFUSED
from novacron.dwcp.amst.wire import HELLO_BYTES, FrameType, write_hello
from novacron.environment.ports import AddressInvalidError, PortTakenError

LINK = bytes(range(16))
HELLO = write_hello(FrameType.HELLO, 1, LINK, bytes(16), 0).ljust(HELLO_BYTES, b"\0")


class FakeLink:
    """Takes connections, or refuses all."""

    def __init__(self) -> None:
        self.taken: list[tuple[socket.socket, bytes]] = []
        self.error: Exception | None = None

    def add_accepted(self, sock: socket.socket, hello: bytes) -> None:
        if self.error is not None:
            sock.close()
            raise self.error
        self.taken.append((sock, hello))


class Bench:
    """A listener with one link behind it."""

    def __init__(self, listener: DataListener) -> None:
        self.listener = listener
        self.link = FakeLink()
        self.tls: list[bytes] = []
        self.prepared: list[str] = []
        self._before = dict(CONNECTIONS_REFUSED.values)

    def find(self, link_id: bytes) -> FakeLink | None:
        return self.link if link_id == LINK else None

    async def serve_tls(self, connection: trio.socket.SocketType, address: Any) -> None:
        with connection:
            self.tls.append(await connection.recv(100))

    def prepare(self, fd: int, host: str) -> None:
        os.fstat(fd)
        self.prepared.append(host)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.listener.port)

    async def wait_refused(self, reason: str) -> None:
        before = self._before.get((reason,), 0)
        while CONNECTIONS_REFUSED.values.get((reason,), 0) == before:
            await trio.sleep(0.002)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            found = Bench(await open_data_listener("127.0.0.1", 0))

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                await found.listener.run(
                    find_link=found.find,
                    serve_tls=found.serve_tls,
                    prepare=found.prepare,
                    task_status=task_status,
                )

            await nursery.start(run)
            yield found
            found.listener.close()
            for taken, _ in found.link.taken:
                taken.close()
            nursery.cancel_scope.cancel()


async def wait_closed(stream: trio.SocketStream) -> None:
    """The other end said nothing and closed."""
    try:
        assert await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return


async def test_a_greeting_brings_the_connection_to_its_link() -> None:
    async with bench() as found:
        async with await found.connect() as stream:
            await stream.send_all(HELLO + b"what follows is the engine's")
            while not found.link.taken:
                await trio.sleep(0.002)
        taken, hello = found.link.taken[0]
        assert hello == HELLO
        assert taken.recv(100) == b"what follows is the engine's"
        assert found.prepared == ["127.0.0.1"]


async def test_a_greeting_may_come_in_pieces() -> None:
    async with bench() as found, await found.connect() as stream:
        for start in range(0, HELLO_BYTES, 37):
            await stream.send_all(HELLO[start : start + 37])
            await trio.sleep(0.01)
        while not found.link.taken:
            await trio.sleep(0.002)
        assert found.link.taken[0][1] == HELLO


async def test_a_connection_that_begins_like_tls_is_left_whole_to_version_1() -> None:
    async with bench() as found, await found.connect() as stream:
        await stream.send_all(b"\x16\x03\x01 client hello")
        while not found.tls:
            await trio.sleep(0.002)
        assert found.tls == [b"\x16\x03\x01 client hello"]
        assert found.prepared == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "lost"),
        (HELLO[:-1], "lost"),
        (b"GET / HTTP/1.1\r\n".ljust(HELLO_BYTES), "not_a_greeting"),
        (bytes(HELLO_BYTES), "not_a_greeting"),
        (HELLO.replace(LINK, bytes(16)), "unknown_link"),
    ],
)
async def test_what_is_no_greeting_of_a_link_is_closed_without_a_word(
    said: bytes, reason: str
) -> None:
    async with bench() as found, await found.connect() as stream:
        if said:
            await stream.send_all(said)
        await stream.send_eof()
        await wait_closed(stream)
        await found.wait_refused(reason)
        assert found.link.taken == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [(StreamDeniedError("refused"), "bad_proof"), (LinkLostError("the link ended"), "link_ended")],
)
async def test_a_greeting_that_its_link_refuses_is_closed_without_a_word(
    error: Exception, reason: str
) -> None:
    async with bench() as found, await found.connect() as stream:
        found.link.error = error
        await stream.send_all(HELLO)
        await wait_closed(stream)
        await found.wait_refused(reason)


async def test_who_says_nothing_or_too_little_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "GREETING_TIMEOUT", 0.1)
    async with bench() as found:
        async with await found.connect() as silent, await found.connect() as slow:
            await slow.send_all(HELLO[:50])
            await wait_closed(silent)
            await wait_closed(slow)
        await found.wait_refused("greeting_timeout")
        assert found.link.taken == []


async def test_one_address_cannot_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MAX_GREETINGS_OF_HOST", 2)
    async with bench() as found, await found.connect() as one, await found.connect() as two:
        async with await found.connect() as third:
            await wait_closed(third)
        await found.wait_refused("per_address")
        # The others are still listened to, and make room when they have said what they are.
        await one.send_all(HELLO)
        await two.send_all(HELLO)
        while len(found.link.taken) < 2:
            await trio.sleep(0.002)
        async with await found.connect() as fourth:
            await fourth.send_all(HELLO)
            while len(found.link.taken) < 3:
                await trio.sleep(0.002)


async def test_past_the_limit_connections_wait_in_the_kernel_until_there_is_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "MAX_GREETINGS", 1)
    async with bench() as found, await found.connect() as first:
        await trio.sleep(0.05)
        async with await found.connect() as second:
            await second.send_all(HELLO)
            await trio.sleep(0.05)
            assert found.link.taken == []
            await first.send_all(HELLO)
            while len(found.link.taken) < 2:
                await trio.sleep(0.002)


async def test_a_closed_listener_takes_no_more_connections() -> None:
    async with bench() as found:
        found.listener.close()
        with pytest.raises(OSError, match="all attempts to connect"):
            await found.connect()


async def test_a_port_that_is_taken_is_named_with_its_key() -> None:
    first = await open_data_listener("127.0.0.1", 0)
    try:
        with pytest.raises(PortTakenError) as caught:
            await open_data_listener("127.0.0.1", first.port)
        assert caught.value.key == "dwcp.amst.port"
        assert str(first.port) in str(caught.value)
    finally:
        first.close()


async def test_the_same_free_port_is_had_again() -> None:
    first = await open_data_listener("127.0.0.1", 0)
    first.close()
    second = await open_data_listener("127.0.0.1", 0, again=first.port)
    second.close()
    assert second.port == first.port


async def test_an_address_that_is_none_is_named_with_its_key() -> None:
    with pytest.raises(AddressInvalidError) as caught:
        await open_data_listener("no such host", 0)
    assert caught.value.key == "dwcp.amst.listen_address"
