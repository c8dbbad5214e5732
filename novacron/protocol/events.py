"""What a session machine tells its driver."""

from __future__ import annotations

from typing import ClassVar

from novacron.errors import NetworkError, RemoteProtocolError, TransientError
from novacron.protocol.messages import Record, Request, Response


class Event(Record):
    __slots__ = ()


class Transmit(Event):
    """Write these bytes, in the order of the events."""

    __slots__ = ("data",)
    data: bytes


class Established(Event):
    """The handshake is done. The limits are the peer's: what we may send."""

    __slots__ = (
        "version",
        "features",
        "node_id",
        "boot_id",
        "address",
        "max_frame_bytes",
        "max_in_flight",
    )
    version: int
    features: int
    node_id: str
    boot_id: str
    address: str
    max_frame_bytes: int
    max_in_flight: int


class PingReceived(Event):
    """The answer is in the next event."""

    __slots__ = ("sequence",)
    sequence: int


class RequestReceived(Event):
    __slots__ = ("request",)
    request: Request


class ResponseReceived(Event):
    __slots__ = ("response",)
    response: Response


class GoodbyeReceived(Event):
    """The peer makes no more requests. Finish, then send a Goodbye."""

    __slots__ = ("message", "reason")
    message: str
    reason: int


class Measured(Event):
    """A Pong arrived; the round trip in seconds."""

    __slots__ = ("round_trip",)
    round_trip: float


class Closed(Event):
    """Both said Goodbye and nothing is open. Close the connection."""

    __slots__ = ()


class Failed(Event):
    """The session is over. ``reason`` is one short word for metrics; ``refused`` says that the
    peer ended it. Write what came before this event, then close the connection."""

    __slots__ = ("reason", "error")
    reason: str
    error: NetworkError


class RefusedError(NetworkError, RemoteProtocolError):
    """The peer ended the session with an Error message."""

    code: ClassVar[str] = "network.refused_by_peer"

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(
            "the peer ended the session",
            why=message or f"it gave error code {error_code}",
            remedy="see the log of the other node",
        )
        self.error_code = error_code


class SessionTimeoutError(NetworkError, TransientError):
    """The peer did not do in time what the protocol asks for."""

    code: ClassVar[str] = "network.timeout"


class ConnectionLostError(NetworkError, TransientError):
    """The connection ended before the session did."""

    code: ClassVar[str] = "network.connection_lost"
