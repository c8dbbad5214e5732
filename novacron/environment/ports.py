"""Whether the node's listeners will get their ports, and who has them if not.

The check is a bind that is undone. Somebody may still take a port between the check and the real
bind; the listener then reports the same, only later, after work that a failed boot has to undo.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from novacron.environment.machine import Machine
from novacron.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    NetworkError,
    NovaCronError,
    TransientError,
)
from novacron.record import Record

LISTEN = "0A"
"""TCP_LISTEN in ``/proc/net/tcp``."""


class Listener(Record):
    section: str
    """Configuration section with the keys ``listen_address`` and ``port``."""
    address: str
    port: int


class PortTakenError(NetworkError, ConflictError):
    """Another process listens there."""

    code = "network.port_taken"


class PortDeniedError(NetworkError, DeniedError):
    """This user may not bind that port."""

    code = "network.port_denied"


class AddressUnavailableError(NetworkError, TransientError):
    """No interface of this host has the address. Worth a retry: at system start one may still be
    on its way up."""

    code = "network.address_unavailable"


class AddressInvalidError(NetworkError, InvalidError):
    """The text is no address, or not one that can be listened on."""

    code = "network.address_invalid"


class Holder(Record):
    pid: int
    name: str


class Socket(Record):
    port: int
    state: str
    inode: int


def parse_tcp_table(text: str) -> Iterator[Socket]:
    """Rows of ``/proc/net/tcp`` and ``tcp6``; those of another shape are passed over."""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or not words[9].isascii() or not words[9].isdigit():
            continue
        _, separator, port = words[1].rpartition(":")
        try:
            number = int(port, 16)
        except ValueError:
            continue
        if separator and 0 <= number <= 65535 and len(words[9]) <= 18:
            yield Socket(number, words[3], int(words[9]))


def holders(port: int, machine: Machine) -> list[Holder]:
    """Processes that listen on *port*, as far as this user may see: other users' processes stay
    hidden without CAP_SYS_PTRACE. Reads all of ``/proc``: for a failure's message only."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            rows = parse_tcp_table(machine.read(table))
            inodes |= {row.inode for row in rows if row.port == port and row.state == LISTEN}
    targets = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for pid in (entry for entry in machine.list("/proc") if entry.isdigit()):
        if targets and _holds(int(pid), targets, machine):
            with contextlib.suppress(OSError):
                found.append(Holder(int(pid), machine.read(f"/proc/{pid}/comm").strip()))
    return sorted(found)


def check_ports(listeners: Iterable[Listener], machine: Machine) -> None:
    """Bind each listener's port for a moment; port 0 is free by definition and only its address is
    tried. All that is wrong is in one error.

    Blocks: a listen address that is a name is looked up.

    Raises:
      PortTakenError, PortDeniedError, AddressUnavailableError, AddressInvalidError: the class of
        the first one that no retry can help, else of the first one.
    """
    problems: list[NovaCronError] = []
    for listener in listeners:
        try:
            _try_bind(listener, machine)
        except NovaCronError as exc:
            problems.append(exc)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        worst = next((problem for problem in problems if not problem.retryable), problems[0])
        raise type(worst)(
            "; ".join(problem.what for problem in problems),
            why="; ".join(dict.fromkeys(problem.why for problem in problems)),
            remedy="; ".join(dict.fromkeys(problem.remedy for problem in problems)),
            key=", ".join(problem.key for problem in problems),
        )


def listen(
    family: int, address: tuple[Any, ...], *, backlog: int, again: int = 0, both: bool = False
) -> socket.socket:
    """A socket that listens on *address*, as ``getaddrinfo`` gave it; the caller closes it.

    Args:
      again: The port that port 0 got the last time, 0 for none. Taken once more unless somebody
        else has it now: whoever was told the address still finds it after a restart.
      both: Whether an IPv6 wildcard takes IPv4 connections as well.

    Raises:
      OSError: for :func:`bind_error` to explain.
    """
    host, port, *rest = address
    if again and not port:
        with contextlib.suppress(OSError):
            return _listen(family, (host, again, *rest), backlog, both)
    return _listen(family, address, backlog, both)


