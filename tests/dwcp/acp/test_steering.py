"""What steering does to a link, by a clock that jumps."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from novacron.config.schema import AcpSettings, AcpWeights
from novacron.dwcp.acp.steering import IDLE_INTERVAL, INTERVAL, RESTS_AFTER, Steering
from novacron.dwcp.amst.transport import StreamStatistics

RATE = 12_500_000
LEAST_US = 20_000


class Link:
    """Carries what it may, and says what the kernel would."""

    def __init__(self, streams: int = 4) -> None:
        self.mover = "tcp"
        self.sends = True
        self.rtt_us = LEAST_US
        self.rate = RATE
        self.acked = 1
        self.said: list[tuple[Any, ...]] = []
        self.names = ["bbr"] * streams

    def streams(self) -> list[StreamStatistics]:
        self.acked += int(self.rate * INTERVAL)
        return [
            StreamStatistics(
                id=number,
                state="open",
                mover="tcp",
                sent_bytes=0,
                received_bytes=0,
                wire_sent_bytes=0,
                wire_received_bytes=0,
                in_flight_bytes=0,
                rtt_us=self.rtt_us,
                min_rtt_us=LEAST_US,
                acked_bytes=self.acked // len(self.names),
                congestion=name,
            )
            for number, name in enumerate(self.names, 1)
        ]

    def pace(self, bytes_per_second: int) -> None:
        self.said.append(("pace", bytes_per_second))

    def senders(self, most: int) -> None:
        self.said.append(("senders", most))

    def weigh(self, priority: int, weight: int) -> None:
        self.said.append(("weigh", priority, weight))

    def use_congestion(self, stream_id: int, name: str) -> str:
        self.names[stream_id - 1] = name
        return ""


@pytest.fixture
def link() -> Link:
    return Link()


async def passes(steering: Steering, seconds: float) -> None:
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        await trio.sleep(steering.observe())


async def test_weights_are_set_once_for_each_class(
    link: Link, autojump_clock: trio.testing.MockClock
) -> None:
    weights = AcpWeights(state=9, migration=3, bulk=2)
    Steering(link, AcpSettings(weights=weights), off="")
    assert link.said == [("weigh", 1, 9), ("weigh", 2, 3), ("weigh", 3, 2)]


async def test_a_queue_makes_it_pace_and_a_rest_ends_that(
    link: Link, autojump_clock: trio.testing.MockClock
) -> None:
    steering = Steering(link, AcpSettings(), off="")
    await passes(steering, 0.5)
    assert steering.statistics()["state"] == "start"
    assert steering.statistics()["pace_bps"] == 0
    link.rtt_us = 3 * LEAST_US
    await passes(steering, 0.3)
    link.rtt_us = LEAST_US
    await passes(steering, 0.5)
    found = steering.statistics()
    assert found["state"] == "hold"
    assert steering.binding
    assert found["pace_bps"] == pytest.approx(RATE, rel=0.3)
    assert ("pace", found["pace_bps"]) == link.said[-1]
    link.sends = False
    await passes(steering, RESTS_AFTER + 2 * IDLE_INTERVAL)
    assert link.said[-1] == ("pace", 0)
    assert not steering.binding


async def test_beside_others_one_stream_yields_to_loss_until_they_are_gone(
    link: Link, autojump_clock: trio.testing.MockClock
) -> None:
    steering = Steering(link, AcpSettings(), off="")
    link.rtt_us = 2 * LEAST_US
    await passes(steering, 0.5)
    for _ in range(80):  # whatever it yields is taken
        pace = steering.statistics()["pace_bps"]
        link.rate = pace or link.rate
        link.rtt_us = 4 * LEAST_US
        await passes(steering, INTERVAL)
        if steering.statistics()["state"] == "contest":
            break
    found = steering.statistics()
    assert found["state"] == "contest"
    assert found["senders"] == 1
    assert "others fill it" in found["why"]
    assert set(link.names) == {"reno"}
    await passes(steering, 2.5)
    assert set(link.names) == {"cubic"}
    link.rtt_us = LEAST_US
    await passes(steering, 2.0)
    assert steering.statistics()["state"] == "hold"
    assert set(link.names) == {"bbr"}
    assert ("senders", 0) in link.said


@pytest.mark.parametrize(
    ("settings", "off", "mover", "why"),
    [
        (AcpSettings(queue="off"), "", "tcp", "dwcp.acp.queue is off"),
        (AcpSettings(fairness="greedy"), "", "tcp", "dwcp.acp.fairness is greedy"),
        (AcpSettings(), "it is on the same host", "tcp", "it is on the same host"),
        (AcpSettings(), "", "rdma", "RDMA has no queue to pace for"),
    ],
)
async def test_it_says_why_it_does_not_pace(
    link: Link,
    settings: AcpSettings,
    off: str,
    mover: str,
    why: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    link.mover = mover
    steering = Steering(link, settings, off=off)
    link.rtt_us = 10 * LEAST_US
    await passes(steering, 3.0)
    assert steering.statistics()["state"] == "off"
    assert steering.statistics()["why"] == why
    assert not [said for said in link.said if said[0] in ("pace", "senders")]


async def test_many_streams_are_looked_at_half_as_often(
    autojump_clock: trio.testing.MockClock,
) -> None:
    steering = Steering(Link(64), AcpSettings(), off="")
    assert steering.observe() == 2 * INTERVAL
