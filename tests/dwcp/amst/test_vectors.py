"""The vectors are for every implementation; the one in Python passes them like any other would."""

from __future__ import annotations

from typing import Any

import pytest

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.wire import Ack, Frame, FrameError
from tests.dwcp.amst import reference
from tests.dwcp.amst.vector_files import FILES, FOLDER, cases_of, text_of


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases_of(name)]


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_the_specification_makes(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == text_of(name)


def test_no_other_file_lies_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        *(f"{name}.json" for name in FILES),
        "tree.json",
    }


@pytest.mark.parametrize("case", cases("headers"))
def test_a_header_has_exactly_the_bytes_of_its_vector(case: dict[str, Any]) -> None:
    frame = Frame(**case["fields"])
    seed, max_chunk = case["seed"], case["max_chunk"]
    assert wire.write_header(frame, seed, max_chunk).hex() == case["bytes"]
    assert wire.read_header(bytes.fromhex(case["bytes"]), seed, max_chunk) == frame


@pytest.mark.parametrize("case", cases("invalid_headers"))
def test_an_invalid_header_is_refused_for_the_reason_of_its_vector(case: dict[str, Any]) -> None:
    with pytest.raises(FrameError) as caught:
        wire.read_header(bytes.fromhex(case["bytes"]), case["seed"], case["max_chunk"])
    assert caught.value.why.startswith(case["reason"])


@pytest.mark.parametrize("case", cases("acks"))
def test_an_acknowledgement_has_exactly_the_bytes_of_its_vector(case: dict[str, Any]) -> None:
    ack = Ack(**case["fields"])
    assert wire.write_acks([ack]).hex() == case["bytes"]
    assert wire.read_acks(bytes.fromhex(case["bytes"])) == [ack]


@pytest.mark.parametrize("case", cases("invalid_acks"))
def test_an_invalid_acknowledgement_is_refused_for_the_reason_of_its_vector(
    case: dict[str, Any],
) -> None:
    with pytest.raises(FrameError) as caught:
        wire.read_acks(bytes.fromhex(case["bytes"]))
    assert caught.value.why.startswith(case["reason"])


@pytest.mark.parametrize("case", cases("hello"))
def test_a_hello_is_written_up_to_its_tag_and_found_by_its_link(case: dict[str, Any]) -> None:
    secret, context = bytes.fromhex(case["secret"]), bytes.fromhex(case["context"])
    link_id, random = bytes.fromhex(case["link_id"]), bytes.fromhex(case["random"])
    kind = wire.FrameType(case["type"])
    data = bytes.fromhex(case["bytes"])
    seed = reference.seed(secret, context)
    assert len(data) == wire.HELLO_BYTES
    assert wire.write_hello(kind, case["stream"], link_id, random, seed) == data[:96]
    if kind is wire.FrameType.HELLO:
        assert wire.link_id_of_hello(data) == link_id
        assert wire.link_id_of_hello(data[:96]) == link_id
    else:
        with pytest.raises(FrameError, match="a frame of type 2"):
            wire.link_id_of_hello(data)


@pytest.mark.parametrize("case", cases("sealed"))
def test_the_header_of_a_sealed_frame_says_how_long_it_is(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    seed = reference.seed(bytes.fromhex(case["secret"]), bytes.fromhex(case["context"]))
    frame = wire.read_header(data[:64], seed)
    assert len(data) == wire.HEADER_BYTES + frame.wire_size + wire.TAG_BYTES
    payload = bytes.fromhex(case["payload"])
    match frame.type:
        case wire.FrameType.DATA | wire.FrameType.SEGMENT:
            content = wire.check_content(payload)
            assert len(content) == frame.raw_size
            assert bytes(content) + wire.content_checksum(content) == payload
        case wire.FrameType.ZERO:
            assert wire.write_zero_run(wire.read_zero_run(frame, payload)) == payload
        case wire.FrameType.ACK:
            assert wire.write_acks(wire.read_acks(payload)) == payload


@pytest.mark.parametrize("case", cases("forged"))
def test_the_header_of_a_forged_frame_is_in_order(case: dict[str, Any]) -> None:
    seed = reference.seed(bytes.fromhex(case["secret"]), bytes.fromhex(case["context"]))
    assert wire.read_header(bytes.fromhex(case["bytes"])[:64], seed)
