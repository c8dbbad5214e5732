"""Links over Soft-RoCE devices: the whole contract, then nodes that find out by themselves."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from novacron._native import rdma
from novacron._native.rdma import Channel
from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.native import NativeEngine
from tests.contracts.check_link import CASES, MAX_CHUNK, WINDOW, Pair
from tests.lab.guest.rxe import RxePair

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


async def test_links_over_rdma_alone_keep_the_contract(rxe_pair: RxePair, tmp_path: Path) -> None:
    # One test for all: making the devices takes longer than most cases do.
    with rdma.open_device("rxe0") as near, rdma.open_device("rxe1") as far:
        for number, case in enumerate(CASES):
            directory = tmp_path / case.__name__
            directory.mkdir()
            with trio.fail_after(60):
                async with links(near, far, encrypt=number % 2 == 0) as pair:
                    await case(pair, directory)
