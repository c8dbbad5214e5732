from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.dwcp.acp.queue.core import (
    LEAST_PACE,
    QueueController,
    Sample,
    State,
    target_delay,
)
from tests.dwcp.acp.queue.bottleneck import Path, Sender
from tests.dwcp.acp.queue.driving import INTERVAL, Driver, jain, run

MBIT = 1e6 / 8
DEEP = 4
"""Buffers of so many bandwidth-delay products, as where queues are a nuisance."""


def path_of(mbit: float, least: float, buffers: float = DEEP, **options: float) -> Path:
    rate = mbit * MBIT
    return Path(rate, least, max(buffers * rate * least, 60_000), **options)  # type: ignore[arg-type]


# --- Alone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffers", [1, DEEP])
@pytest.mark.parametrize("least", [0.002, 0.02, 0.08])
@pytest.mark.parametrize("mbit", [10, 100, 1000])
def test_the_round_trip_stays_short_and_the_path_full(
    mbit: float, least: float, buffers: float
) -> None:
    path = path_of(mbit, least, buffers)
    driver = Driver(path)
    run(path, 12, driver)
    assert driver.goodput(3, 12) >= 0.95 * path.rate
    assert driver.round_trip(3, 12) < max(2.0 * least, least + 0.0032)


@settings(max_examples=15, deadline=None)
@given(
    mbit=st.floats(5, 1000),
    least=st.floats(0.002, 0.1),
    buffers=st.floats(1, 8),
    streams=st.integers(1, 32),
    jitter=st.floats(0, 0.2),
)
def test_it_does_so_on_any_path(
    mbit: float, least: float, buffers: float, streams: int, jitter: float
) -> None:
    path = path_of(mbit, least, buffers, jitter=jitter * least)
    driver = Driver(path, streams=streams)
    run(path, 12, driver)
    assert driver.goodput(4, 12) >= 0.9 * path.rate
    assert driver.round_trip(4, 12) < 2.5 * least


def test_a_path_shorter_than_timers_can_tell_is_left_alone() -> None:
    path = path_of(1000, 0.0004)
    driver = Driver(path)
    run(path, 5, driver)
    assert driver.controller.verdict().pace_bps == 0
    assert driver.controller.state is State.START
    assert "not paced" in driver.controller.history[-1].why


def test_without_it_the_same_transfer_fills_the_buffer() -> None:
    path = path_of(100, 0.02)
    driver = Driver(path, fairness="greedy")
    run(path, 12, driver)
    assert driver.round_trip(3, 12) > 2.5 * path.least
    assert driver.controller.verdict().pace_bps == 0


@pytest.mark.parametrize("least", [0.005, 0.02, 0.08])
def test_a_halved_path_is_followed_down_and_up_again(least: float) -> None:
    path = path_of(100, least)
    driver = Driver(path)
    run(path, 6, driver)
    whole = path.rate
    path.rate = whole / 2
    run(path, 5, driver)
    assert driver.round_trip(8, 11) < 2.0 * least
    assert driver.goodput(8, 11) >= 0.9 * path.rate
    assert State.CONTEST not in driver.states
    path.rate = whole
    run(path, 5, driver)
    assert driver.goodput(14, 16) >= 0.9 * whole


def test_the_least_round_trip_is_measured_again_and_a_longer_path_is_believed() -> None:
    path = path_of(100, 0.02)
    driver = Driver(path)
    run(path, 12, driver)
    assert driver.states.count(State.SLOW) == 2
    path.least = 0.04
    run(path, 60, driver)
    assert driver.goodput(55, 72) >= 0.9 * path.rate
    assert driver.controller.least_rtt == pytest.approx(0.04, rel=0.3)


