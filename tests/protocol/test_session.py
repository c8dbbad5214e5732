from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.protocol import messages as m
from novacron.protocol.codes import ErrorCode, MisuseError, feature_list
from novacron.protocol.events import (
    Closed,
    Established,
    Event,
    GoodbyeReceived,
    Measured,
    PingReceived,
    RefusedError,
    RequestReceived,
    ResponseReceived,
)
from novacron.protocol.messages import encode
from novacron.protocol.session import (
    MAX_EXTRA_PINGS,
    MAX_PINGS_PER_SECOND,
    MIN_PING_INTERVAL,
    SessionMachine,
)
from novacron.protocol.states import ENDED, RECEIVE, SEND, Role, State
from tests.protocol.machines import A, B, failure, make, others, pair, sent, told

# --- handshake --------------------------------------------------------------------------------


def test_the_handshake_tells_each_side_about_the_other() -> None:
    initiator = make(Role.INITIATOR, certified=B, max_frame_bytes=5000, address="a:1")
    acceptor = make(Role.ACCEPTOR, certified=A, max_in_flight=3, address="b:2")
    welcome = acceptor.receive(initiator.start(), 0.0)
    assert others(welcome) == [Established(1, 1, A, "boot", "a:1", 5000, 64)]
    assert initiator.receive(sent(welcome), 0.0) == [
        Established(1, 1, B, "boot", "b:2", 1024 * 1024, 3)
    ]


@pytest.mark.parametrize(
    ("first", "second", "version"),
    [((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 1), (1, 9), 1), ((4, 4), (4, 4), 4)],
)
def test_the_highest_common_version_is_taken(
    first: tuple[int, int], second: tuple[int, int], version: int
) -> None:
    initiator = make(Role.INITIATOR, minimum_version=first[0], maximum_version=first[1])
    acceptor = make(Role.ACCEPTOR, minimum_version=second[0], maximum_version=second[1])
    initiator.receive(sent(acceptor.receive(initiator.start(), 0.0)), 0.0)
    assert initiator.peer is not None
    assert initiator.peer.version == version


def test_version_ranges_that_do_not_meet_are_named_on_both_sides() -> None:
    initiator = make(Role.INITIATOR, minimum_version=3, maximum_version=4)
    acceptor = make(Role.ACCEPTOR, minimum_version=1, maximum_version=2)
    events = acceptor.receive(initiator.start(), 0.0)
    error = failure(events)
    assert error.reason == "version"
    assert error.error.why == "the peer speaks 3 to 4, this node 1 to 2"
    refused = failure(initiator.receive(sent(events), 0.0))
    assert isinstance(refused.error, RefusedError)
    assert "no protocol version in common: the peer speaks 3 to 4" in refused.error.why


def test_an_unknown_required_feature_is_refused_by_name() -> None:
    initiator = make(Role.INITIATOR, required=1 << 17)
    events = make(Role.ACCEPTOR).receive(initiator.start(), 0.0)
    assert failure(events).error.what == "the peer requires the feature bit 17"
    assert told(events) == m.Error(
        ErrorCode.FEATURE, "the peer requires the feature bit 17: this node lacks it"
    )


def test_a_feature_the_acceptor_requires_must_be_offered() -> None:
    initiator = make(Role.INITIATOR, optional=0)
    acceptor = make(Role.ACCEPTOR, required=1)
    assert failure(acceptor.receive(initiator.start(), 0.0)).error.what == (
        "this node requires the feature requests"
    )


@given(*[st.integers(0, 2**64 - 1)] * 4)
def test_features_agreed_on_are_those_both_know_and_hold_all_that_either_requires(
    required: int, optional: int, other_required: int, other_optional: int
) -> None:
    initiator = make(Role.INITIATOR, required=required, optional=optional)
    acceptor = make(Role.ACCEPTOR, required=other_required, optional=other_optional)
    events = initiator.receive(sent(acceptor.receive(initiator.start(), 0.0)), 0.0)
    common = (required | optional) & (other_required | other_optional)
    if common & required == required and common & other_required == other_required:
        assert initiator.peer is not None
        assert initiator.peer.features == common
    else:
        assert failure(events).reason == "refused"


def test_features_are_listed_by_name_where_there_is_one() -> None:
    assert feature_list(0b101) == "requests, bit 2"
    assert feature_list(0) == "none"


@pytest.mark.parametrize("role", list(Role))
def test_an_id_that_is_not_the_certificates_is_refused(role: Role) -> None:
    initiator = make(Role.INITIATOR, certified=A if role is Role.INITIATOR else B)
    acceptor = make(Role.ACCEPTOR, certified=B if role is Role.ACCEPTOR else A)
    events = acceptor.receive(initiator.start(), 0.0)
    if role is Role.INITIATOR:
        events = initiator.receive(sent(events), 0.0)
    assert failure(events).reason == "identity"
    assert "its certificate was issued for" in failure(events).error.why


