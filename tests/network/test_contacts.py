"""How nodes are named and reached, with real nodes on loopback and with invented ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
import trio.testing

from novacron.config.schema import NetworkSettings
from novacron.environment.ports import AddressInvalidError
from novacron.errors import ConfigError, EnvironmentProbeError, NovaCronError
from novacron.network.contacts import DEFAULT_PORT, MAX_ADDRESSES, MAX_NODES, Contacts
from novacron.network.errors import (
    ConnectError,
    NetworkStoppingError,
    PeerAmbiguousError,
    PeerIsSelfError,
    PeerUnknownError,
)
from novacron.network.peers import SelfDialledError
from novacron.network.registry import SessionRegistry
from novacron.network.session import PeerSession
from novacron.protocol.states import State
from tests.network.conftest import MakeNode, until

OWN = "aaaa0000-0000-4000-8000-000000000000"
FIRST = "bbbb1111-0000-4000-8000-000000000000"
SECOND = "bbbb2222-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def methods_of_the_tests(peer_methods: Callable[..., None]) -> None:
    peer_methods("echo")


class _Party:
    def __init__(self, address: str) -> None:
        self.address = address
        self.boot_id = "boot"


class _Machine:
    state = State.OPEN


class FakeSession:
    """As much of a session as contacts see of it."""

    def __init__(self, node_id: str, advertised: str = "") -> None:
        self.node_id = node_id
        self.peer = _Party(advertised)
        self.machine = _Machine()


class World:
    """Addresses with nodes at them; dialling one takes as long as the test wants."""

    def __init__(self, **nodes: str) -> None:
        self.nodes = {address.replace("_", ":"): node for address, node in nodes.items()}
        self.dialled: list[str] = []
        self.slow: trio.Event | None = None
        self.error: NovaCronError | None = None
        self.registry = SessionRegistry()
        self.contacts = Contacts(OWN, self.registry, self.dial, self.serve)

    async def dial(self, host: str, port: int) -> PeerSession:
        address = f"{host}:{port}"
        self.dialled.append(address)
        if self.slow is not None:
            await self.slow.wait()
        if self.error is not None:
            raise self.error
        if address not in self.nodes:
            raise ConnectError(f"cannot connect to {address}", why="connection refused")
        if self.nodes[address] == OWN:
            raise SelfDialledError
        return cast(PeerSession, FakeSession(self.nodes[address]))

    def serve(self, session: PeerSession, address: str) -> None:
        self.contacts.learn(session, address)
        self.registry._by_node[session.node_id] = session

    def meet(self, node_id: str, advertised: str = "") -> PeerSession:
        """*node_id* has dialled this node."""
        session = cast(PeerSession, FakeSession(node_id, advertised))
        self.contacts.learn(session, None)
        self.registry._by_node[node_id] = session
        return session

    def part(self, node_id: str) -> None:
        del self.registry._by_node[node_id]


async def test_a_session_is_found_by_the_id_or_its_beginning_without_dialling() -> None:
    world = World()
    session = world.meet(FIRST)
    for name in (FIRST, FIRST.upper(), "bbbb1", "bbbb"):
        assert await world.contacts.reach(name) is session
    assert world.dialled == []


async def test_three_characters_are_too_few() -> None:
    world = World()
    world.meet(FIRST)
    with pytest.raises(PeerUnknownError, match=FIRST) as caught:
        await world.contacts.reach("bbb")
    assert "4 or more" in caught.value.remedy


async def test_an_ambiguous_beginning_names_those_it_may_be() -> None:
    world = World()
    world.meet(FIRST)
    world.meet(SECOND)
    with pytest.raises(PeerAmbiguousError) as caught:
        await world.contacts.reach("bbbb")
    assert FIRST in caught.value.why
    assert SECOND in caught.value.why
    assert (await world.contacts.reach("bbbb2")).node_id == SECOND


async def test_an_unknown_name_lists_the_known_ones_and_not_a_thousand_of_them() -> None:
    world = World()
    with pytest.raises(PeerUnknownError, match="knows no other yet"):
        await world.contacts.reach("cccc")
    for number in range(20):
        world.meet(f"dddd{number:04d}-0000-4000-8000-000000000000")
    with pytest.raises(PeerUnknownError, match=r"dddd0000-.* and 12 more"):
        await world.contacts.reach("cccc")


@pytest.mark.parametrize("name", [OWN, "aaaa", "AAAA0"])
async def test_the_own_id_is_refused(name: str) -> None:
    with pytest.raises(PeerIsSelfError, match="this node itself"):
        await World().contacts.reach(name)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("node-2", "node-2:7401"),
        ("Node2.example", "Node2.example:7401"),
        ("192.0.2.7", "192.0.2.7:7401"),
        ("[2001:db8::2]", "2001:db8::2:7401"),
    ],
)
async def test_a_host_without_a_port_has_the_one_of_the_schema(name: str, address: str) -> None:
    assert NetworkSettings().port == DEFAULT_PORT
    world = World()
    world.nodes[address] = FIRST
    assert (await world.contacts.reach(name)).node_id == FIRST


async def test_the_own_address_is_refused() -> None:
    with pytest.raises(PeerIsSelfError, match="host:1 is this node itself"):
        await World(host_1=OWN).contacts.reach("host:1")


@pytest.mark.parametrize("name", ["host:", ":7401", "host:x", "host:70000", "1::2:3"])
async def test_a_bad_address_is_refused_before_anything_is_dialled(name: str) -> None:
    world = World()
    with pytest.raises(AddressInvalidError):
        await world.contacts.reach(name)
    assert world.dialled == []


async def test_an_address_is_dialled_once_while_its_session_lives() -> None:
    world = World(host_1=FIRST)
    session = await world.contacts.reach("host:1")
    assert session.node_id == FIRST
    assert await world.contacts.reach("host:1") is session
    assert await world.contacts.reach(FIRST) is session
    assert world.dialled == ["host:1"]
    world.part(FIRST)
    assert await world.contacts.reach("host:1") is not session
    assert world.dialled == ["host:1"] * 2


async def test_a_node_is_dialled_again_where_it_was_reached_or_says_it_can_be() -> None:
    world = World(host_1=FIRST, other_2=SECOND)
    await world.contacts.reach("host:1")
    world.part(FIRST)
    assert (await world.contacts.reach("bbbb1")).node_id == FIRST
    world.meet(SECOND, "other:2")
    world.part(SECOND)
    assert (await world.contacts.reach(SECOND)).node_id == SECOND
    assert world.dialled == ["host:1", "host:1", "other:2"]


async def test_the_next_address_is_tried_where_one_is_dead() -> None:
    world = World(old_1=FIRST)
    await world.contacts.reach("old:1")
    world.meet(FIRST, "new:2")
    world.part(FIRST)
    assert (await world.contacts.reach(FIRST)).node_id == FIRST
    assert world.dialled == ["old:1", "new:2", "old:1"]


async def test_an_address_that_another_node_merely_advertises_leads_to_who_is_there() -> None:
    world = World(host_1=FIRST)
    world.meet(SECOND, "host:1")
    assert (await world.contacts.reach("host:1")).node_id == FIRST


async def test_a_node_whose_address_is_another_nodes_now_is_not_mistaken_for_it() -> None:
    world = World(host_1=FIRST)
    await world.contacts.reach("host:1")
    world.part(FIRST)
    world.nodes["host:1"] = SECOND
    with pytest.raises(PeerUnknownError, match=f"host:1 is node {SECOND} now"):
        await world.contacts.reach(FIRST)
    world.part(SECOND)
    world.nodes["host:1"] = OWN
    with pytest.raises(PeerUnknownError, match="host:1 is this node now"):
        await world.contacts.reach(FIRST)


async def test_a_node_that_cannot_be_dialled_says_why() -> None:
    world = World()
    world.meet(FIRST, "gone:1")
    world.part(FIRST)
    with pytest.raises(ConnectError, match="gone:1: connection refused"):
        await world.contacts.reach(FIRST)


async def test_a_node_without_an_address_has_a_remedy() -> None:
    world = World()
    world.meet(FIRST, "no address")
    world.part(FIRST)
    with pytest.raises(PeerUnknownError, match="said no address") as caught:
        await world.contacts.reach(FIRST)
    assert caught.value.key == "network.seeds"


async def test_a_session_that_is_about_to_end_is_not_handed_out() -> None:
    world = World(host_1=FIRST)
    leaving = await world.contacts.reach("host:1")
    cast(Any, leaving.machine).state = State.LEAVING
    assert await world.contacts.reach(FIRST) is not leaving


async def test_who_wants_an_address_that_is_being_dialled_waits_for_the_same_session() -> None:
    world = World(host_1=FIRST)
    world.slow = trio.Event()
    sessions = []

    async def reach() -> None:
        sessions.append(await world.contacts.reach("host:1"))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(reach)
            await trio.testing.wait_all_tasks_blocked()
            world.slow.set()
    assert len(sessions) == 3
    assert len(set(sessions)) == 1
    assert world.dialled == ["host:1"]


async def test_all_who_wait_for_an_attempt_get_its_error() -> None:
    world = World()
    world.slow = trio.Event()
    errors = []

    async def reach() -> None:
        try:
            await world.contacts.reach("host:1")
        except ConnectError as exc:
            errors.append(exc)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(reach)
            await trio.testing.wait_all_tasks_blocked()
            world.slow.set()
    assert len(errors) == 3
    assert world.dialled == ["host:1"]


async def test_an_attempt_that_was_cancelled_is_taken_up_by_who_waits_for_it() -> None:
    world = World(host_1=FIRST)
    world.slow = trio.Event()
    sessions = []
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await world.contacts.reach("host:1")

    async def second() -> None:
        sessions.append(await world.contacts.reach("host:1"))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(second)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            world.slow.set()
    assert [session.node_id for session in sessions] == [FIRST]
    assert world.dialled == ["host:1"] * 2


async def test_any_error_of_the_taxonomy_is_passed_on_as_it_is() -> None:
    world = World()
    for error in (ConfigError("one"), EnvironmentProbeError("two")):
        world.error = error
        with pytest.raises(type(error)) as caught:
            await world.contacts.reach("host:1")
        assert caught.value is error


def test_what_is_remembered_is_bounded() -> None:
    world = World()
    for number in range(MAX_NODES + 10):
        session = cast(PeerSession, FakeSession(f"{number:08d}"))
        world.contacts.learn(session, f"host:{number + 1}")
    assert len(world.contacts._addresses) == MAX_NODES
    assert len(world.contacts._dialled) == MAX_NODES
    assert "00000000" not in world.contacts._addresses
    session = cast(PeerSession, FakeSession("moves"))
    for number in range(10):
        world.contacts.learn(session, f"place:{number + 1}")
    assert len(world.contacts._addresses["moves"]) == MAX_ADDRESSES
    assert world.contacts._addresses["moves"][0] == "place:10"


# --- With real nodes -------------------------------------------------------------------------


async def test_a_node_reaches_another_by_address_and_then_by_id(make_node: MakeNode) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = await make_node(2).start(nursery)
            assert second.network.sessions() == []

            async def echo(_: PeerSession, body: bytes) -> bytes:
                return body

            first.network.register_handler("echo", echo)
            session = await second.network.reach(first.address)
            assert session.node_id == first.id
            assert await session.request("echo", b"served", within=5) == b"served"
            assert await second.network.reach(first.id) is session
            assert await second.network.reach(first.address) is session
            # The other side knows it as well, without having dialled.
            assert (await first.wait_session(second)).node_id == second.id
            assert (await first.network.reach(second.id)).node_id == second.id
            assert first.network.statistics()["sessions"] == 1
            nursery.cancel_scope.cancel()


async def test_a_node_is_reached_again_by_id_after_its_session_ended(make_node: MakeNode) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = await make_node(2).start(nursery)
            session = await second.network.reach(first.address)
            await first.wait_session(second)
            session.abort()
            await session.ended.wait()
            await first.wait_sessions(0)
            assert (await second.network.reach(first.id)).node_id == first.id
            # And from the other side, which knows only what the first said about itself.
            again = await first.wait_session(second)
            again.abort()
            await again.ended.wait()
            await second.wait_sessions(0)
            assert (await first.network.reach(second.id)).node_id == second.id
            nursery.cancel_scope.cancel()


async def test_a_seed_that_was_reached_on_demand_is_not_dialled_again(make_node: MakeNode) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = await make_node(2, seeds=(first.address,)).start(nursery)
            # At the same time as the seed's own first attempt.
            session = await second.network.reach(first.address)
            await until(lambda: second.seed["state"] == "connected")
            assert second.network.session(first.id) is session
            assert second.seed["attempts"] <= 1
            assert await second.network.reach(first.address) is session
            assert second.network.statistics()["sessions"] == 1
            nursery.cancel_scope.cancel()


async def test_both_sides_that_reach_for_each_other_end_with_one_session(
    make_node: MakeNode,
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = await make_node(2).start(nursery)
            async with trio.open_nursery() as reaching:
                reaching.start_soon(first.network.reach, second.address)
                reaching.start_soon(second.network.reach, first.address)
            await first.wait_sessions(1)
            await second.wait_sessions(1)
            kept = await first.network.reach(second.id)
            other = await second.network.reach(first.id)
            assert kept.initiator_id == other.initiator_id
            nursery.cancel_scope.cancel()


async def test_the_own_listener_and_a_dead_port_are_told_apart(
    make_node: MakeNode, reserved_port: int
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            node = await make_node(1).start(nursery)
            with pytest.raises(PeerIsSelfError, match="this node itself"):
                await node.network.reach(node.address)
            with pytest.raises(ConnectError, match="refused"):
                await node.network.reach(f"127.0.0.1:{reserved_port}")
            assert node.network.sessions() == []
            nursery.cancel_scope.cancel()


async def test_a_network_that_stops_or_never_started_makes_no_session(make_node: MakeNode) -> None:
    node = make_node(1)
    with pytest.raises(NetworkStoppingError, match="not running"):
        await node.network.reach("127.0.0.1:1")
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await node.start(nursery)
            await node.network.drain()
            with pytest.raises(NetworkStoppingError):
                await node.network.reach("127.0.0.1:1")
            nursery.cancel_scope.cancel()
