"""The codec of small messages: nothing is lost, and nothing a peer sends costs more than it may."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.dwcp.hde.errors import CodedMessageError
from novacron.dwcp.hde.messages import (
    FORMAT,
    HEADER,
    MARK,
    MAX_BYTES,
    MAX_RATIO,
    MIN_BYTES,
    MessageCodec,
    is_encoded,
)
from novacron.dwcp.hde.samples import messages

CODEC = MessageCodec()
CODEC.load()
SHIPPED = 1


def coded(content: bytes, **options: bool) -> bytes:
    """As a peer of ill will might send it: with whatever zstd can be made to write."""
    dictionary = zstandard.ZstdCompressionDict(CODEC.dictionaries[0].content)
    compressor = zstandard.ZstdCompressor(
        dict_data=dictionary, **{"write_dict_id": False, **options}
    )
    return HEADER.pack(MARK, FORMAT, SHIPPED) + compressor.compress(content)[4:]


def declaring(size: int) -> bytes:
    """A frame of one segment that declares *size* bytes: RFC 8878, 3.1.1, with a field of 8 bytes."""
    return HEADER.pack(MARK, FORMAT, SHIPPED) + b"\xe0" + size.to_bytes(8, "little") + b"\x01\0\0"


@settings(deadline=None)
@given(st.binary(max_size=5000) | st.builds(lambda part: part * 50, st.binary(max_size=200)))
def test_what_comes_out_is_what_went_in(message: bytes) -> None:
    if is_encoded(message):
        return  # no msgpack map begins so
    assert CODEC.decode(CODEC.encode(message, SHIPPED)) == message


def test_messages_of_transfers_become_less_than_half() -> None:
    found = messages(500, seed=3)
    sent = [CODEC.encode(message, SHIPPED) for message in found]
    assert [CODEC.decode(body) for body in sent] == found
    assert sum(map(len, sent)) < 0.5 * sum(map(len, found))
    plain = zstandard.ZstdCompressor(level=6)
    without = sum(min(len(plain.compress(message)), len(message)) for message in found)
    assert sum(map(len, sent)) < 0.9 * without


def test_no_message_becomes_larger() -> None:
    for message in (b"", b"\x80", secrets.token_bytes(MIN_BYTES), secrets.token_bytes(4000)):
        if not is_encoded(message):
            assert CODEC.encode(message, SHIPPED) == message


def test_without_a_common_dictionary_messages_go_as_they_are() -> None:
    message = messages(1)[0] * 3
    assert CODEC.encode(message, 0) == message
    assert CODEC.encode(message, 999) == message


def test_a_message_that_would_look_like_a_bomb_goes_as_it_is() -> None:
    message = b"\x80" + bytes(MAX_BYTES - 1)
    assert len(coded(message)) * MAX_RATIO < len(message)
    assert CODEC.encode(message, SHIPPED) == message
    assert CODEC.encode(message + b"\0", SHIPPED) == message + b"\0"


BOMB = coded(bytes(MAX_BYTES))
GOOD = CODEC.encode(max(messages(50), key=len), SHIPPED)
HOSTILE: list[tuple[bytes, str]] = [
    (b"\xc1", "within its header"),
    (b"\xc1\x01\x00", "within its header"),
    (HEADER.pack(MARK, 2, SHIPPED) + GOOD[4:], "its format is 2"),
    (HEADER.pack(MARK, FORMAT, 0) + GOOD[4:], "no dictionary 0"),
    (HEADER.pack(MARK, FORMAT, 40000) + GOOD[4:], "no dictionary 40000"),
    (GOOD[:4], "no header"),
    (BOMB, "more than 1024 times"),
    (declaring(MAX_BYTES + 1), "are the most"),
    (declaring((1 << 64) - 8), "are the most"),
    (coded(b"x" * 500, write_content_size=False), "does not say how large"),
    (coded(b"x" * 500, write_dict_id=True), "another dictionary"),
    (declaring(500), ""),
    (GOOD[:-1], ""),
    (GOOD + b"\0", ""),
    (GOOD[:20] + bytes(50), ""),
]


@pytest.mark.parametrize(("body", "why"), HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_not_what_it_says_is_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(CodedMessageError, match=f"badly encoded message: .*{why}") as caught:
        CODEC.decode(body)
    assert caught.value.code == "dwcp.coded_message"


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=300))
def test_whatever_follows_the_mark_is_a_message_or_a_documented_error(tail: bytes) -> None:
    for body in (b"\xc1" + tail, HEADER.pack(MARK, FORMAT, SHIPPED) + tail):
        try:
            found = CODEC.decode(body)
        except CodedMessageError:
            continue
        assert len(found) <= MAX_RATIO * len(body)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(GOOD) * 8 - 1))
def test_a_flipped_bit_is_no_other_error(bit: int) -> None:
    damaged = bytearray(GOOD)
    damaged[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(CodedMessageError):
        assert len(CODEC.decode(bytes(damaged))) <= MAX_BYTES


def test_both_ends_come_to_the_same_dictionary() -> None:
    digest = CODEC.dictionaries[0].digest
    assert CODEC.common({SHIPPED: digest}) == SHIPPED
    assert CODEC.common({SHIPPED: digest, 40000: digest}) == SHIPPED
    # The id alone does not make it the same.
    assert CODEC.common({SHIPPED: bytes(32)}) == 0
    assert CODEC.common({}) == 0


def test_zstandard_is_not_imported_before_a_dictionary_is_needed() -> None:
    code = (
        "import sys, novacron.dwcp.amst.transfers, novacron.dwcp.hde.messages;"
        "sys.exit('zstandard' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_without_zstandard_messages_go_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    codec = MessageCodec()
    codec.load()
    assert codec.dictionaries == []
    assert [fault.code for fault in codec.faults] == ["dwcp.dictionary"]
    message = messages(1)[0]
    assert codec.decode(codec.encode(message, SHIPPED)) == message
    with pytest.raises(CodedMessageError, match="no dictionary 1"):
        codec.decode(GOOD)
