"""Session machines for tests: one, two that are open, and what they said."""

from __future__ import annotations

from typing import Any

from novacron.protocol import messages as m
from novacron.protocol.events import Event, Failed, Transmit
from novacron.protocol.frames import FrameDecoder
from novacron.protocol.messages import decode
from novacron.protocol.party import local_party
from novacron.protocol.session import SessionMachine
from novacron.protocol.states import Role, State

A = "00000000-0000-4000-8000-00000000000a"
B = "00000000-0000-4000-8000-00000000000b"


def make(
    role: Role, now: float = 0.0, certified: str | None = None, **party: Any
) -> SessionMachine:
    node_id = party.pop("node_id", A if role is Role.INITIATOR else B)
    return SessionMachine(
        role,
        local_party(node_id, "boot", **party),
        certified_id=certified,
        now=now,
        wall_clock_ns=lambda: 1_000,
    )


def sent(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Transmit))


def others(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, Transmit)]


def told(events: list[Event]) -> m.Message:
    decoder = FrameDecoder(4096)
    decoder.feed(sent(events))
    frame = decoder.next_frame()
    assert frame is not None
    return decode(frame)


def pair(**party: Any) -> tuple[SessionMachine, SessionMachine]:
    """Initiator and acceptor in an open session."""
    initiator, acceptor = make(Role.INITIATOR, **party), make(Role.ACCEPTOR, **party)
    initiator.receive(sent(acceptor.receive(initiator.start(), 0.0)), 0.0)
    assert initiator.state is acceptor.state is State.OPEN
    return initiator, acceptor


def failure(events: list[Event]) -> Failed:
    event = events[-1]
    assert isinstance(event, Failed)
    return event
