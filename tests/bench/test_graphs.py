from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.graphs import Graph, Node, node_graph, random_graph, reference, reference_whole
from bench.stress import no_ops
from tests.boot.reports import small_report


def simulated(graph: Graph) -> float:
    """Seconds under dataflow with no limit: each node's end, phase after phase, by iteration."""
    total = 0.0
    for phase in ("pre_init", "core", "services", "post_init"):
        members = {node.name: node for node in graph.nodes if node.phase == phase}
        ends: dict[str, float] = {}
        while len(ends) < len(members):
            for node in members.values():
                before = [name for name in node.requires if name in members]
                if node.name not in ends and all(name in ends for name in before):
                    ends[node.name] = max((ends[n] for n in before), default=0) + node.seconds
        total += max(ends.values(), default=0.0)
    return total


def test_the_reference_graph_allows_what_its_times_allow() -> None:
    graph = reference()
    assert graph.work == pytest.approx(17.3)
    assert graph.critical_path == pytest.approx(8.3)
    assert graph.limit == pytest.approx(2.084, abs=0.001)


def test_the_whole_reference_graph_adds_pre_init() -> None:
    graph = reference_whole()
    assert graph.work == pytest.approx(19.6)
    assert graph.critical_path == pytest.approx(10.3)


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=50)
def test_a_random_graph_is_the_same_each_time_and_its_critical_path_is_what_dataflow_takes(
    components: int, seed: int
) -> None:
    graph = random_graph(components, seed)
    assert graph == random_graph(components, seed)
    assert len(graph.nodes) == components
    assert graph.critical_path == pytest.approx(simulated(graph))
    assert 1.0 - 1e-9 <= graph.limit <= components + 1e-9


def test_scaling_changes_times_and_nothing_else() -> None:
    graph = reference().scaled(0.5)
    assert graph.work == pytest.approx(17.3 / 2)
    assert graph.limit == pytest.approx(reference().limit)


def test_a_graph_survives_json() -> None:
    graph = random_graph(20, 3)
    assert Graph.from_json(json.loads(json.dumps(graph.as_json()))) == graph


def test_the_nodes_graph_is_its_reports() -> None:
    graph = node_graph(small_report())
    assert graph.critical_path == pytest.approx(0.064)
    [database] = [node for node in graph.nodes if node.name == "database"]
    assert database == Node("database", "core", pytest.approx(0.013), ("security",))


@pytest.mark.parametrize("components", [1, 3, 100, 1000])
def test_no_ops_fill_the_phases_and_depend_only_within_them(components: int) -> None:
    graph = no_ops(components)
    phases = {node.name: node.phase for node in graph.nodes}
    assert len(phases) == components
    for node in graph.nodes:
        assert all(phases[name] == node.phase and name < node.name for name in node.requires)
