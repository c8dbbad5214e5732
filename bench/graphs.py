"""Graphs of components with times: the design's, random ones, the node's own. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from novacron.boot.report import PHASES, Report, finished


class Node(NamedTuple):
    """One component: it works *seconds*, after all of *requires*."""

    name: str
    phase: str
    seconds: float
    requires: tuple[str, ...] = ()


class Graph(NamedTuple):
    name: str
    nodes: tuple[Node, ...]

    @property
    def work(self) -> float:
        """Seconds of one component after the other."""
        return sum(node.seconds for node in self.nodes)

    @property
    def critical_path(self) -> float:
        """Seconds no schedule can beat: the longest chain of each phase, phase after phase."""
        ends: dict[str, float] = {}
        total = 0.0
        for phase in PHASES:
            members = [node for node in self.nodes if node.phase == phase]
            total += max((_end(node, members, ends) for node in members), default=0.0)
        return total

    @property
    def limit(self) -> float:
        """The greatest speed-up the graph allows."""
        return self.work / self.critical_path

    def scaled(self, factor: float) -> Graph:
        nodes = (node._replace(seconds=node.seconds * factor) for node in self.nodes)
        return Graph(self.name, tuple(nodes))

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "nodes": [list(node) for node in self.nodes]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Graph:
        nodes = (
            Node(name, phase, seconds, tuple(requires))
            for name, phase, seconds, requires in value["nodes"]
        )
        return cls(value["name"], tuple(nodes))


def _end(node: Node, members: Sequence[Node], ends: dict[str, float]) -> float:
    """Seconds after its phase's start at which *node* can be ready at the earliest."""
    if node.name not in ends:
        by_name = {member.name: member for member in members}
        before = (_end(by_name[name], members, ends) for name in node.requires if name in by_name)
        ends[node.name] = max(before, default=0.0) + node.seconds
    return ends[node.name]


def reference() -> Graph:
    """The design's core and services with the times of its published trace, in seconds. Sequential
    17.3, critical path 8.3: it allows 2.08, whatever was claimed for it."""
    return Graph("reference", (*_CORE, *_SERVICES))


def reference_whole() -> Graph:
    """The same with its pre_init phase."""
    return Graph("reference with pre_init", (*_PRE_INIT, *_CORE, *_SERVICES))


_PRE_INIT = (
    Node("environment", "pre_init", 0.1),
    Node("configuration", "pre_init", 1.8),
    Node("logger", "pre_init", 0.2, ("configuration",)),
    Node("resources", "pre_init", 0.2, ("environment",)),
)
_CORE = (
    Node("security", "core", 1.2),
    Node("database", "core", 3.2, ("security",)),
    Node("cache", "core", 2.1, ("security",)),
    Node("network", "core", 1.8, ("security",)),
    Node("dwcp", "core", 2.8, ("security", "network")),
)
_SERVICES = (
    Node("orchestration", "services", 2.1, ("dwcp", "database")),
    Node("api", "services", 2.5, ("security", "database", "dwcp")),
    Node("monitoring", "services", 1.6, ("network",)),
)


def random_graph(components: int, seed: int) -> Graph:
    """*components* over the four phases; each depends on up to three earlier ones of its phase and
    works 5 to 60 ms. The same seed is the same graph, on every machine."""
    source = random.Random(seed)
    nodes: list[Node] = []
    for index in range(components):
        phase = PHASES[index * len(PHASES) // components]
        earlier = [node.name for node in nodes if node.phase == phase]
        count = min(len(earlier), source.randint(0, 3))
        requires = tuple(sorted(source.sample(earlier, count)))
        nodes.append(Node(f"c{index:03d}", phase, source.uniform(0.005, 0.060), requires))
    return Graph(f"random {components} (seed {seed})", tuple(nodes))


def node_graph(report: Report) -> Graph:
    """The graph of a real boot with the times its components took."""
    nodes = []
    for record in report.components:
        end, start = finished(record), record["started"]
        if end is not None and start is not None:
            requires = (*record["requires"], *record["wants"])
            nodes.append(Node(record["name"], record["phase"], end - start, requires))
    return Graph("node", tuple(nodes))
