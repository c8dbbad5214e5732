"""The messages of the peer protocol, typed, and their form on the wire.

Each is one msgpack map with the field names below as keys. Every field is always present. Hello
and Welcome are read before both sides agreed on a version, so unknown keys in them are ignored;
in every other message they are violations.

The classes are written out rather than made by :mod:`dataclasses`: building twenty of those costs
a boot 8 ms, these cost a twentieth of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, dataclass_transform

from novacron.protocol.codes import ErrorCode, MisuseError, ViolationError
from novacron.protocol.frames import (
    ABSOLUTE_MAX_PAYLOAD,
    Frame,
    decode_payload,
    encode_frame,
    encode_payload,
)

Check = Callable[[Any], str]
"""Says what is wrong with a value, or nothing."""


@dataclass_transform(frozen_default=True)
class Record:
    """An immutable value whose fields are its ``__slots__``, in order."""

    __slots__: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *values: Any, **named: Any) -> None:
        names = self.__slots__
        if len(values) + len(named) != len(names):
            raise TypeError(f"{type(self).__name__} takes {', '.join(names)}")
        for name, value in zip(names, values, strict=False):
            object.__setattr__(self, name, value)
        for name in names[len(values) :]:
            try:
                object.__setattr__(self, name, named[name])
            except KeyError:
                raise TypeError(f"{type(self).__name__} needs {name}") from None

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._values() == self._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({', '.join(shown)})"


def _unsigned(bits: int, minimum: int = 0) -> Check:
    top = (1 << bits) - 1

    def check(value: Any) -> str:
        if isinstance(value, int) and type(value) is not bool and minimum <= value <= top:
            return ""
        return f"must be an integer from {minimum} to {top}"

    return check


def _text(max_bytes: int) -> Check:
    def check(value: Any) -> str:
        # surrogateescape'd text cannot be encoded; it counts as too long rather than raising.
        if type(value) is str and len(value.encode("utf-8", "replace")) <= max_bytes:
            return ""
        return f"must be a string of at most {max_bytes} bytes"

    return check


def _binary(value: Any) -> str:
    return "" if type(value) is bytes else "must be a byte string"


_HEX = frozenset("0123456789abcdef")


def _node_id(value: Any) -> str:
    if type(value) is str and len(value) == 36:
        parts = value.split("-")
        if [len(part) for part in parts] == [8, 4, 4, 4, 12] and _HEX.issuperset("".join(parts)):
            return ""
    return "must be a UUID in lower case"


class Message(Record):
    """Anything that travels in a frame."""

    __slots__: ClassVar[tuple[str, ...]] = ()
    type: ClassVar[int]
    checks: ClassVar[tuple[Check, ...]]
    """What each field must be, in the order of ``__slots__``."""
    open: ClassVar[bool] = False
    """Whether unknown keys are ignored."""


class Hello(Message):
    """The initiator's first and the acceptor's first-seen message: who is there, and what it can.

    ``minimum_version``/``maximum_version``: protocol versions spoken. ``node_id``: must be the one
    of the certificate. ``boot_id``: differs each time the node starts. ``address``: ``host:port``
    where the node can be dialled, or empty. ``required``/``optional``: feature bits without which
    the session is refused / that would be used. ``max_frame_bytes``: largest payload the sender
    takes. ``max_in_flight``: requests it takes before it answered one. ``clock_ns``: wall clock,
    nanoseconds since the epoch.
    """

    __slots__ = (
        "minimum_version",
        "maximum_version",
        "node_id",
        "boot_id",
        "address",
        "required",
        "optional",
        "max_frame_bytes",
        "max_in_flight",
        "clock_ns",
    )
    minimum_version: int
    maximum_version: int
    node_id: str
    boot_id: str
    address: str
    required: int
    optional: int
    max_frame_bytes: int
    max_in_flight: int
    clock_ns: int
    type: ClassVar[int] = 1
    open: ClassVar[bool] = True
    checks: ClassVar[tuple[Check, ...]] = (
        _unsigned(8, 1),
        _unsigned(8, 1),
        _node_id,
        _text(64),
        _text(300),
        _unsigned(64),
        _unsigned(64),
        _unsigned(32, 1024),
        _unsigned(16, 1),
        _unsigned(63),
    )


class Welcome(Message):
    """The acceptor's answer: what was agreed on. ``version`` and ``features`` hold from here on;
    the rest is as in :class:`Hello`."""

    __slots__ = (
        "version",
        "features",
        "node_id",
        "boot_id",
        "address",
        "max_frame_bytes",
        "max_in_flight",
        "clock_ns",
    )
    version: int
    features: int
    node_id: str
    boot_id: str
    address: str
    max_frame_bytes: int
    max_in_flight: int
    clock_ns: int
    type: ClassVar[int] = 2
    open: ClassVar[bool] = True
    checks: ClassVar[tuple[Check, ...]] = (
        _unsigned(8, 1),
        _unsigned(64),
        _node_id,
        _text(64),
        _text(300),
        _unsigned(32, 1024),
        _unsigned(16, 1),
        _unsigned(63),
    )


class Ping(Message):
    """Asks for a Pong. ``sequence`` counts from 0 in each direction; ``clock_ns`` as in Hello."""

    __slots__ = ("sequence", "clock_ns")
    sequence: int
    clock_ns: int
    type: ClassVar[int] = 3
    checks: ClassVar[tuple[Check, ...]] = (_unsigned(32), _unsigned(63))


class Pong(Message):
    """Answers the Ping of the same ``sequence``; ``ping_clock_ns`` is the Ping's, ``clock_ns`` the
    answering side's own."""

    __slots__ = ("sequence", "ping_clock_ns", "clock_ns")
    sequence: int
    ping_clock_ns: int
    clock_ns: int
    type: ClassVar[int] = 4
    checks: ClassVar[tuple[Check, ...]] = (_unsigned(32), _unsigned(63), _unsigned(63))