def _listen(family: int, address: tuple[Any, ...], backlog: int, both: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Connections of the last run in TIME_WAIT must not keep a restart from binding; on Linux
        # this does not let two listeners share the port.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not both:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def _try_bind(listener: Listener, machine: Machine) -> None:
    _, address, port = listener
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise lookup_error(listener, exc) from exc
    bound, refused = False, None
    for family, kind, protocol, _, place in found:
        try:
            _bind(family, kind, protocol, place)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE and _is_ours(port, machine):
                bound = True
            elif exc.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                refused = exc  # a name with an IPv6 address on a host without IPv6: one is enough
            else:
                raise bind_error(listener, exc, machine) from exc
        else:
            bound = True
    if refused is not None and not bound:
        raise bind_error(listener, refused, machine) from refused


def _bind(family: int, kind: int, protocol: int, place: tuple[object, ...]) -> None:
    with socket.socket(family, kind, protocol) as attempt:
        # As the real listeners do: sockets of an earlier run in TIME_WAIT are not in the way.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            attempt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        attempt.bind(place)


def lookup_error(listener: Listener, exc: Exception) -> AddressInvalidError:
    """The error for a listen address whose look-up ended in *exc*."""
    section, address, port = listener
    return AddressInvalidError(
        f"cannot listen on {_shown(address, port)}",
        why=f"{address!r} is neither an address nor a name that can be looked up ({exc})",
        remedy=f"set {section}.listen_address to an address of this host, such as 127.0.0.1 "
        "or 0.0.0.0",
        key=f"{section}.listen_address",
    )


def bind_error(
    listener: Listener, exc: OSError, machine: Machine
) -> PortTakenError | PortDeniedError | AddressUnavailableError | AddressInvalidError:
    """The error for *exc*, which the kernel answered to a bind or listen; the same whoever asked.
    Blocks where the port is taken: all of ``/proc`` is searched for who has it."""
    section, address, port = listener
    what = f"cannot listen on {_shown(address, port)}"
    if exc.errno == errno.EADDRINUSE:
        return PortTakenError(
            what,
            why=f"the port is in use by {_described(holders(port, machine), port)}",
            remedy=f"stop that process, or set {section}.port to another port (0 takes a free one)",
            key=f"{section}.port",
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return PortDeniedError(
            what,
            why=f"user {os.geteuid()} may not bind port {port} (ports below "
            "net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE)",
            remedy=f"set {section}.port to 1024 or more, or grant the capability",
            key=f"{section}.port",
        )
    remedy = f"set {section}.listen_address to an address of this host (`ip address` lists them)"
    key = f"{section}.listen_address"
    if exc.errno == errno.EADDRNOTAVAIL:
        return AddressUnavailableError(
            what,
            why=f"no network interface of this host has the address {address}",
            remedy=remedy,
            key=key,
        )
    return AddressInvalidError(what, why=exc.strerror or str(exc), remedy=remedy, key=key)


def _is_ours(port: int, machine: Machine) -> bool:
    """This very process listens there: a restart of one component while others serve."""
    return any(holder.pid == os.getpid() for holder in holders(port, machine))


def _holds(pid: int, targets: set[str], machine: Machine) -> bool:
    directory = machine.path(f"/proc/{pid}/fd")
    try:
        descriptors = os.listdir(directory)
    except OSError:
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if os.readlink(f"{directory}/{descriptor}") in targets:
                return True
    return False


def _described(found: list[Holder], port: int) -> str:
    if not found:
        return f"another process (as root, `ss -ltnp sport = :{port}` names it)"
    return ", ".join(f"pid {holder.pid} ({holder.name})" for holder in found)


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
