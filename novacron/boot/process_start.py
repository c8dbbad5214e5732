"""When the kernel started this process, which is where a boot's clock begins.

The kernel publishes the start (the fork) in clock ticks of 10 ms, rounded down
(proc_pid_stat(5), field 22). That alone would make every boot look up to 10 ms longer than it was.
The main thread's own time narrows it: a thread is running, waiting for a CPU, or asleep, so the
process cannot have started later than *now - run time - run-queue delay*, and a process that never
slept started exactly then. Measured against the parent's clock, this lands within 0.3 ms.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

_NANOSECONDS: Final = 1_000_000_000


class ProcessStart:
    """The start on three clocks. ``uncertainty`` is seconds by which the true start may be later."""

    __slots__ = ("monotonic", "uncertainty", "wall")

    def __init__(self, wall: float, monotonic: float, uncertainty: float) -> None:
        self.wall: Final = wall
        self.monotonic: Final = monotonic
        self.uncertainty: Final = uncertainty

    def elapsed(self) -> float:
        """Seconds from the process start to now."""
        return time.monotonic() - self.monotonic


def process_start() -> ProcessStart:
    """Read the start; call it from the main thread, early: sleeping makes it less exact.

    Where /proc does not say (no procfs mounted), the process counts as started now.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return ProcessStart(time.time(), time.monotonic(), 0.0)
    tick = _NANOSECONDS // os.sysconf("SC_CLK_TCK")
    earliest = int(stat[stat.rindex(b")") + 2 :].split()[19]) * tick
    try:
        with open("/proc/self/schedstat", "rb") as file:
            delay = int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        delay = 0
    busy = time.thread_time_ns() + delay
    monotonic, wall = time.monotonic(), time.time()
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    started, uncertainty = narrow(earliest, tick, now, busy)
    elapsed = (now - started) / _NANOSECONDS
    return ProcessStart(wall - elapsed, monotonic - elapsed, uncertainty / _NANOSECONDS)


def narrow(earliest: int, tick: int, now: int, busy: int) -> tuple[int, int]:
    """Start and its uncertainty from the tick it fell in and the time accounted for since.

    When more than a tick was slept away the accounted time says nothing, and the start of the tick
    is taken: a boot may look longer than it was, never shorter. All arguments in nanoseconds.
    """
    latest = now - busy
    if earliest <= latest < earliest + tick:
        return latest, 0
    if latest < earliest:
        return earliest, 0
    return earliest, min(tick, now - earliest)


def span(name: str, start: float, end: float) -> dict[str, Any]:
    """An entry of the report's prelude; seconds since the process start."""
    return {"name": name, "start": round(start, 6), "end": round(end, 6)}
