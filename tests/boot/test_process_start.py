from __future__ import annotations

import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from novacron.boot.process_start import narrow, process_start

TICK = 10_000_000


def test_the_start_lies_between_the_clock_readings_around_the_fork() -> None:
    script = (
        "from novacron.boot.process_start import process_start as p; s = p();"
        "print(s.monotonic, s.wall, s.uncertainty)"
    )
    before = time.monotonic(), time.time()
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        after = time.monotonic(), time.time()
        output, _ = child.communicate(timeout=30)
    monotonic, wall, uncertainty = map(float, output.split())
    # One tick of slack: a child that slept before it read its clocks is known to a tick only.
    assert before[0] - 0.011 <= monotonic <= after[0] + 0.001
    assert before[1] - 0.011 <= wall <= after[1] + 0.001
    assert 0.0 <= uncertainty <= 0.01


def test_elapsed_counts_from_the_start() -> None:
    start = process_start()
    assert 0.0 < start.elapsed() <= time.monotonic()


def test_accounted_time_narrows_the_tick() -> None:
    assert narrow(earliest=50 * TICK, tick=TICK, now=51 * TICK, busy=4_000_000) == (
        50 * TICK + 6_000_000,
        0,
    )


def test_after_sleeping_more_than_a_tick_the_start_of_the_tick_counts() -> None:
    assert narrow(earliest=50 * TICK, tick=TICK, now=90 * TICK, busy=4_000_000) == (
        50 * TICK,
        TICK,
    )


@given(
    start=st.integers(TICK, 10**15),
    ran=st.integers(0, 10**12),
    slept=st.integers(0, 10**12),
)
def test_a_boot_never_looks_shorter_than_its_accounted_time_or_by_more_than_a_tick_of_sleep(
    start: int, ran: int, slept: int
) -> None:
    now = start + ran + slept
    found, uncertainty = narrow(start // TICK * TICK, TICK, now, ran)
    assert now - found >= ran
    assert start - TICK < found <= start + min(slept, TICK)
    assert uncertainty <= TICK
