"""What holds of sessions whatever is said, in whatever pieces it arrives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from novacron.protocol import messages as m
from novacron.protocol.codes import ViolationError
from novacron.protocol.events import Event, Failed, Transmit
from novacron.protocol.messages import encode
from novacron.protocol.session import SessionMachine
from novacron.protocol.states import SEND, Role, State
from tests.protocol.machines import failure, make, pair
from tests.protocol.strategies import CUTS, MESSAGE, split

STREAM = st.lists(st.one_of(MESSAGE.map(encode), st.binary(max_size=30)), max_size=8).map(b"".join)
LIKELY = st.lists(
    st.one_of(
        st.builds(m.Ping, st.integers(0, 9), st.just(0)),
        st.builds(m.Request, st.integers(0, 3), st.just("x"), st.binary(max_size=40)),
        st.builds(m.Goodbye, st.just(1), st.just("")),
        st.builds(m.Error, st.just(1), st.just("")),
    ).map(encode),
    max_size=10,
).map(b"".join)


@settings(max_examples=1500)
@given(st.one_of(STREAM, LIKELY), CUTS, st.booleans())
def test_the_same_bytes_give_the_same_events_however_they_were_cut(
    data: bytes, cuts: list[int], opened: bool
) -> None:
    def machine() -> SessionMachine:
        return pair()[1] if opened else make(Role.ACCEPTOR)

    whole, cut = machine(), machine()
    expected = whole.receive(data, 1.0)
    found = [event for piece in split(data, cuts) for event in cut.receive(piece, 1.0)]
    assert [repr(event) for event in found] == [repr(event) for event in expected]
    assert cut.state is whole.state


@settings(max_examples=2000)
@given(st.binary(max_size=300), st.sampled_from(list(Role)), st.booleans())
def test_garbage_only_ever_fails_the_session(data: bytes, role: Role, opened: bool) -> None:
    if opened:
        machine = pair()[0 if role is Role.INITIATOR else 1]
    else:
        machine = make(role)
        if role is Role.INITIATOR:
            machine.start()
    events = machine.receive(data, 1.0)
    for event in events[:-1]:
        assert isinstance(event, Transmit)
    if events:
        assert isinstance(failure(events).error, ViolationError)


class TwoEnds(RuleBasedStateMachine):
    """Both ends do whatever their tables allow, the wire cuts and delays as it likes: neither may
    ever blame the other, and a session that both left ends."""

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.ends = make(Role.INITIATOR, max_in_flight=3), make(Role.ACCEPTOR, max_in_flight=3)
        self.wires = bytearray(self.ends[0].start()), bytearray()
        self.failed: list[Failed] = []

    def take(self, side: int, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Transmit):
                self.wires[side].extend(event.data)
            elif isinstance(event, Failed):
                self.failed.append(event)

    @rule(side=st.integers(0, 1), count=st.integers(1, 400))
    def deliver(self, side: int, count: int) -> None:
        data = bytes(self.wires[1 - side][:count])
        del self.wires[1 - side][:count]
        self.take(side, self.ends[side].receive(data, self.now))

    @rule(seconds=st.floats(0.0, 4.0))
    def wait(self, seconds: float) -> None:
        self.drain()
        self.now += seconds
        for side in (0, 1):
            self.take(side, self.ends[side].tick(self.now))

    @precondition(lambda self: any(end.may_request for end in self.ends))
    @rule()
    def ask(self) -> None:
        for side in (0, 1):
            end = self.ends[side]
            if end.may_request:
                self.wires[side].extend(end.send(m.Request(end.next_request_id(), "x", b"")))

    @rule(side=st.integers(0, 1))
    def answer(self, side: int) -> None:
        end = self.ends[side]
        for id in sorted(end._owed):
            self.wires[side].extend(end.send(m.Response(id, 0, "", b"")))
        self.take(side, end.settle())

    @rule(side=st.integers(0, 1))
    def leave(self, side: int) -> None:
        end = self.ends[side]
        if m.Goodbye in SEND[end.state]:
            self.wires[side].extend(end.send(m.Goodbye(1, "")))
            self.take(side, end.settle())

    def drain(self) -> None:
        while any(self.wires):
            for side in (0, 1):
                data = bytes(self.wires[1 - side])
                self.wires[1 - side].clear()
                self.take(side, self.ends[side].receive(data, self.now))

    @invariant()
    def nobody_failed(self) -> None:
        assert getattr(self, "failed", []) == []

    def teardown(self) -> None:
        if not hasattr(self, "ends"):
            return
        self.drain()
        for _ in range(3):
            for side in (0, 1):
                self.leave(side)
                self.answer(side)
            self.drain()
        assert [end.state for end in self.ends] == [State.CLOSED, State.CLOSED]
        assert self.failed == []


TwoEnds.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTwoEnds = TwoEnds.TestCase
