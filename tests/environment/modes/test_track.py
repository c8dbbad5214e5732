"""Modes over time: they hold, cool down, and follow in the end."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from novacron.environment.modes.core import DATACENTER, HYBRID, INTERNET, MODES
from novacron.environment.modes.track import (
    CONFIRMED,
    Holder,
    NodeTrack,
    PathTrack,
    Rules,
    combine,
    from_devices,
)
from novacron.environment.path import PathMeasure
from tests.environment.modes.measures import FAR, NEAR, devices, measure, measures

RULES = Rules()
steps = st.lists(st.tuples(st.floats(0, 20), measures(), devices), max_size=60)


def changes(times: list[tuple[float, str | None]]) -> list[float]:
    """When the second and later names came."""
    found = []
    for (_, before), (at, after) in itertools.pairwise(times):
        if before is not None and after != before:
            found.append(at)
    return found


@given(steps)
def test_a_path_never_changes_twice_within_the_cool_down(
    found: list[tuple[float, PathMeasure, bool | None]],
) -> None:
    track, now = PathTrack(RULES), 0.0
    seen: list[tuple[float, str | None]] = []
    first: float | None = None
    for wait, each, rdma in found:
        now += wait
        track.observe(each, rdma=rdma, now=now)
        seen.append((now, track.name))
        first = now if first is None and track.name is not None else first
    at = ([first] if first is not None else []) + changes(seen)
    assert all(later - earlier >= RULES.cool_down for earlier, later in itertools.pairwise(at))


@given(
    st.lists(
        st.tuples(
            st.floats(0, 20),
            st.dictionaries(st.sampled_from("abcd"), st.sampled_from(MODES), max_size=4),
        ),
        max_size=60,
    )
)
def test_a_node_never_changes_twice_within_the_cool_down_once_it_was_measured(
    found: list[tuple[float, dict[str, str]]],
) -> None:
    node, now = NodeTrack(RULES, "auto", 0.0), 0.0
    measured, at = False, []
    for wait, paths in found:
        now += wait
        before = node.mode.name
        node.review(paths, now)
        if paths and not measured:
            measured, at = True, [now]
        elif measured and node.mode.name != before:
            at.append(now)
    assert all(later - earlier >= RULES.cool_down for earlier, later in itertools.pairwise(at))


@given(st.lists(st.sampled_from(MODES), max_size=40), st.floats(0, 60), st.integers(1, 5))
def test_a_name_is_let_go_only_for_one_that_was_offered_often_enough_running(
    offers: list[str], cool_down: float, confirmed: int
) -> None:
    holder = Holder(cool_down, confirmed)
    for index, name in enumerate(offers):
        before = holder.name
        if holder.offer(name, float(index)) and before is not None:
            assert offers[index - confirmed + 1 : index + 1] == [name] * confirmed
            assert before not in offers[index - confirmed + 1 : index + 1]


def settle(track: PathTrack, found: PathMeasure, now: float, rounds: int = CONFIRMED) -> None:
    for _ in range(rounds):
        track.observe(found, rdma=False, now=now)


def test_the_first_mode_comes_with_the_tenth_sample() -> None:
    track = PathTrack(RULES)
    assert not track.observe(NEAR._replace(samples=9), rdma=False, now=1.0)
    assert track.name is None
    assert track.as_mode(NEAR._replace(samples=9)).why == "9 of 10 round trips so far"
    assert track.observe(NEAR, rdma=False, now=2.0)
    assert track.name == DATACENTER


def test_another_mode_has_to_lead_in_three_rounds_after_the_cool_down() -> None:
    track = PathTrack(RULES)
    track.observe(NEAR, rdma=False, now=0.0)
    settle(track, FAR, 29.9, rounds=50)
    assert track.name == DATACENTER
    track.observe(NEAR, rdma=False, now=31.0)  # and the rounds begin anew
    settle(track, FAR, 31.0, CONFIRMED - 1)
    assert track.name == DATACENTER
    assert track.observe(FAR, rdma=False, now=31.0)
    assert track.name == INTERNET
    assert track.as_mode(FAR).since == 31.0


def test_more_is_measured_while_another_mode_is_in_doubt_and_not_while_it_cools_down() -> None:
    track = PathTrack(RULES)
    assert not track.is_near(1.0)
    track.observe(NEAR, rdma=False, now=0.0)
    assert not track.is_near(NEAR.min_rtt_us)
    assert not track.is_near(NEAR.min_rtt_us + 900)  # a scheduler may do that
    assert track.is_near(60_000)
    track.observe(FAR, rdma=False, now=1.0)
    assert track.is_near(FAR.min_rtt_us)
    settle(track, FAR, 2.0)
    assert not track.is_near(FAR.min_rtt_us)
    assert track.is_near(300)


def test_a_peer_on_this_host_gets_no_mode() -> None:
    track = PathTrack(RULES)
    track.observe(measure(same_host=True), rdma=False, now=0.0)
    found = track.as_mode(measure(same_host=True))
    assert found.name is None
    assert "on this host" in found.why
    assert not track.is_near(60_000)


def test_a_node_is_what_all_its_paths_are_or_hybrid() -> None:
    assert combine({"a": DATACENTER}) == (DATACENTER, "1 path (a) is datacenter")
    assert combine({"a": INTERNET, "b": INTERNET}) == (INTERNET, "2 paths (a, b) are internet")
    name, why = combine({"a": DATACENTER, "b": INTERNET, "c": DATACENTER})
    assert (name, why) == (HYBRID, "2 paths (a, c): datacenter; 1 path (b): internet")
    assert combine(dict.fromkeys("abcde", HYBRID))[1] == "5 paths (a, b, c and 2 more) are hybrid"


def test_without_a_path_the_devices_say_and_the_mode_is_unmeasured() -> None:
    assert from_devices(["mlx5_0"], None) == (DATACENTER, "this node has RDMA: mlx5_0")
    assert from_devices([], 25 * 10**9) == (DATACENTER, "this node has a link of 25 Gbit/s")
    assert from_devices([], 10**9)[0] == HYBRID
    assert from_devices(None, None)[0] == HYBRID
    node = NodeTrack(RULES, "auto", 0.0)
    assert (node.mode.name, node.mode.measured) == (HYBRID, False)
    node.know_devices(*from_devices(["mlx5_0"], None))
    told = node.review({}, 1.0)
    assert told is not None
    assert (told.name, told.measured, told.since) == (DATACENTER, False, 1.0)
    assert told.why == "no path to another host is measured; this node has RDMA: mlx5_0"


def test_the_first_measured_path_overrules_the_devices_at_once() -> None:
    node = NodeTrack(RULES, "auto", 0.0)
    node.know_devices(*from_devices(["mlx5_0"], None))
    node.review({}, 1.0)
    told = node.review({"a": INTERNET}, 2.0)
    assert told is not None
    assert (told.name, told.measured) == (INTERNET, True)
    # From now on there is something to hold on to.
    assert node.review({"a": DATACENTER}, 3.0) is None
    assert "internet until it is 30 s old" in node.mode.why
    told = node.review({"a": DATACENTER}, 32.0)
    assert told is not None
    assert told.name == DATACENTER


def test_a_node_whose_last_path_went_becomes_unmeasured_after_the_cool_down() -> None:
    node = NodeTrack(RULES, "auto", 0.0)
    node.review({"a": INTERNET}, 1.0)
    assert node.review({}, 2.0) is None
    assert (node.mode.name, node.mode.measured) == (INTERNET, True)
    told = node.review({}, 31.0)
    assert told is not None
    assert (told.name, told.measured) == (HYBRID, False)


def test_a_forced_mode_stays_and_says_what_there_would_be() -> None:
    node = NodeTrack(RULES, "internet", 0.0)
    assert (node.mode.name, node.mode.measured, node.mode.forced) == (INTERNET, False, True)
    told = node.review({"a": DATACENTER}, 5.0)
    assert told is not None
    assert (told.name, told.measured, told.since) == (INTERNET, True, 0.0)
    assert told.why == "dwcp.mode says so; without it: datacenter (1 path (a) is datacenter)"
