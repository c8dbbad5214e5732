"""Control messages: what two nodes tell each other about links and transfers.

They are the bodies of requests and responses on the peer session, strict msgpack maps with exactly
the declared keys. A message class declares one check for each field; nothing that fails one gets
further than :func:`unpack`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from novacron.dwcp.amst.errors import MessageError
from novacron.protocol.codes import MisuseError, ViolationError
from novacron.protocol.frames import decode_payload, encode_payload
from novacron.record import Record

MAX_BODY_BYTES: Final = 512 * 1024
"""Half of the smallest default frame: room for the envelope, and for a peer that allows less."""

Check = Callable[[Any], str]
"""Says what is wrong with a value, or nothing."""


class Message(Record):
    """A control message; subclasses name their fields and, in :attr:`checks`, what each must be."""

    checks: ClassVar[Mapping[str, Check]] = {}


M = TypeVar("M", bound=Message)


def pack(message: Message) -> bytes:
    """Raises MessageError: a field is not what it has to be; our own bug, or a limit."""
    body = to_wire(message)
    try:
        data = encode_payload(body)
    except MisuseError as exc:
        raise MessageError(f"cannot send {type(message).__name__}", why=exc.why) from exc
    if len(data) > MAX_BODY_BYTES:
        raise MessageError(
            f"cannot send {type(message).__name__}",
            why=f"it is {len(data)} bytes, and {MAX_BODY_BYTES} are the most",
        )
    return data


def to_wire(message: Message) -> dict[str, Any]:
    """The map of *message*, checked; nested messages as maps."""
    kind = type(message)
    body: dict[str, Any] = {}
    for name, value in message._asdict().items():
        plain = _plain(value)
        fault = kind.checks[name](plain)
        if fault:
            raise MessageError(f"cannot send {kind.__name__}", why=f"{name} {fault}")
        body[name] = plain
    return body


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return to_wire(value)
    if type(value) in (list, tuple):
        return [_plain(item) for item in value]
    if type(value) is bytearray:
        return bytes(value)
    return value


def unpack(kind: type[M], body: bytes) -> M:
    """The message in *body*.

    Raises:
      MessageError: it is not one of that kind.
    """
    if len(body) > MAX_BODY_BYTES:
        raise MessageError(
            f"a peer sent a bad {kind.__name__}", why=f"it is larger than {MAX_BODY_BYTES} bytes"
        )
    try:
        value = decode_payload(body)
    except ViolationError as exc:
        raise MessageError(f"a peer sent a bad {kind.__name__}", why=str(exc)) from exc
    return from_wire(kind, value)


def from_wire(kind: type[M], value: Any) -> M:
    """The message of a map.

    Raises:
      MessageError: it is not one of that kind.
    """
    fault = fault_of(kind, value)
    if fault:
        raise MessageError(f"a peer sent a bad {kind.__name__}", why=fault)
    return kind(**value)


def fault_of(kind: type[Message], value: Any) -> str:
    if type(value) is not dict:
        return "it is no map"
    if value.keys() != kind.checks.keys():
        missing = sorted(kind.checks.keys() - value.keys())
        return f"{missing[0]} is missing" if missing else "it has a key that nobody knows"
    for name, check in kind.checks.items():
        fault = check(value[name])
        if fault:
            return f"{name} {fault}"
    return ""


# --- Checks ----------------------------------------------------------------------------------


def integer(minimum: int, maximum: int) -> Check:
    def check(value: Any) -> str:
        if type(value) is int and minimum <= value <= maximum:
            return ""
        return f"must be an integer from {minimum} to {maximum}"

    return check


def boolean(value: Any) -> str:
    return "" if type(value) is bool else "must be true or false"


def binary(minimum: int, maximum: int | None = None) -> Check:
    maximum = minimum if maximum is None else maximum

    def check(value: Any) -> str:
        if type(value) is bytes and minimum <= len(value) <= maximum:
            return ""
        return f"must be {minimum} to {maximum} bytes"

    return check


def text(max_bytes: int) -> Check:
    def check(value: Any) -> str:
        if type(value) is str and len(value.encode("utf-8", "replace")) <= max_bytes:
            return ""
        return f"must be a string of at most {max_bytes} bytes"

    return check


def one_of(*values: str) -> Check:
    def check(value: Any) -> str:
        return "" if type(value) is str and value in values else f"must be {' or '.join(values)}"

    return check


def optional(inner: Check) -> Check:
    def check(value: Any) -> str:
        return "" if value is None else inner(value)

    return check


def list_of(inner: Check, max_items: int, min_items: int = 0) -> Check:
    def check(value: Any) -> str:
        if type(value) is not list or not min_items <= len(value) <= max_items:
            return f"must be a list of {min_items} to {max_items} items"
        return next((f"item {fault}" for fault in map(inner, value) if fault), "")

    return check


def nested(kind: type[Message]) -> Check:
    def check(value: Any) -> str:
        fault = fault_of(kind, value)
        return f"is bad: {fault}" if fault else ""

    return check
