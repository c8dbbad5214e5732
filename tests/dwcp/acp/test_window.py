"""Figures of a path from its samples, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.acp.window.core import (
    BUSY_SEGMENTS,
    COUNT_SECONDS,
    JITTER_SECONDS,
    MOST_CONNECTIONS,
    MOST_ROUNDS,
    RATE_SECONDS,
    YOUNG_SECONDS,
    Counters,
    PathWindow,
)
from novacron.environment.path import PathMeasure

NONE = Counters(
    key="session",
    rtt_us=0,
    rttvar_us=0,
    min_rtt_us=0,
    segments=0,
    lost=0,
    delivered=0,
    delivered_ce=0,
    ecn=False,
    rate_bps=0,
    limited=True,
)


def counters(key: str = "session", **fields: Any) -> Counters:
    return NONE._replace(key=key, **fields)


def stream(key: str, **fields: Any) -> Counters:
    return NONE._replace(**{"key": key, "limited": False, **fields})


def measured(window: PathWindow, **options: Any) -> PathMeasure:
    return window.measure("peer", same_host=False, rdma=False, **options)


def pings(window: PathWindow, now: float, *trips_us: float, **options: Any) -> bool:
    return window.note(
        now, trips_us=trips_us, session=options.get("session"), streams=options.get("streams", ())
    )


def test_nothing_sampled_is_nothing_measured() -> None:
    window = PathWindow(10)
    assert not pings(window, 1.0)
    found = measured(window)
    assert not found.measured
    assert (found.samples, found.segments, found.rates) == (0, 0, 0)
    assert (found.rtt_us, found.min_rtt_us, found.jitter_us, found.loss) == (0, 0, 0, 0)


def test_pings_alone_give_round_trip_minimum_and_mean_deviation() -> None:
    window = PathWindow(10)
    assert pings(window, 1.0, 100.0)
    assert pings(window, 2.0, 200.0, 300.0)
    found = measured(window)
    # 100; then 100 + (200 - 100) / 4 = 125; then 125 + (300 - 125) / 4
    assert found.rtt_us == pytest.approx(168.75)
    assert found.min_rtt_us == 100.0
    assert found.jitter_us == pytest.approx((100 + 0 + 100) / 3)
    assert (found.samples, found.at) == (3, 2.0)


def test_only_the_newest_samples_count() -> None:
    window = PathWindow(10)
    pings(window, 1.0, *[100.0] * 10)
    pings(window, 2.0, *[60_000.0] * 9)
    assert measured(window).min_rtt_us == 100.0
    pings(window, 3.0, 60_000.0)
    found = measured(window)
    assert (found.min_rtt_us, found.rtt_us, found.samples) == (60_000.0, 60_000.0, 10)


def test_the_kernel_leaves_out_of_a_ping_what_the_event_loops_took() -> None:
    window = PathWindow(10)
    session = counters(rtt_us=50, rttvar_us=5, min_rtt_us=40, delivered=3, segments=3)
    pings(window, 1.0, 900.0, 1_500.0, session=session)
    found = measured(window)
    assert (found.rtt_us, found.jitter_us) == (50.0, 5.0)
    # A ping below what the kernel smoothed is the truer one.
    pings(window, 2.0, 45.0, session=session._replace(delivered=4))
    assert measured(window).min_rtt_us == 40.0


def test_after_a_jump_the_pings_are_believed_until_the_kernel_has_settled() -> None:
    window = PathWindow(4)
    session = counters(rtt_us=100, rttvar_us=10, min_rtt_us=90, delivered=1, segments=1)
    pings(window, 0.0, 1_000.0, session=session)
    # One sample of 60 ms later the kernel says 7.6 ms, and that this is little worth.
    session = session._replace(rtt_us=7_600, rttvar_us=15_000, delivered=2)
    now = YOUNG_SECONDS + 1
    pings(window, now, *[60_100.0] * 4, session=session)
    assert measured(window).min_rtt_us == 60_100.0
    session = session._replace(rtt_us=59_900, rttvar_us=900, delivered=12)
    pings(window, now + 1, *[60_500.0] * 4, session=session)
    found = measured(window)
    assert (found.min_rtt_us, found.jitter_us) == (59_900.0, 900.0)


def test_a_young_connection_is_believed_its_smallest_round_trip() -> None:
    window = PathWindow(10)
    session = counters(rtt_us=1_400, rttvar_us=900, min_rtt_us=30, delivered=5, segments=5)
    pings(window, 1.0, 1_600.0, session=session)
    assert measured(window).min_rtt_us == 30.0
    # Later that minimum may be of a way that is gone.
    pings(window, 1.0 + YOUNG_SECONDS, 1_600.0, session=session._replace(delivered=6))
    assert measured(window).min_rtt_us == 1_600.0


def test_what_the_kernel_said_of_a_connection_that_was_still_since_does_not_count() -> None:
    window = PathWindow(10)
    session = counters(rtt_us=50, rttvar_us=5, min_rtt_us=40, delivered=3, segments=3)
    pings(window, 1.0, 900.0, session=session)
    pings(window, 2.0 + JITTER_SECONDS, 900.0, session=session)
    assert 900.0 in window._trips
    assert measured(window).jitter_us == pytest.approx(425.0)  # of 50 and 900, by themselves


def test_while_data_moves_the_streams_are_the_witnesses() -> None:
    window = PathWindow(10)
    streams = [
        stream("a", rtt_us=200, rttvar_us=20, delivered=1000, segments=1000),
        stream("b", rtt_us=220, rttvar_us=30, delivered=1000, segments=1000),
        stream("c", rtt_us=9_000, rttvar_us=30, delivered=1000, segments=1000),
        stream("idle", rtt_us=1, rttvar_us=1, delivered=BUSY_SEGMENTS - 1, segments=9),
    ]
    pings(window, 1.0, 5_000.0, streams=streams)
    assert window.busy
    found = measured(window)
    assert (found.rtt_us, found.jitter_us, found.samples) == (220.0, 30.0, 1)
    # They rest: pings again.
    assert pings(window, 2.0, 5_000.0, streams=streams)
    assert not window.busy
    assert window.newest_us == 5_000.0


def test_loss_and_marks_are_of_what_was_sent_within_a_minute() -> None:
    window = PathWindow(10)
    first = stream("a", rtt_us=9, segments=1000, lost=50, delivered=900, delivered_ce=90, ecn=True)
    pings(window, 0.0, streams=[first])
    found = measured(window)
    assert (found.loss, found.ce_share, found.segments, found.ecn) == (0.05, 0.1, 1000, True)
    second = first._replace(segments=2000, delivered=1900)
    pings(window, COUNT_SECONDS, streams=[second])
    assert measured(window).loss == 0.025
    pings(window, COUNT_SECONDS + 1, streams=[second])
    found = measured(window)
    assert (found.loss, found.segments, found.ce_share) == (0.0, 1000, 0.0)


def test_what_was_late_and_not_lost_is_taken_back() -> None:
    window = PathWindow(10)
    pings(window, 0.0, streams=[stream("a", rtt_us=9, segments=100, lost=5, delivered=95)])
    pings(window, 1.0, streams=[stream("a", rtt_us=9, segments=200, lost=1, delivered=199)])
    assert measured(window).loss == 0.005


def test_a_stream_that_was_not_looked_at_for_a_while_is_not_counted_again() -> None:
    window = PathWindow(10)
    one, other = stream("a", segments=500, delivered=500), stream("b", segments=70, delivered=70)
    pings(window, 0.0, streams=[one])
    pings(window, 1.0, streams=[other])
    pings(window, 2.0, streams=[one._replace(segments=510), other])
    assert measured(window).segments == 580


def test_a_counter_that_wrapped_is_left_out_for_a_round() -> None:
    window = PathWindow(10)
    one = stream("a", segments=2**32 - 1, delivered=0)
    pings(window, 0.0, streams=[one])
    before = measured(window).segments
    pings(window, 1.0, streams=[one._replace(segments=9)])
    assert measured(window).segments == before
    pings(window, 2.0, streams=[one._replace(segments=19)])
    assert measured(window).segments == before + 10


def test_the_rate_is_the_largest_that_the_path_bounded() -> None:
    window = PathWindow(10)

    def move(now: float, *rates: tuple[int, bool]) -> None:
        delivered = 1000 * (1 + int(now))
        pings(
            window,
            now,
            streams=[
                stream(str(i), rtt_us=9, delivered=delivered, segments=delivered, rate_bps=rate, limited=own)
                for i, (rate, own) in enumerate(rates)
            ],
        )  # fmt: skip

    move(0.0, (900, True), (900, True))
    assert measured(window).rate_bps == 0
    move(1.0, (300, False), (100, False), (7_000, True))
    found = measured(window)
    assert (found.rate_bps, found.rates, found.rate_spread) == (400, 1, 0.0)
    move(2.0, (200, False))
    found = measured(window)
    assert (found.rate_bps, found.rates) == (400, 2)
    assert found.rate_spread == pytest.approx(100 / 300)
    move(3.0 + RATE_SECONDS)
    assert measured(window).rate_bps == 0


rounds = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.lists(st.floats(1, 1e6), max_size=4),
        st.lists(
            st.builds(
                stream,
                st.sampled_from("abcdef"),
                rtt_us=st.integers(0, 10**6),
                rttvar_us=st.integers(0, 10**6),
                segments=st.integers(0, 2**32 - 1),
                lost=st.integers(-5, 2**20),
                delivered=st.integers(0, 2**32 - 1),
                delivered_ce=st.integers(0, 2**32 - 1),
                rate_bps=st.integers(0, 10**11),
                limited=st.booleans(),
            ),
            max_size=6,
            unique_by=lambda each: each.key,
        ),
    ),
    max_size=40,
)


@given(rounds, st.integers(5, 20))
def test_whatever_counters_say_the_figures_are_possible_and_the_window_bounded(
    found: list[tuple[float, list[float], list[Counters]]], samples: int
) -> None:
    window, now = PathWindow(samples), 0.0
    for wait, trips, streams in found:
        now += wait
        pings(window, now, *trips, streams=streams)
        result = measured(window)
        assert 0.0 <= result.loss <= 1.0
        assert 0.0 <= result.ce_share <= 1.0
        assert result.samples <= samples
        assert result.measured == (result.rtt_us > 0)
        assert result.min_rtt_us <= result.rtt_us + 1e-6
        assert result.rates <= MOST_ROUNDS
        assert result.rate_spread >= 0


def test_any_number_of_connections_leaves_a_bounded_memory() -> None:
    window = PathWindow(10)
    for index in range(MOST_CONNECTIONS + 50):
        pings(window, float(index), streams=[stream(str(index), delivered=20, segments=20)])
    assert len(window._last) == MOST_CONNECTIONS
    assert len(window._counts) <= MOST_ROUNDS
