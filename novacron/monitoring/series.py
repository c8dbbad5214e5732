"""What is exported about a node, as plain values; no Prometheus, no clock, no task in here."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from novacron import __version__, observe
from novacron.component import ComponentState, HealthState, NodeState, NodeView
from novacron.record import Record

if TYPE_CHECKING:
    import trio

Values = Mapping[tuple[str, ...], float]

MAX_SERIES_PER_METRIC = 1000
"""Label sets of one metric that are exported; the others are counted instead. A bug that put a
peer's word into a label would otherwise take down the Prometheus server, not only this node."""


class Series(Record):
    """All time series of one metric; for a histogram *buckets* are the upper bounds."""

    name: str
    kind: observe.Kind
    help: str
    labels: tuple[str, ...]
    values: Values
    buckets: tuple[float, ...] = ()
    histograms: Mapping[tuple[str, ...], tuple[Sequence[int], float]] | None = None


NODE_METRICS: Mapping[str, tuple[observe.Kind, str, tuple[str, ...]]] = {
    "novacron_build_info": (
        "gauge",
        "Always 1; what runs here.",
        ("version", "python"),
    ),
    "novacron_node_state": (
        "gauge",
        "1 for the state the node is in, 0 for the others.",
        ("state",),
    ),
    "novacron_boot_seconds": (
        "gauge",
        "Seconds from the start of the process to READY; absent before.",
        (),
    ),
    "novacron_boot_parallel_efficiency": (
        "gauge",
        "How much of the parallelism that the component graph allows the boot used, from 0 to 1.",
        (),
    ),
    "novacron_boot_phase_seconds": (
        "gauge",
        "Seconds each boot phase took; absent until it has ended.",
        ("phase",),
    ),
    "novacron_boot_warnings": (
        "gauge",
        "Sentences in the boot summary an operator should read.",
        (),
    ),
    "novacron_component_start_seconds": (
        "gauge",
        "Seconds from a component's first start attempt to ready, retry sleeps included.",
        ("component",),
    ),
    "novacron_component_state": (
        "gauge",
        "1 for the state the component is in, 0 for the others.",
        ("component", "state"),
    ),
    "novacron_component_health": (
        "gauge",
        "1 for the health the component last reported, 0 for the others.",
        ("component", "state"),
    ),
    "novacron_component_retries_total": (
        "counter",
        "Start attempts of a component after its first.",
        ("component",),
    ),
    "novacron_component_restorations_total": (
        "counter",
        "Times a component came back at run time after it was degraded or down.",
        ("component",),
    ),
    "novacron_metrics_dropped_series": (
        "gauge",
        "Label sets left out because their metric has too many.",
        (),
    ),
    "novacron_trio_tasks_living": (
        "gauge",
        "Trio tasks that exist.",
        (),
    ),
    "novacron_trio_tasks_runnable": (
        "gauge",
        "Trio tasks waiting for their turn on the loop.",
        (),
    ),
    "novacron_trio_run_sync_queue_size": (
        "gauge",
        "Callbacks other threads have queued for the loop.",
        (),
    ),
    "novacron_trio_threads_busy": (
        "gauge",
        "Worker threads in use.",
        (),
    ),
    "novacron_trio_threads_waiting": (
        "gauge",
        "Tasks waiting for a worker thread.",
        (),
    ),
}
"""Name to kind, help and labels of every metric that is taken from the node when it is scraped.
All others are handles of :mod:`novacron.observe`."""


def node_series(node: NodeView) -> Iterable[Series]:
    """The node's own metrics. Cheap: reads what the engine keeps anyway."""
    report = node.report()
    components = node.components()
    yield _series("novacron_build_info", {(__version__, platform.python_version()): 1.0})
    yield _series("novacron_node_state", _one_hot(NodeState, node.state))
    if node.ready_seconds is not None:
        yield _series("novacron_boot_seconds", {(): node.ready_seconds})
    if report.get("efficiency") is not None:
        yield _series("novacron_boot_parallel_efficiency", {(): float(report["efficiency"])})
    yield _series(
        "novacron_boot_phase_seconds",
        {
            (phase["name"],): phase["end"] - phase["start"]
            for phase in report["phases"]
            if phase["end"] is not None
        },
    )
    yield _series("novacron_boot_warnings", {(): float(len(node.warnings()))})
    yield _series(
        "novacron_component_start_seconds",
        {(c.name,): c.start_seconds for c in components if c.start_seconds is not None},
    )
    states: dict[tuple[str, ...], float] = {}
    health: dict[tuple[str, ...], float] = {}
    for c in components:
        states.update(_one_hot(ComponentState, c.state, c.name))
        health.update(_one_hot(HealthState, c.health.state, c.name))
    yield _series("novacron_component_state", states)
    yield _series("novacron_component_health", health)
    yield _series(
        "novacron_component_retries_total",
        {(c.name,): float(max(0, c.attempts - 1)) for c in components},
    )
    yield _series(
        "novacron_component_restorations_total",
        {(c.name,): float(c.restorations) for c in components},
    )


def trio_series(
    loop: trio.lowlevel.RunStatistics, threads: trio.CapacityLimiterStatistics
) -> Iterable[Series]:
    yield _series("novacron_trio_tasks_living", {(): float(loop.tasks_living)})
    yield _series("novacron_trio_tasks_runnable", {(): float(loop.tasks_runnable)})
    yield _series("novacron_trio_run_sync_queue_size", {(): float(loop.run_sync_soon_queue_size)})
    yield _series("novacron_trio_threads_busy", {(): float(threads.borrowed_tokens)})
    yield _series("novacron_trio_threads_waiting", {(): float(threads.tasks_waiting)})


def observed_series() -> Iterable[Series]:
    """A copy of every handle's values; call it on the loop, where they change."""
    for family in observe.collect():
        if isinstance(family, observe.Histogram):
            yield Series(
                family.name,
                family.kind,
                family.help,
                family.label_names,
                {},
                family.buckets,
                {key: (tuple(counts), total) for key, (counts, total) in family.values.items()},
            )
        elif isinstance(family, (observe.Counter, observe.Gauge)):
            yield Series(
                family.name, family.kind, family.help, family.label_names, dict(family.values)
            )


def bounded(series: Iterable[Series], limit: int = MAX_SERIES_PER_METRIC) -> list[Series]:
    """At most *limit* label sets of each metric, and a count of what that left out."""
    dropped = 0
    kept: list[Series] = []
    for one in series:
        values, histograms = one.values, one.histograms
        dropped += max(0, len(values) - limit) + max(0, len(histograms or ()) - limit)
        if len(values) > limit:
            values = {key: values[key] for key in sorted(values)[:limit]}
        if histograms is not None and len(histograms) > limit:
            histograms = {key: histograms[key] for key in sorted(histograms)[:limit]}
        kept.append(
            Series(one.name, one.kind, one.help, one.labels, values, one.buckets, histograms)
        )
    kept.append(_series("novacron_metrics_dropped_series", {(): float(dropped)}))
    return kept


def _series(name: str, values: Values) -> Series:
    kind, help_text, labels = NODE_METRICS[name]
    return Series(name, kind, help_text, labels, values)


def _one_hot(
    states: Iterable[NodeState] | Iterable[ComponentState] | Iterable[HealthState],
    current: str,
    *labels: str,
) -> dict[tuple[str, ...], float]:
    return {(*labels, state.value): float(state.value == current) for state in states}
