"""The vectors are for every implementation; this one passes them like any other would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from novacron.protocol.events import Closed, Failed, Transmit
from novacron.protocol.frames import FrameDecoder
from novacron.protocol.messages import MESSAGES, Goodbye, Message, Request, Response, decode, encode
from novacron.protocol.party import local_party
from novacron.protocol.session import HANDSHAKE_MAX_PAYLOAD, SessionMachine
from novacron.protocol.states import Role, State
from tests.protocol.strategies import violation_of

VECTORS = Path(__file__).parent.parent / "vectors" / "protocol"
KINDS = {kind.__name__: kind for kind in MESSAGES}


def cases(name: str) -> list[Any]:
    return [
        pytest.param(case, id=case.get("name", case.get("type")))
        for case in json.loads((VECTORS / f"{name}.json").read_text())["cases"]
    ]


def build(case: dict[str, Any]) -> Message:
    fields = {
        name: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
        for name, value in case["fields"].items()
    }
    return KINDS[case["type"]](**fields)


def read(data: bytes) -> Message:
    decoder = FrameDecoder(HANDSHAKE_MAX_PAYLOAD)
    decoder.feed(data)
    frame = decoder.next_frame()
    assert frame is not None
    return decode(frame)


@pytest.mark.parametrize("case", cases("messages"))
def test_a_message_has_exactly_the_bytes_of_its_vector(case: dict[str, Any]) -> None:
    assert encode(build(case)).hex() == case["frame"]
    assert read(bytes.fromhex(case["frame"])) == build(case)


@pytest.mark.parametrize("case", cases("invalid"))
def test_an_invalid_vector_is_refused_with_its_code(case: dict[str, Any]) -> None:
    violation = violation_of(read, bytes.fromhex(case["bytes"]))
    assert violation is not None
    assert violation.error_code == case["error_code"]


def test_the_session_vector_is_what_two_machines_say() -> None:
    times = {"initiator": 1_700_000_000_000_000_000, "acceptor": 1_700_000_000_000_100_000}
    ends = {
        role: SessionMachine(
            Role(role),
            local_party(node_id, boot_id, address=address),
            certified_id=None,
            now=0.0,
            wall_clock_ns=lambda role=role: times[role],  # type: ignore[misc]
        )
        for role, node_id, boot_id, address in (
            ("initiator", "00000000-0000-4000-8000-00000000000a", "6f0c", "192.0.2.1:7401"),
            ("acceptor", "00000000-0000-4000-8000-00000000000b", "77aa", "192.0.2.2:7401"),
        )
    }
    initiator, acceptor = ends["initiator"], ends["acceptor"]
    said: list[tuple[str, bytes]] = []

    def hear(role: str, data: bytes) -> list[Any]:
        said.append(("acceptor" if role == "initiator" else "initiator", data))
        events = ends[role].receive(data, 0.0)
        for event in events:
            assert not isinstance(event, Failed)
            if isinstance(event, Transmit):
                hear("acceptor" if role == "initiator" else "initiator", event.data)
        return events

    hear("acceptor", initiator.start())
    times["initiator"] += 1_000_000_000
    (ping,) = initiator.tick(0.0)
    assert isinstance(ping, Transmit)
    hear("acceptor", ping.data)
    hear("acceptor", initiator.send(Request(0, "example.echo", b"hi")))
    hear("acceptor", initiator.send(Goodbye(1, "the node stops")))
    hear("initiator", acceptor.send(Goodbye(3, "")))
    last = acceptor.send(Response(0, 0, "", b"hi"))
    assert acceptor.settle() == [Closed()]
    assert hear("initiator", last)[-1] == Closed()
    assert [initiator.state, acceptor.state] == [State.CLOSED, State.CLOSED]

    vector = json.loads((VECTORS / "session.json").read_text())["cases"]
    assert [(role, data.hex()) for role, data in said] == [
        (case["from"], case["frame"]) for case in vector
    ]
