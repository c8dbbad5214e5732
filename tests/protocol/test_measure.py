from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.protocol.measure import (
    LOSS_WINDOW,
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    Jitter,
    Link,
    RoundTrip,
)

SECONDS = st.floats(1e-6, 100)


def test_the_round_trip_follows_rfc_6298_by_hand() -> None:
    trip = RoundTrip()
    trip.sample(0.8)
    assert (trip.smoothed, trip.variation) == (0.8, 0.4)
    assert trip.timeout == pytest.approx(0.8 + 4 * 0.4)
    trip.sample(1.6)
    # RTTVAR = 3/4 * 0.4 + 1/4 * |0.8 - 1.6|, then SRTT = 7/8 * 0.8 + 1/8 * 1.6
    assert trip.variation == pytest.approx(0.5)
    assert trip.smoothed == pytest.approx(0.9)
    assert trip.timeout == pytest.approx(0.9 + 4 * 0.5)
    assert (trip.latest, trip.minimum) == (1.6, 0.8)


@given(st.lists(SECONDS, min_size=1, max_size=50))
def test_the_round_trip_stays_within_its_samples_and_its_time_out_within_its_bounds(
    samples: list[float],
) -> None:
    trip = RoundTrip()
    for sample in samples:
        trip.sample(sample)
    assert trip.smoothed is not None
    assert min(samples) * 0.999999 <= trip.smoothed <= max(samples) * 1.000001
    assert MIN_TIMEOUT <= trip.timeout <= MAX_TIMEOUT


def test_jitter_follows_rfc_3550_by_hand() -> None:
    jitter = Jitter()
    jitter.sample(0.010)
    assert jitter.value is None
    jitter.sample(0.026)
    assert jitter.value == pytest.approx(0.001)
    jitter.sample(0.026)
    assert jitter.value == pytest.approx(0.001 * 15 / 16)


@given(SECONDS, st.integers(2, 50))
def test_a_steady_link_has_no_jitter(seconds: float, count: int) -> None:
    jitter = Jitter()
    for _ in range(count):
        jitter.sample(seconds)
    assert jitter.value == 0


@given(st.lists(st.booleans(), min_size=1, max_size=LOSS_WINDOW * 2))
def test_loss_is_the_unanswered_part_of_the_window(answered: list[bool]) -> None:
    link = Link()
    for sequence, answer in enumerate(answered):
        link.ping_sent(sequence, float(sequence))
        if answer:
            assert link.pong_received(sequence, sequence + 0.25) == 0.25
    window = answered[-LOSS_WINDOW:]
    assert link.loss(len(answered) + MAX_TIMEOUT) == window.count(False) / len(window)


def test_a_ping_is_not_lost_before_its_time_out() -> None:
    link = Link()
    link.ping_sent(0, 10.0)
    assert link.loss(10.0 + MIN_TIMEOUT) is None
    assert link.loss(10.1 + MIN_TIMEOUT) == 1.0
    assert link.pong_received(0, 12.0) == 2.0
    assert link.loss(12.0) == 0.0


def test_an_answer_counts_once_and_only_for_a_ping_of_the_window() -> None:
    link = Link()
    assert link.pong_received(0, 1.0) is None
    link.ping_sent(5, 1.0)
    assert link.pong_received(4, 2.0) is None
    assert link.pong_received(6, 2.0) is None
    assert link.pong_received(5, 2.0) == 1.0
    assert link.pong_received(5, 2.0) is None
    assert link.samples == 1


def test_the_sequence_may_wrap() -> None:
    link = Link()
    link.ping_sent(2**32 - 1, 1.0)
    link.ping_sent(0, 2.0)
    assert link.pong_received(0, 2.5) == 0.5
    assert link.pong_received(2**32 - 1, 2.5) == 1.5


def test_the_clock_offset_is_taken_at_half_way() -> None:
    link = Link()
    link.clock_seen(1_000_000_000, 4_500_000_000, 2_000_000_000)
    assert link.statistics(0.0).clock_offset == pytest.approx(3.0)
    assert link.statistics(0.0).round_trip is None
