"""The dependency graph of components: order, levels, cycles, critical path. Pure.

Kahn's algorithm (Kahn 1962) gives the order in O(V+E). Edges run from a component to what must be
settled before it starts; ``requires`` and ``wants`` count alike here, they differ only in what a
failure means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from novacron.errors import BootError, InvalidError


class GraphError(BootError, InvalidError):
    """The graph cannot be booted; raised before any side effect."""

    code = "boot.graph"


class UnknownDependencyError(GraphError):
    code = "boot.graph.unknown_dependency"


class DuplicateComponentError(GraphError):
    code = "boot.graph.duplicate"


class CycleError(GraphError):
    """``cycle`` lists the members of a shortest cycle, the first repeated at the end."""

    code = "boot.graph.cycle"

    def __init__(self, cycle: Sequence[str]) -> None:
        self.cycle = tuple(cycle)
        super().__init__(
            "the components cannot be ordered",
            why="they depend on each other in a circle: " + " -> ".join(cycle),
            remedy="remove one of these dependencies",
        )


def check_known(edges: Mapping[str, Iterable[str]]) -> None:
    """Raises UnknownDependencyError for the first edge that leads nowhere."""
    for name, targets in edges.items():
        for target in targets:
            if target not in edges:
                raise UnknownDependencyError(
                    f"component {name} depends on {target}",
                    why="no such component is registered",
                    remedy="register it, or make it a wish (`| None`)",
                )


def topological_order(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """Every name after all it depends on; ties keep the mapping's order.

    Raises:
      UnknownDependencyError: an edge leads to a name that is not a key.
      CycleError: naming a shortest cycle.
    """
    check_known(edges)
    waiting = {name: len(set(targets)) for name, targets in edges.items()}
    dependents = invert(edges)
    ready = deque(name for name, count in waiting.items() if count == 0)
    order: list[str] = []
    while ready:
        name = ready.popleft()
        order.append(name)
        for dependent in dependents[name]:
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                ready.append(dependent)
    if len(order) < len(edges):
        raise CycleError(shortest_cycle(edges))
    return order


def invert(edges: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Who depends on each name directly, without repetition."""
    dependents: dict[str, list[str]] = {name: [] for name in edges}
    for name, targets in edges.items():
        for target in dict.fromkeys(targets):
            dependents[target].append(name)
    return dependents


def shortest_cycle(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """A shortest cycle, its first member repeated at the end; the same one for the same graph.

    Breadth-first search from every node that can lie on a cycle, bounded by the best found so far.
    Only called for graphs that have one.
    """
    residual = _trim(_trim({name: set(targets) for name, targets in edges.items()}, edges), edges)
    best: list[str] | None = None
    for start in residual:
        found = _cycle_through(start, residual, limit=len(best) - 1 if best else len(residual) + 1)
        if found is not None:
            best = found
            if len(best) <= 3:
                # A self-loop is found as 2 entries, a pair as 3; only self-loops are shorter.
                loops = (name for name in residual if name in residual[name])
                loop = next(loops, None)
                return [loop, loop] if loop is not None else best
    if best is None:
        raise ValueError("the graph has no cycle")
    return best


def _trim(residual: dict[str, set[str]], edges: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Drop, again and again, what has no edge out or no edge in: it lies on no cycle."""
    while True:
        targeted = {target for targets in residual.values() for target in targets}
        kept = {name for name, targets in residual.items() if targets and name in targeted}
        if len(kept) == len(residual):
            return {name: residual[name] for name in edges if name in residual}
        residual = {name: residual[name] & kept for name in kept}


def _cycle_through(start: str, residual: Mapping[str, set[str]], limit: int) -> list[str] | None:
    came_from: dict[str, str] = {}
    frontier = [start]
    length = 1
    while frontier and length < limit:
        following: list[str] = []
        for name in frontier:
            for target in sorted(residual[name]):
                if target == start:
                    path = [name]
                    while path[-1] != start:
                        path.append(came_from[path[-1]])
                    return [*reversed(path), start]
                if target not in came_from:
                    came_from[target] = name
                    following.append(target)
        frontier = following
        length += 1
    return None


def levels(edges: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The design's level groups: level n holds what depends only on levels below n."""
    depth: dict[str, int] = {}
    groups: list[list[str]] = []
    for name in topological_order(edges):
        level = max((depth[target] + 1 for target in edges[name]), default=0)
        depth[name] = level
        if level == len(groups):
            groups.append([])
        groups[level].append(name)
    return groups


def critical_path(
    edges: Mapping[str, Sequence[str]], durations: Mapping[str, float]
) -> tuple[list[str], float]:
    """The chain of dependencies that takes longest, and its length in the durations' unit."""
    finish: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for name in topological_order(edges):
        last = max(edges[name], key=lambda target: finish[target], default=None)
        before[name] = last
        finish[name] = durations[name] + (finish[last] if last is not None else 0.0)
    if not finish:
        return [], 0.0
    end = max(finish, key=lambda name: finish[name])
    path = [end]
    while (previous := before[path[-1]]) is not None:
        path.append(previous)
    path.reverse()
    return path, finish[end]
