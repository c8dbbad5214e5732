"""The numbers that AMST's frames and acknowledgements carry, see ``native/include/nc_frame.h``."""

from __future__ import annotations

import enum


class FrameType(enum.IntEnum):
    HELLO = 1
    """The initiator's first on a connection."""
    HELLO_ACK = 2
    """The acceptor's answer."""
    DATA = 3
    """A chunk of an object, at its offset."""
    ZERO = 4
    """A run of zero bytes of an object, at its offset; the payload is its length."""
    ACK = 5
    """1 to 127 acknowledgements."""
    SEGMENT = 6
    """A piece of a byte stream, at its place."""
    END = 7
    """The end of a byte stream, at its length."""
    BYE = 8
    """The sender sends nothing more on this connection."""


class AckKind(enum.IntEnum):
    CHUNK = 1
    """The chunk at the offset is written; the value is its size in bytes."""
    ZERO = 2
    """The zero run at the offset is noted; the value is its size in bytes."""
    SEGMENT = 3
    """The segment at the offset arrived; the value is its size in bytes, or 0: it is the END."""
    READ = 4
    """Everything of the byte stream before the offset left the receiver."""
    REFUSED = 5
    """The object failed at the receiver; the value is an :class:`ErrorNumber`, the offset an errno of
    Linux or 0."""
    BASE = 6
    """The chunk at the offset is a delta against a base that is not here, and was not taken; the value
    is its size in bytes."""


class ErrorNumber(enum.IntEnum):
    """Why a receiver refused an object. A number that is not here is read as SYSTEM."""

    SYSTEM = 1
    MEMORY = 2
    UNAVAILABLE = 3
    DENIED = 4
    INVALID = 5
    NOT_FOUND = 6
    LIMIT = 7
    PROTOCOL = 8
    INTEGRITY = 9
    CLOSED = 10
    TIMEOUT = 11

    @classmethod
    def _missing_(cls, value: object) -> ErrorNumber:
        return cls.SYSTEM
