"""Nodes register, and say when they go."""

from __future__ import annotations

from pathlib import Path

from novacron.database import Registration, deregister, list_registrations, register
from novacron.database.store import Store
from novacron.units import NodeId
from tests.database.support import Bench

A, B = NodeId("aaaa"), NodeId("bbbb")


async def check(store: Store) -> None:
    assert await list_registrations(store) == []
    await register(store, B, "b1", {"rest": "127.0.0.1:1"}, started=10.0)
    await register(store, A, "a1", {}, started=5.0)
    assert await list_registrations(store) == [
        Registration(A, "a1", {}, 5.0, None),
        Registration(B, "b1", {"rest": "127.0.0.1:1"}, 10.0, None),
    ]
    assert await deregister(store, B, "b1", stopped=20.0)
    assert not await deregister(store, B, "b1", stopped=30.0), "the first time counts"
    assert not await deregister(store, NodeId("nobody"), "x")
    assert await list_registrations(store, running=True) == [Registration(A, "a1", {}, 5.0, None)]
    assert (await list_registrations(store))[1].stopped == 20.0


async def test_nodes_register_and_deregister(tmp_path: Path) -> None:
    async with Bench(tmp_path).booted() as database:
        await check(database)


async def test_a_later_boot_replaces_what_an_earlier_one_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.booted() as database:
        await register(database, A, "a1", {"rest": "old"})
    async with bench.booted() as database:
        await register(database, A, "a2", {"rest": "new"})
        assert not await deregister(database, A, "a1"), "an undo step of the dead boot comes late"
        (found,) = await list_registrations(database, running=True)
        assert found.boot_id == "a2"
        assert found.addresses == {"rest": "new"}
        assert found.started > 1_700_000_000