def test_a_session_with_oneself_is_refused() -> None:
    initiator = make(Role.INITIATOR, node_id=B)
    events = make(Role.ACCEPTOR).receive(initiator.start(), 0.0)
    assert failure(events).reason == "self"
    assert "network.seeds" in failure(events).error.remedy


@pytest.mark.parametrize(
    ("welcome", "reason"),
    [
        (m.Welcome(2, 1, B, "", "", 1024, 1, 0), "version"),
        (m.Welcome(1, 3, B, "", "", 1024, 1, 0), "feature"),
        (m.Welcome(1, 0, B, "", "", 1024, 1, 0), "feature"),
        (m.Welcome(1, 1, A, "", "", 1024, 1, 0), "self"),
    ],
)
def test_a_welcome_that_was_not_offered_is_refused(welcome: m.Welcome, reason: str) -> None:
    initiator = make(Role.INITIATOR, required=1)
    initiator.start()
    assert failure(initiator.receive(encode(welcome), 0.0)).reason == reason


def test_little_is_taken_before_the_peer_is_known() -> None:
    acceptor = make(Role.ACCEPTOR)
    big = m.Request(0, "x", bytes(4096))
    assert failure(acceptor.receive(encode(big), 0.0)).reason == "limit"


# --- pings ------------------------------------------------------------------------------------


def test_pings_are_answered_and_measured() -> None:
    initiator, acceptor = pair(ping_interval=2.0)
    assert initiator.next_deadline() == 0.0
    ping = initiator.tick(0.0)
    assert told(ping) == m.Ping(0, 1_000)
    assert initiator.next_deadline() == 2.0
    assert initiator.tick(1.9) == []
    pong = acceptor.receive(sent(ping), 0.1)
    assert others(pong) == [PingReceived(0)]
    assert told(pong) == m.Pong(0, 1_000, 1_000)
    assert initiator.receive(sent(pong), 0.25) == [Measured(0.25)]
    assert initiator.receive(sent(pong), 0.30) == []  # a second time: nothing to measure
    assert initiator.link.statistics(0.3).samples == 1


@pytest.mark.parametrize("sequence", [0, 7, 2**32 - 1])
def test_an_answer_to_a_ping_never_sent_is_a_violation(sequence: int) -> None:
    initiator, _ = pair()
    events = initiator.receive(encode(m.Pong(sequence, 0, 0)), 0.0)
    assert failure(events).reason == "state"


def test_a_flood_of_pings_is_a_violation_and_a_steady_stream_is_not() -> None:
    initiator, acceptor = pair()
    for number in range(10 * MAX_PINGS_PER_SECOND):
        now = number / MAX_PINGS_PER_SECOND
        assert len(others(acceptor.receive(encode(m.Ping(number, 0)), now))) == 1
    flood = b"".join(encode(m.Ping(n, 0)) for n in range(MAX_PINGS_PER_SECOND + 1))
    assert failure(initiator.receive(flood, 5.0)).reason == "limit"


def test_pings_are_never_sent_faster_than_the_other_side_allows() -> None:
    initiator, acceptor = pair(ping_interval=0.0001)
    now = 0.0
    while now < 3.0:
        acceptor.receive(sent(initiator.tick(now)), now)
        assert acceptor.state is State.OPEN
        now = initiator.next_deadline()


def ping_times(machine: SessionMachine, until: float) -> list[float]:
    """When the machine sends pings by itself, up to that time."""
    found = []
    while (now := machine.next_deadline()) <= until:
        if machine.tick(now):
            found.append(round(now, 3))
    return found


def test_pings_can_be_hastened_for_a_while_and_then_go_on_as_before() -> None:
    machine, _ = pair(ping_interval=5.0, idle_timeout=1000.0)
    assert ping_times(machine, 6.0) == [0.0, 5.0]
    machine.hasten_pings(3, 0.2, 7.0)
    assert ping_times(machine, 18.0) == [7.0, 7.2, 7.4, 12.4, 17.4]


def test_hastening_twice_does_not_add_up_and_keeps_the_distance() -> None:
    machine, _ = pair(ping_interval=5.0, idle_timeout=1000.0)
    ping_times(machine, 0.0)
    machine.hasten_pings(3, 0.2, 0.1)  # 0.1 s after the last one
    machine.hasten_pings(2, 0.2, 0.1)
    assert ping_times(machine, 5.0) == [0.2, 0.4, 0.6]


