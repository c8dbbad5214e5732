"""TCP with mutual TLS 1.3.

``https_compatible`` is on: Trio then neither sends nor awaits TLS's own closing message. The
protocol has its Goodbye for that, which also says why, and a session that ends without one counts
as lost; a second farewell below it would only add a wait on the peer to every close.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import trio

from novacron._native import tcp
from novacron.environment.machine import Machine
from novacron.environment.ports import Listener, bind_error, listen, lookup_error
from novacron.errors import NativeError
from novacron.network.errors import (
    AcceptAbortedError,
    AcceptExhaustedError,
    ConnectError,
    TlsError,
)
from novacron.network.transport import join_address
from novacron.protocol.events import ConnectionLostError

BACKLOG: Final = 4096
"""Connections the kernel holds for us; Linux cuts it to net.core.somaxconn, 4096 by default."""
_CHUNK: Final = 16384
"""Bytes a read takes at most: one TLS record."""
_LINGER: Final = 1.0
"""Seconds that a close waits for the other end to have read what we said."""
_LINGER_BYTES: Final = 262144
"""What is read and thrown away meanwhile."""

_DER: Final = 2
"""What Python calls ``_ssl.ENCODING_DER``: X509_FILETYPE_ASN1 of OpenSSL."""

Contexts = Callable[[], ssl.SSLContext]
"""Asked for each connection, so that a renewed certificate is used at once."""

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_CLOSED = frozenset((errno.EBADF, errno.EINVAL, errno.ENOTSOCK))


class _Tap:
    """Stands in for the context where Trio wraps its buffers, and keeps hold of the outgoing one.

    Trio drops what OpenSSL left there when a handshake fails, which is the very alert that tells
    the peer why.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._outgoing: ssl.MemoryBIO | None = None
        self._tls: ssl.SSLObject | None = None

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any
    ) -> ssl.SSLObject:
        self._outgoing = outgoing
        self._tls = self._context.wrap_bio(incoming, outgoing, **options)
        return self._tls

    def leftover(self) -> bytes:
        return self._outgoing.read() if self._outgoing is not None else b""

    def presented(self) -> tuple[bytes, ...]:
        """What the peer has sent behind its own certificate; DER."""
        # Python 3.13 has this under a public name.
        inner: Any = self._tls if hasattr(self._tls, "get_unverified_chain") else None
        inner = inner or getattr(self._tls, "_sslobj", None)
        chain = inner.get_unverified_chain() if inner is not None else None
        return tuple(
            each if isinstance(each, bytes) else bytes(each.public_bytes(_DER))
            for each in (chain or ())[1:]
        )


class TlsStream:
    """A :class:`~novacron.network.transport.Stream`; made by the listener and the dialer."""

    def __init__(
        self,
        stream: trio.SSLStream[trio.SocketStream],
        peer_address: str,
        certificate: bytes,
        presented: tuple[bytes, ...] = (),
    ) -> None:
        self._stream = stream
        self._closed = False
        self.peer_address = peer_address
        self.peer_certificate = certificate
        self.peer_chain = presented
        self.same_host = _on_one_host(stream.transport_stream.socket)

    def tcp_info(self) -> tcp.TcpInfo | None:
        if self._closed:
            return None
        try:
            return tcp.info(self._stream.transport_stream.socket.fileno())
        except NativeError:
            return None

    async def send_all(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise _lost(exc) from exc
        self._acknowledge_at_once()

    def _acknowledge_at_once(self) -> None:
        """Answering makes the kernel hold the next acknowledgement back for the next answer, and the
        peer's kernel then measures this node's event loop along with the way (ADR 0107)."""
        with contextlib.suppress(OSError):  # the connection may be gone; who reads next is told
            self._stream.transport_stream.socket.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1
            )

    async def receive_some(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_CHUNK))
        except trio.ClosedResourceError as exc:
            raise _lost(exc) from exc
        except trio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, ssl.SSLError):
                raise _tls_error(exc.__cause__) from exc
            raise _lost(exc) from exc

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        transport = self._stream.transport_stream
        try:
            await _linger(transport)
        finally:
            transport.socket.close()


