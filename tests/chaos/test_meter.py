"""The meter sees what stalls a loop."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from tests.chaos.meter import Instrument, Meter

STALL = 0.1


def measured(path: Path, stall: float) -> Meter:
    meter = Meter(path)

    async def stalls() -> None:
        await trio.sleep(0.01)
        time.sleep(stall)  # noqa: ASYNC251  (this is what is to be seen)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stalls)
            nursery.start_soon(trio.sleep, 0.05)

    trio.run(main, instruments=[Instrument(path)])
    return meter


def test_a_task_that_blocks_is_seen_with_its_name(tmp_path: Path) -> None:
    meter = measured(tmp_path / "meter", STALL)
    worst = meter.worst()
    assert worst.step >= STALL
    assert "stalls" in worst.task
    assert worst.steps > 2
    meter.close()


def test_a_reset_forgets(tmp_path: Path) -> None:
    meter = measured(tmp_path / "meter", STALL)
    meter.reset()
    assert meter.worst() == (0.0, 0.0, "", 0)
    meter.close()
