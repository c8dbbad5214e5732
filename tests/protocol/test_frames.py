from __future__ import annotations

import struct
from binascii import crc32
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.errors import LocalProtocolError, RemoteProtocolError
from novacron.protocol.codes import ErrorCode, MisuseError, ViolationError
from novacron.protocol.frames import (
    HEADER_BYTES,
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_TEXT_BYTES,
    FrameDecoder,
    decode_payload,
    encode_frame,
    encode_payload,
)
from tests.protocol.strategies import CUTS, split, violation_of

VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=5,  # each level takes a leaf: the depth stays within MAX_DEPTH
)


def frames_of(data: bytes, limit: int = 2**20) -> list[tuple[int, bytes]]:
    decoder = FrameDecoder(limit)
    decoder.feed(data)
    found = []
    while frame := decoder.next_frame():
        found.append((frame.type, frame.payload))
    return found


def header(
    magic: bytes = b"NCPP", version: int = 1, type: int = 3, flags: int = 0, length: int = 0
) -> bytes:
    fields = struct.pack("!4sBBHI", magic, version, type, flags, length)
    return fields + struct.pack("!I", crc32(fields))


FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=6)


@settings(max_examples=500)
@given(FRAMES, CUTS)
def test_frames_come_out_as_they_went_in_however_the_bytes_were_cut(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    decoder = FrameDecoder(200)
    found = []
    for piece in split(data, cuts):
        decoder.feed(piece)
        while frame := decoder.next_frame():
            found.append((frame.type, frame.payload))
    assert found == frames
    assert decoder.buffered == 0


@settings(max_examples=1000)
@given(st.integers(0, 255), st.binary(max_size=64), st.integers(0, HEADER_BYTES * 8 - 1))
def test_every_flipped_bit_of_a_header_is_noticed(kind: int, payload: bytes, bit: int) -> None:
    frame = bytearray(encode_frame(kind, payload))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ViolationError) as caught:
        frames_of(bytes(frame))
    assert caught.value.error_code is ErrorCode.FRAMING


@settings(max_examples=2000)
@given(st.binary(max_size=400))
def test_garbage_is_a_remote_protocol_error_or_an_incomplete_frame(data: bytes) -> None:
    violation = violation_of(frames_of, data)
    # A checksum that holds by chance is one in four thousand million: what is no violation is a
    # header that is not complete yet.
    assert isinstance(violation, RemoteProtocolError) or len(data) < HEADER_BYTES


def test_a_frame_over_the_limit_is_refused_before_any_of_it_arrived() -> None:
    decoder = FrameDecoder(1000)
    decoder.feed(header(length=1001))
    with pytest.raises(ViolationError, match="announces 1001 bytes") as caught:
        decoder.next_frame()
    assert caught.value.error_code is ErrorCode.LIMIT
    assert caught.value.why == "the limit is 1000"


def test_a_frame_of_exactly_the_limit_passes() -> None:
    assert frames_of(encode_frame(7, bytes(1000)), limit=1000) == [(7, bytes(1000))]


def test_no_more_than_a_frame_and_a_read_is_ever_held() -> None:
    decoder = FrameDecoder(1000)
    data = encode_frame(7, bytes(1000)) * 50
    highest = 0
    for start in range(0, len(data), 300):
        decoder.feed(data[start : start + 300])
        highest = max(highest, decoder.buffered)
        while decoder.next_frame():
            pass
    assert highest <= HEADER_BYTES + 1000 + 300


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"G", "does not speak this protocol"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak this protocol"),
        (b"NCPX" + bytes(12), "does not speak this protocol"),
        (header(version=2), "framing version 2"),
        (header(flags=0x8000), "unknown flags 0x8000"),
        (header()[:-1] + b"\x00", "fails its checksum"),
    ],
)
def test_what_is_no_frame_is_told_apart(data: bytes, message: str) -> None:
    with pytest.raises(ViolationError, match=message) as caught:
        frames_of(data)
    assert caught.value.error_code is ErrorCode.FRAMING


