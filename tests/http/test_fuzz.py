"""Whatever a client sends, the server answers or closes, and serves the next one."""

from __future__ import annotations

from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron import observe
from novacron.http import HttpServer, Limits, listener_address, open_listener
from novacron.http.asgi import Receive, Scope, Send, respond

pieces = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /a HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://x/ HTTP/1.0\r\n",
        b"Host: x\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"Expect: 100-continue\r\n",
        b" folded\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"ffffffffff\r\n",
        b"0\r\n\r\n",
        b"hello",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00",
    ]
)


@settings(max_examples=200)
@given(st.lists(pieces | st.binary(max_size=20), max_size=12))
def test_no_bytes_break_the_server(sent: list[bytes]) -> None:
    trio.run(converse, sent)


async def converse(sent: list[bytes]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        message: Any = await receive()
        while message.get("more_body"):
            message = await receive()
        await respond(send, 200, b"fine", b"text/plain")

    listener = await open_listener("127.0.0.1", 0, section="api")
    port = int(listener_address(listener).rpartition(":")[2])
    server = HttpServer("fuzz", app, Limits(head_timeout=5, max_head_bytes=2048))
    before = failures()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listener)
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                try:
                    for piece in sent:
                        await stream.send_all(piece)
                    await stream.send_eof()
                    async for _ in stream:
                        pass
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    # Closed on us in the middle, which is a right answer to nonsense.
                    pass
            async with await trio.open_tcp_stream("127.0.0.1", port) as sane:
                await sane.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b"".join([chunk async for chunk in sane])
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"fine")
            await server.drain()
            nursery.cancel_scope.cancel()
    assert failures() == before


def failures() -> float:
    [family] = [f for f in observe.collect() if f.name == "novacron_http_connections_failed_total"]
    assert isinstance(family, observe.Counter)
    return family.values.get(("fuzz",), 0.0)
