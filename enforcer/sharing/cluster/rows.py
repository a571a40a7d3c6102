"""Other nodes' records as rows: the same fields as ``enforcer.inspection`` gives of this node.

Pure. Owns the translation, and how much of a stranger's text a row takes. Never checks a seal and
never decides what is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

from enforcer.sharing.records.formats import BlockedRecord, GrantRecord, NodeRecord, PodRecord
from enforcer.sharing.records.reasons import reasons_left
from policy.runtime.clock import wall_now

Row = dict[str, Any]
MAX_TEXT_CHARS = 1024
"""Of one value: a name in its longest form."""
MAX_LISTED = 64
"""Values of one list: problems, upstreams, policies."""


def grant_rows(record: GrantRecord, remaining_s: float, *, lost: bool) -> Iterator[Row]:
    """Yield a row for each reason that still holds; ``remaining_s`` is the time its key has left."""
    for name, policy, rule, left_s in reasons_left(record.reasons[:MAX_LISTED], remaining_s):
        yield {
            "namespace": short(record.namespace),
            "pod": short(record.pod),
            "uid": short(record.uid),
            "podIP": record.pod_ip,
            "node": record.node,
            "name": short(name),
            "address": record.address,
            "protocol": record.protocol,
            "port": int(record.port) if record.port.isdecimal() else record.port,
            "policy": short(policy),
            "rule": short(rule),
            "realizedAt": short(record.realized_at),
            "expiresAt": wall_now(-left_s),
            "remainingSeconds": round(left_s, 1),
            "lost": lost,
        }


def blocked_row(record: BlockedRecord, age_s: float, *, lost: bool) -> Row:
    """Return the row of one refusal, recorded so long ago by Redis's clock."""
    seen = wall_now(age_s)
    return {
        "kind": short(record.kind),
        "namespace": short(record.namespace),
        "pod": short(record.pod),
        "podIP": short(record.pod_ip),
        "node": record.node,
        "name": short(record.name),
        "qtype": short(record.qtype),
        "address": short(record.address),
        "protocol": short(record.protocol),
        "port": record.port,
        "policy": short(record.policy),
        "rule": short(record.rule),
        "reason": short(record.reason),
        "count": record.times,
        "firstSeen": seen,
        "lastSeen": seen,
        "lost": lost,
    }


def pod_row(record: PodRecord, *, lost: bool) -> Row:
    """Return the inventory's row of a pod that only its own node knows."""
    policies = [short(each) for each in record.policies[:MAX_LISTED]]
    return {
        "kind": "pod",
        "namespace": short(record.namespace),
        "pod": short(record.pod),
        "podIPs": [record.pod_ip],
        "node": record.node,
        "state": "covered" if policies else "default-denied",
        "smartGroups": [short(each) for each in record.smart_groups[:MAX_LISTED]],
        "policies": policies,
        "reason": "" if policies else "no policy selects it: nothing outside the cluster is permitted",
        "lost": lost,
    }


def node_row(record: NodeRecord) -> Row:
    """Return the row of ``status`` of a node that lives."""
    facts = record.facts
    return {
        "node": record.node,
        "version": short(facts.version),
        "enforcing": facts.enforcing,
        "generation": facts.generation,
        "policyHash": short(facts.policy_hash),
        "pods": facts.pods,
        "policies": facts.policies,
        "rejectedPolicies": facts.rejected_policies,
        "grants": facts.grants,
        "pending": facts.pending,
        "redis": "up",
        "upstreams": [
            {
                "address": short(each.address),
                "healthy": each.healthy,
                "latencyMs": each.latency_ms if isfinite(each.latency_ms) else 0.0,
            }
            for each in facts.upstreams[:MAX_LISTED]
        ],
        "lastRealizedAt": short(facts.last_realized_at) or None,
        "problems": [short(each) for each in facts.problems[:MAX_LISTED]],
        "lost": False,
    }


def lost_row(node: str, problem: str) -> Row:
    """Return the row of ``status`` of a node that has no heartbeat that counts."""
    return {
        "node": node,
        "version": "",
        "enforcing": False,
        "generation": 0,
        "policyHash": "",
        "pods": 0,
        "policies": 0,
        "rejectedPolicies": 0,
        "grants": 0,
        "pending": 0,
        "redis": "lost",
        "upstreams": [],
        "lastRealizedAt": None,
        "problems": [problem],
        "lost": True,
    }


def short(text: str) -> str:
    """Return a text that a row may hold; a longer one ends in an ellipsis."""
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
