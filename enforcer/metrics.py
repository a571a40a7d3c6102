"""Metrics: what the enforcer counts and what the resolver reports, for Prometheus.

Owns the registry's content. Never waits for anybody. Invariant: the number of series is bounded by
``MAX_SERIES`` and labels by the vocabulary of ``policy.runtime.metrics``, whatever the resolver says.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from policy.authority import CountersReported
from policy.runtime.metrics import (
    ENFORCER_METRICS,
    MAX_SERIES,
    QUERY_BOUNDS_S,
    RESOLVER_METRICS,
    Kind,
    parse_series_key,
)
from policy.runtime.metrics import Metric as Definition

MAX_RESOLVERS = 64
"""Well above the most that dns.processes allows."""
_BUCKETS = len(QUERY_BOUNDS_S) + 1
Series = tuple[str, tuple[str, ...]]
"""Metric's name and its label values."""


class Histogram:
    """Growth per bucket, and the sum of what was observed, in seconds."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0.0] * _BUCKETS
        self.sum_s = 0.0

    def observe(self, value_s: float) -> None:
        """Count one observation."""
        self.buckets[bisect_left(QUERY_BOUNDS_S, value_s)] += 1
        self.sum_s += value_s

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus exposes them."""
        total = 0.0
        pairs = []
        for bound, count in zip((*map(str, QUERY_BOUNDS_S), "+Inf"), self.buckets, strict=True):
            total += count
            pairs.append((bound, total))
        return pairs


class Metrics(Collector):
    """Collects the enforcer's own numbers (by asking for them) and the resolver's (as reported)."""

    def __init__(self, own: Callable[[], Mapping[Series, float]]) -> None:
        self._own = own
        self._values: dict[Kind, dict[Series, float]] = {"counter": {}, "gauge": {}}
        self._gauges: dict[Series, dict[int, float]] = {}
        """By which of the node's resolvers said it."""
        self._histograms: dict[Series, Histogram] = {}
        self.propagation = Histogram()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def report(self, message: CountersReported) -> None:
        """Add what the resolver reports; what is not of the vocabulary, or no number, is ignored."""
        for key, growth in message.counters.items():
            series = self._series(key, "counter")
            if series and 0 <= growth < math.inf:
                values = self._values["counter"]
                values[series] = values.get(series, 0.0) + growth
        for key, value in message.gauges.items():
            series = self._series(key, "gauge")
            if series and math.isfinite(value) and 0 <= message.number < MAX_RESOLVERS:
                said = self._gauges.setdefault(series, {})
                said[message.number] = value
                self._values["gauge"][series] = _together(series[0], said.values())
        for key, growths in message.histograms.items():
            series = self._series(key, "histogram")
            if series and len(growths) == _BUCKETS + 1 and all(0 <= each < math.inf for each in growths):
                histogram = self._histograms.setdefault(series, Histogram())
                histogram.buckets = [a + b for a, b in zip(histogram.buckets, growths, strict=False)]
                histogram.sum_s += growths[-1]

    def gauge(self, name: str) -> float:
        """Return a gauge without labels of the resolver's; 0 if it has not said it."""
        return self._values["gauge"].get((name, ()), 0.0)

    def _series(self, key: str, kind: Kind) -> Series | None:
        parsed = parse_series_key(key, kind)
        if parsed is None:
            return None
        series = (parsed[0].name, parsed[1])
        known = series in self._histograms if kind == "histogram" else series in self._values[kind]
        return series if known or self._count() < MAX_SERIES else None

    def _count(self) -> int:
        return len(self._histograms) + sum(len(values) for values in self._values.values())

    def collect(self) -> Iterable[Metric]:
        """Yield every family, those without a sample included."""
        values = {**self._values["counter"], **self._values["gauge"], **self._own()}
        histograms = {**self._histograms, ("nameward_policy_propagation_seconds", ()): self.propagation}
        for definition in (*RESOLVER_METRICS.values(), *ENFORCER_METRICS.values()):
            if definition.kind == "histogram":
                yield _histogram(definition, histograms)
            else:
                yield _plain(definition, values)


def _together(metric: str, values: Iterable[float]) -> float:
    """What several resolvers say, as one: whether any refuses the settings, or the sum."""
    return max(values) if metric == "nameward_settings_rejected" else sum(values)


def _plain(definition: Definition, values: Mapping[Series, float]) -> Metric:
    kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = kind(definition.name, definition.text, labels=definition.labels)
    for (name, labels), value in values.items():
        if name == definition.name:
            family.add_metric(labels, value)
    return family


def _histogram(definition: Definition, histograms: Mapping[Series, Histogram]) -> Metric:
    family = HistogramMetricFamily(definition.name, definition.text, labels=definition.labels)
    for (name, labels), histogram in histograms.items():
        if name == definition.name:
            family.add_metric(labels, histogram.cumulative(), histogram.sum_s)
    return family
