from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst.rates import WINDOW_SECONDS, Bucket, Meter, eta_seconds, shares


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter()
    assert meter.rate(0.0) == 0.0
    for tenth in range(200):
        now = tenth / 10
        meter.note(now, int(1000 * min(now, 10.0)))  # 1000 a second, and nothing after ten
        if tenth == 90:
            assert meter.rate(now) == pytest.approx(1000, rel=0.01)
    assert meter.rate(19.9) == 0.0


def test_a_stall_shows_also_without_new_samples() -> None:
    meter = Meter()
    meter.note(0.0, 0)
    meter.note(1.0, 1000)
    assert meter.rate(1.0) == 1000
    assert meter.rate(10.0) == 100


def test_a_count_that_begins_anew_is_no_negative_rate() -> None:
    meter = Meter()
    meter.note(0.0, 5000)
    meter.note(1.0, 10)
    assert meter.rate(1.0) == 0.0


def test_a_meter_keeps_no_more_than_its_window() -> None:
    meter = Meter()
    for step in range(1000):
        meter.note(step * 0.5, step)
    assert len(meter._samples) <= WINDOW_SECONDS / 0.5 + 2


def test_nobody_can_tell_how_long_what_stands_still_takes() -> None:
    assert eta_seconds(100, 0.0) is None
    assert eta_seconds(0, 0.0) == 0.0
    assert eta_seconds(100, 50.0) == 2.0


@given(
    st.floats(1, 1e9),
    st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 10)), min_size=1, max_size=50),
)
def test_a_bucket_never_lets_more_through_than_its_rate(
    rate: float, takes: list[tuple[int, float]]
) -> None:
    """Who waits as long as it says keeps to the rate, but for the burst and one last piece."""
    bucket = Bucket(rate, 0.0)
    now = used = 0.0
    for amount, pause in takes:
        now += pause
        now += bucket.take(amount, now)
        assert used <= rate * (now + 0.051) + 1e-3 * (1 + used)
        used += amount


def test_a_bucket_without_a_rate_lets_everything_through() -> None:
    bucket = Bucket(0.0, 0.0)
    assert bucket.take(10**12, 0.0) == 0.0
    bucket.change(100.0, 0.0)
    bucket.take(1000, 1.0)
    assert bucket.take(1, 1.0) > 9
    bucket.change(0.0, 1.0)
    assert bucket.take(10**12, 1.0) == 0.0


@given(st.integers(1, 10**12), st.integers(0, 1000), st.booleans())
def test_shares_keep_to_the_limit_together(limit: int, large: int, small: bool) -> None:
    part = shares(limit, large, small)
    assert part >= 1
    assert part * (large + small) <= max(limit, large + small)


def test_no_limit_is_shared_as_none() -> None:
    assert shares(0, 5, True) == 0
