"""Hypercorn's Trio worker, one connection at a time, with the limits it lacks.

Only this file imports Hypercorn, and only :mod:`novacron.http.server` imports this file, late:
Hypercorn costs 60 ms. We take its connection (``TCPServer``) and its HTTP/1.1 state machine, and
leave its ``serve`` alone: that one binds, installs a lifespan and words its own log, while a node
binds itself (so that an address is known and a failure explained), and stops in two steps.

HTTP/1.1 only: an API with a handful of clients gains nothing from multiplexing, and would have to
bound streams, header tables and resets (CVE-2023-44487) besides connections.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from novacron.http.asgi import problem_document

if TYPE_CHECKING:
    import ssl

    from hypercorn.events import Event

    from novacron.http.asgi import AsgiApp
    from novacron.http.server import Limits

__all__ = ["Connection", "Shared", "WorkerContext"]


class _Log:
    """Takes what Hypercorn logs into stdlib logging."""

    def __init__(self, name: str) -> None:
        self._error = logging.getLogger(f"novacron.http.{name}")

    async def access(self, scope: Any, response: Any, seconds: float) -> None:
        """Nothing: the server logs requests itself. Hypercorn logs one twice when the client
        closes the moment it has the whole body, once of them without a status."""

    async def exception(self, message: str, *arguments: Any, **named: Any) -> None:
        self._error.exception(message, *arguments, **named)

    async def info(self, message: str, *arguments: Any, **named: Any) -> None:
        self._error.debug(message, *arguments, **named)

    async def warning(self, message: str, *arguments: Any, **named: Any) -> None:
        self._error.warning(message, *arguments, **named)


class Shared:
    """What all connections of one server have in common."""

    def __init__(self, name: str, limits: Limits) -> None:
        config = Config()
        config.include_server_header = False
        config.keep_alive_timeout = limits.head_timeout
        config.ssl_handshake_timeout = limits.handshake_timeout
        config.h11_max_incomplete_size = limits.max_head_bytes
        config._log = _Log(name)  # type: ignore[assignment]
        self.config = config
        self.context = WorkerContext(None)
        self.limits = limits


class _Http1(H11Protocol):
    async def _check_protocol(self, event: h11.Request) -> None:
        """Never leave HTTP/1.1: an ``Upgrade: h2c`` is ignored, as RFC 9110 7.8 allows."""

    async def _send_error_response(self, status_code: int) -> None:
        body = json.dumps(
            problem_document(
                status_code,
                HTTPStatus(status_code).phrase,
                "the request is not valid HTTP/1.1, or its head is too large",
            )
        ).encode()
        await self._send_h11_event(
            h11.Response(
                status_code=status_code,
                headers=[
                    (b"content-type", b"application/problem+json"),
                    (b"content-length", b"%d" % len(body)),
                    (b"connection", b"close"),
                    *self.config.response_headers("h11"),
                ],
            )
        )
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class Connection(TCPServer):
    """One accepted connection; :meth:`run` returns when it is closed.

    The client's certificate (DER) is in ``scope["state"]["client_certificate"]`` of each of its
    requests; Hypercorn copies that mapping into every scope.

    Hypercorn's idle timer starts with the connection and after each answer, and stops when a
    request's head is complete, not at its first byte: ``keep_alive_timeout`` is therefore the
    deadline for a head as well, which is what stops a client that sends one byte a second.
    """

    protocol: _Http1  # type: ignore[assignment]

    def __init__(
        self,
        app: AsgiApp,
        shared: Shared,
        socket: trio.SocketStream,
        tls: ssl.SSLContext | None,
    ) -> None:
        stream = (
            socket
            if tls is None
            else trio.SSLStream(socket, tls, server_side=True, https_compatible=True)
        )

        async def wrapped(
            scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any
        ) -> None:
            await app(scope, receive, send)

        super().__init__(
            wrapped,
            shared.config,
            shared.context,
            ConnectionState({}),
            stream,  # type: ignore[arg-type]
        )
        self._shared = shared
        self._socket = socket
        self._tls = tls is not None
        self._gone = False
        self.established = tls is None
        """Past the TLS handshake; before, there is no request that a stop could wait for."""

    async def run(self) -> None:
        state: dict[str, Any] = {}
        try:
            if self._tls and not await self._shake_hands(state):
                return
            client = parse_socket_addr(
                self._socket.socket.family, self._socket.socket.getpeername()
            )
            server = parse_socket_addr(
                self._socket.socket.family, self._socket.socket.getsockname()
            )
            async with TaskGroup() as group:
                self._task_group = group
                self.protocol = _Http1(
                    self.app,
                    self.config,
                    self.context,
                    group,
                    ConnectionState(state),
                    self._tls,
                    client,
                    server,
                    self.protocol_send,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(group, self._idle_timeout)
                await self._read_data()
                # Hypercorn would sit out the idle timeout although the peer has closed.
                self._gone = True
                await self.idle_task.stop()
        except OSError:
            # The peer went away between accept and the first question about it: nobody to tell.
            return
        finally:
            await self._close()

    async def _shake_hands(self, state: dict[str, Any]) -> bool:
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                await self.stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False
        self.established = True
        state["client_certificate"] = self.stream.getpeercert(binary_form=True)
        return True

    async def protocol_send(self, event: Event) -> None:
        """As Hypercorn's, which writes shielded and for ever: a client that does not read its
        answer would hold the connection, and the node's stop, as long as it likes."""
        if not isinstance(event, RawData):
            if not (self._gone and isinstance(event, Updated)):
                await super().protocol_send(event)
            return
        async with self.send_lock:
            with trio.CancelScope(
                deadline=trio.current_time() + self._shared.limits.write_timeout, shield=True
            ) as scope:
                try:
                    await self.stream.send_all(event.data)
                except (
                    trio.BrokenResourceError,
                    trio.ClosedResourceError,
                    # Writes take turns; what is busy is the other task that closes the connection.
                    trio.BusyResourceError,
                ):
                    await self.protocol.handle(Closed())
        if scope.cancelled_caught:
            self.abort()
            await self.protocol.handle(Closed())

    def abort(self) -> None:
        """Close the socket at once; whatever waits on it wakes with an error."""
        self._gone = True
        self._socket.socket.close()
