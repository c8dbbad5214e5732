"""What goes wrong on the way to a peer session, before the protocol itself has a say."""

from __future__ import annotations

from typing import ClassVar

from novacron.errors import (
    DeniedError,
    InvalidError,
    LimitError,
    NetworkError,
    NotFoundError,
    RemoteProtocolError,
    TransientError,
    UnavailableError,
)


class AcceptExhaustedError(NetworkError, LimitError):
    """No descriptor or memory is left for another connection. Pause, then accept again."""

    code: ClassVar[str] = "network.accept_exhausted"


class AcceptAbortedError(NetworkError, TransientError):
    """The connection went away before it was accepted. Accept the next."""

    code: ClassVar[str] = "network.accept_aborted"


class ConnectError(NetworkError, TransientError):
    """No connection could be made."""

    code: ClassVar[str] = "network.connect"


class TlsError(NetworkError, RemoteProtocolError):
    """TLS could not be agreed on. ``reason`` is one short word for metrics."""

    code: ClassVar[str] = "network.tls"

    def __init__(self, reason: str, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.reason = reason


class PeerUnknownError(NetworkError, NotFoundError):
    """No node is known by that name, or no way to it."""

    code: ClassVar[str] = "network.peer_unknown"


class PeerAmbiguousError(NetworkError, InvalidError):
    """Several nodes are meant by that name."""

    code: ClassVar[str] = "network.peer_ambiguous"


class PeerIsSelfError(NetworkError, InvalidError):
    """The name is this node's own."""

    code: ClassVar[str] = "network.peer_is_self"


class PeerForbiddenError(NetworkError, DeniedError):
    """No rule allows a node what this peer asked for."""

    code: ClassVar[str] = "network.forbidden"


class NetworkStoppingError(NetworkError, UnavailableError):
    """This node stops, or has not started; it makes no more sessions."""

    code: ClassVar[str] = "network.stopping"


class RequestFailedError(NetworkError, UnavailableError):
    """The peer answered a request with a failure; ``status`` is its code."""

    code: ClassVar[str] = "network.request_failed"

    def __init__(self, method: str, status: int, message: str) -> None:
        super().__init__(f"the peer could not do {method}", why=message or f"status {status}")
        self.status = status
