"""What the resolver tells the enforcer besides requests: records of lookups, and counters.

Owns what waits to be told. Invariants: memory is bounded, and one pod's flood of records leaves room
for the others'; equal records become one with a count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec

from policy.authority import CountersReported, LookupRecord, LookupsRecorded, UpstreamState
from policy.runtime.metrics import QUERY_BOUNDS_S, series_key
from resolver.health import Health, shown
from resolver.tallies import Report

MAX_WAITING = 2048
MAX_WAITING_OF_POD = 256
RECORDS_PER_MESSAGE = 64
"""Well under the largest frame to the enforcer, whatever the names in them are."""

_Key = tuple[str, ...]


class Recording:
    """Lookup records on their way, equal ones together."""

    def __init__(self) -> None:
        self._waiting: dict[_Key, LookupRecord] = {}
        self._seen_at: dict[_Key, float] = {}
        self._of_pod: Counter[str] = Counter()
        self.dropped = 0
        """Records for which there was no room."""

    def add(self, record: LookupRecord, now: float) -> None:
        """Take a record; ``now`` is when it was last seen, which may be before another of its kind."""
        key = (
            record.verdict,
            record.pod_ip,
            record.name,
            record.qtype,
            record.namespace,
            record.pod,
            record.policy,
            record.rule,
            record.reason,
        )
        known = self._waiting.get(key)
        if known is not None:
            self._waiting[key] = msgspec.structs.replace(known, count=known.count + record.count)
        elif len(self._waiting) >= MAX_WAITING or self._of_pod[record.pod_ip] >= MAX_WAITING_OF_POD:
            self.dropped += record.count
            return
        else:
            self._waiting[key] = record
            self._of_pod[record.pod_ip] += 1
        self._seen_at[key] = max(now, self._seen_at.get(key, now))

    def take(self, now: float) -> list[LookupsRecorded]:
        """Return all that waits, as messages, and begin anew."""
        if not self._waiting:
            return []
        records = [
            msgspec.structs.replace(record, age_s=max(0.0, now - self._seen_at[key]))
            for key, record in self._waiting.items()
        ]
        self._waiting, self._seen_at, self._of_pod = {}, {}, Counter()
        return [
            LookupsRecorded(tuple(records[at : at + RECORDS_PER_MESSAGE]))
            for at in range(0, len(records), RECORDS_PER_MESSAGE)
        ]


def buckets(durations_s: Iterable[float]) -> tuple[float, ...]:
    """Return durations per bucket of ``QUERY_BOUNDS_S`` and +Inf, the sum last.

    A second may have many thousands: they are sorted and the bounds looked for, not each of them.
    """
    ordered = sorted(durations_s)
    ends = [bisect_right(ordered, bound) for bound in QUERY_BOUNDS_S]
    found = [float(end - start) for start, end in pairwise([0, *ends, len(ordered)])]
    return (*found, sum(ordered))


def counters_report(
    report: Report,
    healths: Iterable[Health],
    states: tuple[UpstreamState, ...],
    adapters: Mapping[str, float],
    *,
    rejected: bool,
    number: int = 0,
) -> CountersReported:
    """Return one second's growth; drains the upstreams' durations.

    ``adapters`` is the growth of what is counted beside the core; ``rejected`` says that the
    configuration file as it is now was refused; ``number`` is which of the node's resolvers tells this.
    """
    histograms = {series: buckets(found) for series, found in report.durations_s.items()}
    for health in healths:
        if any(health.seconds):
            key = series_key("nameward_dns_upstream_seconds", upstream=shown(health.upstream))
            histograms[key] = tuple(health.seconds)
            health.seconds = [0.0] * len(health.seconds)
    gauges = {**report.gauges, "nameward_settings_rejected": float(rejected)}
    counters = {**report.counters, **{key: growth for key, growth in adapters.items() if growth}}
    return CountersReported(counters, histograms, gauges, states, number)