def _on_one_host(connection: trio.socket.SocketType) -> bool:
    """A connection to an address of this machine has that address at both ends, whichever of them
    it is; 127.0.0.0/8 is the exception."""
    try:
        near, far = connection.getsockname()[0], connection.getpeername()[0]
    except OSError:
        return False
    return bool(near == far or (near.startswith("127.") and far.startswith("127.")))


async def _linger(transport: trio.SocketStream) -> None:
    """A socket closed with unread input resets the connection, and a reset overtakes our last
    words. So: end our direction, read out the other, then close."""
    with (
        trio.move_on_after(_LINGER),
        contextlib.suppress(
            trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError
        ),
    ):
        await transport.send_eof()
        total = 0
        while total < _LINGER_BYTES:
            chunk = await transport.receive_some(_CHUNK)
            if not chunk:
                break
            total += len(chunk)


async def _handshake(
    transport: trio.SocketStream, context: ssl.SSLContext, peer_address: str, *, server: bool
) -> TlsStream:
    """Closes *transport* unless it returns."""
    tap = _Tap(context)
    stream: trio.SSLStream[trio.SocketStream] = trio.SSLStream(
        transport,
        tap,  # type: ignore[arg-type]
        server_side=server,
        https_compatible=True,
    )
    try:
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as exc:
            alert = tap.leftover()
            if alert:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await transport.send_all(alert)
                    await _linger(transport)
            if isinstance(exc.__cause__, ssl.SSLEOFError) or not isinstance(
                exc.__cause__, ssl.SSLError
            ):
                raise _lost(exc) from exc
            raise _tls_error(exc.__cause__) from exc
        certificate = stream.getpeercert(True)
        if certificate is None:
            # Only with a context that does not ask for one; never let that be the way in.
            raise TlsError("no_certificate", "the peer showed no certificate")
        return TlsStream(stream, peer_address, certificate, tap.presented())
    except BaseException:
        transport.socket.close()
        raise


class TlsIncoming:
    """A :class:`~novacron.network.transport.Incoming`."""

    def __init__(
        self, connection: trio.socket.SocketType, address: Any, contexts: Contexts
    ) -> None:
        self._socket = connection
        self._contexts = contexts
        self.peer_host: str = address[0]
        self.peer_address = join_address(address[0], address[1])

    async def handshake(self) -> TlsStream:
        try:
            transport = trio.SocketStream(self._socket)
            context = self._contexts()
        except BaseException:
            self._socket.close()
            raise
        return await _handshake(transport, context, self.peer_address, server=True)

    def close(self) -> None:
        self._socket.close()


class TlsListener:
    """A :class:`~novacron.network.transport.Listener`; see :func:`open_tls_listener`."""

    def __init__(self, listening: trio.socket.SocketType, contexts: Contexts) -> None:
        self._socket = listening
        self._contexts = contexts
        host, port = listening.getsockname()[:2]
        self.address = join_address(host, port)

    async def accept(self) -> TlsIncoming:
        try:
            connection, address = await self._socket.accept()
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                raise AcceptExhaustedError(
                    "cannot accept connections",
                    why=exc.strerror or str(exc),
                    remedy="raise the limit of open files (LimitNOFILE= in the unit) "
                    "or lower network.max_connections",
                    key="network.max_connections",
                ) from exc
            if exc.errno in _CLOSED:
                raise trio.ClosedResourceError from exc
            raise AcceptAbortedError("a connection was lost", why=exc.strerror or "") from exc
        return TlsIncoming(connection, address, self._contexts)

    def close(self) -> None:
        self._socket.close()