class Goodbye(Message):
    """The sender makes no more requests. It still answers, and still takes answers. ``reason`` is
    a :class:`~novacron.protocol.codes.GoodbyeReason`; an unknown one is no violation."""

    __slots__ = ("reason", "message")
    reason: int
    message: str
    type: ClassVar[int] = 5
    checks: ClassVar[tuple[Check, ...]] = (_unsigned(16), _text(256))


class Error(Message):
    """The session is over; the sender closes the connection. ``code`` is an
    :class:`~novacron.protocol.codes.ErrorCode`; an unknown one is no violation."""

    __slots__ = ("code", "message")
    code: int
    message: str
    type: ClassVar[int] = 6
    checks: ClassVar[tuple[Check, ...]] = (_unsigned(16), _text(512))


class Request(Message):
    """Asks the other side to do ``method``. ``id`` is unused among the sender's open requests;
    ``body`` is the method's own affair."""

    __slots__ = ("id", "method", "body")
    id: int
    method: str
    body: bytes
    type: ClassVar[int] = 7
    checks: ClassVar[tuple[Check, ...]] = (_unsigned(32), _text(64), _binary)


class Response(Message):
    """Answers the request ``id``. ``status`` 0 is success and ``body`` the result; otherwise
    ``message`` says what failed."""

    __slots__ = ("id", "status", "message", "body")
    id: int
    status: int
    message: str
    body: bytes
    type: ClassVar[int] = 8
    checks: ClassVar[tuple[Check, ...]] = (_unsigned(32), _unsigned(16), _text(512), _binary)


MESSAGES: tuple[type[Message], ...] = (
    Hello,
    Welcome,
    Ping,
    Pong,
    Goodbye,
    Error,
    Request,
    Response,
)
_BY_TYPE: dict[int, type[Message]] = {message.type: message for message in MESSAGES}


def encode(message: Message, *, max_payload: int = ABSOLUTE_MAX_PAYLOAD) -> bytes:
    """The frame that carries *message*.

    Raises:
      MisuseError: a field is out of its range, or the frame over *max_payload* bytes.
    """
    kind = type(message)
    fields: dict[str, Any] = {}
    for name, check in zip(kind.__slots__, kind.checks, strict=True):
        value = getattr(message, name)
        fault = check(value)
        if fault:
            raise MisuseError(f"cannot send {kind.__name__}", why=f"{name} {fault}")
        fields[name] = value
    return encode_frame(kind.type, encode_payload(fields), max_payload=max_payload)


def decode(frame: Frame) -> Message:
    """The message that *frame* carries.

    Raises:
      ViolationError: its type is unknown, or its payload is not that type's.
    """
    kind = _BY_TYPE.get(frame.type)
    if kind is None:
        raise ViolationError(ErrorCode.FRAMING, f"a frame has unknown type {frame.type}")
    fields = decode_payload(frame.payload)
    if type(fields) is not dict:
        raise ViolationError(ErrorCode.MESSAGE, f"{kind.__name__} is not a map")
    values = []
    for name, check in zip(kind.__slots__, kind.checks, strict=True):
        if name not in fields:
            raise ViolationError(ErrorCode.MESSAGE, f"{kind.__name__} lacks {name}")
        value = fields[name]
        fault = check(value)
        if fault:
            raise ViolationError(ErrorCode.MESSAGE, f"{kind.__name__}.{name} {fault}")
        values.append(value)
    if len(fields) != len(values) and not kind.open:
        raise ViolationError(ErrorCode.MESSAGE, f"{kind.__name__} has unknown fields")
    return kind(*values)
