"""What the core needs to know of the configuration, already in its own units.

Owns nothing but the values; ``resolver.service`` fills them from ``policy.runtime.settings``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

QUERY_TYPES = (
    "A", "AAAA", "CNAME", "HTTPS", "SVCB", "SRV", "MX", "TXT", "NS", "SOA", "CAA", "PTR", "NAPTR",
)  # fmt: skip


class CoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the resolver's core; the defaults are those of the configuration file."""

    max_ttl_s: int = 60
    """The longest TTL a client gets, positive or negative."""
    grace_s: float = 60.0
    """How much longer than its TTL a grant lasts (the enforcer adds it; renewals are timed by it)."""
    hold_timeout_s: float = 1.0
    deadline_s: float = 2.0
    """From a query's receipt to its reply, whatever it waited for."""
    queries_per_second: int = 500
    queries_in_flight: int = 256
    distinct_names: int = 300
    distinct_names_period_s: float = 600.0
    cache_entries: int = 100_000
    query_types: tuple[str, ...] = QUERY_TYPES
    blocked_reply: Literal["nxdomain", "nodata", "refused"] = "nxdomain"
    tunnel_action: Literal["block", "record"] = "block"
    cluster_dns: bool = False
    """Whether there are upstreams of the group ``cluster``; without, no cluster name resolves."""
    search_domains: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    """Besides the world's cluster CIDRs: sources in them may be pods that are not known yet."""
    ipv6_enforced: bool = True
