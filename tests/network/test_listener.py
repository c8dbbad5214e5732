"""The accept loop: how many get in, and what happens to the others."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio
import trio.testing

from novacron.network.errors import AcceptAbortedError, AcceptExhaustedError
from novacron.network.listener import AcceptLoop
from novacron.network.memory import MemoryIncoming, MemoryListener, MemoryNetwork
from novacron.network.metrics import REFUSED
from novacron.network.tcp_tls import TlsDialer
from novacron.network.transport import Incoming
from tests.network.authority import Certificates
from tests.network.conftest import MakeNode, until


class Crowd:
    """A loop on a memory listener whose connections stay until told to leave."""

    def __init__(self, max_connections: int, max_per_host: int) -> None:
        self.network = MemoryNetwork()
        self.listener = self.network.listen(b"server")
        self.inside: list[str] = []
        self.doors: dict[str, trio.Event] = {}
        self.loop = AcceptLoop(
            self.listener,
            self.handle,
            max_connections=max_connections,
            max_per_host=max_per_host,
        )

    async def handle(self, incoming: Incoming) -> None:
        name = incoming.peer_host
        self.inside.append(name)
        self.doors[name] = trio.Event()
        try:
            await self.doors[name].wait()
        finally:
            self.inside.remove(name)
            incoming.close()

    async def come(self, host: str) -> None:
        await self.network.dialer(b"client", host).dial("memory", 1)
        await trio.testing.wait_all_tasks_blocked()


async def test_past_the_limit_connections_are_not_accepted_until_one_leaves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crowd = Crowd(2, 9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.loop.run, nursery)
        for host in ("a", "b", "c", "d"):
            await crowd.come(host)
        assert crowd.inside == ["a", "b"]
        assert crowd.loop.saturated
        assert crowd.loop.accepted == 2  # the others were not even accepted
        crowd.doors["a"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert crowd.inside == ["b", "c"]
        nursery.cancel_scope.cancel()
    assert not crowd.loop.accepting


async def test_one_address_cannot_take_all_places(autojump_clock: trio.testing.MockClock) -> None:
    crowd = Crowd(10, 2)
    before = REFUSED.values.get(("per_address",), 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.loop.run, nursery)
        for host in ("a", "a", "a", "a", "b"):
            await crowd.come(host)
        assert crowd.inside == ["a", "a", "b"]
        assert REFUSED.values[("per_address",)] == before + 2
        assert crowd.loop.statistics()["connections"] == 3
        crowd.doors["a"].set()
        await trio.testing.wait_all_tasks_blocked()
        await crowd.come("a")
        assert crowd.inside.count("a") == 2
        nursery.cancel_scope.cancel()


async def test_the_loop_survives_every_error_of_accept(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    crowd = Crowd(10, 10)
    errors: list[Exception] = [
        AcceptExhaustedError("cannot accept connections", why="too many open files"),
        AcceptAbortedError("a connection was lost"),
    ] * 200
    accept = MemoryListener.accept

    async def failing(self: MemoryListener) -> MemoryIncoming:
        if errors:
            raise errors.pop()
        return await accept(self)

    monkeypatch.setattr(MemoryListener, "accept", failing)
    start = trio.current_time()
    with caplog.at_level(logging.WARNING, "novacron.network"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.loop.run, nursery)
            await trio.sleep(100)
            await crowd.come("a")
            assert crowd.inside == ["a"]
            nursery.cancel_scope.cancel()
    assert trio.current_time() - start >= 200 * 0.25  # it paused, it did not spin
    assert 1 <= len(caplog.records) <= 2  # and said so once a minute
    assert "too many open files" in caplog.text


async def test_a_handler_that_breaks_ends_its_connection_only(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    crowd = Crowd(1, 1)

    async def handle(incoming: Incoming) -> None:
        incoming.close()
        raise KeyError("a bug")

    crowd.loop._handle = handle
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.loop.run, nursery)
        await crowd.come("a")
        await crowd.come("b")
        assert crowd.loop.accepted == 2
        assert crowd.loop.connections == 0
        nursery.cancel_scope.cancel()
    assert caplog.text.count("a peer connection failed") == 2


async def test_real_connections_past_the_limit_wait_in_the_kernel(
    make_node: MakeNode, certificates: Callable[[int], Certificates]
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node = await make_node(1, max_connections=1).start(nursery)
            dialer = TlsDialer(certificates(2).client_context)
            first = await dialer.dial(*node.host_port)
            # TCP connects, because the kernel answers; TLS does not, because nobody accepted.
            waiting = await trio.open_tcp_stream(*node.host_port)
            await waiting.send_all(b"not TLS")
            with trio.move_on_after(0.3) as scope:
                await waiting.receive_some()
            assert scope.cancelled_caught
            assert node.network.statistics()["listener"]["accepted"] == 1
            await first.aclose()
            await until(lambda: node.network.statistics()["listener"]["accepted"] == 2)
            await waiting.aclose()
            nursery.cancel_scope.cancel()
