"""What a node's heartbeat says of it: the row of ``nameward status``, as facts.

Pure. Owns that translation alone, so that every node says of itself what it shows on itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enforcer.sharing.records.formats import NodeFacts, SharedUpstream


def facts_of(status: Mapping[str, Any], started_at: str) -> NodeFacts:
    """Return the facts of a row as ``enforcer.node.Node.status`` makes it; ``started_at`` is RFC 3339."""
    return NodeFacts(
        version=status["version"],
        generation=status["generation"],
        policy_hash=status["policyHash"],
        pods=status["pods"],
        grants=status["grants"],
        started_at=started_at,
        enforcing=status["enforcing"],
        policies=status["policies"],
        rejected_policies=status["rejectedPolicies"],
        pending=status["pending"],
        last_realized_at=status["lastRealizedAt"] or "",
        problems=tuple(status["problems"]),
        upstreams=tuple(
            SharedUpstream(each["address"], each["healthy"], each["latencyMs"])
            for each in status["upstreams"]
        ),
    )
