"""Runs the real boot engine on synthetic components, in this process.

``python -m bench.engine`` is the worker of the benches: a request as JSON on standard input, the
result on standard output, one process for each measurement.
"""

from __future__ import annotations

import gc

# As the node does while it boots.
gc.disable()

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from typing import Any  # noqa: E402

import trio  # noqa: E402

from bench.graphs import Graph  # noqa: E402
from novacron.boot import events  # noqa: E402
from novacron.boot.engine import Engine  # noqa: E402
from novacron.boot.node_view import BootRecord, EngineView  # noqa: E402
from novacron.boot.options import EngineOptions  # noqa: E402
from novacron.boot.registry import Definition  # noqa: E402
from novacron.component import Component, Criticality, Phase  # noqa: E402

_AMPLE = 3600.0
"""Seconds: deadlines are not what is measured."""


class Sleeper(Component):
    """Takes *seconds* to be ready, and does nothing else; 0 does not even wait."""

    criticality = Criticality.CRITICAL
    start_timeout = _AMPLE

    def __init__(self, name: str, phase: Phase, seconds: float) -> None:
        self.name = name  # type: ignore[misc]
        self.phase = phase  # type: ignore[misc]
        self._seconds = seconds

    async def initialize(self, nursery: trio.Nursery) -> None:
        if self._seconds > 0:
            await trio.sleep(self._seconds)

    async def shutdown(self) -> None:
        return


def definitions(graph: Graph) -> list[Definition]:
    return [
        Definition(
            name=node.name,
            phase=Phase(node.phase),
            criticality=Criticality.CRITICAL,
            requires=node.requires,
            wants=(),
            component=Sleeper(node.name, Phase(node.phase), node.seconds),
        )
        for node in graph.nodes
    ]


def run_engine(parts: Sequence[Definition], options: EngineOptions) -> dict[str, float]:
    """Boot *parts* to READY and stop them; seconds of both.

    Raises:
      RuntimeError: the engine did not become READY or did not stop cleanly.
    """
    moments: dict[str, float] = {}
    stop: Callable[[str], None] = lambda reason: None  # noqa: E731

    def publish(event: events.Event) -> None:
        if isinstance(event, events.NodeReady):
            moments["ready"] = time.perf_counter()
            stop("measured")

    view = EngineView(BootRecord("bench", 0, time.time()))
    began = time.perf_counter()
    engine = Engine(parts, options, view, publish=publish)
    stop = engine.request_stop
    code = trio.run(engine.run)
    ended = time.perf_counter()
    if code != 0 or "ready" not in moments:
        raise RuntimeError(f"the engine ended with code {code}: {view.record.failure}")
    return {"start": moments["ready"] - began, "stop": ended - moments["ready"]}


def options_for(schedule: Any, max_concurrency: int) -> EngineOptions:
    return EngineOptions(
        schedule=schedule,
        max_concurrency=max_concurrency,
        deadlines=dict.fromkeys(Phase, _AMPLE),
        total=_AMPLE,
        health=None,
    )


def main() -> None:
    request = json.load(sys.stdin)
    graph = Graph.from_json(request["graph"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    options = options_for(request["schedule"], request["max_concurrency"])
    result = run_engine(definitions(graph), options)
    result["baseline_mib"] = before
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
