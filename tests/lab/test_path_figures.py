"""What is read of a connection, held against what the relay on its path did."""

from __future__ import annotations

import trio

from bench.lab.relay import WanPath, wan
from novacron._native import tcp
from novacron.dwcp.acp.sampling import _of_session
from novacron.dwcp.acp.window.core import Counters, PathWindow
from novacron.environment.path import PathMeasure
from tests.lab.privilege import needs_lab
from tests.lab.traffic import SocketPair, connect, drain

pytestmark = needs_lab

SIZE = 4_000_000
DEADLINE = 60.0


class Ended:
    """Stands for the session whose connection is looked at."""

    opened_at = 0.0


def counters(near: trio.socket.SocketType) -> Counters:
    found = _of_session(Ended(), tcp.info(near.fileno()))  # type: ignore[arg-type]
    assert found is not None
    return found


async def measured(path: WanPath, size: int = SIZE) -> PathMeasure:
    """Of one TCP connection that carries *size* bytes from a to b, looked at ten times."""
    window = PathWindow(10)
    with trio.fail_after(DEADLINE):
        near, far = await connect(path.a, path.b, path.address_b)
        with near, far:
            for _ in range(10):
                await carry((near, far), size // 10)
                window.note(trio.current_time(), trips=[], session=None, streams=[counters(near)])
    return window.measure("peer", same_host=False, rdma=False)


async def carry(ends: SocketPair, size: int) -> None:
    near, far = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, far, size)
        left = memoryview(bytes(size))
        while left:
            left = left[await near.send(left) :]


async def test_lost_segments_are_those_that_the_path_lost() -> None:
    with wan(delay_ms=1, loss=0.02, congestion="bbr") as path:
        found = await measured(path)
        ab = path.relay.statistics().ab
        lost = ab.drops.loss + ab.drops.queue
    assert lost > 20
    # Every packet lost is sent again, and little else is: a tail's probe, now and then.
    assert lost / 2 <= found.loss * found.segments <= lost * 2
    assert found.min_rtt_us >= 2_000


async def test_a_clean_path_loses_nothing_and_says_how_many_segments_that_is_of() -> None:
    with wan(delay_ms=1) as path:
        found = await measured(path)
    assert found.loss == 0.0
    assert found.segments >= SIZE // 1500
    assert not found.ecn
    assert found.ce_share == 0.0


async def test_reordering_is_not_called_loss() -> None:
    with wan(delay_ms=2, reorder=0.02, reorder_ms=8) as path:
        found = await measured(path)
        held = path.relay.statistics().ab.held_back
    assert held > 20
    assert found.loss * found.segments < held / 2


async def test_marks_of_a_queue_are_counted_where_both_ends_agreed_on_them() -> None:
    with wan(delay_ms=2, rate_bps=50e6, queue_bytes=4_000_000, ecn_bytes=20_000) as path:
        for end in (path.a, path.b):
            end.sysctl({"net.ipv4.tcp_ecn": 1})
        found = await measured(path)
        marked = path.relay.statistics().ab.ce_marked
    assert found.ecn
    assert marked > 20
    assert 0 < found.ce_share <= 1


async def test_the_rate_is_what_the_path_carries() -> None:
    rate = 80e6
    with wan(delay_ms=2, rate_bps=rate) as path:
        found = await measured(path, 2 * SIZE)
    assert found.rates > 0
    # Bytes of payload a second; a sample over less than a round trip may show some more.
    assert rate / 8 / 2 <= found.rate_bps <= rate / 8 * 2
