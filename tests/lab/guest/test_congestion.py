"""Congestion control by the class of the path, over wires that mark, delay and lose."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext

import trio

from novacron._native import tcp
from novacron.dwcp.acp.classes.core import Policy, classify
from novacron.dwcp.amst.congestion import Choice, Congestion
from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.native import NativeEngine, NativeLink
from novacron.dwcp.amst.transport import Source, Target
from novacron.dwcp.amst.wire import HELLO_BYTES
from novacron.environment.path import PathMeasure
from tests.lab.guest.commands import run
from tests.lab.guest.veth import VethEnd, VethPair, open_netem

SIZE = 4 << 20
CHUNK = 65536
WINDOW = 4 << 20
PATIENCE = 90.0
"""Everything takes its time under emulation."""
EXCHANGES = 40
STREAMS = 2


def near_path(peer: str) -> PathMeasure:
    """What sampling says of a datacenter's path: one handshake under emulation may take longer."""
    return PathMeasure(peer, 200, 200, 10.0, 0.0, False, 0.0, 0, False, False, 10, 1.0)


def nothing_measured(peer: str) -> None:
    return None


def datacenter(path: Callable[[str], PathMeasure | None] = near_path) -> Congestion:
    return Congestion("auto", dctcp="auto", path=path, mode_of=lambda peer: "datacenter")


@contextmanager
def marking(end: VethEnd) -> Iterator[None]:
    """What leaves through *end* queues before a cap, and is marked when it waited for half a
    millisecond."""
    device = ("dev", end.interface)
    run("tc", "qdisc", "add", *device, "root", "handle", "1:", "tbf", "rate", "80mbit", "burst", "16kb", "limit", "1mb")  # fmt: skip
    try:
        run("tc", "qdisc", "add", *device, "parent", "1:1", "fq_codel", "ecn", "ce_threshold", "500us")  # fmt: skip
        yield
    finally:
        run("tc", "qdisc", "delete", *device, "root")


class Connection:
    def __init__(self, near: socket.socket, far: socket.socket, choices: list[Choice]) -> None:
        self.near = near
        self.far = far
        self.asking, self.answering = choices


async def connect(
    pair: VethPair, asking: Congestion, answering: Congestion, *, listens: bool = True
) -> Connection:
    """As a supervisor dials and a data listener accepts. The caller closes both sockets, or gives
    them away."""
    listener = trio.socket.socket()
    await listener.bind((pair.right.address, 0))
    listener.listen()
    if listens:
        assert answering.listen(listener.fileno()) == ""
    near = trio.socket.socket()
    with trio.fail_after(PATIENCE):
        choice = asking.apply(near.fileno(), pair.right.address, "far")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.connect, listener.getsockname())
            far, _ = await listener.accept()
        listener.close()
        choice = asking.confirm(near.fileno(), choice, "far")
        answer = answering.accept(far.fileno(), pair.left.address, "near", choice.got)
    ends = [socket.socket(fileno=end.detach()) for end in (near, far)]
    return Connection(ends[0], ends[1], [choice, answer])


@contextmanager
def both_closed(connection: Connection) -> Iterator[Connection]:
    with connection.near, connection.far:
        yield connection


@asynccontextmanager
async def joined(
    pair: VethPair, asking: Congestion, answering: Congestion
) -> AsyncIterator[tuple[NativeLink, NativeLink]]:
    """Two engines and a link of some streams over the wire."""
    keys = {
        name: os.urandom(size) for name, size in (("link_id", 16), ("secret", 32), ("context", 32))
    }
    async with trio.open_nursery() as nursery:
        engines = [await NativeEngine.open(nursery, threads=1) for _ in range(2)]
        near, far = (
            engine.open_link(
                peer=peer,
                initiator=peer == "far",
                encrypt=True,
                max_chunk_bytes=CHUNK,
                send_window=WINDOW,
                receive_window=WINDOW,
                **keys,
            )
            for engine, peer in zip(engines, ("far", "near"), strict=True)
        )
        for number in range(1, STREAMS + 1):
            made = await connect(pair, asking, answering)
            assert (made.asking.got, made.answering.got) == ("dctcp", "dctcp")
            near.add_dialled(made.near, number)
            far.add_accepted(made.far, await read_hello(made.far))
        try:
            yield near, far
        finally:
            with trio.CancelScope(shield=True):
                for end in (near, far):
                    end.end(LinkLostError("the test is over"))
                    await end.aclose()
                for engine in engines:
                    await engine.aclose()
            nursery.cancel_scope.cancel()


async def read_hello(sock: socket.socket) -> bytes:
    hello = b""
    with trio.fail_after(PATIENCE):
        while len(hello) < HELLO_BYTES:
            await trio.lowlevel.wait_readable(sock)
            hello += sock.recv(HELLO_BYTES - len(hello))
    return hello


