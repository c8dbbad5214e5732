"""Nodes with RDMA devices, which a false libibverbs has: agreed on, lost, refused, found again."""

from __future__ import annotations

import ctypes
import logging
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron._native.ffi import NativeDeniedError
from novacron._native.rdma import Channel
from novacron.dwcp.amst import rdma
from novacron.dwcp.amst.supervision import SETTING_UP
from novacron.dwcp.amst.transport import Source, Target
from tests._native.conftest import fake_verbs as fake_verbs
from tests.dwcp.amst.sides import CHUNK, Side, move, sides
from tests.network.authority import Certificates
from tests.network.conftest import Node, until

pytestmark = pytest.mark.usefixtures("no_leaks")

DEVICE_FATAL = 8
"""Of ``enum ibv_event_type``."""
ON = {"wanted": "auto", "got": "on", "why": ""}

MakeSide = Callable[..., Side]


@pytest.fixture
def make_side(
    certificates: Callable[[int], Certificates],
    tmp_path: Path,
    fake_verbs: str,
    monkeypatch: pytest.MonkeyPatch,
) -> MakeSide:
    monkeypatch.setattr(
        rdma.native, "open_device", partial(rdma.native.open_device, library=fake_verbs)
    )
    monkeypatch.setattr(rdma, "WATCH_EVERY", 0.02)

    def make(number: int, **settings: Any) -> Side:
        settings.setdefault("rdma", "auto")
        return Side(Node(number, certificates(number)), tmp_path, "auto", **settings)

    return make


def shown(side: Side) -> dict[str, Any]:
    (link,) = side.links.statistics()
    return link


def carried(side: Side) -> set[str]:
    return {stream["mover"] for stream in shown(side)["streams"]}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "novacron.dwcp" and record.levelno >= logging.WARNING
    ]


async def connect(a: Side, b: Side) -> tuple[Any, Any]:
    for side in (a, b):
        await until(lambda side=side: side.rdma.usable or side.settings.rdma == "off")
    near = await a.links.link_to(b.node.address)
    await until(lambda: len(b.links))
    return near, b.keeper().link


async def test_a_link_goes_over_to_rdma_where_both_nodes_have_it(
    make_side: MakeSide, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make_side(1, streams_start=3), make_side(2)
    async with sides(a, b):
        near, far = await connect(a, b)
        for side in (a, b):
            await until(lambda side=side: shown(side)["rdma"] == ON)
            await until(lambda side=side: carried(side) == {"rdma"})
            assert shown(side)["mover"] == "rdma"
        await move(near, far, 3_000_000)
        await move(far, near, 3_000_000)
        assert near.statistics().streams[0].sent_bytes >= 3_000_000
        assert (a.relay.open, b.relay.open) == (0, 0)
    assert warnings(caplog) == []


async def test_a_device_that_fails_in_mid_transfer_leaves_it_to_tcp_and_is_looked_for_again(
    make_side: MakeSide,
    caplog: pytest.LogCaptureFixture,
    fake_verbs: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rdma, "LOOK_AGAIN", 0.2)
    a, b = make_side(1), make_side(2)
    size = 100 * CHUNK + 1
    content, memory = secrets.token_bytes(size), bytearray(size)
    async with sides(a, b):
        near, far = await connect(a, b)
        for side in (a, b):
            await until(lambda side=side: carried(side) == {"rdma"})
        incoming = far.receive_object(1, 0, Target(size, memory=memory), chunk_bytes=CHUNK)
        outgoing = near.send_object(
            1, 0, Source(size, memory=content), chunk_bytes=CHUNK, limit_bps=size // 4
        )
        await until(lambda: incoming.progress().done_bytes)
        failed = [await until(lambda side=side: side.rdma._device) for side in (a, b)]
        ctypes.CDLL(fake_verbs).fake_verbs_raise(DEVICE_FATAL)
        await until(lambda: carried(a) == carried(b) == {"tcp"})
        assert incoming.progress().done_bytes < size
        outgoing.limit(0)
        await outgoing.wait()
        await incoming.wait()
        await outgoing.aclose()
        await incoming.aclose()
        assert memory == content
        for side in (a, b):
            # The stream is gone a little before its supervisor hears of it.
            await until(lambda side=side: shown(side)["rdma"]["got"] == "off")
            assert shown(side)["mover"] == "tcp"
        lost = [side for side in (a, b) if "must be reset" in shown(side)["rdma"]["why"]]
        assert lost
        for side, device in zip((a, b), failed, strict=True):
            if side in lost:
                await until(lambda side=side, device=device: side.rdma._device is not device)
                await until(lambda side=side: side.rdma.usable)
                assert side.rdma.why == ""
    said = warnings(caplog)
    assert len(said) == 2
    assert all("cannot be used, TCP is: " in line for line in said)


async def test_a_node_alone_with_rdma_uses_tcp_without_a_word(
    make_side: MakeSide, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make_side(1), make_side(2, rdma="off")
    async with sides(a, b):
        near, far = await connect(a, b)
        await move(near, far, 1_000_000)
        assert carried(a) == carried(b) == {"tcp"}
        assert shown(a)["rdma"]["why"] == "the other node has none"
        assert shown(b)["rdma"] == {"wanted": "off", "got": "off", "why": "dwcp.amst.rdma is off"}
    assert warnings(caplog) == []


@pytest.mark.parametrize("refusing", ["asker", "answerer"])
async def test_memory_that_may_not_be_locked_on_either_node_leaves_it_to_tcp(
    make_side: MakeSide,
    refusing: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = make_side(1), make_side(2)

    async def refuse(chunk_bytes: int) -> Channel:
        await trio.lowlevel.checkpoint()
        raise NativeDeniedError("cannot open an RDMA channel", why="RLIMIT_MEMLOCK is 8 bytes")

    async with sides(a, b):
        side = a if refusing == "asker" else b
        monkeypatch.setattr(side.rdma, "open_channel", refuse)
        near, far = await connect(a, b)
        await until(lambda: "RLIMIT_MEMLOCK is 8 bytes" in shown(side)["rdma"]["why"])
        await until(lambda: shown(a)["rdma"]["why"] != SETTING_UP)
        await move(near, far, 1_000_000)
        assert carried(a) == carried(b) == {"tcp"}
        assert shown(a)["rdma"]["got"] == shown(b)["rdma"]["got"] == "off"
    assert len(warnings(caplog)) == (1 if refusing == "asker" else 2)
