"""What is told to the enforcer: equal records together, bounded, fair; counters with their buckets."""

from __future__ import annotations

import pytest

from policy.authority import LookupRecord
from policy.runtime.framing import MAX_TO_ENFORCER_BYTES, encode
from policy.runtime.kinds import Upstream
from policy.runtime.metrics import QUERY_BOUNDS_S, parse_series_key
from resolver.health import Health
from resolver.reports import MAX_WAITING, MAX_WAITING_OF_POD, Recording, buckets, counters_report
from resolver.tallies import Report


def lookup(name="x.example", pod_ip="10.0.0.1", count=1, reason="no rule permits it"):
    """Return a record of a blocked lookup."""
    return LookupRecord("blocked", "ns", "pod", pod_ip, name, "A", "", "", reason, count, 0.0)


def test_equal_records_become_one_with_a_count_and_an_age():
    """The age is that of the last one when the message is made."""
    recording = Recording()
    recording.add(lookup(), 1.0)
    recording.add(lookup(count=2), 3.0)
    recording.add(lookup(reason="another"), 3.5)
    (message,) = recording.take(4.0)
    assert [(one.count, one.age_s) for one in message.records] == [(3, 1.0), (1, 0.5)]
    assert recording.take(5.0) == []


def test_a_record_that_comes_late_does_not_make_the_others_older():
    """What prepared replies counted is told after what was seen since."""
    recording = Recording()
    recording.add(lookup(), 3.0)
    recording.add(lookup(count=5), 2.0)
    (message,) = recording.take(4.0)
    assert [(one.count, one.age_s) for one in message.records] == [(6, 1.0)]


def test_a_flood_of_one_pod_leaves_room_for_the_others():
    """Beyond its share a pod's records are dropped and counted; another pod's are taken."""
    recording = Recording()
    for number in range(10_000):
        recording.add(lookup(f"n{number}.example"), 0.0)
    recording.add(lookup("other.example", pod_ip="10.0.0.2"), 0.0)
    records = [record for message in recording.take(0.0) for record in message.records]
    assert len(records) == MAX_WAITING_OF_POD + 1
    assert records[-1].name == "other.example"
    assert recording.dropped == 10_000 - MAX_WAITING_OF_POD


def test_messages_fit_the_enforcers_frames():
    """The longest names there are, and everything together is bounded."""
    recording = Recording()
    for number in range(10_000):
        name = f"{number}" + "\\255" * 250
        recording.add(lookup(name, f"10.0.{number % 200}.1", reason=f"no rule permits {name}"), 0.0)
    messages = recording.take(0.0)
    assert sum(len(message.records) for message in messages) == MAX_WAITING
    assert max(len(encode(message)) for message in messages) < MAX_TO_ENFORCER_BYTES


def test_buckets_hold_each_duration_once_and_the_sum_last():
    """A duration at a bound belongs to it; what exceeds all of them is in the bucket before the sum."""
    found = buckets([QUERY_BOUNDS_S[0], QUERY_BOUNDS_S[0] + 1e-6, 100.0])
    assert len(found) == len(QUERY_BOUNDS_S) + 2
    assert found[:2] == (1.0, 1.0)
    assert found[-2] == 1.0
    assert found[-1] == pytest.approx(100.0002, abs=1e-4)


def test_a_report_is_growth_and_drains_the_upstreams():
    """Upstream durations are told once; every series is one the enforcer knows."""
    health = Health(Upstream("192.0.2.1", 53, tls=False, name=""))
    health.heard(0.003, 1.0)
    report = Report(
        {'nameward_dns_queries_total{verdict="blocked",qtype="A",transport="udp"}': 2.0},
        {'nameward_dns_request_seconds{path="miss"}': [0.2]},
        {"nameward_dns_cache_entries": 5.0},
    )
    beside = {"nameward_lookup_records_dropped_total": 3.0, "nameward_tcp_connections_refused_total": 0.0}
    first = counters_report(report, [health], (health.state(),), beside, rejected=True)
    second = counters_report(Report({}, {}, {}), [health], (health.state(),), {}, rejected=False)
    assert sum(first.histograms['nameward_dns_upstream_seconds{upstream="192.0.2.1"}'][:-1]) == 1
    assert second.histograms == {}
    assert (first.gauges["nameward_settings_rejected"], second.gauges["nameward_settings_rejected"]) == (1, 0)
    assert all(parse_series_key(key, "histogram") for key in first.histograms)
    assert first.counters["nameward_lookup_records_dropped_total"] == 3
    assert len(first.counters) == 2, "what did not grow is not told"
    assert all(parse_series_key(key, "counter") for key in (*first.counters, *beside))
    assert all(parse_series_key(key, "gauge") for key in first.gauges)
