"""Figures of a path from its samples, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.acp.window.core import (
    BUSY_SEGMENTS,
    COUNT_SECONDS,
    FILLED_SECONDS,
    JITTER_SECONDS,
    MOST_CONNECTIONS,
    MOST_ROUNDS,
    RATE_SECONDS,
    Counters,
    PathWindow,
    Trip,
)
from novacron.environment.path import PathMeasure

NONE = Counters(
    key="session",
    rtt_us=0,
    rttvar_us=0,
    min_rtt_us=0,
    base_rtt_us=0,
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


def pings(
    window: PathWindow,
    now: float,
    *pings_us: float,
    session: Counters | None = None,
    streams: Sequence[Counters] = (),
) -> bool:
    trips = [Trip(each, session) for each in pings_us]
    return window.note(now, trips=trips, session=session, streams=streams)


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


def kernel_after(rtt_us: float, sample_us: float) -> float:
    """The kernel's smoothed round trip with one more sample."""
    return rtt_us + (sample_us - rtt_us) / 8


def session_trips(samples_us: Sequence[float], rtt_us: float = 80_000.0) -> list[Trip]:
    """Pings that event loops add 2 ms to, with what the kernel says after each."""
    found = []
    for index, sample in enumerate(samples_us, 1):
        rtt_us = kernel_after(rtt_us, sample)
        kernel = counters(rtt_us=int(rtt_us), rttvar_us=9_000, min_rtt_us=20, delivered=index)
        found.append(Trip(sample + 2_000, kernel))
    return found


@pytest.mark.parametrize("way_us", [100.0, 60_000.0, 250_000.0])
def test_the_single_round_trip_is_computed_back_from_what_the_kernel_smoothed(
    way_us: float,
) -> None:
    """So a way that has changed shows in ten pings, far away or near, and no event loop with it."""
    window = PathWindow(10)
    trips = session_trips([way_us] * 11)
    window.note(99.0, trips=trips[:1], session=None, streams=())
    window.note(100.0, trips=trips[1:], session=None, streams=())
    found = measured(window)
    # What the kernel says has no fraction of a microsecond, and the sample eightfold that error.
    assert found.min_rtt_us == pytest.approx(way_us, abs=16)
    assert found.rtt_us == pytest.approx(way_us, abs=16)
    assert found.jitter_us < 16


@given(st.lists(st.floats(30, 1e6), min_size=1, max_size=30), st.floats(30, 1e6))
def test_computed_back_each_sample_is_the_one_that_was_there(
    samples: list[float], rtt_us: float
) -> None:
    window = PathWindow(100)
    trips = session_trips(samples, rtt_us)
    window.note(0.0, trips=trips, session=None, streams=())
    for found, sample in zip(list(window._trips)[1:], samples[1:], strict=True):
        assert found == pytest.approx(sample, abs=16)


def test_a_sample_that_cannot_be_told_is_a_ping_that_is_plausible() -> None:
    settled = counters(rtt_us=50, rttvar_us=5, min_rtt_us=40, delivered=3)
    for trips, expected in (
        ([Trip(900.0, None)], 900.0),  # there is no kernel to ask
        ([Trip(900.0, settled)], 70.0),  # the first: 50 and four times the deviation
        ([Trip(60.0, settled)], 60.0),
        ([Trip(9.0, settled), Trip(900.0, settled)], 70.0),  # nothing was acknowledged between
        ([Trip(9.0, settled), Trip(900.0, settled._replace(delivered=99))], 70.0),
        ([Trip(9.0, settled), Trip(900.0, settled._replace(key="new", delivered=4))], 70.0),
    ):
        window = PathWindow(10)
        window.note(100.0, trips=trips, session=None, streams=())
        assert window.newest_us == expected


def test_the_deviation_that_the_kernel_told_long_ago_does_not_count() -> None:
    window = PathWindow(10)
    session = counters(rtt_us=50, rttvar_us=5, min_rtt_us=40, delivered=3)
    pings(window, 1.0, 60.0, 45.0, session=session)
    assert measured(window).jitter_us == 5.0
    pings(window, 2.0 + JITTER_SECONDS, 900.0)
    assert measured(window).jitter_us > 5.0


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


def moving(window: PathWindow, now: float, **fields: Any) -> float:
    """The minimum after a round in which a stream delivered 1000 segments."""
    delivered = 1000 * (1 + int(now))
    found = {"rtt_us": 9_000, "delivered": delivered, "segments": delivered, **fields}
    pings(window, now, streams=[stream("a", **found)])
    return measured(window).min_rtt_us


def test_a_queue_that_this_node_fills_is_no_longer_way_for_half_a_minute() -> None:
    window = PathWindow(2)
    pings(window, 0.0, 300.0)
    assert moving(window, 1.0) == 300.0
    assert moving(window, FILLED_SECONDS) == 300.0
    assert moving(window, FILLED_SECONDS + 1) == 9_000.0
    # It rests, and the pings find out.
    pings(window, FILLED_SECONDS + 2, 310.0)
    assert measured(window).min_rtt_us == 310.0


def test_what_bbr_sees_behind_the_queue_is_the_way() -> None:
    window = PathWindow(10)
    pings(window, 0.0, 300.0)
    for second in range(1, 100):
        assert moving(window, float(second), base_rtt_us=280) <= 300.0
    assert measured(window).min_rtt_us == 280.0
    assert measured(window).rtt_us == 9_000.0
    lows = [moving(window, float(s), base_rtt_us=60_000) for s in range(100, 140)]
    assert (lows[0], lows[-1]) == (280.0, 60_000.0)


def test_streams_that_do_not_fill_the_path_show_a_longer_way_within_the_window() -> None:
    window = PathWindow(10)
    pings(window, 0.0, *[300.0] * 10)
    lows = [moving(window, float(s), rtt_us=60_000, limited=True) for s in range(1, 11)]
    assert lows == [300.0] * 9 + [60_000.0]
    # And filling it then brings nothing back that is gone.
    assert moving(window, 11.0, rtt_us=90_000) == 60_000.0


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
        assert result.measured == (result.min_rtt_us > 0)
        assert result.rates <= MOST_ROUNDS
        assert result.rate_spread >= 0


def test_any_number_of_connections_leaves_a_bounded_memory() -> None:
    window = PathWindow(10)
    for index in range(MOST_CONNECTIONS + 50):
        pings(window, float(index), streams=[stream(str(index), delivered=20, segments=20)])
    assert len(window._last) == MOST_CONNECTIONS
    assert len(window._counts) <= MOST_ROUNDS
