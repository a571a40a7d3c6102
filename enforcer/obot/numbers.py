"""The bridge's metrics.

Owns their names. Reads, never changes. Invariant: the labels are the words that stand here; no name, no
domain is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Numbers(NamedTuple):
    """One look at the bridge."""

    sources: int
    policies: int
    refused: int
    left_out: int
    problems: int
    storage_up: bool
    cluster_up: bool
    listed_ago_s: float | None
    writes: Counter[tuple[str, str]]
    """By action and outcome."""


class BridgeMetrics(Collector):
    """Asks for the numbers when it is asked."""

    def __init__(self, numbers: Callable[[], Numbers]) -> None:
        self._numbers = numbers
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        now = self._numbers()
        for name, value, text in (
            ("sources", now.sources, "MCPNetworkPolicies in Obot's storage."),
            ("policies", now.policies, "FirewallPolicies that stand as Obot says."),
            ("refused_sources", now.refused, "MCPNetworkPolicies that cannot be carried over."),
            ("left_out_sources", now.left_out, "MCPNetworkPolicies of which a part is left out."),
            ("problems", now.problems, "Problems that the log tells of, at this moment."),
            ("storage_up", now.storage_up, "1 while Obot's storage answers."),
            ("cluster_up", now.cluster_up, "1 while FirewallPolicies can be listed and watched."),
        ):
            yield GaugeMetricFamily(f"nameward_bridge_{name}", text, value=float(value))
        age = GaugeMetricFamily(
            "nameward_bridge_listed_age_seconds", "Time since Obot's storage was last listed completely."
        )
        if now.listed_ago_s is not None:
            age.add_metric((), now.listed_ago_s)
        yield age
        writes = CounterMetricFamily(
            "nameward_bridge_writes_total", "Writes of FirewallPolicies.", labels=("action", "outcome")
        )
        for labels, count in sorted(now.writes.items()):
            writes.add_metric(labels, count)
        yield writes
