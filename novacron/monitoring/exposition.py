"""Series to Prometheus text and OpenMetrics. The only file that imports prometheus_client.

Imported at the first scrape, in the worker thread that renders it: READY needs no metrics text,
and this import costs 10 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from novacron.monitoring.series import Series


class _SeriesCollector(Collector):
    def __init__(self, series: Iterable[Series]) -> None:
        self._series = series

    def collect(self) -> Iterator[Metric]:
        for series in self._series:
            yield _family(series)


def render(series: Iterable[Series], accept: str) -> tuple[bytes, str]:
    """Text of *series* and of the process's own metrics, in the format that *accept* prefers,
    and its content type."""
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(_SeriesCollector(series))
    ProcessCollector(registry=registry)
    return encode(registry), content_type


def _family(series: Series) -> Metric:
    labels = series.labels
    if series.histograms is not None:
        histogram = HistogramMetricFamily(series.name, series.help, labels=labels)
        bounds = [*(str(float(bound)) for bound in series.buckets), "+Inf"]
        for key, (counts, total) in series.histograms.items():
            cumulative = zip(bounds, map(float, accumulate(counts)), strict=True)
            histogram.add_metric(key, buckets=list(cumulative), sum_value=total)
        return histogram
    family: CounterMetricFamily | GaugeMetricFamily
    if series.kind == "counter":
        family = CounterMetricFamily(series.name, series.help, labels=labels)
    else:
        family = GaugeMetricFamily(series.name, series.help, labels=labels)
    for key, value in series.values.items():
        family.add_metric(key, value)
    return family
