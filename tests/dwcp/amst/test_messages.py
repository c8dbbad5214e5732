"""Control messages: whatever a peer sends is the message it should be, or one documented error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst.errors import MessageError
from novacron.dwcp.amst.messages import (
    MAX_BODY_BYTES,
    Check,
    Message,
    binary,
    boolean,
    from_wire,
    integer,
    list_of,
    nested,
    one_of,
    optional,
    pack,
    text,
    unpack,
)
from novacron.dwcp.amst.negotiation import (
    MAX_WINDOW,
    LinkAnswer,
    LinkAsk,
    LinkClose,
    RdmaAsk,
    RdmaOffer,
)
from novacron.dwcp.amst.transport import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES


class Inner(Message):
    checks: ClassVar[Mapping[str, Check]] = {"number": integer(0, 9)}
    number: int


class Outer(Message):
    checks: ClassVar[Mapping[str, Check]] = {
        "name": text(8),
        "flag": boolean,
        "data": binary(0, 4),
        "kind": one_of("file", "dir"),
        "maybe": optional(integer(1, 3)),
        "inner": nested(Inner),
        "inners": list_of(nested(Inner), 3, 1),
    }
    name: str
    flag: bool
    data: bytes
    kind: str
    maybe: int | None
    inner: Any
    inners: list[Any]


GOOD: dict[str, Any] = {
    "name": "name",
    "flag": True,
    "data": b"data",
    "kind": "dir",
    "maybe": None,
    "inner": {"number": 1},
    "inners": [{"number": 2}, {"number": 3}],
}

KINDS = (LinkAsk, LinkAnswer, LinkClose, RdmaAsk, RdmaOffer, Outer)

BIG = (1 << 64) - 1
JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), BIG)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def sizes(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high) | st.sampled_from([low, high])


OFFERS = st.fixed_dictionaries(
    {
        "gid": st.binary(min_size=16, max_size=16),
        "qpn": sizes(0, 0xFFFFFF),
        "psn": sizes(0, 0xFFFFFF),
        "rkey": sizes(0, 0xFFFFFFFF),
        "slots": sizes(2, 1024),
        "slot_bytes": sizes(4096, 8 << 20),
        "mtu": sizes(256, 65536),
        "address": sizes(0, BIG),
        "lid": sizes(0, 65535),
    }
)
ASKS = st.builds(
    LinkAsk,
    versions=st.lists(sizes(1, 255), min_size=1, max_size=8),
    link=st.binary(min_size=16, max_size=16),
    random=st.binary(min_size=32, max_size=32),
    encryption=st.booleans(),
    mode=st.sampled_from(["auto", "datacenter", "internet", "hybrid"]),
    max_streams=sizes(1, 256),
    chunk_bytes=sizes(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES),
    window_bytes=sizes(MIN_CHUNK_BYTES, MAX_WINDOW),
    codecs=st.lists(st.text(max_size=4), min_size=1, max_size=16),
    movers=st.lists(st.text(max_size=4), min_size=1, max_size=16),
    congestion=st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", max_size=15),
)
RDMA_ASKS = st.builds(
    RdmaAsk,
    link=st.binary(min_size=16, max_size=16),
    stream=sizes(1, 0xFFFFFFFF),
    offer=OFFERS,
)


@pytest.mark.parametrize("kind", KINDS)
@given(body=st.binary(max_size=200) | JSON_LIKE.map(msgpack.packb))
def test_whatever_arrives_is_a_message_or_the_one_error(kind: type[Message], body: bytes) -> None:
    try:
        message = unpack(kind, body)
    except MessageError:
        return
    assert pack(message)


@given(message=ASKS | RDMA_ASKS, position=st.integers(0), byte=st.integers(0, 255))
def test_a_good_message_with_one_byte_changed_is_a_message_or_the_one_error(
    message: Message, position: int, byte: int
) -> None:
    body = bytearray(pack(message))
    body[position % len(body)] = byte
    try:
        other = unpack(type(message), bytes(body))
    except MessageError:
        return
    assert pack(other)


@given(message=ASKS | RDMA_ASKS, keep=st.integers(0))
def test_a_message_cut_short_is_none(message: Message, keep: int) -> None:
    body = pack(message)
    with pytest.raises(MessageError):
        unpack(type(message), body[: keep % len(body)])


@given(message=ASKS | RDMA_ASKS)
def test_what_is_packed_comes_back(message: Message) -> None:
    assert unpack(type(message), pack(message)) == message


def test_nested_messages_are_packed_as_maps_and_come_back_as_such() -> None:
    inner = Inner(number=1)
    message = Outer(
        name="n", flag=False, data=b"", kind="file", maybe=2, inner=inner, inners=[inner, inner]
    )
    again = unpack(Outer, pack(message))
    assert again.inner == {"number": 1}
    assert from_wire(Inner, again.inners[1]) == inner


def test_a_secret_in_a_bytearray_can_be_packed() -> None:
    good = Outer(**GOOD)
    assert unpack(Outer, pack(good._replace(data=bytearray(b"abc")))).data == b"abc"


BAD: list[tuple[str, Any, str]] = [
    ("name", "123456789", "name must be a string of at most 8 bytes"),
    ("name", "ääää5", "at most 8 bytes"),
    ("name", b"name", "must be a string"),
    ("flag", 1, "flag must be true or false"),
    ("flag", None, "flag must be true or false"),
    ("data", b"12345", "data must be 0 to 4 bytes"),
    ("data", "1234", "data must be"),
    ("kind", "socket", "kind must be file or dir"),
    ("kind", ["file"], "kind must be file or dir"),
    ("maybe", 0, "maybe must be an integer from 1 to 3"),
    ("maybe", 4, "from 1 to 3"),
    ("maybe", True, "from 1 to 3"),  # an int in Python, and not on the wire
    ("maybe", 1.0, "from 1 to 3"),
    ("inner", [], "inner is bad: it is no map"),
    ("inner", {}, "inner is bad: number is missing"),
    ("inner", {"number": 10}, "inner is bad: number must be"),
    ("inner", {"number": 1, "other": 1}, "a key that nobody knows"),
    ("inners", [], "inners must be a list of 1 to 3 items"),
    ("inners", [{"number": 1}] * 4, "list of 1 to 3 items"),
    ("inners", [{"number": 1}, {"number": -1}], "inners item is bad: number"),
    ("inners", {"number": 1}, "must be a list"),
]


@pytest.mark.parametrize(("field", "value", "why"), BAD)
def test_a_field_that_is_wrong_is_named_with_what_it_has_to_be(
    field: str, value: Any, why: str
) -> None:
    with pytest.raises(MessageError, match="a peer sent a bad Outer") as caught:
        unpack(Outer, msgpack.packb({**GOOD, field: value}))
    assert why in caught.value.why


@pytest.mark.parametrize(("field", "value", "why"), BAD)
def test_this_side_cannot_send_what_the_other_would_refuse(
    field: str, value: Any, why: str
) -> None:
    with pytest.raises(MessageError, match="cannot send Outer") as caught:
        pack(Outer(**{**GOOD, field: value}))
    assert why in caught.value.why


@pytest.mark.parametrize("value", [None, [], "text", 5, b""])
def test_a_body_that_is_no_map_is_refused(value: Any) -> None:
    with pytest.raises(MessageError, match="no map"):
        unpack(Outer, msgpack.packb(value))


@pytest.mark.parametrize("field", sorted(GOOD))
def test_every_key_has_to_be_there(field: str) -> None:
    body = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(MessageError, match=f"{field} is missing"):
        unpack(Outer, msgpack.packb(body))


def test_a_key_that_nobody_knows_is_refused_without_repeating_it() -> None:
    with pytest.raises(MessageError, match="a key that nobody knows") as caught:
        unpack(Outer, msgpack.packb({**GOOD, "injected\n": 1}))
    assert "injected" not in str(caught.value)


def test_a_key_twice_is_refused() -> None:
    packed = msgpack.packb("number") + b"\x01"
    with pytest.raises(MessageError, match="same key twice"):
        unpack(Inner, b"\x82" + packed + packed)


def test_a_lone_surrogate_is_refused_before_it_is_sent() -> None:
    with pytest.raises(MessageError, match="cannot send Outer"):
        pack(Outer(**{**GOOD, "name": "\udc80"}))


class Heavy(Message):
    checks: ClassVar[Mapping[str, Check]] = {"data": binary(0, 1 << 30)}
    data: bytes


def test_a_body_is_bounded_both_ways() -> None:
    most = MAX_BODY_BYTES - len(msgpack.packb({"data": bytes(100_000)})) + 100_000
    assert unpack(Heavy, pack(Heavy(data=bytes(most)))).data == bytes(most)
    with pytest.raises(MessageError, match="are the most"):
        pack(Heavy(data=bytes(most + 1)))
    with pytest.raises(MessageError, match="larger than"):
        unpack(Heavy, msgpack.packb({"data": bytes(most + 1)}))
