"""The transport seam in memory, for tests: no sockets, no TLS, the same failures."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from novacron._native.tcp import TcpInfo
from novacron.network.errors import ConnectError, TlsError
from novacron.network.transport import join_address
from novacron.protocol.events import ConnectionLostError

Refusal = Callable[[bytes], str]
"""Says why a certificate is not accepted, or nothing."""


def _accept_all(certificate: bytes) -> str:
    return ""


class MemoryStream:
    """One end of a pair; at most *buffer* sent chunks wait for the other end."""

    same_host = True

    def __init__(
        self,
        send: trio.MemorySendChannel[bytes],
        receive: trio.MemoryReceiveChannel[bytes],
        peer_address: str,
        peer_certificate: bytes,
    ) -> None:
        self._send = send
        self._receive = receive
        self.peer_address = peer_address
        self.peer_certificate = peer_certificate
        self.peer_chain: tuple[bytes, ...] = ()

    def tcp_info(self) -> TcpInfo | None:
        return None

    async def send_all(self, data: bytes) -> None:
        try:
            await self._send.send(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionLostError("the connection was lost") from exc

    async def receive_some(self) -> bytes:
        while True:
            try:
                chunk = await self._receive.receive()
            except trio.EndOfChannel:
                return b""
            except trio.ClosedResourceError as exc:
                raise ConnectionLostError("the connection was lost") from exc
            if chunk:
                return chunk

    async def aclose(self) -> None:
        # What was sent stays readable, as after a TCP close that lingered.
        self._send.close()
        self._receive.close()
        await trio.lowlevel.checkpoint()


def memory_stream_pair(
    first_address: str, first_certificate: bytes, second_address: str, second_certificate: bytes
) -> tuple[MemoryStream, MemoryStream]:
    """Two ends; each knows the other's address and certificate."""
    to_second, from_first = trio.open_memory_channel[bytes](16)
    to_first, from_second = trio.open_memory_channel[bytes](16)
    return (
        MemoryStream(to_second, from_second, second_address, second_certificate),
        MemoryStream(to_first, from_first, first_address, first_certificate),
    )


class MemoryIncoming:
    def __init__(self, stream: MemoryStream, host: str, refusal: Refusal) -> None:
        self._stream = stream
        self._refusal = refusal
        self.peer_host = host
        self.peer_address = stream.peer_address

    async def handshake(self) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        why = self._refusal(self._stream.peer_certificate)
        if why:
            await self._stream.aclose()
            raise TlsError("untrusted", "the peer's certificate is not accepted", why=why)
        return self._stream

    def close(self) -> None:
        self._stream._send.close()
        self._stream._receive.close()


class MemoryListener:
    def __init__(self, network: MemoryNetwork, address: str, certificate: bytes) -> None:
        self._network = network
        self._certificate = certificate
        self._push, self._pull = trio.open_memory_channel[MemoryIncoming](math.inf)
        self.address = address

    async def accept(self) -> MemoryIncoming:
        try:
            return await self._pull.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    def close(self) -> None:
        self._network.listeners.pop(self.address, None)
        self._push.close()
        self._pull.close()


class MemoryNetwork:
    """Where memory listeners are found; *refusal* judges the certificates of both sides."""

    def __init__(self, refusal: Refusal = _accept_all) -> None:
        self.listeners: dict[str, MemoryListener] = {}
        self._refusal = refusal
        self._next_port = 1

    def listen(self, certificate: bytes) -> MemoryListener:
        listener = MemoryListener(self, join_address("memory", self._next_port), certificate)
        self._next_port += 1
        self.listeners[listener.address] = listener
        return listener

    def dialer(self, certificate: bytes, host: str = "memory") -> MemoryDialer:
        return MemoryDialer(self, certificate, host)


class MemoryDialer:
    def __init__(self, network: MemoryNetwork, certificate: bytes, host: str) -> None:
        self._network = network
        self._certificate = certificate
        self._host = host

    async def dial(self, host: str, port: int) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        address = join_address(host, port)
        listener = self._network.listeners.get(address)
        if listener is None:
            raise ConnectError(f"cannot connect to {address}", why="nobody listens")
        near, far = memory_stream_pair(
            join_address(self._host, 0), self._certificate, address, listener._certificate
        )
        why = self._network._refusal(listener._certificate)
        if why:
            await near.aclose()
            raise TlsError("untrusted", "the peer's certificate is not accepted", why=why)
        listener._push.send_nowait(MemoryIncoming(far, self._host, self._network._refusal))
        return near
