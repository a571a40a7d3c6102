"""Names, labels and bucket bounds of every metric, known to both programs.

The resolver counts and the enforcer exposes, so both must mean the same by a key. Owns the
vocabulary only. Invariant: labels are bounded; no name and no address is ever a label value.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

QUERY_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Upper bounds in seconds of every duration histogram; the last bucket (+Inf) follows them."""

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """One metric family: name as exposed, kind, label names in order, help text."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str


RESOLVER_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "nameward_dns_queries_total",
            "counter",
            ("verdict", "qtype", "transport"),
            "Questions of clients, by what became of them.",
        ),
        Metric(
            "nameward_dns_request_seconds",
            "histogram",
            ("path",),
            "Time from a question's receipt to its reply.",
        ),
        Metric("nameward_dns_upstream_seconds", "histogram", ("upstream",), "Time of upstream answers."),
        Metric("nameward_dns_cache_entries", "gauge", (), "Entries in the resolver's cache."),
        Metric("nameward_hold_seconds", "histogram", (), "Time a reply was held for its grants."),
        Metric("nameward_hold_timeouts_total", "counter", (), "Replies whose grants came too late."),
        Metric(
            "nameward_dns_queries_shed_total",
            "counter",
            ("reason",),
            "Questions let go because too many came: full (of the longest queue), late, kernel.",
        ),
        Metric(
            "nameward_lookup_records_dropped_total",
            "counter",
            (),
            "Records of lookups for which there was no room on their way to the enforcer.",
        ),
        Metric(
            "nameward_tcp_connections_refused_total",
            "counter",
            (),
            "Connections of clients beyond limits.tcpConnectionsPerPod.",
        ),
        Metric(
            "nameward_settings_rejected",
            "gauge",
            (),
            "1 while the resolver goes on with old settings, because it refused the file as it is.",
        ),
    )
}
"""What the resolver reports (``policy.authority.CountersReported``); anything else is ignored."""

ENFORCER_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "nameward_enforcing",
            "gauge",
            (),
            "1 while the node enforces; 0 while something keeps it from that.",
        ),
        Metric("nameward_grants", "gauge", (), "Elements that are open for new connections."),
        Metric("nameward_grants_total", "counter", ("outcome",), "Addresses asked to be opened, by outcome."),
        Metric("nameward_denied_packets_total", "counter", ("reason",), "Recorded denied packets, by class."),
        Metric("nameward_policy_generation", "gauge", (), "Generation of the snapshot in force."),
        Metric(
            "nameward_policy_propagation_seconds",
            "histogram",
            (),
            "Time from a change's detection to its enforcement.",
        ),
        Metric(
            "nameward_source_stale_seconds",
            "gauge",
            (),
            "For how long the API server has not been heard completely; 0 while it is.",
        ),
        Metric("nameward_source_requests_total", "counter", (), "Requests to the API server, with watches."),
        Metric("nameward_source_failures_total", "counter", (), "Requests to the API server that failed."),
        Metric("nameward_revoked_flows_total", "counter", (), "Flows whose permit was taken away."),
        Metric(
            "nameward_break_glass_namespaces", "gauge", (), "Namespaces that are open by break-glass now."
        ),
        Metric("nameward_redis_up", "gauge", (), "1 while the shared state is reachable."),
        Metric("nameward_redis_errors_total", "counter", ("reason",), "Times Redis was lost, by why."),
        Metric(
            "nameward_shared_records_total",
            "counter",
            ("outcome",),
            "Records of nodes: written, let go, or read and not believed, by why.",
        ),
        Metric(
            "nameward_remote_requests_total",
            "counter",
            ("outcome",),
            "Grant requests to and from other nodes, by what became of them.",
        ),
        Metric(
            "nameward_events_total",
            "counter",
            ("outcome",),
            "Kubernetes Events at pods: written, known, failed, or suppressed because there were too many.",
        ),
        Metric(
            "nameward_log_records_suppressed_total",
            "counter",
            (),
            "Records of refusals that were not logged, beyond log.refusalsPerSecond.",
        ),
        Metric("nameward_kernel_errors_total", "counter", (), "Transactions that the kernel refused."),
        Metric("nameward_ruleset_repairs_total", "counter", (), "Times the ruleset had to be restored."),
    )
}

MAX_SERIES = 4096
"""Series the enforcer keeps for the resolver, whatever that one claims to count."""
MAX_LABEL_CHARS = 64

_KEY = re.compile(r'^(?P<name>[a-z_]+)(?:\{(?P<labels>[a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*)\})?$')
_LABEL = re.compile(r'([a-z_]+)="([^"\\\n]*)"')


def series_key(metric: str, **labels: str) -> str:
    """Return ``metric{label="value",…}``, labels in the order of the metric's definition."""
    if not labels:
        return metric
    return metric + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def parse_series_key(key: str, kind: Kind) -> tuple[Metric, tuple[str, ...]] | None:
    """Return the resolver's metric of that kind and its label values; None if it is none of ours."""
    match = _KEY.match(key)
    metric = RESOLVER_METRICS.get(match["name"]) if match else None
    if match is None or metric is None or metric.kind != kind:
        return None
    labels = _LABEL.findall(match["labels"] or "")
    if tuple(name for name, _ in labels) != metric.labels:
        return None
    if any(len(value) > MAX_LABEL_CHARS for _, value in labels):
        return None
    return metric, tuple(value for _, value in labels)
