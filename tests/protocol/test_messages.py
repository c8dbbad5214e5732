from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.protocol.codes import ErrorCode, MisuseError, ViolationError
from novacron.protocol.frames import Frame, FrameDecoder, encode_payload
from novacron.protocol.messages import MESSAGES, Goodbye, Hello, Message, Ping, decode, encode
from tests.protocol.strategies import HELLO, MESSAGE, violation_of

NODE = "00000000-0000-4000-8000-000000000001"


def decode_bytes(data: bytes) -> Message:
    decoder = FrameDecoder(2**20)
    decoder.feed(data)
    frame = decoder.next_frame()
    assert frame is not None
    return decode(frame)


@settings(max_examples=1000)
@given(MESSAGE)
def test_messages_survive_the_round_trip(message: Message) -> None:
    assert decode_bytes(encode(message)) == message


@settings(max_examples=2000)
@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_frame_decodes_or_is_a_violation(kind: int, payload: bytes) -> None:
    frame = Frame(kind, payload)
    if violation_of(decode, frame) is None:
        message = decode(frame)
        assert decode_bytes(encode(message)) == message


FIELD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**64 - 1),
    st.floats(),
    st.text(max_size=600),
    st.binary(max_size=8),
    st.just([]),
)


@settings(max_examples=2000)
@given(st.sampled_from(MESSAGES), st.data())
def test_any_map_of_the_right_keys_decodes_or_is_a_violation_that_names_the_field(
    kind: type[Message], data: st.DataObject
) -> None:
    fields = {name: data.draw(FIELD_VALUES) for name in kind.__slots__}
    frame = Frame(kind.type, encode_payload(fields))
    violation = violation_of(decode, frame)
    if violation is None:
        assert decode(frame) == kind(**fields)
    else:
        assert violation.error_code is ErrorCode.MESSAGE
        assert any(f"{kind.__name__}.{name}" in violation.what for name in fields)


def test_types_are_distinct_and_every_field_has_a_check() -> None:
    assert sorted(kind.type for kind in MESSAGES) == list(range(1, len(MESSAGES) + 1))
    for kind in MESSAGES:
        assert len(kind.checks) == len(kind.__slots__)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(99, encode_payload({})), "unknown type 99"),
        (Frame(Ping.type, encode_payload([1, 2])), "Ping is not a map"),
        (Frame(Ping.type, encode_payload({"sequence": 1})), "Ping lacks clock_ns"),
        (
            Frame(Ping.type, encode_payload({"sequence": 1, "clock_ns": 1, "x": 1})),
            "Ping has unknown fields",
        ),
        (
            Frame(Ping.type, encode_payload({"sequence": True, "clock_ns": 1})),
            "Ping.sequence must be an integer from 0 to 4294967295",
        ),
        (
            Frame(Goodbye.type, encode_payload({"reason": 1, "message": "é" * 129})),
            "Goodbye.message must be a string of at most 256 bytes",
        ),
    ],
)
def test_a_wrong_message_is_described(frame: Frame, message: str) -> None:
    with pytest.raises(ViolationError) as caught:
        decode(frame)
    assert caught.value.what.endswith(message)


@given(HELLO)
def test_hello_may_carry_fields_of_later_versions(hello: Hello) -> None:
    fields: dict[str, Any] = {name: getattr(hello, name) for name in hello.__slots__}
    fields["later"] = [1, 2, 3]
    assert decode(Frame(Hello.type, encode_payload(fields))) == hello


@pytest.mark.parametrize(
    "node_id",
    [
        "",
        NODE.replace("-", ""),
        NODE.replace("a", "A").replace("0", "A"),
        NODE + "0",
        NODE[:-1] + "g",
        NODE[:-1] + "\n",
        "0000000-00000-4000-8000-000000000001",
        7,
    ],
)
def test_a_node_id_is_a_canonical_uuid(node_id: object) -> None:
    hello = Hello(1, 1, NODE, "", "", 0, 0, 1024, 1, 0)
    fields: dict[str, Any] = {name: getattr(hello, name) for name in hello.__slots__}
    fields["node_id"] = node_id
    with pytest.raises(ViolationError, match="node_id must be a UUID in lower case"):
        decode(Frame(Hello.type, encode_payload(fields)))


def test_a_message_out_of_range_is_not_sent() -> None:
    with pytest.raises(MisuseError, match="cannot send Ping") as caught:
        encode(Ping(-1, 0))
    assert caught.value.why == "sequence must be an integer from 0 to 4294967295"


def test_messages_are_values() -> None:
    ping = Ping(1, 2)
    assert ping == Ping(sequence=1, clock_ns=2)
    assert hash(ping) == hash(Ping(1, 2))
    assert ping != Goodbye(1, "2")
    assert repr(ping) == "Ping(sequence=1, clock_ns=2)"
    with pytest.raises(AttributeError, match="immutable"):
        ping.sequence = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del ping.sequence
    with pytest.raises(TypeError, match="takes sequence, clock_ns"):
        Ping(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="needs clock_ns"):
        Ping(1, clock=2)  # type: ignore[call-arg]
