"""Metrics: the vocabulary and nothing else, however hostile the one who reports."""

from __future__ import annotations

import math

from prometheus_client import generate_latest

from enforcer.metrics import Metrics
from policy.authority import CountersReported
from policy.runtime.metrics import MAX_SERIES, QUERY_BOUNDS_S, series_key


def _report(metrics: Metrics, **parts: object) -> str:
    whole = {"counters": {}, "histograms": {}, "gauges": {}, "upstreams": (), **parts}
    metrics.report(CountersReported(**whole))  # type: ignore[arg-type]
    return generate_latest(metrics.registry).decode()


def test_counters_add_up_and_own_numbers_are_asked_for() -> None:
    """Growth of the resolver's, values of the enforcer's."""
    metrics = Metrics(lambda: {("nameward_grants_total", ("realized",)): 5.0, ("nameward_grants", ()): 3.0})
    key = series_key("nameward_dns_queries_total", verdict="permitted", qtype="A", transport="udp")
    _report(metrics, counters={key: 2.0})
    text = _report(metrics, counters={key: 3.0}, gauges={"nameward_dns_cache_entries": 7.0})
    assert 'nameward_dns_queries_total{qtype="A",transport="udp",verdict="permitted"} 5.0' in text
    assert "nameward_dns_cache_entries 7.0" in text
    assert 'nameward_grants_total{outcome="realized"} 5.0' in text
    assert "nameward_grants 3.0" in text


def test_several_resolvers_are_one_to_who_reads() -> None:
    """Gauges are added, but for whether any refuses its settings; numbers that cannot be are ignored."""
    metrics = Metrics(dict)
    for number, entries, refuses in (
        (0, 7.0, 1.0),
        (1, 5.0, 0.0),
        (0, 8.0, 1.0),
        (-1, 99.0, 0.0),
        (64, 99.0, 0.0),
    ):
        gauges = {"nameward_dns_cache_entries": entries, "nameward_settings_rejected": refuses}
        text = _report(metrics, gauges=gauges, number=number)
    assert "nameward_dns_cache_entries 13.0" in text
    assert "nameward_settings_rejected 1.0" in text
    assert metrics.gauge("nameward_settings_rejected") == 1.0


def test_histograms_are_cumulative() -> None:
    """One observation below 1 ms, one beyond the last bound."""
    metrics = Metrics(dict)
    growth = [0.0] * (len(QUERY_BOUNDS_S) + 2)
    growth[QUERY_BOUNDS_S.index(0.001)] = growth[len(QUERY_BOUNDS_S)] = 1.0
    growth[-1] = 5.5
    text = _report(metrics, histograms={'nameward_dns_request_seconds{path="hit"}': tuple(growth)})
    assert 'nameward_dns_request_seconds_bucket{le="0.001",path="hit"} 1.0' in text
    assert 'nameward_dns_request_seconds_bucket{le="+Inf",path="hit"} 2.0' in text
    assert 'nameward_dns_request_seconds_sum{path="hit"} 5.5' in text


def test_what_is_not_of_the_vocabulary_is_ignored() -> None:
    """Foreign names and labels, the enforcer's own metrics, negative growth, no numbers, wrong lengths."""
    metrics = Metrics(dict)
    before = _report(metrics)
    after = _report(
        metrics,
        counters={
            "evil_total": 1.0,
            "nameward_grants_total": 9.0,
            'nameward_dns_queries_total{verdict="x"}': 1.0,
            'nameward_dns_queries_total{verdict="a\n",qtype="A",transport="udp"}': 1.0,
            "nameward_hold_timeouts_total": -1.0,
        },
        gauges={"nameward_dns_cache_entries": math.nan, "nameward_policy_generation": 99.0},
        histograms={"nameward_hold_seconds": (1.0,)},
    )
    assert after == before


def test_series_are_bounded() -> None:
    """A resolver that invents label values reaches an end."""
    metrics = Metrics(dict)
    text = _report(
        metrics,
        counters={
            series_key("nameward_dns_queries_total", verdict=f"v{i}", qtype="A", transport="udp"): 1.0
            for i in range(MAX_SERIES + 500)
        },
    )
    assert text.count("nameward_dns_queries_total{") == MAX_SERIES
