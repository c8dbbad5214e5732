"""Which congestion control connections get, and what nodes say about it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from novacron._native import tcp
from novacron.dwcp.amst.congestion import Choice, Congestion
from novacron.environment.path import PathMeasure
from tests.dwcp.amst.sides import Side, move, sides
from tests.network.authority import Certificates
from tests.network.conftest import Node, until


def measured(min_rtt_us: float) -> Callable[[str], PathMeasure]:
    return lambda peer: PathMeasure(
        peer, min_rtt_us, min_rtt_us, 0.0, 0.0, False, 0.0, 0, False, False, 10, 1.0
    )


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as made:
            yield made


async def test_it_is_set_by_the_path_and_read_back(connection: socket.socket) -> None:
    congestion = Congestion("auto")
    choice = congestion.apply(connection.fileno(), "127.0.0.1")
    assert choice == Choice("cubic", "cubic", "", "same-host")
    assert tcp.chosen(connection.fileno()) == "cubic"
    assert congestion.last == choice


async def test_a_name_that_an_operator_gives_wins_on_both_ends(
    connection: socket.socket,
) -> None:
    congestion = Congestion("reno", dctcp="auto", path=measured(200))
    assert congestion.apply(connection.fileno(), "10.0.0.1").got == "reno"
    accepted = congestion.accept(connection.fileno(), "10.0.0.1", "peer", "bbr")
    assert (accepted.wanted, accepted.got) == ("bbr", "reno")
    assert accepted.why == "dwcp.amst.congestion says so"


async def test_what_cannot_be_had_is_said_once_and_the_connection_lives(
    connection: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    congestion = Congestion("nonesuch")
    before = tcp.chosen(connection.fileno())
    with caplog.at_level(logging.WARNING, "novacron.dwcp"):
        for _ in range(3):
            choice = congestion.apply(connection.fileno(), "10.0.0.1")
    assert choice.got == before
    assert choice.why
    assert len(caplog.records) == 1


async def test_without_ecn_a_connection_leaves_dctcp(connection: socket.socket) -> None:
    congestion = Congestion("auto", dctcp="auto", path=measured(200))
    wanted = Choice("dctcp", "dctcp", "", "datacenter")
    choice = congestion.confirm(connection.fileno(), wanted, "peer")
    assert (choice.wanted, choice.got) == ("dctcp", "cubic")
    assert choice.why == "the other end did not agree on ECN"


async def test_the_answering_end_follows_what_was_asked_for(connection: socket.socket) -> None:
    congestion = Congestion("auto", path=measured(40_000))
    assert congestion.answer("cubic", "peer", "10.0.0.1") == ("cubic", "")
    choice = congestion.accept(connection.fileno(), "10.0.0.1", "peer", "cubic")
    assert (choice.wanted, choice.got, choice.why) == ("cubic", "cubic", "")
    refused = congestion.accept(connection.fileno(), "10.0.0.1", "peer", "dctcp")
    assert refused.wanted == "dctcp"
    assert refused.got != "dctcp"
    assert "dwcp.acp.dctcp is off" in refused.why


async def test_only_who_allows_dctcp_listens_with_it() -> None:
    with socket.socket() as listener:
        before = tcp.chosen(listener.fileno())
        assert Congestion("auto").listen(listener.fileno()) == "dwcp.acp.dctcp is off"
        assert Congestion("cubic", dctcp="auto").listen(listener.fileno()) == ""
        assert tcp.chosen(listener.fileno()) == before


async def test_both_ends_of_a_link_say_what_was_wanted_and_what_they_use(
    certificates: Callable[[int], Certificates], tmp_path: Path
) -> None:
    a, b = (Side(Node(number, certificates(number)), tmp_path, "auto") for number in (1, 2))
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        await move(link, await until(lambda: b.links.find(link.link_id)), 1 << 20)
        (near,), (far,) = a.links.statistics(), b.links.statistics()
    for end in (near, far):
        assert end["path"]["name"] == "same-host"
        assert end["congestion"] == {
            "other_end": "cubic",
            "wanted": "cubic",
            "got": "cubic",
            "why": "",
        }
        assert end["queue"]["state"] == "off"
        assert end["streams"]
        for stream in end["streams"]:
            assert stream["congestion"] == stream["congestion_wanted"] == "cubic"
