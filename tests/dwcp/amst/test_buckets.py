from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst.buckets import TokenBucket


def test_without_a_limit_nothing_waits() -> None:
    bucket = TokenBucket(0, 0.0)
    bucket.take(1 << 40)
    assert bucket.wait(0.0) == 0


def test_what_is_larger_than_the_rate_passes_and_the_next_waits_the_longer() -> None:
    bucket = TokenBucket(1000, 0.0)
    assert bucket.wait(0.0) == 0
    bucket.take(5000)
    assert bucket.wait(0.0) == 5
    assert bucket.wait(4.0) == 1
    assert bucket.wait(5.0) == 0


def test_what_did_not_pass_after_all_is_given_back() -> None:
    bucket = TokenBucket(1000, 0.0)
    bucket.take(5000)
    bucket.take(-5000)
    assert bucket.wait(0.0) == 0


def test_a_debt_of_a_high_rate_is_not_paid_off_at_a_low_one() -> None:
    bucket = TokenBucket(1_000_000, 0.0)
    bucket.take(5_000_000)
    bucket.change(10, 0.0)
    assert bucket.wait(0.0) == 0
    bucket.take(10)
    assert bucket.wait(0.0) == 1


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10**7)), min_size=1, max_size=60),
)
def test_over_time_no_more_passes_than_the_rate_and_what_was_saved_up(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(rate, 0.0)
    now, passed, last = 0.0, 0, 0
    for pause, size in steps:
        now += pause
        while wait := bucket.wait(now):
            now += wait
        # All but the last one had to be paid for by now.
        assert passed <= rate * now + rate * 0.1 + 1 + 1e-6 * passed
        bucket.take(size)
        passed, last = passed + size, size
    assert last
