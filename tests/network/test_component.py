from __future__ import annotations

import json
import os
import socket
import typing
from collections.abc import Callable

import pytest
import trio

from novacron.component import Component, HealthDepth, HealthState
from novacron.config.schema import NetworkSettings
from novacron.environment import Identity
from novacron.environment.ports import (
    AddressInvalidError,
    AddressUnavailableError,
    PortDeniedError,
    PortTakenError,
)
from novacron.errors import ConflictError, DeniedError, InvalidError, TransientError
from novacron.network.component import Network
from novacron.network.errors import RequestFailedError
from novacron.network.metrics import HANDSHAKE_FAILURES, SEED_CONNECTED
from novacron.network.session import PeerSession
from novacron.network.tcp_tls import TlsDialer
from novacron.protocol.events import ConnectionLostError, SessionTimeoutError
from novacron.protocol.party import local_party
from novacron.protocol.states import Role
from novacron.security import Security
from tests.network.authority import Authority, Certificates, node_id
from tests.network.conftest import MakeNode, Node, until


@pytest.fixture(autouse=True)
def methods_of_the_tests(peer_methods: Callable[..., None]) -> None:
    peer_methods("reverse", "refuse", "break", "hang", "flood")


def test_the_constructor_names_its_dependencies_by_type() -> None:
    hints = typing.get_type_hints(Network.__init__)
    assert hints["security"] is Security
    assert hints["identity"] is Identity
    assert hints["settings"] is NetworkSettings
    assert issubclass(Network, Component)


async def test_two_nodes_hold_one_session_and_measure_it(make_node: MakeNode) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1, ping_interval=0.05).start(nursery)
            second = await make_node(2, ping_interval=0.05, seeds=(first.address,)).start(nursery)
            await first.wait_session(second)
            await second.wait_session(first)
            await until(lambda: second.network.statistics()["peers"][0]["pings"] >= 3)
            peer = second.network.statistics()["peers"][0]
            assert peer["node_id"] == first.id
            assert 0 < peer["round_trip_seconds"] < 5
            assert peer["jitter_seconds"] >= 0
            assert peer["loss"] == 0
            assert peer["advertised"] == first.address
            seed = second.seed
            assert seed["state"] == "connected"
            assert seed["node_id"] == first.id
            json.dumps(second.network.statistics())  # the API shows it as it is
            assert SEED_CONNECTED.values[(first.address,)] == 1
            nursery.cancel_scope.cancel()


async def test_a_stopping_node_says_goodbye_and_its_peer_lets_it_go(make_node: MakeNode) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = await make_node(2, seeds=(first.address,)).start(nursery)
            session = await first.wait_session(second)
            await second.wait_session(first)
            await second.network.drain()
            assert second.network.statistics()["sessions"] == 0
            await first.wait_sessions(0)
            assert session.goodbye.message == "the node stops"
            await second.network.shutdown()
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream(*second.host_port)
            nursery.cancel_scope.cancel()


async def test_a_node_starts_again_after_a_shutdown(make_node: MakeNode) -> None:
    node = make_node(1)
    with trio.fail_after(15):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                await node.start(nursery)
                health = await node.network.health_check(HealthDepth.DEEP)
                assert health.state is HealthState.HEALTHY
                await node.network.drain()
                await node.network.shutdown()
                nursery.cancel_scope.cancel()


async def test_shutdown_of_a_network_that_never_started_is_harmless(make_node: MakeNode) -> None:
    node = make_node(1)
    await node.network.drain()
    await node.network.shutdown()
    health = await node.network.health_check(HealthDepth.SHALLOW)
    assert health.state is HealthState.UNHEALTHY