async def exchange(connection: Connection) -> PathMeasure:
    """What the kernel knows of the path after some round trips."""
    for _ in range(EXCHANGES):
        for one, other in (
            (connection.near, connection.far),
            (connection.far, connection.near),
        ):
            one.sendall(b"x")
            with trio.fail_after(PATIENCE):
                await trio.lowlevel.wait_readable(other)
            assert other.recv(1) == b"x"
    found = tcp.info(connection.near.fileno())
    return PathMeasure(
        peer="far",
        rtt_us=found.rtt_us,
        min_rtt_us=found.min_rtt_us,
        jitter_us=found.rttvar_us,
        loss=found.total_retrans / max(found.segments_out, 1),
        ecn=found.ecn,
        ce_share=0.0,
        rate_bps=0,
        same_host=False,
        rdma=False,
        samples=EXCHANGES,
        at=1.0,
        segments=found.segments_out,
    )


async def test_dctcp_is_used_on_both_ends_and_its_marks_are_counted(veth_pair: VethPair) -> None:
    content, memory = secrets.token_bytes(SIZE), bytearray(SIZE)
    with marking(veth_pair.left):
        async with joined(veth_pair, datacenter(), datacenter()) as (near, far):
            incoming = far.receive_object(1, 0, Target(SIZE, memory=memory), chunk_bytes=CHUNK)
            outgoing = near.send_object(1, 0, Source(SIZE, memory=content), chunk_bytes=CHUNK)
            with trio.fail_after(PATIENCE):
                await outgoing.wait()
                await incoming.wait()
            sending, receiving = near.streams(), far.streams()
            await outgoing.aclose()
            await incoming.aclose()
    assert memory == content
    for stream in (*sending, *receiving):
        assert stream.congestion == "dctcp"
        assert stream.ecn
    assert sum(stream.delivered_ce for stream in sending) > 0


async def test_a_link_is_paced_over_a_wire_with_delay(veth_pair: VethPair) -> None:
    content, memory = secrets.token_bytes(SIZE), bytearray(SIZE)
    async with joined(veth_pair, datacenter(), datacenter()) as (near, far):
        near.pace(8 << 20)
        with open_netem(veth_pair.left, "delay", "10ms", "limit", "10000"):
            incoming = far.receive_object(1, 0, Target(SIZE, memory=memory), chunk_bytes=CHUNK)
            outgoing = near.send_object(1, 0, Source(SIZE, memory=content), chunk_bytes=CHUNK)
            with trio.fail_after(PATIENCE):
                await outgoing.wait()
                await incoming.wait()
            rates = [stream.pacing_rate for stream in near.streams()]
            for stream in near.streams():
                assert near.use_congestion(stream.id, "cubic") == ""
            names = {stream.congestion for stream in near.streams()}
            await outgoing.aclose()
            await incoming.aclose()
    assert memory == content
    assert max(rates) <= (8 << 20) // STREAMS
    assert names == {"cubic"}


async def test_dctcp_is_refused_over_a_hop_of_twenty_milliseconds(veth_pair: VethPair) -> None:
    unmeasured = datacenter(nothing_measured)
    with (
        open_netem(veth_pair.left, "delay", "20ms"),
        both_closed(await connect(veth_pair, unmeasured, datacenter(nothing_measured))) as made,
    ):
        assert tcp.info(made.near.fileno()).ecn  # it was agreed on, and is not enough
        assert made.asking.wanted == "dctcp"
        assert made.asking.got == tcp.chosen(made.near.fileno()) == "bbr"
        assert "no dctcp over a wide-area hop" in made.asking.why
        assert tcp.chosen(made.far.fileno()) == "bbr"


async def test_dctcp_is_refused_where_the_answering_node_does_not_allow_it(
    veth_pair: VethPair,
) -> None:
    refusing = Congestion("auto", path=near_path)
    with both_closed(await connect(veth_pair, datacenter(), refusing, listens=False)) as made:
        assert not tcp.info(made.near.fileno()).ecn
        assert (made.asking.wanted, made.asking.got) == ("dctcp", "cubic")
        assert made.asking.why == "the other end did not agree on ECN"
        assert made.answering.got == "cubic"


async def test_a_path_is_classified_by_its_delay_and_its_losses(veth_pair: VethPair) -> None:
    policy = Policy(dctcp=True)
    plain = Congestion("auto")
    for netem, names in (
        ((), ("datacenter", "mixed")),  # which of the two is a matter of the emulator's speed
        (("delay", "3ms"), ("mixed",)),
        (("delay", "40ms"), ("internet",)),
        (("delay", "4ms", "loss", "20%"), ("mixed",)),
    ):
        wire = open_netem(veth_pair.left, *netem) if netem else nullcontext()
        with wire, both_closed(await connect(veth_pair, plain, plain, listens=False)) as made:
            measure = await exchange(made)
        found = classify(measure, False, policy)
        assert found.name in names, found
        if found.name != "datacenter":
            assert found.congestion == "bbr"
        if "loss" in netem:
            assert measure.loss > 0
