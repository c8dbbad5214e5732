from __future__ import annotations

import itertools
import random

import pytest

from novacron.boot.graph import (
    CycleError,
    UnknownDependencyError,
    critical_path,
    levels,
    shortest_cycle,
    topological_order,
)
from tests.boot.graphs import plant_cycle, random_graph


def test_every_component_comes_after_what_it_depends_on() -> None:
    for seed in range(500):
        edges = random_graph(seed)
        order = topological_order(edges)
        place = {name: i for i, name in enumerate(order)}

        assert sorted(order) == sorted(edges)
        assert all(place[t] < place[name] for name in edges for t in edges[name])


def test_the_order_does_not_depend_on_repeated_edges() -> None:
    assert topological_order({"b": ["a", "a"], "a": []}) == ["a", "b"]


def test_an_unknown_dependency_is_named() -> None:
    with pytest.raises(UnknownDependencyError) as caught:
        topological_order({"api": ["databse"]})

    assert "api depends on databse" in caught.value.what


def brute_force_shortest(edges: dict[str, list[str]]) -> int:
    """Length of the shortest cycle by breadth-first search from every node, no short cuts."""
    best = len(edges) + 1
    for start in edges:
        seen, frontier, length = {start}, [start], 0
        while frontier:
            length += 1
            reached = {t for name in frontier for t in edges[name]}
            if start in reached:
                best = min(best, length)
                break
            frontier = [t for t in reached if t not in seen]
            seen |= reached
    return best


def test_ten_thousand_planted_cycles_are_refused_and_the_one_named_is_real_and_shortest() -> None:
    for seed in range(10_000):
        edges = plant_cycle(seed, random_graph(seed, most=12))
        with pytest.raises(CycleError) as caught:
            topological_order(edges)
        cycle = caught.value.cycle

        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(there in edges[here] for here, there in itertools.pairwise(cycle))
        assert len(cycle) - 1 == brute_force_shortest(edges)


def test_the_same_graph_names_the_same_cycle_whatever_the_edge_order() -> None:
    edges = {"a": ["b", "c"], "b": ["a"], "c": ["a"]}

    assert shortest_cycle(edges) == shortest_cycle({"a": ["c", "b"], "b": ["a"], "c": ["a"]})


def test_a_component_that_depends_on_itself_is_the_shortest_cycle() -> None:
    edges = {"a": ["b"], "b": ["a"], "c": ["c", "a"]}

    assert shortest_cycle(edges) == ["c", "c"]


def test_a_graph_without_a_cycle_has_none_to_show() -> None:
    with pytest.raises(ValueError, match="no cycle"):
        shortest_cycle({"a": [], "b": ["a"]})


def test_levels_hold_what_depends_only_on_lower_levels() -> None:
    for seed in range(200):
        edges = random_graph(seed)
        depth = {name: i for i, group in enumerate(levels(edges)) for name in group}

        assert all(
            depth[name] == max((depth[t] + 1 for t in edges[name]), default=0) for name in edges
        )


def test_the_critical_path_is_the_longest_chain() -> None:
    for seed in range(200):
        edges = random_graph(seed)
        rng = random.Random(seed)
        durations = {name: rng.randint(0, 9) for name in edges}
        finish: dict[str, float] = {}
        for name in topological_order(edges):
            finish[name] = durations[name] + max((finish[t] for t in edges[name]), default=0)
        path, length = critical_path(edges, durations)

        assert length == max(finish.values())
        assert length == sum(durations[name] for name in path)
        assert all(b in edges and a in edges[b] for a, b in itertools.pairwise(path))


def test_the_critical_path_of_nothing_is_empty() -> None:
    assert critical_path({}, {}) == ([], 0.0)
