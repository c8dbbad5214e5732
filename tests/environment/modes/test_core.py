"""How much a path looks like each mode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.environment.modes.core import (
    DATACENTER,
    HYBRID,
    INTERNET,
    MODES,
    explain,
    leader,
    score,
)
from novacron.environment.path import PathMeasure
from tests.environment.modes.measures import BETWEEN, FAR, NEAR, devices, measure, measures

GBIT = 10**9 // 8


def mode_of(found: PathMeasure, rdma: bool | None = False) -> str:
    return leader(score(found, rdma=rdma), None, 0.1)


@pytest.mark.parametrize(
    ("found", "rdma", "mode"),
    [
        (NEAR, False, DATACENTER),
        (NEAR, True, DATACENTER),
        (NEAR, None, DATACENTER),
        # All that the table says of a datacenter, and all it says of the internet.
        (measure(rates=9, rate_bps=10 * GBIT, segments=10**6), True, DATACENTER),
        (
            measure(
                rtt_us=80_000, jitter_us=20_000, segments=9_000, loss=0.01, rates=9, rate_bps=GBIT,
                rate_spread=0.8,
            ),
            False,
            INTERNET,
        ),
        # One that is slower, noisy or loses something is still the network in the rack.
        (measure(rates=9, rate_bps=GBIT), False, DATACENTER),
        (measure(jitter_us=200, rates=9, rate_bps=GBIT), False, DATACENTER),
        # Far away and otherwise perfect.
        (FAR, False, INTERNET),
        (measure(rtt_us=60_000, jitter_us=100, segments=10**6), False, INTERNET),
        # A device for RDMA does not bring the other side of a continent nearer.
        (measure(rtt_us=30_000, jitter_us=10, segments=10**6, rates=9, rate_bps=10 * GBIT), True, HYBRID),
        (FAR, True, INTERNET),
        (BETWEEN, False, HYBRID),
        (measure(rtt_us=2_000), True, HYBRID),
        # Near, and everything else as on the internet.
        (
            measure(jitter_us=290, segments=9_000, loss=0.01, rates=9, rate_bps=GBIT, rate_spread=0.8),
            False,
            HYBRID,
        ),
    ],
)  # fmt: skip
def test_a_path_is_what_the_table_of_modes_says(
    found: PathMeasure, rdma: bool | None, mode: str
) -> None:
    assert mode_of(found, rdma) == mode


@given(measures(), devices)
def test_scores_lie_between_nothing_and_one_and_one_mode_always_leads(
    found: PathMeasure, rdma: bool | None
) -> None:
    scores = score(found, rdma=rdma)
    assert all(0.0 <= scores.of(mode) <= 1.0 for mode in MODES)
    assert leader(scores, None, 0.1) in MODES
    assert max(scores.of(mode) for mode in MODES) >= 0.5
    for mode in MODES:
        assert explain(scores, mode)


@given(measures(), devices, st.floats(1, 50))
def test_a_longer_round_trip_never_looks_more_like_a_datacenter_nor_less_like_the_internet(
    found: PathMeasure, rdma: bool | None, factor: float
) -> None:
    # Its jitter grows with it: a steady path is to stay as steady.
    farther = found._replace(
        rtt_us=found.rtt_us * factor,
        min_rtt_us=found.min_rtt_us * factor,
        jitter_us=max(found.jitter_us, 250.0) * factor,
    )
    nearer = found._replace(jitter_us=max(found.jitter_us, 250.0))
    before, after = score(nearer, rdma=rdma), score(farther, rdma=rdma)
    assert after.datacenter <= before.datacenter + 1e-9
    assert after.internet >= before.internet - 1e-9


@given(measures(), devices, st.floats(0, 2), st.floats(0, 2))
def test_more_jitter_never_looks_more_like_a_datacenter_nor_less_like_the_internet(
    found: PathMeasure, rdma: bool | None, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    before = score(found._replace(jitter_us=found.rtt_us * low), rdma=rdma)
    after = score(found._replace(jitter_us=found.rtt_us * high), rdma=rdma)
    assert after.datacenter <= before.datacenter + 1e-9
    assert after.internet >= before.internet - 1e-9


@given(measures(segments=10_000_000), devices, st.floats(0, 0.01), st.floats(0, 0.01))
def test_more_loss_never_looks_more_like_a_datacenter_nor_less_like_the_internet(
    found: PathMeasure, rdma: bool | None, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    before = score(found._replace(loss=low), rdma=rdma)
    after = score(found._replace(loss=high), rdma=rdma)
    assert after.datacenter <= before.datacenter + 1e-9
    assert after.internet >= before.internet - 1e-9


@given(measures(), devices, st.integers(0, 400_000), st.integers(0, 400), st.integers(0, 400))
def test_more_segments_lost_of_as_many_never_look_less_like_the_internet(
    found: PathMeasure, rdma: bool | None, segments: int, one: int, other: int
) -> None:
    few, many = sorted((min(one, segments), min(other, segments)))
    if not segments:
        return
    before = score(found._replace(segments=segments, loss=few / segments), rdma=rdma)
    after = score(found._replace(segments=segments, loss=many / segments), rdma=rdma)
    assert after.internet >= before.internet - 1e-9
    assert after.datacenter <= before.datacenter + 1e-9


@given(measures(rates=9), devices, st.integers(1, 10**11), st.integers(1, 10**11))
def test_a_higher_rate_never_looks_less_like_a_datacenter(
    found: PathMeasure, rdma: bool | None, one: int, other: int
) -> None:
    low, high = sorted((one, other))
    before = score(found._replace(rate_bps=low), rdma=rdma)
    after = score(found._replace(rate_bps=high), rdma=rdma)
    assert after.datacenter >= before.datacenter - 1e-9
    assert after.internet == before.internet


def known(found: PathMeasure, rdma: bool | None = None) -> set[tuple[str, str]]:
    scores = score(found, rdma=rdma)
    return {(each.mode, each.name) for each in scores.indicators if each.value is not None}


def test_what_was_not_measured_counts_neither_for_nor_against() -> None:
    bare = measure(jitter_us=0, samples=1)
    assert known(bare) == {(DATACENTER, "round_trip"), (INTERNET, "round_trip")}
    assert score(bare, rdma=None).datacenter == 1.0
    # Measured and found wanting is another thing.
    assert (DATACENTER, "rdma") in known(bare, rdma=False)
    assert score(bare, rdma=False).datacenter == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("segments", "lost", "told"),
    [
        (0, 0, set()),
        (100, 0, set()),  # none of a hundred proves nothing
        (100, 1, set()),  # and one of a hundred may be chance
        (100, 3, {DATACENTER, INTERNET}),  # three of a hundred are not
        (2_999, 0, set()),
        (3_000, 0, {INTERNET}),  # less than 0.1 %, for all one knows
        (299_999, 0, {INTERNET}),
        (300_000, 0, {DATACENTER, INTERNET}),  # and less than 0.001 %
    ],
)
def test_loss_is_told_from_enough_segments_only(segments: int, lost: int, told: set[str]) -> None:
    found = measure(segments=segments, loss=lost / segments if segments else 0.0)
    assert {mode for mode, name in known(found) if name == "loss"} == told


def test_jitter_that_the_hosts_may_have_made_is_not_held_against_a_datacenter() -> None:
    assert (DATACENTER, "jitter") not in known(measure(jitter_us=200))
    assert (DATACENTER, "jitter") in known(measure(jitter_us=260))
    assert (DATACENTER, "jitter") in known(measure(jitter_us=10))


@given(measures(), devices, st.sampled_from(MODES), st.floats(0, 0.5))
def test_the_present_mode_stays_unless_another_is_better_by_the_hysteresis(
    found: PathMeasure, rdma: bool | None, present: str, hysteresis: float
) -> None:
    scores = score(found, rdma=rdma)
    chosen = leader(scores, present, hysteresis)
    if chosen != present:
        assert scores.of(chosen) - scores.of(present) >= hysteresis - 1e-6
        assert scores.of(chosen) == max(scores.of(mode) for mode in MODES)
    # Whoever won stays, with the same scores: there is no way around in a circle.
    assert leader(scores, chosen, hysteresis) == chosen


def test_around_a_bound_the_mode_that_is_there_stays() -> None:
    """A path that wanders about where the two modes score alike."""
    wandering = [measure(rtt_us=rtt) for rtt in (51_000, 51_500, 50_600, 51_400)]
    for there in (INTERNET, HYBRID):
        for found in wandering:
            assert leader(score(found, rdma=False), there, 0.1) == there
    alone = {leader(score(found, rdma=False), None, 0.1) for found in wandering}
    assert alone == {INTERNET, HYBRID}
    assert leader(score(measure(rtt_us=44_000), rdma=False), INTERNET, 0.1) == HYBRID
    assert leader(score(measure(rtt_us=56_000), rdma=False), HYBRID, 0.1) == INTERNET


def test_the_reason_names_what_speaks_for_it_what_against_and_what_nobody_knows() -> None:
    said = explain(score(NEAR, rdma=False), DATACENTER)
    assert said == (
        "round trip 0.28 ms (below 1 ms), jitter 3 % of the round trip (below 10 %); "
        "not: an RDMA device in this node; "
        "not known: rate (a line of 10 Gbit/s or more), loss (below 0.001 %)"
    )
    assert explain(score(BETWEEN, rdma=False), HYBRID).startswith("mixed (")
