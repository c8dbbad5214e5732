"""Simulated time: what the three schedules cost, to the tick."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from novacron.boot.graph import critical_path, levels
from novacron.boot.options import EngineOptions
from tests.boot.fakes import Fake, Stage, define, stop_when_ready
from tests.boot.graphs import random_graph


def boot_seconds(
    edges: dict[str, list[str]], durations: dict[str, float], **options: object
) -> float:
    """Virtual seconds the core phase takes with components that sleep for *durations*."""
    diary: list[tuple[str, str]] = []
    definitions = [define(Fake(name, diary, durations[name]), edges[name]) for name in edges]
    settings = EngineOptions(
        health=None,
        deadlines=dict.fromkeys(EngineOptions().deadlines, 1e6),
        total=1e7,
        start_timeouts=dict.fromkeys(edges, 1e5),
        **options,  # type: ignore[arg-type]
    )
    stage = Stage(definitions, settings, stop_when_ready)
    assert trio.run(stage.engine.run, clock=MockClock(autojump_threshold=0)) == 0
    [phase] = [p for p in stage.view.record.phases if p["name"] == "core"]
    # Times are recorded to the microsecond.
    return round(phase["end"] - phase["start"], 5)


def weights(seed: int, edges: dict[str, list[str]]) -> dict[str, float]:
    """Sums of quarters are exact in binary, so "equal" may be tested with ==."""
    rng = random.Random(seed)
    return {name: rng.randint(0, 40) / 4 for name in edges}


def test_dataflow_takes_exactly_the_critical_path_on_a_thousand_random_graphs() -> None:
    for seed in range(1000):
        edges = random_graph(seed, most=20)
        durations = weights(seed, edges)
        _, expected = critical_path(edges, durations)

        assert boot_seconds(edges, durations, schedule="dataflow") == expected


def test_level_takes_the_sum_of_each_levels_slowest() -> None:
    for seed in range(100):
        edges = random_graph(seed, most=20)
        durations = weights(seed, edges)
        expected = sum(max(durations[name] for name in group) for group in levels(edges))

        assert boot_seconds(edges, durations, schedule="level") == expected


def test_sequential_takes_the_sum_of_all() -> None:
    for seed in range(100):
        edges = random_graph(seed, most=20)
        durations = weights(seed, edges)

        assert boot_seconds(edges, durations, schedule="sequential") == sum(durations.values())


@pytest.mark.parametrize(("limit", "expected"), [(1, 12.0), (2, 6.0), (3, 4.0), (12, 1.0)])
def test_no_more_components_start_at_once_than_allowed(limit: int, expected: float) -> None:
    edges: dict[str, list[str]] = {f"c{i}": [] for i in range(12)}

    assert boot_seconds(edges, dict.fromkeys(edges, 1.0), max_concurrency=limit) == expected
