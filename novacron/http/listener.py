"""Binding a TCP listener, with an error that says who is in the way."""

from __future__ import annotations

import errno
import os
import socket

import trio

from novacron.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    NetworkError,
    TransientError,
)

BACKLOG = 128
"""Connections the kernel completes for us before we accept them: Linux caps it at
net.core.somaxconn, and more would only hide that we do not keep up."""


class PortTakenError(NetworkError, ConflictError):
    """Another process listens on the address."""

    code = "network.port_taken"


class PortDeniedError(NetworkError, DeniedError):
    """This user may not bind the port."""

    code = "network.port_denied"


class AddressUnavailableError(NetworkError, TransientError):
    """No interface of this host has the address. Worth a retry: at system start the network may
    not be configured yet."""

    code = "network.address_unavailable"


class ListenAddressError(NetworkError, InvalidError):
    """The address is not one that can be listened on."""

    code = "network.listen_address"


async def open_listener(address: str, port: int, *, section: str) -> trio.SocketListener:
    """Bind and listen; the caller closes it. Port 0 takes a free one.

    Args:
      address: An IPv4 or IPv6 address, or a host name (its first address is used).
      section: The configuration section that names both, for errors ("api").

    Raises:
      PortTakenError, PortDeniedError, AddressUnavailableError, ListenAddressError: see each.
    """
    where = f"{_bracketed(address)}:{port}"
    try:
        found = await trio.socket.getaddrinfo(
            address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as exc:
        raise ListenAddressError(
            f"cannot listen on {where}",
            why=f"{address!r} is neither an address nor a name that resolves",
            remedy=f"set {section}.listen_address to an address of this host",
            key=f"{section}.listen_address",
        ) from exc
    family, kind, protocol, _, target = found[0]
    bound = trio.socket.socket(family, kind, protocol)
    try:
        # Connections of the last run in TIME_WAIT must not keep a restart from binding; on Linux
        # this does not let two listeners share the port.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await bound.bind(target)
        bound.listen(BACKLOG)
    except OSError as exc:
        bound.close()
        raise await _explained(exc, where, port, section) from exc
    except BaseException:
        bound.close()
        raise
    return trio.SocketListener(bound)


def listener_address(listener: trio.SocketListener) -> str:
    """``host:port`` as bound; an IPv6 host in brackets."""
    host, port, *_ = listener.socket.getsockname()
    return f"{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _explained(exc: OSError, where: str, port: int, section: str) -> NetworkError:
    what = f"cannot listen on {where}"
    if exc.errno == errno.EADDRINUSE:
        holder = await trio.to_thread.run_sync(_holder, port)
        return PortTakenError(
            what,
            why=f"the port is in use by {holder}" if holder else "the port is in use",
            remedy=f"stop that process, or set {section}.port to another port (0 takes a free one)",
            key=f"{section}.port",
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return PortDeniedError(
            what,
            why=f"user {os.geteuid()} may not bind port {port}",
            remedy=f"set {section}.port to 1024 or above, or grant CAP_NET_BIND_SERVICE",
            key=f"{section}.port",
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return AddressUnavailableError(
            what,
            why="no network interface of this host has the address " + where.rpartition(":")[0],
            remedy=f"set {section}.listen_address to an address this host has",
            key=f"{section}.listen_address",
        )
    return ListenAddressError(
        what,
        why=exc.strerror or str(exc),
        remedy=f"set {section}.listen_address and {section}.port to what this host can bind",
        key=f"{section}.listen_address",
    )


def _holder(port: int) -> str:
    """The processes listening on TCP *port*, as far as this user may see them."""
    from novacron.environment.machine import Machine
    from novacron.environment.ports import holders

    return " and ".join(f"pid {found.pid} ({found.name})" for found in holders(port, Machine()))
