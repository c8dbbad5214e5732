"""Random dependency graphs from a seed, for the engine's tests."""

from __future__ import annotations

import random


def random_graph(seed: int, most: int = 30) -> dict[str, list[str]]:
    """An acyclic graph of 1 to *most* nodes, registered in an order that is not topological."""
    rng = random.Random(seed)
    names = [f"c{i}" for i in range(rng.randint(1, most))]
    density = rng.choice((0.05, 0.2, 0.5))
    edges = {
        name: [other for other in names[:position] if rng.random() < density]
        for position, name in enumerate(names)
    }
    shuffled = list(names)
    rng.shuffle(shuffled)
    return {name: edges[name] for name in shuffled}


def plant_cycle(seed: int, edges: dict[str, list[str]]) -> dict[str, list[str]]:
    """*edges* with at least one cycle: a random walk of dependencies is closed, or a loop added."""
    rng = random.Random(seed)
    planted = {name: list(targets) for name, targets in edges.items()}
    names = list(planted)
    length = rng.randint(1, min(6, len(names)))
    members = rng.sample(names, length)
    for here, there in zip(members, [*members[1:], members[0]], strict=True):
        if there not in planted[here]:
            planted[here].append(there)
    return planted
