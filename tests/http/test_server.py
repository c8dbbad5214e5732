from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from novacron.http import HttpServer, Limits, listener_address, open_listener
from novacron.http.asgi import AsgiApp, Receive, Scope, Send, respond

Dial = Callable[[int], Awaitable[trio.SocketStream]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    streams: list[trio.SocketStream] = []

    async def connect(port: int) -> trio.SocketStream:
        streams.append(await trio.open_tcp_stream("127.0.0.1", port))
        return streams[-1]

    yield connect
    for stream in streams:
        await stream.aclose()


@asynccontextmanager
async def serving(app: AsgiApp, **limits: float) -> AsyncIterator[tuple[HttpServer, int]]:
    listener = await open_listener("127.0.0.1", 0, section="api")
    port = int(listener_address(listener).rpartition(":")[2])
    server = HttpServer("test", app, Limits(**limits))  # type: ignore[arg-type]
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listener)
            yield server, port
            server.abort()
            nursery.cancel_scope.cancel()


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, 200, scope["path"].encode(), b"text/plain")


async def read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        async for chunk in stream:
            received += chunk
    except trio.BrokenResourceError:
        pass
    return received


async def read_answer(stream: trio.SocketStream) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    [length] = [line[16:] for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
    while len(body) < int(length):
        body += await stream.receive_some(65536)
    return head + b"\r\n\r\n" + body


async def until(holds: Callable[[], bool]) -> None:
    # A connection's end is nothing a client can wait for.
    while not holds():
        await trio.sleep(0.01)


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_request_is_answered_with_the_security_headers(dial: Dial) -> None:
    async with serving(hello) as (_, port):
        stream = await dial(port)
        await stream.send_all(GET)
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"x-content-type-options: nosniff" in answer
        assert b"server:" not in answer.lower()
        assert answer.endswith(b"/a")


async def test_a_client_that_never_completes_its_head_is_cut_off(dial: Dial) -> None:
    async with serving(hello, head_timeout=0.2) as (_, port):
        stream = await dial(port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert await read_all(stream) == b""


async def test_bytes_that_trickle_in_do_not_extend_the_deadline_of_a_head(dial: Dial) -> None:
    async with serving(hello, head_timeout=0.3) as (server, port):
        stream = await dial(port)

        async def trickle() -> None:
            while True:
                await stream.send_all(b"X: y\r\n")
                await trio.sleep(0.05)

        await stream.send_all(b"GET / HTTP/1.1\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await trickle()
        await until(lambda: not server.connections)


async def test_a_head_above_the_limit_is_refused_with_a_problem_document(dial: Dial) -> None:
    async with serving(hello, max_head_bytes=1024) as (_, port):
        stream = await dial(port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 2000)
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 431")
        assert b"application/problem+json" in answer


async def test_bytes_that_are_not_http_are_answered_400(dial: Dial) -> None:
    async with serving(hello) as (_, port):
        stream = await dial(port)
        await stream.send_all(b"\x16\x03\x01 hello\r\n\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 400")


async def test_an_upgrade_to_http2_is_ignored(dial: Dial) -> None:
    async with serving(hello) as (_, port):
        stream = await dial(port)
        await stream.send_all(
            b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 200")


async def test_connections_above_the_limit_wait_until_one_closes(dial: Dial) -> None:
    async with serving(hello, max_connections=1) as (server, port):
        first = await dial(port)
        await first.send_all(GET)
        await read_answer(first)
        second = await dial(port)
        await second.send_all(GET)
        with trio.move_on_after(0.2) as waited:
            await read_answer(second)
        assert waited.cancelled_caught
        assert server.connections == 1
        await first.aclose()
        assert (await read_answer(second)).startswith(b"HTTP/1.1 200")


async def test_a_client_that_does_not_read_its_answer_is_cut_off(dial: Dial) -> None:
    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"x" * 64 * 1024 * 1024, b"text/plain")

    async with serving(flood, write_timeout=0.2) as (server, port):
        stream = await dial(port)
        await stream.send_all(GET)
        await until(lambda: bool(server.connections))
        await until(lambda: not server.connections)
        await stream.aclose()


async def test_drain_lets_a_request_finish_and_closes_idle_connections(dial: Dial) -> None:
    entered, leave = trio.Event(), trio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            entered.set()
            await leave.wait()
        await hello(scope, receive, send)

    async with serving(slow) as (server, port):
        idle = await dial(port)
        await idle.send_all(GET)
        await read_answer(idle)
        busy = await dial(port)
        await busy.send_all(GET.replace(b"/a", b"/slow"))
        await entered.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            assert await read_all(idle) == b""
            with pytest.raises(OSError, match="all attempts to connect"):
                await dial(port)
            leave.set()
            assert (await read_all(busy)).endswith(b"/slow")
        assert server.connections == 0


async def test_abort_ends_a_request_that_drain_gave_up_on(dial: Dial) -> None:
    async def forever(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        message = await receive()
        assert message["type"] == "http.disconnect"

    async with serving(forever) as (server, port):
        stream = await dial(port)
        await stream.send_all(GET)
        await until(lambda: bool(server.connections))
        with trio.move_on_after(0.1):
            await server.drain()
        server.abort()
        assert await read_all(stream) == b""


async def test_an_exception_of_the_application_is_500_and_harms_no_other_connection(
    dial: Dial,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            raise RuntimeError("a secret detail")
        await hello(scope, receive, send)

    async with serving(broken) as (_, port):
        stream = await dial(port)
        await stream.send_all(GET.replace(b"/a", b"/broken"))
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 500")
        assert b"secret" not in answer
        other = await dial(port)
        await other.send_all(GET)
        assert (await read_answer(other)).startswith(b"HTTP/1.1 200")
    assert "Error in ASGI Framework" in caplog.text


async def test_a_broken_connection_handler_is_logged_and_the_server_goes_on(
    dial: Dial,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(hello) as (server, port):
        shared = server._shared
        assert shared is not None
        shared.config.h11_max_incomplete_size = None  # type: ignore[assignment]
        stream = await dial(port)
        await stream.send_all(b"GET /")
        await read_all(stream)
        shared.config.h11_max_incomplete_size = 16384
        other = await dial(port)
        await other.send_all(GET)
        assert (await read_answer(other)).startswith(b"HTTP/1.1 200")
    assert "a connection failed" in caplog.text


async def test_the_application_can_be_exchanged_while_a_connection_is_open(dial: Dial) -> None:
    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"other", b"text/plain")

    async with serving(hello) as (server, port):
        stream = await dial(port)
        await stream.send_all(GET)
        assert (await read_answer(stream)).endswith(b"/a")
        server.app = other
        await stream.send_all(GET)
        assert (await read_answer(stream)).endswith(b"other")


async def test_requests_are_logged_with_fields_and_without_the_query(
    dial: Dial,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "novacron.http"):
        async with serving(hello) as (_, port):
            stream = await dial(port)
            await stream.send_all(GET.replace(b"/a", b"/a?token=hush"))
            await read_answer(stream)
            await stream.aclose()
    [record] = [r for r in caplog.records if r.name == "novacron.http.access"]
    assert record.levelno == logging.DEBUG
    assert record.__dict__["status"] == 200
    assert record.__dict__["source"] == "127.0.0.1"
    assert record.getMessage() == "GET /a"
