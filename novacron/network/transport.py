"""The seam under peer sessions: how bytes reach a peer whose certificate is known.

Two implementations: :mod:`novacron.network.tcp_tls` and, for tests,
:mod:`novacron.network.memory`. ``tests/contracts/test_transport.py`` holds both to what is said
here. Nothing here has a deadline of its own: the caller has one around every wait.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Protocol

from novacron._native.tcp import TcpInfo
from novacron.environment.ports import AddressInvalidError


class Stream(Protocol):
    """A connection to an authenticated peer. One task may send while one receives."""

    @property
    def peer_address(self) -> str:
        """``host:port`` of the other end."""
        ...

    @property
    def peer_certificate(self) -> bytes:
        """The certificate the peer proved to hold the key of; DER."""
        ...

    @property
    def peer_chain(self) -> tuple[bytes, ...]:
        """What the peer has sent behind it, as it has sent it; DER."""
        ...

    @property
    def same_host(self) -> bool:
        """Whether the other end is on this machine, as far as addresses tell."""
        ...

    def tcp_info(self) -> TcpInfo | None:
        """What the kernel measured of the connection; None where it is closed, is no TCP, or the
        compiled part that reads it is missing. A system call, never a wait."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of *data*; wait while the peer does not read.

        Raises:
          ConnectionLostError: the connection is gone, or was closed here.
        """
        ...

    async def receive_some(self) -> bytes:
        """At least one byte, or ``b""`` at the end of the connection.

        Raises:
          ConnectionLostError: the connection broke, or was closed here.
          TlsError: the peer refused this node (its certificate, for one).
        """
        ...

    async def aclose(self) -> None:
        """Close so that what was sent still arrives, within a second. Harmless when repeated."""
        ...


class Incoming(Protocol):
    """An accepted connection of which nothing is known but where it comes from."""

    @property
    def peer_host(self) -> str: ...

    @property
    def peer_address(self) -> str: ...

    async def handshake(self) -> Stream:
        """Authenticate both ends. On failure the connection is closed, the other end having been
        sent nothing but the alert of the security layer.

        Raises:
          TlsError: the peer has no valid certificate, or speaks something else.
          ConnectionLostError: it went away.
        """
        ...

    def close(self) -> None:
        """Drop it without a word."""
        ...


class Listener(Protocol):
    @property
    def address(self) -> str:
        """``host:port`` that is bound."""
        ...

    async def accept(self) -> Incoming:
        """Wait for the next connection.

        Raises:
          AcceptExhaustedError: nothing is left to hold one.
          AcceptAbortedError: that one is gone again.
          trio.ClosedResourceError: the listener was closed.
        """
        ...

    def close(self) -> None:
        """Stop listening; connections that wait are refused. Accepted ones stay."""
        ...


class Dialer(Protocol):
    async def dial(self, host: str, port: int) -> Stream:
        """Connect and authenticate both ends.

        Raises:
          ConnectError: nobody is there.
          TlsError: the other end is not a node this one trusts.
          ConnectionLostError: it went away.
        """
        ...


class PeerIdentity(Protocol):
    @property
    def node_id(self) -> str: ...


class Certificates(Protocol):
    """What the network needs of the security component."""

    def server_context(self) -> ssl.SSLContext: ...
    def client_context(self) -> ssl.SSLContext: ...
    def identify(self, der: bytes, presented: Sequence[bytes] = (), /) -> PeerIdentity:
        """Who a certificate was issued to; *presented* is what came behind it.

        Raises:
          SecurityError: it does not name a node of this cluster, or not now.
        """
        ...


def split_address(text: str, key: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` into its parts.

    Raises:
      AddressInvalidError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if (
        not colon
        or not host
        or not (port.isascii() and port.isdigit())
        or not 0 < int(port) < 65536
    ):
        raise AddressInvalidError(
            f"{text!r} is not an address",
            why="it has to be host:port, or [address]:port for IPv6",
            remedy="correct it",
            key=key,
        )
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of :func:`split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
