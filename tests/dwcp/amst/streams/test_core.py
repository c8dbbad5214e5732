"""What the controller does on simulated paths, and with single samples. All time is simulated."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst.streams.core import (
    FORGET_AFTER,
    HISTORY,
    MEASURE_LIMIT,
    Controller,
    Reason,
    Sample,
)
from tests.dwcp.amst.streams.simulator import Path, Run, run

MB = 1e6
CAPPED = {
    "policer_50_mbit": Path(rtt=0.02, capacity=37.5 * MB, flow_cap=6.25 * MB),
    "many_flows_needed": Path(rtt=0.02, capacity=500 * MB, flow_cap=4 * MB),
    "long_way": Path(rtt=0.08, capacity=200 * MB, flow_cap=1 * MB),
    "all_flows_needed": Path(rtt=0.04, capacity=1000 * MB, flow_cap=0.5 * MB),
    "noisy": Path(rtt=0.02, capacity=200 * MB, flow_cap=4 * MB, noise=0.1),
}
LOSSY = {
    "one_in_a_thousand": Path(rtt=0.08, capacity=37.5 * MB, loss=0.001),
    "one_in_a_hundred": Path(rtt=0.08, capacity=37.5 * MB, loss=0.01),
}
SHARED = {
    "gigabit": Path(rtt=0.004, capacity=119 * MB),
    "deep_queue": Path(rtt=0.004, capacity=119 * MB, buffer=0.1),
    "queue_for_each_flow": Path(rtt=0.004, capacity=119 * MB, standing=40_000),
    "shallow_queue": Path(rtt=0.01, capacity=119 * MB, buffer=0.002),
    "noisy": Path(rtt=0.004, capacity=119 * MB, noise=0.06),
    "wide_area": Path(rtt=0.04, capacity=37 * MB, buffer=0.08),
}


def adaptive(path: Path, seconds: float, *, start: int = 8, maximum: int = 256) -> Run:
    controller = Controller(minimum=1, maximum=maximum, start=start)
    return run(copy.deepcopy(path), controller, seconds)


@pytest.mark.parametrize("name", CAPPED)
def test_where_each_flow_is_capped_the_best_number_is_reached_within_five_seconds(
    name: str,
) -> None:
    path = CAPPED[name]
    result = adaptive(path, 12)
    needed = min(path.capacity / path.flow_cap, 256)
    assert result.goodput(5) >= 0.9 * needed * path.flow_cap
    # Streams that are not needed cost memory and a place in the queue.
    assert result.target_at(5) <= 4 * needed


@pytest.mark.parametrize("name", LOSSY)
def test_where_losses_hold_each_flow_nine_tenths_of_the_best_are_had(name: str) -> None:
    path = LOSSY[name]
    result = adaptive(path, 60)
    best = max(run(copy.deepcopy(path), number, 30).goodput(12) for number in (4, 16, 64))
    assert result.goodput(12) >= 0.9 * best


@pytest.mark.parametrize("start", [1, 4, 8, 32])
@pytest.mark.parametrize("name", SHARED)
def test_at_a_shared_bottleneck_few_streams_remain_and_the_queue_is_short(
    name: str, start: int
) -> None:
    path = SHARED[name]
    result = adaptive(path, 45, start=start)
    settled = sorted(target for at, target in result.targets if at > 25)
    # Above half of the time: the rest may be a trial.
    assert settled[len(settled) // 2] <= max(4, start // 4)
    assert settled[-1] <= max(8, start // 2)
    one = run(copy.deepcopy(path), 1, 30)
    assert result.rtt(15) <= 3 * one.rtt(15)
    assert result.goodput(15) >= 0.9 * one.goodput(15)


def test_a_bad_step_up_is_taken_back_at_once_and_fewer_are_tried() -> None:
    result = adaptive(SHARED["gigabit"], 10, start=4)
    reasons = [decision.reason for decision in result.decisions]
    assert reasons[:4] == [
        Reason.START,
        Reason.GROW,
        Reason.GROW_TAKEN_BACK,
        Reason.SHRINK,
    ]
    grow, back = result.decisions[1:3]
    assert (grow.target, back.target) == (8, 4)
    assert back.at - grow.at <= 2
    assert "8 streams move 1.00 times what 4 did" in back.why


def test_a_number_that_failed_is_not_tried_again_for_thirty_seconds() -> None:
    path = Path(rtt=0.02, capacity=37.5 * MB, flow_cap=6.25 * MB)
    result = adaptive(path, 120)
    tried: dict[int, list[float]] = {}
    for decision in result.decisions:
        if decision.reason in (Reason.GROW, Reason.SHRINK):
            tried.setdefault(decision.target, []).append(decision.at)
    assert max(len(times) for times in tried.values()) > 1, "none was tried twice"
    for times in tried.values():
        pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert all(pause >= FORGET_AFTER for pause in pauses)
        assert pauses == sorted(pauses), "each time it fails it is left alone for longer"


STEADY = {
    "capped": CAPPED["policer_50_mbit"],
    "capped_and_noisy": CAPPED["noisy"],
    "shared": SHARED["gigabit"],
    "shared_and_noisy": SHARED["noisy"],
    "wide_area": SHARED["wide_area"],
    "lossy": LOSSY["one_in_a_hundred"],
    "source": Path(rtt=0.02, capacity=119 * MB, source=30 * MB),
    "receiver": Path(rtt=0.02, capacity=119 * MB, receiver=30 * MB),
}


@pytest.mark.parametrize("name", STEADY)
def test_nothing_oscillates_on_a_path_that_stays_as_it_is(name: str) -> None:
    result = adaptive(STEADY[name], 140)
    # A trial is two changes; one in each direction a memory's length, which doubles.
    assert result.changes(20, 80) <= 10
    assert result.changes(80, 140) <= 8


def test_trials_on_a_steady_path_cost_little() -> None:
    path = CAPPED["many_flows_needed"]
    result = adaptive(path, 120)
    assert result.goodput(20) >= 0.97 * path.capacity


@pytest.mark.parametrize("bottleneck", ["source", "receiver"])
def test_an_end_that_is_slower_than_the_path_gets_no_more_streams(bottleneck: str) -> None:
    path = Path(rtt=0.02, capacity=119 * MB)
    setattr(path, bottleneck, 30 * MB)
    result = adaptive(path, 60)
    assert max(target for at, target in result.targets if at > 5) <= 8
    assert result.goodput(5) >= 0.95 * 30 * MB


def test_streams_come_when_a_policer_comes() -> None:
    path = Path(rtt=0.02, capacity=40 * MB, changes=[(20.0, {"flow_cap": 1 * MB})])
    result = adaptive(path, 40)
    assert result.target_at(19.9) <= 4
    assert result.goodput(26, 40) >= 0.9 * 40 * MB


def test_streams_go_when_a_policer_goes() -> None:
    path = Path(
        rtt=0.02, capacity=40 * MB, flow_cap=1 * MB, changes=[(20.0, {"flow_cap": float("inf")})]
    )
    result = adaptive(path, 100)
    assert result.target_at(19.9) >= 32
    assert result.target_at(99) <= 4
    assert result.goodput(25) >= 0.95 * 40 * MB


def test_a_path_that_becomes_wider_is_filled() -> None:
    path = Path(
        rtt=0.02, capacity=20 * MB, flow_cap=5 * MB, changes=[(20.0, {"capacity": 300 * MB})]
    )
    result = adaptive(path, 120)
    assert result.target_at(19) <= 8
    # Nothing shows that there is more until the memory of a trial fades: a minute, after a queue.
    assert result.goodput(90) >= 0.9 * 300 * MB


@pytest.mark.parametrize("maximum", [1, 3, 8, 100])
def test_the_limits_hold_on_a_path_that_wants_more(maximum: int) -> None:
    path = CAPPED["many_flows_needed"]
    result = adaptive(path, 30, maximum=maximum)
    targets = {target for _, target in result.targets}
    assert max(targets) <= maximum
    assert result.goodput(10) >= 0.9 * min(path.capacity, maximum * path.flow_cap)


# --- Single samples --------------------------------------------------------------------------


def sample(moved: float = 100.0, streams: int = 8, **fields: Any) -> Sample:
    values: dict[str, Any] = {
        "seconds": 0.25,
        "moved_bytes": int(moved * MB * 0.25),
        "streams": streams,
        "starved_share": 0.0,
        "limited_share": 0.0,
        "window_share": 0.0,
        "smoothed_rtt": 0.001,
        "least_rtt": 0.001,
        **fields,
    }
    return Sample(**values)


def settle(controller: Controller, intervals: int, **fields: float) -> None:
    for _ in range(intervals):
        controller.observe(sample(streams=controller.target, **fields))


@pytest.mark.parametrize(
    ("share", "what"),
    [("starved_share", "source"), ("limited_share", "rate"), ("window_share", "receiver")],
)
def test_nothing_is_tried_while_something_else_holds_the_link(share: str, what: str) -> None:
    controller = Controller(minimum=1, maximum=256, start=8)
    settle(controller, 100, **{share: 0.9})
    assert controller.bound_by == what
    assert len(controller.history) == 1
    settle(controller, 10)
    assert controller.bound_by == ""
    assert len(controller.history) > 1


def test_nothing_is_tried_on_a_link_that_moves_nothing() -> None:
    controller = Controller(minimum=1, maximum=256, start=8)
    settle(controller, 100, moved=0.0)
    assert len(controller.history) == 1


def test_nothing_is_judged_while_there_are_no_streams() -> None:
    controller = Controller(minimum=1, maximum=256, start=8)
    settle(controller, 3)
    assert controller.target == 16
    for _ in range(50):
        controller.observe(sample(moved=0, streams=0))
    assert controller.target == 16
    assert controller.history[-1].reason is Reason.GROW


def test_a_trial_waits_for_its_streams_but_not_for_ever() -> None:
    controller = Controller(minimum=1, maximum=256, start=8)
    settle(controller, 3)
    assert controller.target == 16
    for _ in range(7):
        controller.observe(sample(streams=9))
    assert controller.target == 16
    for _ in range(MEASURE_LIMIT):
        controller.observe(sample(streams=9))
    assert controller.target != 16
    assert Reason.GROW_TAKEN_BACK in [decision.reason for decision in controller.history]


def test_a_step_up_that_the_source_could_not_feed_is_tried_again_sooner() -> None:
    controller = Controller(minimum=8, maximum=16, start=8)
    settle(controller, 3)
    assert controller.target == 16
    settle(controller, 3, starved_share=0.9)
    assert controller.history[-1].reason is Reason.GROW_TAKEN_BACK
    assert "the source held the link" in controller.history[-1].why
    settle(controller, 60)
    grows = [d.at for d in controller.history if d.reason is Reason.GROW]
    assert 10 <= grows[1] - grows[0] < FORGET_AFTER


def test_a_number_that_once_moved_much_more_than_this_one_does_now_is_tried_again_at_once() -> None:
    """As after a slow start that hid for a while how much losses hold each stream."""
    controller = Controller(minimum=8, maximum=16, start=8)
    settle(controller, 3)
    settle(controller, 6)
    assert controller.history[-1].reason is Reason.GROW_TAKEN_BACK
    settle(controller, MEASURE_LIMIT, moved=70)
    again = [d.at for d in controller.history if d.reason is Reason.GROW]
    assert len(again) == 2
    assert again[1] - again[0] < 5
    # It moves no more than that now, which is the end of it for as long as any failure.
    settle(controller, 100, moved=70)
    assert controller.history[-1].reason is Reason.GROW_TAKEN_BACK
    assert sum(d.reason is Reason.GROW for d in controller.history) == 2


def test_steps_down_may_not_add_up_to_a_loss() -> None:
    """4 % less with every halving would be 15 % after four of them."""
    controller = Controller(minimum=1, maximum=64, start=64)
    for _ in range(200):
        loss = {64: 1.0, 32: 0.96, 16: 0.92, 8: 0.88, 4: 0.85, 2: 0.82, 1: 0.78}
        controller.observe(sample(moved=100 * loss[controller.target], streams=controller.target))
    assert controller.target in (64, 32)


def test_linear_gains_take_four_times_as_many_and_no_more_than_there_may_be() -> None:
    controller = Controller(minimum=1, maximum=100, start=8)
    targets = {8}
    for _ in range(30):
        targets.add(controller.target)
        controller.observe(sample(moved=controller.target, streams=controller.target))
    assert {8, 16, 64, 100} <= targets
    assert 32 not in targets


def test_every_change_is_in_the_history_with_a_sentence() -> None:
    result = adaptive(CAPPED["policer_50_mbit"], 100)
    changes = [
        (at, target)
        for (_, before), (at, target) in itertools.pairwise(result.targets)
        if before != target
    ]
    recorded = {(round(d.at, 6), d.target) for d in result.decisions}
    by_target = [target for _, target in changes]
    assert len(recorded) >= len(changes)
    assert by_target == [
        d.target
        for d in result.decisions
        if d.reason not in (Reason.START, Reason.GROW_KEPT, Reason.SHRINK_KEPT)
    ]
    assert all(d.why for d in result.decisions)


SHARES = st.floats(0, 1)
SAMPLES = st.builds(
    Sample,
    seconds=st.floats(0, 10),
    moved_bytes=st.integers(0, 1 << 50),
    streams=st.integers(0, 300),
    starved_share=SHARES,
    limited_share=SHARES,
    window_share=SHARES,
    smoothed_rtt=st.floats(0, 5),
    least_rtt=st.floats(0, 5),
)


@given(
    limits=st.tuples(st.integers(1, 256), st.integers(1, 256)).map(sorted),
    start=st.integers(1, 300),
    samples=st.lists(st.tuples(SAMPLES, st.booleans()), max_size=120),
)
def test_whatever_is_measured_the_limits_hold_and_the_history_is_bounded(
    limits: list[int], start: int, samples: list[tuple[Sample, bool]]
) -> None:
    low, high = limits
    controller = Controller(minimum=low, maximum=high, start=start)
    for one, complete in samples:
        before = controller.target
        one = one._replace(streams=before) if complete else one
        target = controller.observe(one)
        assert target == controller.target
        assert low <= target <= high
        assert target == before or controller.history[-1].target == target
        assert len(controller.history) <= HISTORY
