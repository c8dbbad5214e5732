"""When a start is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.boot.retry import Backoff, RetryPolicy

MIDDLE = 0.5  # the random number that makes no jitter


def backoff(policy: RetryPolicy | None = None, random: float = MIDDLE) -> Backoff:
    return Backoff(policy or RetryPolicy(), lambda: random)


def test_the_delays_are_one_two_and_four_seconds() -> None:
    assert RetryPolicy().schedule() == [1.0, 2.0, 4.0]
    timing = backoff()
    assert [timing.next_delay(0.0) for _ in range(3)] == [1.0, 2.0, 4.0]


def test_one_attempt_has_no_delays() -> None:
    assert RetryPolicy(attempts=1).schedule() == []


@given(
    random=st.floats(0, 1, exclude_max=True),
    jitter=st.floats(0, 1),
    failures=st.integers(1, 100),
)
def test_jitter_stays_within_its_fraction_of_the_nominal_delay(
    random: float, jitter: float, failures: int
) -> None:
    policy = RetryPolicy(jitter=jitter)
    timing = backoff(policy, random)
    timing.failures = failures - 1
    delay = timing.next_delay(0.0)
    nominal = policy.nominal(failures)

    assert nominal * (1 - jitter) - 1e-9 <= delay <= nominal * (1 + jitter) + 1e-9
    assert delay >= 0


@pytest.mark.parametrize(("random", "expected"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_ten_percent_either_way_by_default(random: float, expected: float) -> None:
    assert backoff(random=random).next_delay(0.0) == pytest.approx(expected)


@given(
    st.integers(1, 10**6),
    st.floats(0.001, 100),
    st.floats(1, 10),
    st.floats(0.001, 1000),
)
def test_no_nominal_delay_passes_the_cap_however_many_failures(
    failures: int, delay: float, factor: float, cap: float
) -> None:
    policy = RetryPolicy(delay=delay, factor=factor, max_delay=cap)

    assert 0 < policy.nominal(failures) <= cap
    assert policy.nominal(failures) <= policy.nominal(failures + 1)


def test_after_sixty_seconds_of_healthy_running_the_delay_is_the_first_again() -> None:
    timing = backoff()
    assert [timing.next_delay(0.0), timing.next_delay(1.0)] == [1.0, 2.0]
    timing.note_ready(10.0)

    assert timing.next_delay(70.0) == 1.0
    assert timing.failures == 1


def test_a_failure_before_that_goes_on_where_the_delays_were() -> None:
    timing = backoff()
    timing.next_delay(0.0)
    timing.note_ready(10.0)
    assert timing.next_delay(69.9) == 2.0
    # And the time before the newest failure counts for nothing.
    assert timing.next_delay(200.0) == 4.0


def test_the_budget_is_used_up_with_the_last_attempt_and_restored_by_health() -> None:
    timing = backoff()
    used_up = []
    for _ in range(4):
        timing.next_delay(0.0)
        used_up.append(timing.exhausted)
    assert used_up == [False, False, False, True]
    timing.note_ready(0.0)
    timing.next_delay(60.0)

    assert not timing.exhausted