async def open_tls_listener(
    host: str, port: int, contexts: Contexts, *, again: int = 0, backlog: int = BACKLOG
) -> TlsListener:
    """Bind and listen; the caller closes what it gets.

    Args:
      again: The port to prefer where *port* is 0; see :func:`novacron.environment.ports.listen`.

    Raises:
      PortTakenError, PortDeniedError: about *port*; the key is network.port.
      AddressUnavailableError, AddressInvalidError: about *host*; network.listen_address.
    """
    family, address = await _resolve(host, port)
    try:
        listening = listen(family, address, backlog=backlog, again=again, both=True)
    except OSError as exc:
        asked = Listener("network", host, port)
        raise await trio.to_thread.run_sync(bind_error, asked, exc, Machine()) from exc
    return TlsListener(trio.socket.from_stdlib_socket(listening), contexts)


async def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    flags = socket.AI_PASSIVE
    try:
        try:
            # A numeric address needs no name server, and so no thread.
            found = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST
            )
        except socket.gaierror:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as exc:
        raise lookup_error(Listener("network", host, port), exc) from exc
    return found[0][0], found[0][4]


class TlsDialer:
    """A :class:`~novacron.network.transport.Dialer`."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    async def dial(self, host: str, port: int) -> TlsStream:
        where = join_address(host, port)
        try:
            transport = await trio.open_tcp_stream(host, port)
        except OSError as exc:
            raise ConnectError(f"cannot connect to {where}", why=_connect_reason(exc)) from exc
        try:
            context = self._contexts()
        except BaseException:
            transport.socket.close()
            raise
        return await _handshake(transport, context, where, server=False)


def _connect_reason(exc: BaseException) -> str:
    # With several addresses Trio raises one OSError from a group with one for each.
    cause = exc.__cause__
    if isinstance(cause, BaseExceptionGroup) and cause.exceptions:
        exc = cause.exceptions[0]
    elif isinstance(cause, OSError):
        exc = cause
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)


def _lost(exc: BaseException) -> ConnectionLostError:
    cause = exc.__cause__
    why = cause.strerror if isinstance(cause, OSError) and cause.strerror else "the peer closed it"
    return ConnectionLostError("the connection was lost", why=why)


_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": ("no_certificate", "the peer showed no certificate"),
    "UNSUPPORTED_PROTOCOL": ("tls_version", "the peer does not speak TLS 1.3"),
    "TLSV1_ALERT_PROTOCOL_VERSION": ("tls_version", "the peer does not speak TLS 1.3"),
    "NO_PROTOCOLS_AVAILABLE": ("tls_version", "the peer does not speak TLS 1.3"),
    "HTTP_REQUEST": ("not_tls", "the peer speaks HTTP"),
    "HTTPS_PROXY_REQUEST": ("not_tls", "the peer speaks HTTP"),
    "WRONG_VERSION_NUMBER": ("not_tls", "the peer does not speak TLS"),
    "PACKET_LENGTH_TOO_LONG": ("not_tls", "the peer does not speak TLS"),
    "RECORD_LAYER_FAILURE": ("not_tls", "the peer does not speak TLS"),
}
_TRUST_REMEDY: Final = (
    "check that both nodes trust the same certificate authority (security.ca_certificate), "
    "that their certificates are valid now, and both clocks"
)


def _tls_error(exc: ssl.SSLError) -> TlsError:
    name = exc.reason or ""
    if isinstance(exc, ssl.SSLCertVerificationError):
        expired = exc.verify_code == 10  # X509_V_ERR_CERT_HAS_EXPIRED
        return TlsError(
            "expired" if expired else "untrusted",
            "the peer's certificate is not accepted",
            why=exc.verify_message,
            remedy=_TRUST_REMEDY,
        )
    if name in _REASONS:
        reason, why = _REASONS[name]
        return TlsError(reason, "no TLS session with the peer", why=why)
    if "ALERT" in name and any(
        word in name for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
    ):
        return TlsError(
            "refused",
            "the peer does not accept this node's certificate",
            why=name.lower().replace("_", " "),
            remedy=_TRUST_REMEDY,
        )
    return TlsError("tls", "no TLS session with the peer", why=name.lower().replace("_", " "))