def test_hastened_pings_are_bounded_in_number_and_in_pace() -> None:
    machine, _ = pair(ping_interval=5.0, idle_timeout=1000.0)
    ping_times(machine, 0.0)
    machine.hasten_pings(10**6, 0.0, 1.0)
    found = ping_times(machine, 5.0)
    assert len(found) == MAX_EXTRA_PINGS
    assert found[-1] == 1.0 + round((MAX_EXTRA_PINGS - 1) * MIN_PING_INTERVAL, 3)


def test_a_session_that_is_not_open_hastens_nothing() -> None:
    machine = make(Role.INITIATOR)
    machine.hasten_pings(5, 0.1, 0.0)
    machine, _ = pair()
    machine.send(m.Goodbye(1, ""))
    before = machine.next_deadline()
    machine.hasten_pings(5, 0.1, 0.0)
    assert machine.next_deadline() == before


# --- requests ---------------------------------------------------------------------------------


def test_requests_and_responses_meet_by_id() -> None:
    initiator, acceptor = pair()
    first, second = m.Request(0, "a", b"1"), m.Request(1, "b", b"2")
    data = initiator.send(first)
    assert initiator.next_request_id() == 1
    data += initiator.send(second)
    assert acceptor.receive(data, 0.0) == [RequestReceived(first), RequestReceived(second)]
    answer = m.Response(1, 0, "", b"!")
    assert initiator.receive(acceptor.send(answer), 0.0) == [ResponseReceived(answer)]
    assert (initiator.asked, acceptor.owed) == (1, 1)


def test_no_more_requests_than_the_peer_takes() -> None:
    initiator, acceptor = pair(max_in_flight=2)
    data = b"".join(initiator.send(m.Request(id, "x", b"")) for id in range(2))
    assert not initiator.may_request
    with pytest.raises(MisuseError, match="cannot send a request"):
        initiator.send(m.Request(2, "x", b""))
    acceptor.receive(data, 0.0)
    assert failure(acceptor.receive(encode(m.Request(2, "x", b"")), 0.0)).reason == "limit"


@pytest.mark.parametrize(
    "message",
    [m.Response(5, 0, "", b""), m.Request(0, "again", b""), m.Welcome(1, 1, A, "", "", 1024, 1, 0)],
)
def test_what_does_not_fit_the_state_is_a_violation(message: m.Message) -> None:
    initiator, acceptor = pair()
    acceptor.receive(initiator.send(m.Request(0, "x", b"")), 0.0)
    assert failure(acceptor.receive(encode(message), 0.0)).reason == "state"


def test_requests_need_the_feature() -> None:
    initiator, acceptor = pair(optional=0)
    assert not initiator.takes_requests
    with pytest.raises(MisuseError):
        initiator.send(m.Request(0, "x", b""))
    assert failure(acceptor.receive(encode(m.Request(0, "x", b"")), 0.0)).reason == "state"


def test_a_response_needs_a_request_and_a_frame_the_peers_limit() -> None:
    initiator, _ = pair(max_frame_bytes=2000)
    with pytest.raises(MisuseError, match="cannot send a response"):
        initiator.send(m.Response(0, 0, "", b""))
    with pytest.raises(MisuseError, match="cannot send a frame"):
        initiator.send(m.Request(0, "x", bytes(2000)))
    assert initiator.asked == 0


# --- the end ----------------------------------------------------------------------------------


def test_goodbyes_end_a_session_once_everything_is_answered() -> None:
    initiator, acceptor = pair()
    acceptor.receive(initiator.send(m.Request(0, "slow", b"")), 0.0)
    assert acceptor.receive(initiator.send(m.Goodbye(1, "bye")), 0.0) == [GoodbyeReceived("bye", 1)]
    assert acceptor.state is State.LEFT
    assert initiator.receive(acceptor.send(m.Goodbye(3, "")), 0.0) == [GoodbyeReceived("", 3)]
    assert [initiator.state, acceptor.state] == [State.FINISHING, State.FINISHING]
    assert acceptor.settle() == []
    answer = m.Response(0, 0, "", b"done")
    data = acceptor.send(answer)
    assert acceptor.settle() == [Closed()]
    assert initiator.receive(data, 0.0) == [ResponseReceived(answer), Closed()]
    assert initiator.receive_eof() == acceptor.receive_eof() == []
    assert initiator.next_deadline() == float("inf")


def test_goodbyes_that_cross_end_it_too() -> None:
    initiator, acceptor = pair()
    request = acceptor.send(m.Request(0, "late", b""))
    to_acceptor, to_initiator = (
        initiator.send(m.Goodbye(1, "")),
        request + acceptor.send(m.Goodbye(1, "")),
    )
    assert not [e for e in acceptor.receive(to_acceptor, 0.0) if isinstance(e, Closed)]
    assert isinstance(initiator.receive(to_initiator, 0.0)[0], RequestReceived)
    data = initiator.send(m.Response(0, 0, "", b""))
    assert initiator.settle() == [Closed()]
    assert isinstance(acceptor.receive(data, 0.0)[-1], Closed)


