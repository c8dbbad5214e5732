"""One request on its way through the gate, and what the gate does to its stream."""

from __future__ import annotations

import secrets

import trio

from novacron.http.asgi import SECURITY_HEADERS, Message, Receive, Scope, Send
from novacron.security import Principal

LINGER = 1.0
"""Seconds to go on reading, and dropping, a body that was refused. Closing at once would reset the
connection, and the reset can overtake the answer that says why (RFC 9112 9.6)."""
LINGER_BYTES = 8 * 1024 * 1024


class Disconnected(Exception):
    """The client left before its request was complete: nobody to answer."""


class Call:
    """A request, its answer so far, and who makes it. The scope is a copy with a state of its own."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._head = scope["method"] == "HEAD"
        self.method: str = "GET" if self._head else scope["method"]
        # A copy: the server below tells a HEAD by its own.
        self.scope: Scope = {**scope, "method": self.method}
        self.scope["state"] = dict(scope.get("state") or {})
        client = scope.get("client")
        self.source: str = client[0] if client else ""
        self.id = secrets.token_hex(8)
        self.scope["state"]["request_id"] = self.id
        self.principal: Principal | None = None
        self.status: int | None = None
        """Of the answer, once it has begun."""
        self.reading = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            have = {name for name, _ in headers}
            headers += [pair for pair in SECURITY_HEADERS if pair[0] not in have]
            if b"x-request-id" not in have:
                headers.append((b"x-request-id", self.id.encode()))
            message = {**message, "headers": headers}
        elif self._head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives *body* once, then what the connection says."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


def lingering(send: Send, receive: Receive) -> Send:
    """A ``send`` that, between the last byte of an answer and its end, drops what still comes."""

    async def send_then_drop(message: Message) -> None:
        if message["type"] != "http.response.body" or message.get("more_body", False):
            await send(message)
            return
        await send({**message, "more_body": True})
        dropped = 0
        with trio.move_on_after(LINGER):
            while dropped < LINGER_BYTES:
                more = await receive()
                dropped += len(more.get("body", b""))
                if not more.get("more_body", False):
                    break
        await send({"type": "http.response.body", "body": b""})

    return send_then_drop
