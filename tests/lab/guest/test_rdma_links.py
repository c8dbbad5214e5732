"""Links over Soft-RoCE devices: the whole contract, then nodes that find out by themselves."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron._native import rdma
from novacron._native.rdma import Channel
from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.native import NativeEngine
from novacron.dwcp.amst.supervision import SETTING_UP
from novacron.dwcp.amst.transport import Source, Target
from tests.contracts import check_link_control, check_link_objects
from tests.contracts.check_link import CASES, MAX_CHUNK, WINDOW, Case, Pair
from tests.dwcp.amst.sides import Side, move, sides
from tests.lab.guest.rxe import RxePair
from tests.network.authority import Authority, Certificates, node_id
from tests.network.conftest import Node, until

SLOTS = 4
SLOT_BYTES = MAX_CHUNK + 4096
"""A frame has a header, a checksum and a tag around its chunk."""


def connected(near: rdma.Device, far: rdma.Device) -> tuple[Channel, Channel]:
    channels = near.open_channel(SLOTS, SLOT_BYTES), far.open_channel(SLOTS, SLOT_BYTES)
    channels[0].connect(channels[1].local())
    channels[1].connect(channels[0].local())
    return channels


@asynccontextmanager
async def links(near: rdma.Device, far: rdma.Device, *, encrypt: bool) -> AsyncIterator[Pair]:
    """Two engines, joined by one stream over RDMA and none over TCP."""
    keys = {
        name: os.urandom(size) for name, size in (("link_id", 16), ("secret", 32), ("context", 32))
    }
    async with trio.open_nursery() as nursery:
        engines = [await NativeEngine.open(nursery, threads=1) for _ in range(2)]
        ends = [
            engine.open_link(
                peer=peer,
                initiator=peer == "far",
                encrypt=encrypt,
                max_chunk_bytes=MAX_CHUNK,
                send_window=WINDOW,
                receive_window=WINDOW,
                **keys,
            )
            for engine, peer in zip(engines, ("far", "near"), strict=True)
        ]
        # The acceptor first: what is said before somebody listens waits in its slots.
        for end, channel in zip(reversed(ends), reversed(connected(near, far)), strict=True):
            end.add_rdma(channel, 1)
            end.mover = "rdma"

        async def lose() -> None:
            for end in ends:
                end.end(LinkLostError("the network is gone"))

        try:
            yield Pair(ends[0], ends[1], lose)
        finally:
            with trio.CancelScope(shield=True):
                for end in ends:
                    await end.aclose()
                for engine in engines:
                    await engine.aclose()
            nursery.cancel_scope.cancel()


OBJECTS, CONTROL = check_link_objects.CASES, check_link_control.CASES
REST = [case for case in CASES if case not in OBJECTS and case not in CONTROL]


# Some at once, each with a link of its own: making the devices takes longer than most cases do.
@pytest.mark.parametrize("cases", [OBJECTS, CONTROL, REST], ids=["objects", "control", "rest"])
async def test_links_over_rdma_alone_keep_the_contract(
    rxe_pair: RxePair, tmp_path: Path, cases: list[Case]
) -> None:
    with rdma.open_device("rxe0") as near, rdma.open_device("rxe1") as far:
        for number, case in enumerate(cases):
            directory = tmp_path / case.__name__
            directory.mkdir()
            with trio.fail_after(60):
                async with links(near, far, encrypt=number % 2 == 0) as pair:
                    await case(pair, directory)


# --- Nodes that agree on it ----------------------------------------------------------------------

MakeSide = Callable[..., Side]
PATIENCE = 60.0
"""Everything takes its time under emulation."""
SIZE = 8 << 20
CAP_IPC_LOCK = 14
LIMITED = 1 << 20


def side_maker(directory: Path) -> MakeSide:
    authority = Authority(directory)

    def make(number: int, device: str | None, **settings: Any) -> Side:
        certificates = Certificates(authority, node_id(number))
        settings.setdefault("rdma", "auto")
        return Side(Node(number, certificates), directory, "auto", rdma_device=device, **settings)

    return make


@pytest.fixture
def make_side(tmp_path: Path) -> MakeSide:
    return side_maker(tmp_path)


def shown(side: Side) -> dict[str, Any]:
    """What it says of its only link."""
    (link,) = side.links.statistics()
    return link


def carried(side: Side) -> set[str]:
    return {stream["mover"] for stream in shown(side)["streams"]}


async def connect(a: Side, b: Side, *, usable: tuple[Side, ...]) -> tuple[Any, Any]:
    """Both ends of the link that *a* asks for, when the devices of those were found."""
    for side in usable:
        await until(lambda side=side: side.rdma.usable, PATIENCE)
    near = await a.links.link_to(b.node.address)
    await until(lambda: len(b.links), PATIENCE)
    return near, b.keeper().link


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "novacron.dwcp" and record.levelno >= logging.WARNING
    ]


async def test_nodes_with_devices_find_out_by_themselves(
    rxe_pair: RxePair, make_side: MakeSide, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make_side(1, "rxe0"), make_side(2, "rxe1")
    async with sides(a, b):
        near, far = await connect(a, b, usable=(a, b))
        on = {"wanted": "auto", "got": "on", "why": ""}
        for side in (a, b):
            await until(lambda side=side: shown(side)["rdma"] == on, PATIENCE)
            # The connections over TCP that carried until then are of no use any more.
            await until(lambda side=side: carried(side) == {"rdma"}, PATIENCE)
            assert shown(side)["mover"] == "rdma"
        packets = rxe_pair.left.counter("sent_pkts"), rxe_pair.right.counter("sent_pkts")
        await move(near, far, SIZE)
        await move(far, near, SIZE)
        assert rxe_pair.left.counter("sent_pkts") - packets[0] > SIZE // 4096
        assert rxe_pair.right.counter("sent_pkts") - packets[1] > SIZE // 4096
    assert warnings(caplog) == []


async def test_a_device_that_is_removed_in_mid_transfer_leaves_it_to_tcp(
    rxe_pair: RxePair, make_side: MakeSide, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make_side(1, "rxe0"), make_side(2, "rxe1")
    content, memory = secrets.token_bytes(SIZE), bytearray(SIZE)
    async with sides(a, b):
        near, far = await connect(a, b, usable=(a, b))
        for side in (a, b):
            await until(lambda side=side: carried(side) == {"rdma"}, PATIENCE)
        incoming = far.receive_object(1, 0, Target(SIZE, memory=memory), chunk_bytes=65536)
        outgoing = near.send_object(
            1, 0, Source(SIZE, memory=content), chunk_bytes=65536, limit_bps=SIZE // 4
        )
        await until(lambda: incoming.progress().done_bytes > SIZE // 16, PATIENCE)
        # Returns when nobody has the device open any more.
        await trio.to_thread.run_sync(rxe_pair.left.remove)
        assert not rxe_pair.left.exists()
        assert incoming.progress().done_bytes < SIZE
        outgoing.limit(0)
        await outgoing.wait()
        await incoming.wait()
        await outgoing.aclose()
        await incoming.aclose()
        assert memory == content
        await until(lambda: carried(b) == carried(a) == {"tcp"}, PATIENCE)
        assert shown(a)["rdma"]["got"] == shown(b)["rdma"]["got"] == "off"
        assert "RDMA device rxe0 was removed" in shown(a)["rdma"]["why"]
        assert "does not answer" in shown(b)["rdma"]["why"]
        assert shown(a)["mover"] == shown(b)["mover"] == "tcp"
        await until(lambda: not a.rdma.usable, PATIENCE)
        assert a.rdma.why == "device rxe0 was removed or failed"
        assert b.rdma.usable
    said = warnings(caplog)
    assert [line for line in said if b.id in line] == [
        f"RDMA with {b.id} cannot be used, TCP is: RDMA device rxe0 was removed"
    ]
    assert len(said) == 2, said


async def test_a_node_alone_with_a_device_uses_tcp_without_a_word(
    rxe_pair: RxePair, make_side: MakeSide, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make_side(1, "rxe0"), make_side(2, None, rdma="off")
    async with sides(a, b):
        near, far = await connect(a, b, usable=(a,))
        await move(near, far, SIZE // 8)
        assert carried(a) == carried(b) == {"tcp"}
        assert shown(a)["rdma"] == {
            "wanted": "auto",
            "got": "off",
            "why": "the other node has none",
        }
        assert shown(b)["rdma"] == {"wanted": "off", "got": "off", "why": "dwcp.amst.rdma is off"}
    assert warnings(caplog) == []


def give_up_locking() -> None:
    """This process may lock no more than `LIMITED` bytes, as one without privileges."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (LIMITED, LIMITED))
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    rights = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, rights) == 0
    for word in range(3):  # effective, permitted, inheritable
        rights[word] &= ~(1 << CAP_IPC_LOCK)
    assert libc.capset(header, rights) == 0


async def limited_nodes(directory: Path) -> None:
    make = side_maker(directory)
    a, b = make(1, "rxe0"), make(2, "rxe1")
    async with sides(a, b):
        near, far = await connect(a, b, usable=(a, b))
        await until(lambda: shown(a)["rdma"]["why"] != SETTING_UP, PATIENCE)
        assert f"RLIMIT_MEMLOCK is {LIMITED} bytes" in shown(a)["rdma"]["why"]
        await move(near, far, SIZE // 8)
        assert carried(a) == carried(b) == {"tcp"}


def test_memory_that_may_not_be_locked_leaves_it_to_tcp(rxe_pair: RxePair, tmp_path: Path) -> None:
    assert rxe_pair.left.exists()
    # A process of its own, since rights are not given back; not a new one, whose imports would take
    # longer than the test.
    child = os.fork()
    if child == 0:
        status = 1
        try:
            give_up_locking()
            trio.run(limited_nodes, tmp_path)
            status = 0
        except BaseException:
            logging.getLogger().exception("in the child")
        finally:
            os._exit(status)
    deadline = time.monotonic() + PATIENCE
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
