"""Connections and datagrams between two namespaces, as the laboratory's tests send them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import trio

from bench.lab.netns import Namespace

SocketPair = tuple[trio.socket.SocketType, trio.socket.SocketType]
_FEW_BYTES = 64


@dataclass(frozen=True)
class Datagrams:
    """One UDP socket in each namespace, connected to the other."""

    a: socket.socket
    b: socket.socket

    def send_numbers(self, count: int, size: int = 4) -> None:
        """*count* datagrams from a to b, each beginning with its number."""
        for number in range(count):
            self.a.send(struct.pack("!I", number).ljust(size, b"."))

    def numbers_at_b(self) -> list[tuple[int, int]]:
        """Number and ECN bits of what has come, in that order; does not wait."""
        found = []
        while True:
            try:
                data, control, _, _ = self.b.recvmsg(2048, 64)
            except BlockingIOError:
                return found
            (number,) = struct.unpack_from("!I", data)
            found.append((number, control[0][2][0] & 3))


@contextmanager
def datagrams(a: Namespace, b: Namespace, address_a: str, address_b: str) -> Iterator[Datagrams]:
    with ExitStack() as stack:
        ends = []
        for namespace, address in ((a, address_a), (b, address_b)):
            with namespace.entered():
                end = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            # What a test sends at once must find room, whatever the machine's default is.
            end.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
            end.setsockopt(socket.SOL_SOCKET, 32, 8 << 20)  # SO_SNDBUFFORCE
            end.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            end.bind((address, 0))
            end.setblocking(False)
            ends.append(end)
        ends[0].connect(ends[1].getsockname())
        ends[1].connect(ends[0].getsockname())
        yield Datagrams(*ends)


async def connect(a: Namespace, b: Namespace, address_b: str) -> SocketPair:
    """A TCP connection that *a* opens to *b*; the caller closes both ends."""
    with b.entered():
        listener = trio.socket.from_stdlib_socket(socket.create_server((address_b, 0)))
    with a.entered():
        near = trio.socket.socket()
    with listener:
        await near.connect(listener.getsockname())
        far, _ = await listener.accept()
    return near, far


async def arrives(near: trio.socket.SocketType, far: trio.socket.SocketType) -> bool:
    """Whether a few bytes from *near* reach *far* within half a second."""
    await near.send(b"." * _FEW_BYTES)
    with trio.move_on_after(0.5):
        return len(await far.recv(_FEW_BYTES)) > 0
    return False


async def flood(near: trio.socket.SocketType) -> None:
    """Send until cancelled or refused."""
    block = bytes(1 << 16)
    while True:
        await near.send(block)


async def drain(far: trio.socket.SocketType, size: int) -> None:
    """Receive *size* bytes."""
    while size > 0:
        received = await far.recv(min(size, 1 << 18))
        assert received, "the other end closed before it had sent everything"
        size -= len(received)
