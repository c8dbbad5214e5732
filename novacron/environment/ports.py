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
from typing import NamedTuple

from novacron.environment.machine import Machine
from novacron.errors import ConflictError, DeniedError, InvalidError, NetworkError, NovaCronError

LISTEN = "0A"
"""TCP_LISTEN in ``/proc/net/tcp``."""


class Listener(NamedTuple):
    section: str
    """Configuration section with the keys ``listen_address`` and ``port``."""
    address: str
    port: int


class PortTaken(NetworkError, ConflictError):
    """Another process listens there."""

    code = "network.port_taken"


class PortDenied(NetworkError, DeniedError):
    """This user may not bind that port."""

    code = "network.port_denied"


class AddressUnusable(NetworkError, InvalidError):
    """The listen address is not one of this host, or not an address."""

    code = "network.address_unusable"


class Holder(NamedTuple):
    pid: int
    name: str


class Socket(NamedTuple):
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
      PortTaken, PortDenied, AddressUnusable: the class of the first one in the way.
    """
    problems: list[NovaCronError] = []
    for listener in listeners:
        try:
            _try_bind(listener, machine)
        except (PortTaken, PortDenied, AddressUnusable) as exc:
            problems.append(exc)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise type(problems[0])(
            "; ".join(problem.what for problem in problems),
            why="; ".join(dict.fromkeys(problem.why for problem in problems)),
            remedy="; ".join(dict.fromkeys(problem.remedy for problem in problems)),
            key=", ".join(problem.key for problem in problems),
        )


def _try_bind(listener: Listener, machine: Machine) -> None:
    section, address, port = listener
    what = f"cannot listen on {_shown(address, port)}"
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise AddressUnusable(
            what,
            why=f"{address!r} is neither an address nor a name that can be looked up ({exc})",
            remedy=f"set {section}.listen_address to an address of this host, such as 127.0.0.1 "
            "or 0.0.0.0",
            key=f"{section}.listen_address",
        ) from exc
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
                raise _bind_error(listener, what, exc, machine) from exc
        else:
            bound = True
    if refused is not None and not bound:
        raise _bind_error(listener, what, refused, machine) from refused


def _bind(family: int, kind: int, protocol: int, place: tuple[object, ...]) -> None:
    with socket.socket(family, kind, protocol) as attempt:
        # As the real listeners do: sockets of an earlier run in TIME_WAIT are not in the way.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            attempt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        attempt.bind(place)


def _bind_error(
    listener: Listener, what: str, exc: OSError, machine: Machine
) -> PortTaken | PortDenied | AddressUnusable:
    section, address, port = listener
    if exc.errno == errno.EADDRINUSE:
        return PortTaken(
            what,
            why=f"the port is in use by {_described(holders(port, machine), port)}",
            remedy=f"stop that process, or set {section}.port to another port (0 takes a free one)",
            key=f"{section}.port",
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return PortDenied(
            what,
            why=f"user {os.geteuid()} may not bind port {port} (ports below "
            "net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE)",
            remedy=f"set {section}.port to 1024 or more, or grant the capability",
            key=f"{section}.port",
        )
    why = exc.strerror or str(exc)
    if exc.errno == errno.EADDRNOTAVAIL:
        why = f"no network interface of this host has the address {address}"
    return AddressUnusable(
        what,
        why=why,
        remedy=f"set {section}.listen_address to an address of this host (`ip address` lists them)",
        key=f"{section}.listen_address",
    )


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
