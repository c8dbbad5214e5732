"""Links between real nodes on loopback: agreed on once, kept, replaced and given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron.dwcp.amst import links as registry
from novacron.dwcp.amst import returns, supervision
from novacron.dwcp.amst.errors import (
    LinkLostError,
    LinkRefusedError,
    PeerUnreachableError,
)
from novacron.dwcp.amst.metrics import LINKS_ENDED, STREAMS
from novacron.network.errors import PeerUnknownError
from novacron.network.session import PeerSession
from tests.dwcp.amst.sides import Side, move, sides
from tests.network.authority import Certificates
from tests.network.conftest import Node, until

MakeSide = Callable[..., Side]


@pytest.fixture
def make_side(certificates: Callable[[int], Certificates], tmp_path: Path) -> MakeSide:
    def make(number: int, mode: str = "auto", **settings: Any) -> Side:
        return Side(Node(number, certificates(number)), tmp_path, mode, **settings)

    return make


def peer_link(side: Side) -> Any:
    """Its end of the only link, if there is one."""
    keepers = list(side.links)
    return keepers[0].link if keepers else None


async def test_a_link_is_there_when_asked_for_and_carries_both_ways(make_side: MakeSide) -> None:
    a, b = make_side(1, streams_start=3), make_side(2)
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        assert (link.peer, link.protocol, link.encrypted) == (b.id, 3, True)
        other = await until(lambda: peer_link(b))
        assert other.peer == a.id
        await move(link, other, 3_000_000)
        await move(other, link, 3_000_000)
        await until(lambda: len(link.streams()) == 3)
        (shown,) = a.links.statistics()
        assert (shown["peer"], shown["protocol"], shown["role"]) == (b.id, 3, "initiator")
        assert shown["counters"]["sent_bytes"] == 3_000_000
        assert b.links.statistics()[0]["role"] == "acceptor"


async def test_a_link_with_a_node_whose_certificate_is_revoked_ends_with_its_session(
    make_side: MakeSide,
) -> None:
    # Certificates are shared with other tests: this number has one of its own.
    a, b = make_side(41), make_side(42)
    async with sides(a, b):
        await a.links.link_to(b.node.address)
        await until(lambda: peer_link(b))
        session = b.node.network.session(a.id)
        assert session is not None
        b.node.network.watch_expulsions(b.links.expel)
        b.node.security.certificates.revocations.serials.add(session.serial)
        ((expelled, why),) = b.node.network.expel_revoked()
        assert (expelled, "was revoked" in str(why)) == (a.id, True)
        await until(lambda: len(b.links) == 0)
        await session.ended.wait()
        # Told once: what is over is not ended again.
        assert b.node.network.expel_revoked() == []


async def test_all_who_want_a_link_get_the_same_one(make_side: MakeSide) -> None:
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        await a.node.network.reach(b.node.address)
        found = []

        async def want() -> None:
            found.append(await a.links.link_to(b.id))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(want)
        assert len(set(map(id, found))) == 1
        assert await a.links.link_to(b.id) is found[0]
        await b.node.wait_session(a.node)
        # The other side uses it too, instead of asking for its own.
        assert (await b.links.link_to(a.id)) is peer_link(b)
        assert (a.asks, b.asks) == (0, 1)


@pytest.mark.parametrize("first", [1, 2])
async def test_two_nodes_that_ask_at_once_end_with_one_link(
    make_side: MakeSide, first: int
) -> None:
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        await a.node.network.reach(b.node.address)
        await b.node.wait_session(a.node)
        for _ in range(10):
            found: dict[str, Any] = {}

            async def want(side: Side, other: Side, found: dict[str, Any]) -> None:
                found[side.id] = await side.links.link_to(other.id)

            order = [(a, b), (b, a)] if first == 1 else [(b, a), (a, b)]
            async with trio.open_nursery() as nursery:
                for side, other in order:
                    nursery.start_soon(want, side, other, found)
            assert (len(a.links), len(b.links)) == (1, 1)
            await move(found[a.id], found[b.id], 100_000)
            assert found[a.id] is peer_link(a)
            assert found[b.id] is peer_link(b)
            a.keeper().end(LinkLostError("next round"))
            await until(lambda: not len(a.links) and not len(b.links))


async def test_an_ask_that_was_sent_before_the_other_ones_answer_does_not_end_the_link(
    make_side: MakeSide,
) -> None:
    """The node with the larger id sends its ask, which is on the way while the other one asks, is
    answered and has its link."""
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        await a.node.network.reach(b.node.address)
        await b.node.wait_session(a.node)
        late = trio.Event()
        answer = a.node.network._handlers["amst.link"]

        async def answer_late(session: PeerSession, body: bytes) -> bytes:
            await late.wait()
            return await answer(session, body)

        a.node.network._handlers["amst.link"] = answer_late
        found: list[Any] = []

        async def want() -> None:
            found.append(await b.links.link_to(a.id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(want)
            await until(lambda: a.id in b.links._asking)
            link = await a.links.link_to(b.id)
            late.set()
        assert found == [peer_link(b)]
        assert peer_link(a) is link
        await move(link, found[0], 100_000)


@pytest.mark.parametrize(
    ("a_mode", "b_mode", "encrypted"),
    [("datacenter", "datacenter", False), ("datacenter", "internet", True)],
)
async def test_encryption_is_left_out_only_where_both_may(
    make_side: MakeSide, a_mode: str, b_mode: str, encrypted: bool
) -> None:
    a = make_side(1, a_mode, encryption="off")
    b = make_side(2, b_mode, encryption="off")
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        other = await until(lambda: peer_link(b))
        assert link.encrypted is other.encrypted is encrypted
        await move(link, other, 1_000_000)
        (shown,) = a.links.statistics()
        assert shown["encrypted"] is encrypted
        assert bool(shown["why"]) is encrypted


@pytest.mark.parametrize("asking", ["old", "new"])
async def test_a_node_with_version_1_only_is_spoken_to_in_that(
    make_side: MakeSide, asking: str
) -> None:
    new, old = make_side(1), make_side(2)
    old.versions = (1,)
    a, b = (new, old) if asking == "new" else (old, new)
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        assert (link.protocol, link.mover, link.encrypted) == (1, "tls", True)
        # The acceptor's end is ready when the connection is, and waited for until then.
        other = await b.links.link_to(a.id)
        await move(link, other, 1_000_000)
        (shown,) = a.links.statistics()
        assert "speaks no newer one" in shown["why"]


async def test_version_3_alone_does_not_fall_back(make_side: MakeSide) -> None:
    a, b = make_side(1), make_side(2)
    a.versions, b.versions = (3,), (1,)
    async with sides(a, b):
        with pytest.raises(LinkRefusedError, match="no version of the transport in common"):
            await a.links.link_to(b.node.address)
        assert (len(a.links), len(b.links)) == (0, 0)


async def test_a_node_that_moves_no_data_is_named_with_what_to_do(make_side: MakeSide) -> None:
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        b.node.network.remove_handler("amst.link")
        with pytest.raises(LinkRefusedError, match="does not move data") as caught:
            await a.links.link_to(b.node.address)
        assert caught.value.remedy


async def test_past_the_limit_no_link_is_made(make_side: MakeSide) -> None:
    a, b, c = make_side(1, max_links=1), make_side(2), make_side(3)
    async with sides(a, b, c):
        await a.links.link_to(b.node.address)
        with pytest.raises(LinkRefusedError, match="no room") as caught:
            await a.links.link_to(c.node.address)
        assert caught.value.key == "dwcp.amst.max_links"
        await c.node.network.reach(a.node.address)
        with pytest.raises(LinkRefusedError, match="no room"):
            await c.links.link_to(a.id)


async def test_a_whole_id_that_is_not_here_is_worth_another_try_and_a_name_is_not(
    make_side: MakeSide,
) -> None:
    a = make_side(1)
    async with sides(a):
        with pytest.raises(PeerUnreachableError) as caught:
            await a.links.link_to(make_side(2).id)
        assert caught.value.retryable
        with pytest.raises(PeerUnknownError):
            await a.links.link_to("abcdef")


async def test_how_a_link_starts_follows_the_mode_of_its_path_and_what_is_agreed_on_does_not(
    make_side: MakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode that was only measured leaves no encryption out, however near the other node is."""
    monkeypatch.setattr(registry, "is_same_host", lambda host: False)
    a, b = make_side(1, encryption="off"), make_side(2, encryption="off")
    modes = {b.id: "datacenter"}
    a.mode_of = modes.__getitem__
    async with sides(a, b):
        first = await a.links.link_to(b.node.address)
        assert a.keeper().statistics()["streams_wanted"] == 4
        other = await until(lambda: peer_link(b))
        # What moves goes on moving on the link that is there.
        modes[b.id] = "internet"
        await move(first, other, 1_000_000)
        assert await a.links.link_to(b.id) is first
        assert first.encrypted
        await first.aclose()
        await until(lambda: not len(a.links) and not len(b.links))
        again = await a.links.link_to(b.id)
        assert again is not first
        assert a.keeper().statistics()["streams_wanted"] == 8
        assert again.encrypted


