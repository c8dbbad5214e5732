"""Numbers both sides must agree on, and the two errors that protocol code raises."""

from __future__ import annotations

import enum
from typing import ClassVar

from novacron.errors import LocalProtocolError, NetworkError, RemoteProtocolError

PROTOCOL_MINIMUM = 1
PROTOCOL_MAXIMUM = 1
"""Versions of the messages this code speaks. The layout of the frame header has its own number
(:data:`novacron.protocol.frames.FRAMING_VERSION`), because a Hello must be readable by every
version there will ever be."""

FEATURE_REQUESTS = 1 << 0
"""Request and Response may be sent."""

FEATURE_NAMES: dict[int, str] = {0: "requests"}
"""Bit number to name, of every feature this code knows."""


def feature_list(bits: int) -> str:
    """Name the features in *bits*; one that this code does not know is named by its bit number."""
    names = [
        FEATURE_NAMES.get(bit, f"bit {bit}") for bit in range(bits.bit_length()) if bits >> bit & 1
    ]
    return ", ".join(names) or "none"


class ErrorCode(enum.IntEnum):
    """Why a session is ended at once; the ``code`` of an Error message."""

    FRAMING = 1
    """Bad magic, header checksum, framing version, flags or an unknown frame type."""
    LIMIT = 2
    """A frame, a value or a number of requests is over what the receiver announced."""
    ENCODING = 3
    """The payload is not the strict msgpack this protocol uses."""
    MESSAGE = 4
    """A field is missing, unknown, or out of its range."""
    STATE = 5
    """The message is not allowed in the session's state."""
    VERSION = 6
    """The two version ranges do not meet."""
    FEATURE = 7
    """A feature one side requires is not offered by the other."""
    IDENTITY = 8
    """The node id is not the one the certificate was issued for."""
    SELF = 9
    """Both ends are the same node."""
    TIMEOUT = 10
    """A deadline of the protocol passed."""


class GoodbyeReason(enum.IntEnum):
    """Why a session is ended in order; the ``reason`` of a Goodbye message."""

    STOPPING = 1
    """The node stops."""
    DUPLICATE = 2
    """The two nodes hold another session, which stays."""
    UNNEEDED = 3
    """The session is of no more use to the sender."""


class ViolationError(NetworkError, RemoteProtocolError):
    """The peer said something the protocol forbids. Drop it."""

    code: ClassVar[str] = "network.protocol_violation"

    def __init__(
        self, error_code: ErrorCode, what: str, *, why: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.error_code = error_code


class MisuseError(NetworkError, LocalProtocolError):
    """The caller wanted to say something the protocol forbids. Nothing was sent."""

    code: ClassVar[str] = "network.protocol_misuse"
