"""Binding a TCP listener, with an error that says who is in the way."""

from __future__ import annotations

import socket

import trio

from novacron.environment.machine import Machine
from novacron.environment.ports import Listener, bind_error, listen, lookup_error

BACKLOG = 128
"""Connections the kernel completes for us before we accept them: Linux caps it at
net.core.somaxconn, and more would only hide that we do not keep up."""


async def open_listener(
    address: str, port: int, *, section: str, again: int = 0
) -> trio.SocketListener:
    """Bind and listen; the caller closes it. Port 0 takes a free one.

    Args:
      address: An IPv4 or IPv6 address, or a host name (its first address is used).
      section: The configuration section that names both, for errors ("api").
      again: The port to prefer where *port* is 0; see :func:`novacron.environment.ports.listen`.

    Raises:
      PortTakenError, PortDeniedError, AddressUnavailableError, AddressInvalidError: see
        :mod:`novacron.environment.ports`.
    """
    asked = Listener(section, address, port)
    try:
        found = await trio.socket.getaddrinfo(
            address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as exc:
        raise lookup_error(asked, exc) from exc
    family, _, _, _, target = found[0]
    try:
        bound = listen(family, target, backlog=BACKLOG, again=again)
    except OSError as exc:
        raise await trio.to_thread.run_sync(bind_error, asked, exc, Machine()) from exc
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))


def listener_address(listener: trio.SocketListener) -> str:
    """``host:port`` as bound; an IPv6 host in brackets."""
    host, port, *_ = listener.socket.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listener_port(listener: trio.SocketListener) -> int:
    return int(listener.socket.getsockname()[1])