# --- Keeping ---------------------------------------------------------------------------------


async def test_a_lost_connection_is_replaced_and_nothing_is_lost_with_it(
    make_side: MakeSide,
) -> None:
    a, b = make_side(1, streams_start=4), make_side(2)
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        other = await until(lambda: peer_link(b))
        await until(lambda: b.relay.open == 4)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(move, link, other, 20_000_000)
            for _ in range(3):
                await trio.sleep(0.05)
                b.relay.cut(1)
        await until(lambda: b.relay.accepted > 4)
        await until(lambda: a.keeper()._open)


async def test_a_link_outlives_the_loss_of_all_its_connections(make_side: MakeSide) -> None:
    a, b = make_side(1, streams_start=2), make_side(2)
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        other = await until(lambda: peer_link(b))
        await until(lambda: b.relay.open == 2)
        b.relay.refuses = True
        b.relay.cut()
        await until(lambda: not a.keeper()._open)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(move, link, other, 1_000_000)
            await trio.sleep(0.3)
            b.relay.refuses = False
        assert peer_link(a) is link
        assert a.keeper().statistics()["last_failure"]


async def test_a_link_without_connections_for_too_long_is_given_up(make_side: MakeSide) -> None:
    a, b = make_side(1, link_timeout=1.0), make_side(2)
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        other = await until(lambda: peer_link(b))
        await until(lambda: a.keeper()._open)
        b.relay.refuses = True
        b.relay.cut()
        with pytest.raises(LinkLostError) as caught:
            await move(link, other, 1_000_000)
        reason = await link.wait_ended()
        assert reason.key == "dwcp.amst.link_timeout"
        assert "no connection for 1 s" in reason.why
        assert caught.value.retryable
        await until(lambda: not len(a.links) and not len(b.links))
        b.relay.refuses = False
        again = await a.links.link_to(b.id)
        assert again is not link
        await move(again, await until(lambda: peer_link(b)), 100_000)


