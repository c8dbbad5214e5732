"""Messages and byte streams for property tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from novacron.protocol import messages as m
from novacron.protocol.codes import ViolationError

U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
CLOCK = st.integers(0, 2**63 - 1)
VERSION = st.integers(1, 255)
NODE_ID = st.uuids().map(str)
BOOT_ID = st.text(max_size=16)
ADDRESS = st.text(max_size=64)
FRAME_LIMIT = st.integers(1024, 2**32 - 1)
IN_FLIGHT = st.integers(1, 2**16 - 1)
BODY = st.binary(max_size=300)
TEXT = st.text(max_size=64)

HELLO = st.builds(
    m.Hello,
    VERSION,
    VERSION,
    NODE_ID,
    BOOT_ID,
    ADDRESS,
    U64,
    U64,
    FRAME_LIMIT,
    IN_FLIGHT,
    CLOCK,
)
WELCOME = st.builds(
    m.Welcome, VERSION, U64, NODE_ID, BOOT_ID, ADDRESS, FRAME_LIMIT, IN_FLIGHT, CLOCK
)
PING = st.builds(m.Ping, U32, CLOCK)
PONG = st.builds(m.Pong, U32, CLOCK, CLOCK)
GOODBYE = st.builds(m.Goodbye, U16, TEXT)
ERROR = st.builds(m.Error, U16, TEXT)
REQUEST = st.builds(m.Request, U32, st.text(max_size=16), BODY)
RESPONSE = st.builds(m.Response, U32, U16, TEXT, BODY)
MESSAGE = st.one_of(HELLO, WELCOME, PING, PONG, GOODBYE, ERROR, REQUEST, RESPONSE)


def violation_of(call: Callable[..., Any], *arguments: Any) -> ViolationError | None:
    """The violation that *call* raises, if it does; any other exception passes through."""
    try:
        call(*arguments)
    except ViolationError as exc:
        return exc
    return None


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """*data* cut at the given places (each modulo its length)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [
        data[start:end]
        for start, end in zip([0, *places], [*places, len(data)], strict=True)
        if start != end
    ]


CUTS = st.lists(st.integers(0, 10_000), max_size=40)
