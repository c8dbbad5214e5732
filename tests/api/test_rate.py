from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from novacron.api.rate import Buckets, address_key


def test_a_burst_passes_and_the_next_call_is_told_when_to_come_back() -> None:
    buckets = Buckets(rate=2.0, burst=3)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a", 0.0) == 0.5
    assert buckets.take("a", 0.5) == 0.0
    assert buckets.take("a", 0.5) == 0.5


def test_callers_do_not_share_a_bucket() -> None:
    buckets = Buckets(rate=1.0, burst=1)
    assert buckets.take("a", 0.0) == 0.0
    assert buckets.take("b", 0.0) == 0.0
    assert buckets.take("a", 0.0) > 0.0


@given(
    st.floats(0.1, 1000),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 20)), max_size=50),
)
def test_never_more_passes_than_the_rate_and_one_burst(
    rate: float, burst: int, calls: list[tuple[float, float]]
) -> None:
    buckets = Buckets(rate, burst)
    now = passed = 0.0
    for pause, cost in calls:
        now += pause
        if buckets.take("a", now, cost) == 0.0:
            passed += min(cost, burst)
    assert passed <= burst + rate * now + 1e-6 * (1 + rate * now)


@given(st.floats(0.1, 1000), st.integers(1, 100), st.floats(0.1, 200))
def test_whoever_waits_as_long_as_told_passes(rate: float, burst: int, cost: float) -> None:
    buckets = Buckets(rate, burst)
    now = 0.0
    while (wait := buckets.take("a", now, cost)) == 0.0:
        pass
    assert math.isfinite(wait)
    assert buckets.take("a", now + wait * (1 + 1e-9) + 1e-9, cost) == 0.0


def test_the_table_of_buckets_is_bounded_and_forgets_the_quietest() -> None:
    buckets = Buckets(rate=1.0, burst=1, capacity=2)
    buckets.take("a", 0.0)
    buckets.take("b", 0.0)
    buckets.take("a", 0.1)
    buckets.take("c", 0.1)
    assert len(buckets) == 2
    assert buckets.take("a", 0.1) > 0.0, "the busy one is remembered"
    assert buckets.take("b", 0.1) == 0.0


def test_new_limits_apply_to_what_callers_have_saved() -> None:
    buckets = Buckets(rate=1.0, burst=100)
    buckets.take("a", 0.0)
    buckets.adjust(rate=1.0, burst=2)
    assert [buckets.take("a", 0.0) > 0 for _ in range(3)] == [False, False, True]


def test_an_ipv6_client_is_known_by_its_network() -> None:
    assert address_key("2001:db8:1:2:3::4") == address_key("2001:db8:1:2:ffff::1")
    assert address_key("2001:db8:1:2::1") != address_key("2001:db8:1:3::1")
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1")
    assert address_key("fe80::1%eth0") == address_key("fe80::2")
