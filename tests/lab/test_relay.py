"""The relay delays, loses, reorders, caps, marks, polices and kills as it is told, and counts it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio

from bench import iperf3
from bench.lab.netns import LabError
from bench.lab.relay import FlowState, Relay, Settings, WanPath, binary, join, wan
from tests.lab.privilege import needs_lab
from tests.lab.traffic import arrives, connect, datagrams, drain, flood

DEADLINE = 30.0
COUNT = 400
ECT = 2
CE = 3

pytestmark = needs_lab


async def settled(relay: Relay, packets: int) -> None:
    """Wait until so many packets have come from a, and each has left or is lost."""
    while True:
        ab = relay.statistics().ab
        drops = ab.drops
        lost = drops.loss + drops.queue + drops.police + drops.pool + drops.device
        if ab.packets_in == packets == ab.packets_out + lost:
            return
        await trio.sleep(0.005)


async def sent(path: WanPath, count: int = COUNT, *, size: int = 4, tos: int = 0) -> list[Any]:
    """Number and ECN bits of what arrives at b of *count* datagrams, in that order."""
    with datagrams(path.a, path.b, path.address_a, path.address_b) as ends:
        ends.a.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        ends.send_numbers(count, size)
        with trio.fail_after(DEADLINE):
            await settled(path.relay, count)
        return ends.numbers_at_b()


async def numbers(**settings: Any) -> tuple[list[int], Any]:
    with wan(**settings) as path:
        return [number for number, _ in await sent(path)], path.relay.statistics().ab


def test_the_program_is_compiled_once() -> None:
    program = binary()
    before = program.stat()
    assert binary() == program
    assert program.stat() == before


async def test_a_round_trip_takes_both_delays_and_little_more() -> None:
    shortest = []
    for there, back in ((10, 10), (40, 20)):
        with (
            wan(delay_ms=there, back=Settings(delay_ms=back)) as path,
            datagrams(path.a, path.b, path.address_a, path.address_b) as ends,
        ):
            near, far = map(trio.socket.from_stdlib_socket, (ends.a.dup(), ends.b.dup()))
            took = []
            with near, far, trio.fail_after(DEADLINE):
                for _ in range(5):
                    began = trio.current_time()
                    await near.send(b"ping")
                    await far.send(await far.recv(10))
                    await near.recv(10)
                    took.append(trio.current_time() - began)
            shortest.append(min(took) / ((there + back) / 1000))
    assert all(1.0 <= ratio < 2.0 for ratio in shortest), shortest


async def test_without_settings_everything_arrives_in_order_both_ways() -> None:
    arrived, ab = await numbers()
    assert arrived == list(range(COUNT))
    assert (ab.packets_in, ab.packets_out, ab.held_back, ab.ce_marked) == (COUNT, COUNT, 0, 0)
    assert not any(getattr(ab.drops, name) for name in ab.drops.__slots__)


async def test_the_same_seed_loses_the_same_packets_and_another_one_others() -> None:
    first, ab = await numbers(loss=0.2, seed=7)
    again, _ = await numbers(loss=0.2, seed=7, jitter_ms=1, reorder=0.1, reorder_ms=1, delay_ms=2)
    other, _ = await numbers(loss=0.2, seed=8)
    assert ab.drops.loss == COUNT - len(first)
    assert first == sorted(again), "jitter and reordering draw from other streams of chance"
    assert first != other
    assert 0.1 < ab.drops.loss / COUNT < 0.3


async def test_loss_one_way_leaves_the_other_way_alone() -> None:
    with wan(loss=1.0, back=Settings()) as path:
        assert await sent(path) == []
        with datagrams(path.a, path.b, path.address_a, path.address_b) as ends:
            far, near = ends.b, trio.socket.from_stdlib_socket(ends.a.dup())
            with near, trio.fail_after(DEADLINE):
                far.send(b"back")
                assert await near.recv(10) == b"back"


async def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    jittered, _ = await numbers(delay_ms=5, jitter_ms=5)
    assert jittered == list(range(COUNT))
    reordered, ab = await numbers(delay_ms=1, reorder=0.1, reorder_ms=20)
    assert sorted(reordered) == list(range(COUNT))
    assert reordered != sorted(reordered)
    assert 0.02 < ab.held_back / COUNT < 0.2
    held = {number for number in range(1, COUNT) if reordered.index(number) > number}
    assert len(held) <= ab.held_back


async def test_what_exceeds_the_cap_waits_up_to_the_limit_and_is_dropped_above_it() -> None:
    with wan(rate_bps=20e6, queue_bytes=100_000) as path:
        arrived = await sent(path, size=1400)
        ab = path.relay.statistics().ab
    packet = 1400 + 28
    assert ab.drops.queue == COUNT - len(arrived) > 0
    assert 100_000 - packet < ab.queue_peak_bytes <= 100_000
    full_ms = 100_000 * 8 / 20e6 * 1000
    assert 0.5 < ab.queue_peak_ms / full_ms <= 1.0
    assert 0.1 < ab.queue_mean_ms / full_ms < 1.0


@pytest.mark.parametrize(("tos", "marked"), [(ECT, True), (0, False)])
async def test_a_long_queue_marks_packets_of_capable_senders_only(tos: int, marked: bool) -> None:
    with wan(rate_bps=50e6, queue_bytes=1 << 20, ecn_bytes=30_000) as path:
        arrived = await sent(path, 100, size=1400, tos=tos)
        ab = path.relay.statistics().ab
    assert len(arrived) == 100, "the marked header's checksum holds"
    assert [bits == CE for _, bits in arrived].count(True) == ab.ce_marked
    assert (0 < ab.ce_marked < 100) is marked
    assert arrived[0] == (0, tos)


async def test_settings_change_while_packets_flow_and_counters_begin_anew() -> None:
    with wan(loss=1.0) as path:
        assert await sent(path, 10) == []
        path.relay.change("ab", loss=0.0)
        path.relay.clear()
        assert len(await sent(path, 10)) == 10
        assert path.relay.statistics().ab.drops.loss == 0
        assert path.relay.settings == {"ab": Settings(), "ba": Settings(loss=1.0)}


async def test_a_policed_flow_gets_a_fraction_of_what_the_free_one_gets() -> None:
    with wan(rate_bps=200e6, delay_ms=2) as path:
        path.relay.police(2e6, flows="2")
        with trio.fail_after(DEADLINE):
            free = await connect(path.a, path.b, path.address_b)
            policed = await connect(path.a, path.b, path.address_b)
            listening = free[0].getpeername()
            async with trio.open_nursery() as nursery:
                for near, far in (free, policed):
                    nursery.start_soon(flood, near)
                    if near is policed[0]:
                        nursery.start_soon(drain, far, 1 << 30)
                await drain(free[1], 8 << 20)
                nursery.cancel_scope.cancel()
        first, second = path.relay.flows()
        for end in (*free, *policed):
            end.close()
    assert (first.police_bps, second.police_bps) == (None, 2e6)
    assert first.ab.bytes > 4 * second.ab.bytes > 0
    assert second.ab.policed > 0 == first.ab.policed
    assert first.ab.address == path.address_a
    assert (first.ba.address, first.ba.port) == listening


async def test_a_reset_flow_ends_at_both_ends_in_mid_transfer_and_the_other_goes_on() -> None:
    with wan(rate_bps=50e6, delay_ms=10) as path, trio.fail_after(DEADLINE):
        near, far = await connect(path.a, path.b, path.address_b)
        other = await connect(path.a, path.b, path.address_b)
        async with trio.open_nursery() as nursery:
            refused: list[type[BaseException]] = []

            async def until_refused(step: Callable[[], Any]) -> None:
                try:
                    await step()
                except OSError as exc:
                    refused.append(type(exc))

            nursery.start_soon(until_refused, lambda: flood(near))
            await drain(far, 1 << 20)
            path.relay.set_flow(1, FlowState.RESET)
            nursery.start_soon(until_refused, lambda: drain(far, 1 << 40))
        assert set(refused) <= {ConnectionResetError, BrokenPipeError}
        assert len(refused) == 2
        assert await arrives(*other)
        assert [flow.state for flow in path.relay.flows()] == [FlowState.RESET, FlowState.OPEN]
        for end in (near, far, *other):
            end.close()


async def test_a_black_holed_flow_is_silent_until_it_is_opened_again() -> None:
    with wan() as path, trio.fail_after(DEADLINE):
        near, far = await connect(path.a, path.b, path.address_b)
        other = await connect(path.a, path.b, path.address_b)
        path.relay.set_flow(1, FlowState.BLACKHOLE)
        assert not await arrives(near, far)
        assert await arrives(*other)
        assert path.relay.statistics().ab.drops.flow > 0
        path.relay.set_flow(1, FlowState.OPEN)
        assert await far.recv(1)
        for end in (near, far, *other):
            end.close()


async def test_what_a_relay_that_is_not_there_misses_is_counted() -> None:
    with (
        wan() as path,
        datagrams(path.a, path.b, path.address_a, path.address_b) as ends,
    ):
        assert path.missed() == (0, 0)
        os.kill(path.relay.pid, signal.SIGSTOP)
        ends.send_numbers(25_000)
        os.kill(path.relay.pid, signal.SIGCONT)
        missed, _ = path.missed()
        assert 0 < missed < 25_000
        with trio.fail_after(DEADLINE):
            await settled(path.relay, 25_000 - missed)


async def test_two_relays_between_the_same_namespaces_are_two_paths() -> None:
    with wan() as first, trio.fail_after(DEADLINE):
        second = join(first.lab, first.a, first.b, Settings(), device="wan1")
        over_first = await connect(first.a, first.b, first.address_b)
        over_second = await connect(first.a, first.b, second.address_b)
        second.relay.change(loss=1.0)
        assert await arrives(*over_first)
        assert not await arrives(*over_second)
        second.relay.change(loss=0.0)
        assert await over_second[1].recv(1)
        assert second.relay.statistics().flows == 1
        for end in (*over_first, *over_second):
            end.close()


def test_what_makes_no_sense_is_refused_and_changes_nothing() -> None:
    with wan() as path:
        relay = path.relay
        for refused in (
            lambda: relay.change(loss=1.5),
            lambda: relay.change("ab", delay_ms=-1),
            lambda: relay.police(1e6, flows="0"),
            lambda: relay.police(1e6, burst_bytes=100),
            lambda: relay.police(1e6, flows="3-2"),
            lambda: relay.police(1e6, flows="first"),
            lambda: relay.set_flow(1, FlowState.RESET),
        ):
            with pytest.raises(LabError, match="refused"):
                refused()
        assert relay.settings == {"ab": Settings(), "ba": Settings()}
        relay.police(1e6, flows=",".join("1" * 64))
        with pytest.raises(LabError, match="too many rules"):
            relay.police(1e6, flows="1")
        relay.police_none()
        relay.police(1e6, flows="1")


def test_a_relay_that_has_ended_says_so_and_leaves_nothing(no_leaks: None) -> None:
    with wan() as path:
        path.relay.close()
        with pytest.raises(LabError, match="has ended"):
            path.relay.statistics()
    with wan() as path:
        assert "wan0" not in path.lab.namespace("c").run(["ip", "-br", "link"])
        with pytest.raises(LabError, match="has ended"):
            Relay(path.a, path.b)  # the device's name is taken


def test_iperf3_gets_through_what_the_cap_allows_with_the_algorithm_of_the_path() -> None:
    with wan(rate_bps=100e6, delay_ms=1, congestion="reno") as path:
        result = iperf3.measure(
            2,
            total_bytes=4 << 20,
            address=path.address_b,
            client_prefix=path.a.command([]),
            server_prefix=path.b.command([]),
        )
        assert path.relay.statistics().flows == 3, "its control connection and two streams"
    assert 0.02 < result.gbps <= 0.1
    assert 1 << 20 < result.received_bytes <= 4 << 20, "what was still under way is not counted"
    assert result.congestion == "reno"
