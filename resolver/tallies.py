"""What the core counts: questions by verdict, durations, holds that timed out.

Owns the counts between two reports. Never formats them. Invariant: labels are bounded, no name and
no address among them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import dns.rdatatype

from policy.runtime.metrics import series_key

MAX_DURATIONS: Final = 20_000
"""Durations kept per series between two reports; more are counted nowhere."""

_TYPES: Final = frozenset({1, 2, 5, 6, 12, 15, 16, 28, 33, 35, 64, 65, 255, 257})


class Report(NamedTuple):
    """Growth since the last report: counters, single durations in seconds by series, gauges."""

    counters: dict[str, float]
    durations_s: dict[str, list[float]]
    gauges: dict[str, float]


class Tallies:
    """Counts by series. ``of`` gives the hot path a one-element list to add to."""

    def __init__(self) -> None:
        self._queries: dict[tuple[str, int, str], list[int]] = {}
        self._durations: dict[str, list[float]] = {}
        self.hold_timeouts = 0

    def of(self, verdict: str, qtype: int, transport: str) -> list[int]:
        """The count of queries with these labels."""
        key = (verdict, qtype if qtype in _TYPES else 0, transport)
        tally = self._queries.get(key)
        if tally is None:
            tally = self._queries[key] = [0]
        return tally

    def took(self, series: str, seconds: float) -> None:
        """Note a duration."""
        found = self._durations.get(series)
        if found is None:
            found = self._durations[series] = []
        if len(found) < MAX_DURATIONS:
            found.append(seconds)

    def drain(self, cache_entries: int) -> Report:
        """Return the growth and begin anew."""
        counters: dict[str, float] = {}
        for (verdict, qtype, transport), tally in self._queries.items():
            if tally[0]:
                kind = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(qtype)) if qtype else "other"
                key = series_key(
                    "nameward_dns_queries_total", verdict=verdict, qtype=kind, transport=transport
                )
                counters[key] = float(tally[0])
                tally[0] = 0
        if self.hold_timeouts:
            counters["nameward_hold_timeouts_total"] = float(self.hold_timeouts)
            self.hold_timeouts = 0
        durations, self._durations = self._durations, {}
        return Report(counters, durations, {"nameward_dns_cache_entries": float(cache_entries)})