async def test_a_request_in_flight_is_answered_before_the_session_ends(
    make_node: MakeNode,
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = await make_node(2, seeds=(first.address,)).start(nursery)
            session = await second.wait_session(first)
            asked, answer = trio.Event(), trio.Event()

            async def slow(_: PeerSession, body: bytes) -> bytes:
                asked.set()
                await answer.wait()
                return body[::-1]

            first.network.register_handler("reverse", slow)
            replies: list[bytes] = []

            async def ask() -> None:
                replies.append(await session.request("reverse", b"abc", within=10))

            async with trio.open_nursery() as asking:
                asking.start_soon(ask)
                await asked.wait()
                asking.start_soon(first.network.drain)
                await until(lambda: session.goodbye)
                with pytest.raises(ConnectionLostError, match="Goodbye"):
                    await session.request("reverse", b"late", within=1)
                answer.set()
            assert replies == [b"cba"]
            nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_answer_the_goodbye_is_not_waited_for(
    make_node: MakeNode,
    certificates: Callable[[int], Certificates],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("novacron.network.component.GOODBYE_TIMEOUT", 0.1)
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            node = await make_node(1, ping_interval=60).start(nursery)
            stream = await TlsDialer(certificates(2).client_context).dial(*node.host_port)
            mute = PeerSession(
                stream,
                Role.INITIATOR,
                local_party(node_id(2), "boot"),
                node.id,
                {},
                started_at=trio.current_time(),
            )
            await mute.handshake()
            await node.wait_sessions(1)
            # It is not run: nobody reads what the node says from here on.
            await node.network.drain()
            assert node.network.statistics()["sessions"] == 0
            await mute.close()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("settings", "advertised"),
    [
        ({"listen_address": "0.0.0.0"}, ""),
        ({"listen_address": "0.0.0.0", "advertise_address": "a.example:7401"}, "a.example:7401"),
    ],
)
async def test_a_wildcard_is_not_advertised(
    make_node: MakeNode, settings: dict[str, str], advertised: str
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1, **settings).start(nursery)
            seed = first.address.replace("0.0.0.0", "127.0.0.1")
            second = await make_node(2, seeds=(seed,)).start(nursery)
            session = await second.wait_session(first)
            assert session.peer.address == advertised
            nursery.cancel_scope.cancel()


async def test_requests_fail_with_a_reason(make_node: MakeNode) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = await make_node(2, seeds=(first.address,)).start(nursery)
            session = await second.wait_session(first)

            async def refuse(_: PeerSession, body: bytes) -> bytes:
                raise AddressInvalidError("no such place", why="a reason that stays here")

            async def break_down(_: PeerSession, body: bytes) -> bytes:
                raise KeyError("inner detail")

            async def hang(_: PeerSession, body: bytes) -> bytes:
                await trio.sleep(60)
                return b""

            async def flood(_: PeerSession, body: bytes) -> bytes:
                return bytes(2 * 1024 * 1024)

            for name, handler in {
                "refuse": refuse,
                "break": break_down,
                "hang": hang,
                "flood": flood,
            }.items():
                first.network.register_handler(name, handler)
            with pytest.raises(ValueError, match="has a handler"):
                first.network.register_handler("hang", hang)
            for method, message in {
                "absent": "no such method",
                "refuse": "no such place",
                "break": "internal error",
                "flood": "the answer is too large",
            }.items():
                with pytest.raises(RequestFailedError) as caught:
                    await session.request(method, b"", within=5)
                assert caught.value.why == message
            with pytest.raises(SessionTimeoutError, match="did not answer hang"):
                await session.request("hang", b"", within=0.05)
            first.network.remove_handler("hang")
            with pytest.raises(RequestFailedError, match="no such method"):
                await session.request("hang", b"", within=5)
            nursery.cancel_scope.cancel()


async def test_two_nodes_that_dial_each_other_keep_the_session_of_the_smaller_id(
    make_node: MakeNode, reserved_port: int
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = reserved_port
            first = make_node(1, seeds=(f"127.0.0.1:{port}",))
            await first.start(nursery)
            second = make_node(2, port=port, seeds=(first.address,))
            await second.start(nursery)
            # First's next attempt is a second away; when it comes, it wins.

            def agreed() -> bool:
                here, there = first.network.session(second.id), second.network.session(first.id)
                return (
                    here is not None
                    and there is not None
                    and here.initiator_id == there.initiator_id == first.id
                )

            await until(agreed)
            await first.wait_sessions(1)
            await second.wait_sessions(1)
            await until(lambda: second.seed["state"] == "connected")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("spelling", ["127.0.0.1", "localhost", "127.0.0.2"])
async def test_a_seed_that_is_this_node_is_noticed_however_it_is_spelled(
    make_node: MakeNode, reserved_port: int, spelling: str
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            port = reserved_port
            node = make_node(1, listen_address="0.0.0.0", port=port, seeds=(f"{spelling}:{port}",))
            await node.start(nursery)
            await until(lambda: node.seed["state"] == "self")
            await node.wait_sessions(0)
            assert node.view.warnings == [
                f"network.seeds names this node itself ({spelling}:{port}); that seed is left out"
            ]
            nursery.cancel_scope.cancel()


async def test_a_peer_of_another_authority_is_refused_and_both_say_why(
    make_node: MakeNode, other_authority: Authority
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            before = dict(HANDSHAKE_FAILURES.values)
            stranger = Node(3, Certificates(other_authority, node_id(3)), seeds=(first.address,))
            await stranger.start(nursery)
            error = await until(lambda: stranger.seed["error"])
            assert "the peer's certificate is not accepted" in error
            assert "security.ca_certificate" in error
            assert HANDSHAKE_FAILURES.values[("initiator", "untrusted")] > before.get(
                ("initiator", "untrusted"), 0
            )
            assert first.network.statistics()["sessions"] == 0
            nursery.cancel_scope.cancel()


async def test_an_expired_certificate_is_refused_by_its_name(
    make_node: MakeNode, authority: Authority
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            before = HANDSHAKE_FAILURES.values.get(("acceptor", "expired"), 0)
            late = Node(
                4, Certificates(authority, node_id(4), expired=True), seeds=(first.address,)
            )
            await late.start(nursery)
            error = await until(lambda: late.seed["error"])
            assert "does not accept this node's certificate" in error
            assert HANDSHAKE_FAILURES.values[("acceptor", "expired")] == before + 1
            nursery.cancel_scope.cancel()


async def test_a_certificate_without_a_node_is_refused(
    make_node: MakeNode, authority: Authority
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            before = HANDSHAKE_FAILURES.values.get(("acceptor", "certificate"), 0)
            nameless = Node(
                5, Certificates(authority, node_id(5), named=False), seeds=(first.address,)
            )
            await nameless.start(nursery)
            await until(
                lambda: HANDSHAKE_FAILURES.values.get(("acceptor", "certificate"), 0) > before
            )
            await first.wait_sessions(0)
            nursery.cancel_scope.cancel()


async def test_a_node_that_claims_another_id_than_its_certificate_is_refused(
    make_node: MakeNode, certificates: Callable[[int], Certificates]
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            before = HANDSHAKE_FAILURES.values.get(("acceptor", "identity"), 0)
            liar = Node(6, certificates(2), seeds=(first.address,))
            await liar.start(nursery)
            error = await until(lambda: liar.seed["error"])
            assert f"the peer says it is node {node_id(6)}" in error
            assert f"issued for {node_id(2)}" in error
            assert HANDSHAKE_FAILURES.values[("acceptor", "identity")] == before + 1
            nursery.cancel_scope.cancel()


async def test_unreachable_seeds_do_not_hold_up_the_start_and_degrade_deep_health(
    make_node: MakeNode,
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                node = make_node(1, seeds=(f"127.0.0.1:{closed.getsockname()[1]}",))
                await node.start(nursery)
                shallow = await node.network.health_check(HealthDepth.SHALLOW)
                assert shallow.state is HealthState.HEALTHY
                error = await until(lambda: node.seed["error"])
                assert "cannot connect to" in error
                deep = await node.network.health_check(HealthDepth.DEEP)
                assert deep.state is HealthState.DEGRADED
                assert deep.message == "no session with any of network.seeds"
            nursery.cancel_scope.cancel()


async def test_deep_health_connects_to_the_own_listener_without_a_failed_handshake(
    make_node: MakeNode,
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            node = await make_node(1, listen_address="0.0.0.0").start(nursery)
            before = dict(HANDSHAKE_FAILURES.values)
            for _ in range(5):
                health = await node.network.health_check(HealthDepth.DEEP)
                assert health.state is HealthState.HEALTHY
            assert HANDSHAKE_FAILURES.values == before
            nursery.cancel_scope.cancel()


async def test_a_listener_that_does_not_take_connections_is_unhealthy(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.network.component.PROBE_TIMEOUT", 0.05)
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            node = await make_node(1).start(nursery)
            loop = node.network._accept_loop
            assert loop is not None
            monkeypatch.setattr(loop, "_admit", lambda incoming: bool(incoming.close()))
            health = await node.network.health_check(HealthDepth.DEEP)
            assert health.state is HealthState.UNHEALTHY
            assert health.message == "the peer listener did not take a connection"
            nursery.cancel_scope.cancel()


async def test_a_taken_port_names_who_holds_it_and_the_key(make_node: MakeNode) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        async with trio.open_nursery() as nursery:
            with pytest.raises(PortTakenError) as caught:
                await make_node(1, port=port).start(nursery)
    error = caught.value
    assert isinstance(error, ConflictError)
    assert error.what == f"cannot listen on 127.0.0.1:{port}"
    assert f"pid {os.getpid()} (" in error.why
    assert error.key == "network.port"
    assert not error.retryable


async def test_a_restart_takes_the_port_again_that_was_published(make_node: MakeNode) -> None:
    node = make_node(1)
    published = []
    with trio.fail_after(15):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                await node.network.initialize(nursery)
                published.append(node.view.published["peer"])
                await node.network.shutdown()
                nursery.cancel_scope.cancel()
        port = int(published[0].rpartition(":")[2])
        with socket.create_server(("127.0.0.1", port)):
            async with trio.open_nursery() as nursery:
                await node.network.initialize(nursery)
                published.append(node.view.published["peer"])
                await node.network.shutdown()
                nursery.cancel_scope.cancel()
    assert published[0] == published[1] != published[2]


async def test_a_port_without_the_privilege_for_it_says_so(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", denied)
    async with trio.open_nursery() as nursery:
        with pytest.raises(PortDeniedError) as caught:
            await make_node(1, port=741).start(nursery)
    assert isinstance(caught.value, DeniedError)
    assert "may not bind port 741" in caught.value.why
    assert "CAP_NET_BIND_SERVICE" in caught.value.why
    assert caught.value.key == "network.port"


async def test_an_address_of_another_host_says_so_and_is_tried_again(make_node: MakeNode) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(AddressUnavailableError) as caught:
            await make_node(1, listen_address="192.0.2.1").start(nursery)
    assert isinstance(caught.value, TransientError)
    assert caught.value.retryable
    assert caught.value.why == "no network interface of this host has the address 192.0.2.1"
    assert caught.value.key == "network.listen_address"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"listen_address": "no such address"}, "network.listen_address"),
        ({"seeds": ("host-without-port",)}, "network.seeds"),
        ({"seeds": ("host:0",)}, "network.seeds"),
        ({"seeds": ("::1:7401",)}, "network.seeds"),
        ({"advertise_address": "host:port"}, "network.advertise_address"),
    ],
)
async def test_a_text_that_is_no_address_is_refused_with_its_key(
    make_node: MakeNode, settings: dict[str, object], key: str
) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(AddressInvalidError) as caught:
            await make_node(1, **settings).start(nursery)
    assert isinstance(caught.value, InvalidError)
    assert caught.value.key == key
