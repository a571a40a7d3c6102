"""Health of upstream servers: who is asked first, and how long an answer is waited for.

Owns latency and failures per upstream. Never asks: ``resolver.upstreams`` reports what it saw.
Invariant: an unhealthy upstream is asked last, never not at all, and is tried again on its own.
"""

from __future__ import annotations

from bisect import bisect_left

from policy.authority import UpstreamState
from policy.runtime.kinds import Upstream
from policy.runtime.metrics import QUERY_BOUNDS_S

PROBE_EVERY_S = 5.0
FAILURES_TO_UNHEALTHY = 3
SILENT_S = 1.0
"""Failures count only where nothing was heard for this long: slow names are not a slow server."""
SHORTEST_WAIT_S = 0.2
LONGEST_WAIT_S = 0.4


def shown(upstream: Upstream) -> str:
    """Return the upstream as status and metrics print it (``1.1.1.1``, ``tls://9.9.9.9:8853``)."""
    usual = 853 if upstream.tls else 53
    host = f"[{upstream.address}]" if ":" in upstream.address and upstream.port != usual else upstream.address
    port = "" if upstream.port == usual else f":{upstream.port}"
    return ("tls://" if upstream.tls else "") + host + port


class Health:
    """What is known of one upstream."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.latency_ms = 0.0
        """Exponentially weighted, 0 until something was heard."""
        self.heard_at = float("-inf")
        self._failures = 0
        self._probe_at = 0.0
        self.seconds = [0.0] * (len(QUERY_BOUNDS_S) + 2)
        """Answers per bucket of ``QUERY_BOUNDS_S`` and +Inf, the sum last; the reporter drains it."""

    @property
    def healthy(self) -> bool:
        """False after several failures in a row with nothing heard between them."""
        return self._failures < FAILURES_TO_UNHEALTHY

    def heard(self, took_s: float, now: float) -> None:
        """Note an answer, whatever it says."""
        self._failures = 0
        self.heard_at = now
        took_ms = took_s * 1000
        self.latency_ms += (took_ms - self.latency_ms) / (8 if self.latency_ms else 1)
        self.seconds[bisect_left(QUERY_BOUNDS_S, took_s)] += 1
        self.seconds[-1] += took_s

    def missed(self, now: float) -> None:
        """Note silence or an error."""
        if now - self.heard_at >= SILENT_S and self.healthy:
            self._failures += 1
            self._probe_at = now + PROBE_EVERY_S

    def wait_s(self) -> float:
        """Return how long to wait for an answer before somebody else is asked too (RFC 6298's idea)."""
        if not self.latency_ms:
            return LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, 4 * self.latency_ms / 1000))

    def wants_probe(self, now: float) -> bool:
        """Say, once each ``PROBE_EVERY_S``, that an unhealthy upstream should get a question too."""
        if self.healthy or now < self._probe_at:
            return False
        self._probe_at = now + PROBE_EVERY_S
        return True

    def state(self) -> UpstreamState:
        """Return what ``nameward status`` shows."""
        return UpstreamState(shown(self.upstream), self.healthy, round(self.latency_ms, 3))


def by_health(group: list[Health]) -> list[Health]:
    """Return the healthy ones as they were written, then the others, last heard first."""
    for health in group:
        if not health.healthy:
            break
    else:
        return group
    return sorted(group, key=lambda health: (0.0, 0.0) if health.healthy else (1.0, -health.heard_at))