# --- Beside others ------------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [0.0, 5.0])
@pytest.mark.parametrize("least", [0.02, 0.08])
def test_two_transfers_come_to_equal_shares(least: float, starts: float) -> None:
    path = path_of(100, least)
    first, second = Driver(path), Driver(path, starts=starts)
    run(path, starts + 25, first, second)
    begin, end = starts + 15, starts + 25
    shares = first.goodput(begin, end), second.goodput(begin, end)
    assert jain(*shares) >= 0.95
    assert sum(shares) >= 0.9 * path.rate
    assert first.round_trip(begin, end) < 2.5 * least


def test_beside_a_flow_that_fills_the_queue_it_is_one_flow() -> None:
    path = path_of(100, 0.02)
    driver = Driver(path)
    run(path, 5, driver)
    other = Sender(path)
    run(path, 10, driver)
    assert driver.controller.state in (State.CONTEST, State.PROBE)
    verdict = driver.controller.verdict()
    assert verdict.senders == 1
    assert verdict.loss_based
    assert verdict.binding
    before = other.acknowledged
    run(path, 30, driver)
    rate = (other.acknowledged - before) / 30
    assert jain(driver.goodput(15, 45), rate) >= 0.9


def test_it_keeps_its_streams_where_each_counts_as_a_flow() -> None:
    path = path_of(100, 0.02)
    driver = Driver(path, fairness="flow")
    run(path, 5, driver)
    other = Sender(path)
    run(path, 10, driver)
    verdict = driver.controller.verdict()
    assert driver.controller.state in (State.CONTEST, State.PROBE)
    assert verdict.senders == 0
    assert not verdict.loss_based
    assert other.acknowledged > 0


def test_it_holds_the_queue_again_when_the_other_flow_is_gone() -> None:
    path = path_of(100, 0.02)
    driver = Driver(path)
    run(path, 3, driver)
    other = Sender(path)
    run(path, 7, driver)
    assert driver.controller.state is State.CONTEST
    path.senders.remove(other)
    run(path, 25, driver)
    assert driver.controller.state is State.HOLD
    assert driver.round_trip(31, 35) < 2.0 * path.least


# --- By itself ----------------------------------------------------------------------------------


def test_who_sends_less_bears_a_longer_queue_and_none_more_than_a_round_trip() -> None:
    targets = [target_delay(rate, 0.02) for rate in (1e3, 1e5, 1e6, 1e7, 1e8, 1e9, 1e11)]
    assert targets == sorted(targets, reverse=True)
    assert 0 < targets[-1] < targets[0] < 0.02
    assert target_delay(1e7, 0.0001) > 0.0001  # what timers do anyway is no queue


def test_a_rest_makes_it_find_the_rate_anew() -> None:
    path = path_of(100, 0.02)
    driver = Driver(path)
    run(path, 3, driver)
    assert driver.controller.state is State.HOLD
    driver.controller.rest()
    assert driver.controller.state is State.START
    assert driver.controller.verdict().pace_bps == 0


@settings(max_examples=100, deadline=None)
@given(
    fairness=st.sampled_from(["transfer", "flow", "greedy"]),
    samples=st.lists(
        st.builds(
            Sample,
            seconds=st.floats(0, 2),
            delivered_bytes=st.integers(0, 10**9),
            smoothed_rtt=st.sampled_from([0.0, 1e-5, 0.001, 0.02, 0.3, 20.0]),
            least_rtt=st.sampled_from([0.0, 1e-5, 0.001, 0.02]),
        ),
        max_size=200,
    ),
)
def test_whatever_is_measured_the_verdict_is_one(fairness: str, samples: list[Sample]) -> None:
    controller = QueueController(fairness)
    for sample in samples:
        verdict = controller.observe(sample)
        assert verdict.pace_bps == 0 or verdict.pace_bps >= LEAST_PACE
        assert verdict.senders in (0, 1)
        assert verdict.loss_based or not verdict.regain
    assert len(controller.history) <= 32
    if fairness == "greedy":
        assert controller.state is State.OFF


def test_an_interval_is_what_a_node_takes() -> None:
    from novacron.dwcp.acp import steering

    assert steering.INTERVAL == INTERVAL