def test_nobody_asks_after_goodbye() -> None:
    initiator, acceptor = pair()
    acceptor.receive(initiator.send(m.Goodbye(1, "")), 0.0)
    with pytest.raises(MisuseError, match="cannot send Request"):
        initiator.send(m.Request(0, "x", b""))
    with pytest.raises(MisuseError):
        acceptor.send(m.Request(0, "x", b""))
    assert failure(acceptor.receive(encode(m.Request(0, "x", b"")), 0.0)).reason == "state"


def test_what_follows_the_end_is_ignored() -> None:
    initiator, acceptor = pair()
    acceptor.receive(b"garbage", 0.0)
    assert acceptor.receive(encode(m.Ping(0, 0)), 0.0) == []
    assert acceptor.tick(1e9) == []
    assert acceptor.receive_eof() == []
    with pytest.raises(MisuseError):
        acceptor.send(m.Ping(0, 0))
    assert initiator.state is State.OPEN


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it ended in state open, without a Goodbye"),
        (b"NCPP\x01", "it ended inside a frame, without a Goodbye"),
    ],
)
def test_a_lost_connection_is_told_from_an_ordered_end(data: bytes, why: str) -> None:
    initiator, _ = pair()
    initiator.receive(data, 0.0)
    lost = failure(initiator.receive_eof())
    assert (lost.reason, lost.error.why) == ("lost", why)
    assert lost.error.retryable


# --- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_a_handshake_has_a_deadline(role: Role) -> None:
    machine = make(role, now=100.0, handshake_timeout=10.0)
    if role is Role.INITIATOR:
        machine.start()
    assert machine.next_deadline() == 110.0
    assert machine.tick(109.9) == []
    events = machine.tick(110.0)
    assert told(events) == m.Error(ErrorCode.TIMEOUT, "the handshake took longer than 10 s")
    assert failure(events).reason == "handshake_timeout"
    assert failure(events).error.key == "network.handshake_timeout"


def test_bytes_that_never_make_a_frame_do_not_keep_a_session_alive() -> None:
    machine, _ = pair(idle_timeout=30.0, ping_interval=5.0)
    frame = encode(m.Request(0, "x", bytes(200)))
    now = 0.0
    events: list[Event] = []
    for byte in frame:
        now += 1.0
        machine.receive(bytes([byte]), now)
        events = machine.tick(now)
        if machine.state in ENDED:
            break
    assert now == 30.0
    assert failure(events).reason == "idle_timeout"
    assert failure(events).error.key == "network.idle_timeout"


def test_frames_keep_a_session_alive() -> None:
    initiator, acceptor = pair(idle_timeout=30.0, ping_interval=5.0)
    now = 0.0
    while now < 300.0:
        now = min(initiator.next_deadline(), acceptor.next_deadline())
        for one, other in ((initiator, acceptor), (acceptor, initiator)):
            one.receive(sent(other.receive(sent(one.tick(now)), now)), now)
        assert initiator.state is acceptor.state is State.OPEN


# --- tables --------------------------------------------------------------------------------------


def test_every_state_has_a_row_in_both_tables_and_every_state_can_be_reached() -> None:
    assert set(SEND) == set(RECEIVE) == set(State)
    reached = {State.START, State.AWAIT_HELLO, State.CLOSED}
    for table in (SEND, RECEIVE):
        for row in table.values():
            reached.update(row.values())
    assert reached == set(State)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", m.MESSAGES)
def test_a_message_the_table_does_not_list_is_refused_on_both_sides(
    state: State, kind: type[m.Message]
) -> None:
    samples = {
        m.Hello: m.Hello(1, 1, A, "", "", 0, 1, 1024, 1, 0),
        m.Welcome: m.Welcome(1, 1, A, "", "", 1024, 1, 0),
        m.Ping: m.Ping(0, 0),
        m.Pong: m.Pong(0, 0, 0),
        m.Goodbye: m.Goodbye(1, ""),
        m.Error: m.Error(1, ""),
        m.Request: m.Request(0, "", b""),
        m.Response: m.Response(0, 0, "", b""),
    }
    machine = make(Role.ACCEPTOR)
    machine.state = state
    if kind not in SEND[state]:
        with pytest.raises(MisuseError, match=f"cannot send {kind.__name__}"):
            machine.send(samples[kind])
        assert machine.state is state
    if kind not in RECEIVE[state] and state not in ENDED:
        assert failure(machine.receive(encode(samples[kind]), 0.0)).reason == "state"