async def test_failures_slow_the_dialling_down_and_are_counted_once_a_round(
    make_side: MakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF", 0.05)
    a, b = make_side(1, streams_start=8), make_side(2)
    async with sides(a, b):
        b.relay.refuses = True
        await a.links.link_to(b.node.address)
        keeper = a.keeper()
        keeper._backoff = 0.05
        pauses: set[float] = set()
        while max(pauses, default=0) < 0.4:
            pauses.add(keeper._backoff)
            await trio.sleep(0.002)
        assert {0.05, 0.1, 0.2, 0.4} <= pauses
        assert keeper._last_failure


async def test_the_number_of_connections_follows_the_controller(make_side: MakeSide) -> None:
    a, b = make_side(1, streams_start=2), make_side(2)
    async with sides(a, b):
        before = STREAMS.values.get(("tcp",), 0)
        link = await a.links.link_to(b.node.address)
        keeper = a.keeper()
        await until(lambda: len(keeper._open) == 2)
        keeper._controller.target = 12
        await until(lambda: len(keeper._open) == 12)
        # Both ends are nodes of this process, and each counts its own.
        await until(lambda: STREAMS.values[("tcp",)] - before == 24)
        keeper._controller.target = 3
        await until(lambda: len(keeper._open) == 3)
        other = peer_link(b)
        await until(lambda: len(other.streams()) == 3)
        assert max(stream.id for stream in link.streams()) <= keeper._next_id
        await move(link, other, 1_000_000)
        a.keeper().end(LinkLostError("over"))
        await until(lambda: STREAMS.values[("tcp",)] == before)


async def test_the_other_node_hears_that_a_link_was_closed(make_side: MakeSide) -> None:
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        await a.links.link_to(b.node.address)
        other = await until(lambda: peer_link(b))
        ended = sum(LINKS_ENDED.values.values())
        a.keeper().end(LinkLostError("the link was closed", why="for the test"))
        reason = await other.wait_ended()
        assert "the other node closed the link" in reason.what
        assert "for the test" in reason.why
        await until(lambda: not len(a.links) and not len(b.links))
        assert sum(LINKS_ENDED.values.values()) == ended + 2


async def test_a_link_on_which_nothing_moves_is_closed(
    make_side: MakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "IDLE_AFTER", 0.6)
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        assert "nothing moved" in (await link.wait_ended()).why
        await until(lambda: not len(a.links) and not len(b.links))


async def test_a_link_with_an_earlier_run_of_a_node_is_left_at_once(
    make_side: MakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "LOOK_EVERY", 0.05)
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        for entry in a.links._by_id.values():
            entry.boot_id = "an earlier one"
        reason = await link.wait_ended()
        assert "started again" in reason.why
        await until(lambda: not len(a.links))
        assert await a.links.link_to(b.id) is not link


async def test_a_node_without_a_session_is_reached_again_for_its_link(
    make_side: MakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "LOOK_EVERY", 0.05)
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        await a.links.link_to(b.node.address)
        session = a.node.network.session(b.id)
        assert session is not None
        await session.close()

        def is_back() -> bool:
            found = a.node.network.session(b.id)
            return found is not None and found is not session

        await until(is_back)
        assert len(a.links) == 1


async def test_a_node_that_asks_again_gets_a_new_link_and_the_old_one_ends(
    make_side: MakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "CROSSING", 0.0)
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        await a.links.link_to(b.node.address)
        # The asking node lost its end without a word.
        a.links._by_peer.clear()
        old = peer_link(b)
        again = await a.links.link_to(b.id)
        assert "opened a new one" in (await old.wait_ended()).why
        await until(lambda: len(b.links) == 1)
        await move(again, peer_link(b), 100_000)


async def test_closed_links_ask_and_answer_no_more(make_side: MakeSide) -> None:
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        link = await a.links.link_to(b.node.address)
        await b.links.aclose()
        await link.wait_ended()
        await b.links.aclose()
        with pytest.raises(LinkRefusedError):
            await a.links.link_to(b.id)


async def test_a_bad_ask_is_refused_and_leaves_nothing(make_side: MakeSide) -> None:
    a, b = make_side(1), make_side(2)
    async with sides(a, b):
        session = await a.node.network.reach(b.node.address)
        with pytest.raises(Exception, match="a peer sent a bad LinkAsk"):
            await session.request("amst.link", b"\x80", within=5)
        assert len(b.links) == 0