def test_a_frame_the_peer_would_not_take_is_not_made() -> None:
    with pytest.raises(LocalProtocolError, match="payload is 11 bytes and the peer takes 10"):
        encode_frame(7, bytes(11), max_payload=10)


@settings(max_examples=1000)
@given(VALUE)
def test_payloads_survive_the_round_trip(value: Any) -> None:
    assert decode_payload(encode_payload(value)) == value


@settings(max_examples=3000)
@given(st.binary(max_size=120))
def test_garbage_payloads_are_refused_or_read_and_nothing_else(data: bytes) -> None:
    violation = violation_of(decode_payload, data)
    if violation is not None:
        assert violation.error_code in (ErrorCode.ENCODING, ErrorCode.LIMIT)
    else:
        # repr, because a not-a-number differs from itself
        assert repr(decode_payload(data)) == repr(msgpack.unpackb(data, strict_map_key=True))


@pytest.mark.parametrize(
    ("payload", "code", "message"),
    [
        (b"", ErrorCode.ENCODING, "ends inside a value"),
        (b"\x01\x02", ErrorCode.ENCODING, "bytes follow the value"),
        (b"\xc1", ErrorCode.ENCODING, "extension type or an unused code"),
        (b"\xd4\x01\x00", ErrorCode.ENCODING, "extension type or an unused code"),
        (b"\xc7\x01\x01\x00", ErrorCode.ENCODING, "extension type or an unused code"),
        (b"\xd6\xff\x00\x00\x00\x00", ErrorCode.ENCODING, "extension type or an unused code"),
        (b"\x81\x01\x02", ErrorCode.ENCODING, "map key is not a string"),
        (b"\x81\xc4\x01a\x02", ErrorCode.ENCODING, "map key is not a string"),
        (b"\x82\xa1a\x01\xa1a\x02", ErrorCode.ENCODING, "same key twice"),
        (b"\xa2\xff\xfe", ErrorCode.ENCODING, "not UTF-8"),
        (b"\xdb\xff\xff\xff\xff", ErrorCode.LIMIT, "string is longer"),
        (b"\xda\xff\xff", ErrorCode.ENCODING, "ends inside a value"),
        (b"\xc6\xff\xff\xff\xff", ErrorCode.ENCODING, "ends inside a value"),
        (b"\xdd\xff\xff\xff\xff", ErrorCode.ENCODING, "ends inside a value"),
        (b"\xdf\xff\xff\xff\xff", ErrorCode.ENCODING, "ends inside a value"),
        (b"\xc5\x00", ErrorCode.ENCODING, "ends inside a value"),
        (b"\x91" * MAX_DEPTH + b"\x90", ErrorCode.LIMIT, "nests deeper"),
        (b"\x91" * 5000, ErrorCode.LIMIT, "nests deeper"),
        (b"\xdc\xff\xff" + b"\x80" * 65535, ErrorCode.LIMIT, f"more than {MAX_ITEMS} values"),
    ],
)
def test_a_payload_that_is_not_strict_is_refused(
    payload: bytes, code: ErrorCode, message: str
) -> None:
    with pytest.raises(ViolationError) as caught:
        decode_payload(payload)
    assert caught.value.error_code is code
    assert message in str(caught.value)


def test_the_deepest_and_the_longest_allowed_pass() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert decode_payload(encode_payload(deep)) == deep
    assert decode_payload(encode_payload("x" * MAX_TEXT_BYTES)) == "x" * MAX_TEXT_BYTES
    many = [0] * (MAX_ITEMS - 1)
    assert decode_payload(encode_payload(many)) == many


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {b"k": 2}, 2**64, [[[[[[[[[1]]]]]]]]], "\ud800"]
)
def test_what_the_other_side_would_refuse_is_not_encoded(value: Any) -> None:
    with pytest.raises(MisuseError, match="cannot encode a payload"):
        encode_payload(value)
