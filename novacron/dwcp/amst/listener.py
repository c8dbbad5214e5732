"""Where other nodes connect to for data.

A connection says in its first bytes what it is: a TLS ClientHello means protocol version 1, anything
else has to be the greeting of a link that was agreed on before. Whoever sends neither in time is cut
off without a word, and the greetings that are awaited at once are bounded.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio

from novacron.dwcp.amst.errors import StreamDeniedError
from novacron.dwcp.amst.metrics import CONNECTIONS_REFUSED
from novacron.dwcp.amst.wire import (
    HELLO_BYTES,
    FrameError,
    link_id_of_hello,
    stream_id_of_hello,
)
from novacron.environment.machine import Machine
from novacron.environment.ports import Listener, bind_error, listen, lookup_error
from novacron.network.transport import join_address

logger = logging.getLogger("novacron.dwcp")

BACKLOG: Final = 1024
"""A link opens up to 256 connections at once."""
MAX_GREETINGS: Final = 512
"""Connections that have not said yet what they are."""
MAX_GREETINGS_OF_HOST: Final = 256
"""Of one address: as many as a link may have connections, and half of all, so that nobody alone keeps
the others out."""
GREETING_TIMEOUT: Final = 5.0
TLS_HANDSHAKE: Final = 0x16
"""First byte of a TLS record that holds a ClientHello (RFC 8446, 5.1)."""
EXHAUSTED_PAUSE: Final = 0.1


class GreetedLink(Protocol):
    def add_accepted(self, sock: socket.socket, hello: bytes) -> None: ...


FindLink = Callable[[bytes], GreetedLink | None]
ServeTls = Callable[[trio.socket.SocketType, Any], Awaitable[None]]
"""Takes over a connection whose first byte is a TLS handshake's, and its peer's address."""
Prepare = Callable[[int, str], object]
"""Sets what a data connection from that host needs, by descriptor."""
PrepareStream = Callable[[int, str, bytes, int], object]
"""The same for a stream of a link, by its ids."""


class _Places:
    """Counts the greetings that are awaited."""

    def __init__(self) -> None:
        self._hosts: dict[str, int] = {}
        self._total = 0
        self._left = trio.lowlevel.ParkingLot()

    async def wait(self) -> None:
        """Until there is a place; meanwhile connections wait in the kernel."""
        while self._total >= MAX_GREETINGS:
            await self._left.park()

    def take(self, host: str) -> bool:
        count = self._hosts.get(host, 0)
        if count >= MAX_GREETINGS_OF_HOST:
            return False
        self._hosts[host] = count + 1
        self._total += 1
        return True

    def leave(self, host: str) -> None:
        self._total -= 1
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]
        self._left.unpark()


class DataListener:
    """Made by :func:`open_data_listener`; :meth:`run` serves until :meth:`close`."""

    def __init__(self, listening: trio.socket.SocketType) -> None:
        self._socket = listening
        host, port = listening.getsockname()[:2]
        self.address = join_address(host, port)
        self.port: int = port

    async def run(
        self,
        *,
        find_link: FindLink,
        serve_tls: ServeTls,
        prepare: Prepare,
        prepare_stream: PrepareStream | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Args:
        prepare_stream: Instead of *prepare*, once it is known which stream a connection is.
        """

        def prepare_link(fd: int, host: str, link_id: bytes, stream: int) -> object:
            return prepare(fd, host)

        places = _Places()
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await places.wait()
                try:
                    connection, address = await self._socket.accept()
                except trio.ClosedResourceError:
                    break
                except OSError as exc:
                    if self._socket.fileno() < 0:
                        break
                    logger.warning("cannot accept data connections: %s", exc.strerror)
                    await trio.sleep(EXHAUSTED_PAUSE)
                    continue
                if not places.take(address[0]):
                    connection.close()
                    CONNECTIONS_REFUSED.inc("per_address")
                    continue
                nursery.start_soon(
                    _greet,
                    connection,
                    address,
                    find_link,
                    serve_tls,
                    prepare,
                    prepare_stream or prepare_link,
                    places,
                )

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


async def _greet(
    connection: trio.socket.SocketType,
    address: Any,
    find_link: FindLink,
    serve_tls: ServeTls,
    prepare: Prepare,
    prepare_stream: PrepareStream,
    places: _Places,
) -> None:
    refused = "greeting_timeout"
    try:
        with trio.move_on_after(GREETING_TIMEOUT):
            first = await connection.recv(1, socket.MSG_PEEK)
            if first and first[0] == TLS_HANDSHAKE:
                taken, refused = connection, ""
                prepare(taken.fileno(), address[0])
            else:
                refused = await _join_link(connection, address, find_link, prepare_stream)
    except OSError:
        refused = "lost"
    finally:
        places.leave(address[0])
        if refused or connection.fileno() < 0:
            connection.close()
    if refused:
        CONNECTIONS_REFUSED.inc(refused)
        logger.info("refused a data connection from %s: %s", address[0], refused)
    elif connection.fileno() >= 0:
        await serve_tls(connection, address)


async def _join_link(
    connection: trio.socket.SocketType, address: Any, find_link: FindLink, prepare: PrepareStream
) -> str:
    """Why the connection is refused; empty when a link has it."""
    hello = b""
    while len(hello) < HELLO_BYTES:
        data = await connection.recv(HELLO_BYTES - len(hello))
        if not data:
            return "lost"
        hello += data
    try:
        link_id, stream = link_id_of_hello(hello), stream_id_of_hello(hello)
        link = find_link(link_id)
    except FrameError:
        return "not_a_greeting"
    if link is None:
        return "unknown_link"
    prepare(connection.fileno(), address[0], link_id, stream)
    try:
        link.add_accepted(socket.socket(fileno=connection.detach()), hello)
    except StreamDeniedError:
        return "bad_proof"
    except Exception:
        return "link_ended"
    return ""


async def open_data_listener(host: str, port: int, *, again: int = 0) -> DataListener:
    """Bind and listen; the caller closes what it gets.

    Args:
      again: The port to prefer where *port* is 0.

    Raises:
      PortTakenError, PortDeniedError: about *port*; the key is dwcp.amst.port.
      AddressUnavailableError, AddressInvalidError: about *host*.
    """
    asked = Listener("dwcp.amst", host, port)
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        raise lookup_error(asked, exc) from exc
    try:
        listening = listen(found[0][0], found[0][4], backlog=BACKLOG, again=again, both=True)
    except OSError as exc:
        raise await trio.to_thread.run_sync(bind_error, asked, exc, Machine()) from exc
    return DataListener(trio.socket.from_stdlib_socket(listening))
