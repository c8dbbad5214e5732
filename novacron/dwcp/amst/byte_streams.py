"""Byte streams between nodes, of unknown length and in order, for programs of both.

The node that asks chooses the numbers of both directions: of its own from the lower half, where it
counts its objects too, and of the way back from the upper half, which the other node never uses for
anything of its own. So one question is enough, and both ends expect before they send.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from novacron.dwcp.amst.asking import check
from novacron.dwcp.amst.attempt import next_number
from novacron.dwcp.amst.errors import (
    LinkLostError,
    StreamDeniedError,
    TransferLimitError,
    TransferRefusedError,
)
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.transfer_messages import OpenStream, Outcome
from novacron.dwcp.amst.transport import Link, Moving
from novacron.errors import DwcpError, NovaCronError

logger = logging.getLogger("novacron.dwcp.streams")

MAX_STREAMS: Final = 64
"""From other nodes at once. Each keeps a window of memory."""
MAX_WINDOW: Final = 64 << 20
DEFAULT_WINDOW: Final = 4 << 20
_CHUNK_BYTES: Final = 1 << 18
"""Of what is read at once at most: large enough to be cheap, small enough to come soon."""
_REASON_TIMEOUT: Final = 1.0
"""Seconds for what moves a stream to say why it broke."""
_backs = itertools.count(0)
_BACK: Final = 1 << 31
_SERVICE: Final = re.compile(r"[a-z][a-z0-9.-]{0,63}")


class ByteStream(trio.abc.HalfCloseableStream):
    """An end of a byte stream; used as any Trio stream, and closed by whoever got it.

    Attributes:
      peer: Id of the node at the other end.
      service: What the stream was opened for.
    """

    def __init__(self, stream: trio.SocketStream, peer: str, service: str) -> None:
        self.peer = peer
        self.service = service
        self._stream = stream
        self._failure: DwcpError | None = None
        self._settled = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises trio.BrokenResourceError: the link ended, or the other end was closed."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Empty at the end: everything that was sent was read. A stream that breaks does not look
        like one that ended: raises trio.BrokenResourceError then."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            with trio.move_on_after(_REASON_TIMEOUT):
                await self._settled.wait()
            self._raise_failure()
            raise
        if not data:
            # The socket says the same where the link broke; what moved it knows.
            await self._settled.wait()
            self._raise_failure()
        return data

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise trio.BrokenResourceError(str(self._failure)) from self._failure

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _settle(self, failure: DwcpError | None) -> None:
        """Nothing more comes."""
        if not self._settled.is_set():
            self._failure = failure
            self._settled.set()


StreamHandler = Callable[[ByteStream], Awaitable[None]]
"""Serves a stream that another node opened. It is closed when the handler returns."""


class ByteStreams:
    """Opens byte streams and serves those of others; part of
    :class:`~novacron.dwcp.amst.transfers.Transfers`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._handlers: dict[str, StreamHandler] = {}
        self._serving = 0

    def register(self, service: str, handler: StreamHandler) -> None:
        """Raises ValueError: the name is taken, or is none."""
        if not _SERVICE.fullmatch(service):
            raise ValueError(f"{service!r} is no name of a service")
        if service in self._handlers:
            raise ValueError(f"service {service} has a handler")
        self._handlers[service] = handler

    def remove(self, service: str) -> None:
        self._handlers.pop(service, None)

    async def open(self, node: str, service: str, window_bytes: int) -> ByteStream:
        """See :meth:`~novacron.dwcp.amst.transfers.Transfers.open_stream`."""
        link = await self._host.links.link_to(node)
        number = next_number()
        back = _BACK + next(_backs) % (_BACK - 1)
        stream, engine_end = _socket_pair(node, service)
        with engine_end:
            receiving = link.receive_pipe(back, engine_end.fileno(), window_bytes=window_bytes)
            try:
                message = OpenStream(
                    secrets.token_bytes(16), link.link_id, number, back, window_bytes, service
                )
                answer = await self._host.asking.ask(node, "amst.stream", message, Outcome)
                check(answer.trouble, node)
                sending = link.send_pipe(
                    number,
                    engine_end.fileno(),
                    chunk_bytes=min(_CHUNK_BYTES, link.max_chunk_bytes),
                    window_bytes=window_bytes,
                )
                self._host.start(self._run, stream, sending, receiving)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await receiving.aclose()
                await stream.aclose()
                raise
        return stream

    async def take(self, link: Link, message: OpenStream) -> Outcome:
        """Another node opens one.

        Raises:
          TransferRefusedError, TransferLimitError: it is not wanted.
          LinkLostError: its link ended.
        """
        handler = self._handlers.get(message.service)
        if handler is None:
            raise TransferRefusedError(f"this node has no service {message.service!r}")
        if not message.back >= _BACK or message.window > MAX_WINDOW:
            raise StreamDeniedError("a byte stream was not asked for as the protocol says")
        if self._serving >= MAX_STREAMS:
            raise TransferLimitError(f"{MAX_STREAMS} byte streams are open already")
        stream, engine_end = _socket_pair(link.peer, message.service)
        with engine_end:
            receiving = link.receive_pipe(
                message.number, engine_end.fileno(), window_bytes=message.window
            )
            try:
                sending = link.send_pipe(
                    message.back,
                    engine_end.fileno(),
                    chunk_bytes=min(_CHUNK_BYTES, link.max_chunk_bytes),
                    window_bytes=message.window,
                )
            except BaseException:
                with trio.CancelScope(shield=True):
                    await receiving.aclose()
                raise
        self._serving += 1
        self._host.start(self._run, stream, sending, receiving)
        self._host.start(self._serve, handler, stream)
        return Outcome(None)

    async def _serve(self, handler: StreamHandler, stream: ByteStream) -> None:
        try:
            await handler(stream)
        except (NovaCronError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            logger.info(
                "a byte stream broke: %s",
                exc,
                extra={"peer": stream.peer, "service": stream.service},
            )
        except Exception:
            # One stream's handler must not end the component.
            logger.exception(
                "a byte stream's handler failed",
                extra={"peer": stream.peer, "service": stream.service},
            )
        finally:
            self._serving -= 1
            with trio.CancelScope(shield=True), contextlib.suppress(trio.BrokenResourceError):
                await stream.aclose()

    async def _run(self, stream: ByteStream, sending: Moving, receiving: Moving) -> None:
        """Until both directions ended. One that fails ends the other: half a stream is of no use
        to a program that does not know which half."""

        async def wait(moving: Moving, settle: bool) -> None:
            try:
                await moving.wait()
            except DwcpError as exc:
                stream._settle(exc)
                nursery.cancel_scope.cancel()
            else:
                if settle:
                    stream._settle(None)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, sending, False)
                nursery.start_soon(wait, receiving, True)
        finally:
            stream._settle(LinkLostError("the byte stream was given up", why="the node stops"))
            with trio.CancelScope(shield=True):
                await sending.aclose()
                await receiving.aclose()


def _socket_pair(peer: str, service: str) -> tuple[ByteStream, socket.socket]:
    ours, engines = socket.socketpair()
    try:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    except BaseException:
        ours.close()
        engines.close()
        raise
    return ByteStream(stream, peer, service), engines
