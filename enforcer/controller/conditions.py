"""The conditions of a policy: Accepted and Realized, in one word for programs and a sentence for people.

Pure. Owns those words. Never claims more than was said: deployed never means enforced. Invariant: the time
of a condition changes with its status alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enforcer.controller.fleet import Reach
from enforcer.controller.verdicts import Verdict
from policy.manifest import Finding, Governed
from policy.manifest_findings import printable

Json = dict[str, Any]

ACCEPTED, REALIZED = "Accepted", "Realized"
OURS = (ACCEPTED, REALIZED)
_MAX_MESSAGE = 1000


def conditions(verdict: Verdict, reach: Reach, governed: Governed) -> list[Json]:
    """Return both conditions, without their times."""
    said = [(ACCEPTED, *_accepted(verdict, governed)), (REALIZED, *_realized(verdict, reach))]
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": printable(message)[:_MAX_MESSAGE],
            "observedGeneration": verdict.generation,
        }
        for kind, status, reason, message in said
    ]


def timed(wanted: Sequence[Json], stored: Mapping[str, Json], at: str) -> list[Json]:
    """Return the conditions with their times: ``at`` where the status is another than the stored one's."""
    found = []
    for each in wanted:
        old = stored.get(each["type"], {})
        since = old.get("lastTransitionTime") if old.get("status") == each["status"] else None
        found.append(each | {"lastTransitionTime": since if isinstance(since, str) else at})
    return found


def by_type(status: object) -> dict[str, Json]:
    """Return the conditions of ours in a stored ``status``, by type. Total."""
    listed = status.get("conditions") if isinstance(status, dict) else None
    items = listed if isinstance(listed, list) else ()
    return {
        each["type"]: each
        for each in items
        if isinstance(each, dict) and isinstance(each.get("type"), str) and each["type"] in OURS
    }


def _accepted(verdict: Verdict, governed: Governed) -> tuple[str, str, str]:
    namespace = verdict.key.namespace
    if not verdict.is_governed:
        how = "add it to policy.governedNamespaces"
        if governed.match_labels:
            labels = ",".join(f"{key}={value}" for key, value in sorted(governed.match_labels.items()))
            how = f"label it {labels}"
        return "False", "NamespaceNotGoverned", f"the namespace {namespace} is not governed: {how}"
    errors = [each for each in verdict.findings if each.severity == "error"]
    if verdict.refused_rules:
        what = "1 rule is" if verdict.refused_rules == 1 else f"{verdict.refused_rules} rules are"
        return "False", "NotUnderstood", f"{what} not understood: {_first(errors, verdict.rejected)}"
    if verdict.rejected:
        return "True", "PartlyAccepted", f"the rest of it counts: {_first(errors, verdict.rejected)}"
    if verdict.warnings:
        what = "1 warning" if verdict.warnings == 1 else f"{verdict.warnings} warnings"
        return "True", "Accepted", f"every part of it is understood; {what} in its PolicyStatus"
    return "True", "Accepted", "every part of it is understood"


def _first(findings: Sequence[Finding], count: int) -> str:
    if not findings:
        return "see nameward check"
    first = findings[0]
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"{first.pointer}: {first.message}; {first.fix}{more}"


def _realized(verdict: Verdict, reach: Reach) -> tuple[str, str, str]:
    if not verdict.is_governed:
        return "False", "NamespaceNotGoverned", "nothing of it is enforced"
    if not reach.all_nodes:
        return "Unknown", "NoNodeStatus", "no node has said what it enforces (kubectl get nodestatuses)"
    if not reach.nodes:
        message = "no node says that it has pods of this policy"
        if reach.truncated:
            message += f", but {reach.truncated} of them have more policies than they list"
        return "Unknown", "NoPods", message
    pods = "1 pod" if reach.pods == 1 else f"{reach.pods} pods"
    if reach.current == reach.nodes and reach.truncated:
        count = f"{reach.nodes} nodes have it" if reach.nodes > 1 else "1 node has it"
        message = f"{count}; {reach.truncated} of the others have more policies than they list"
        return "Unknown", "NodesTruncated", message
    if reach.current == reach.nodes:
        nodes = "1 node" if reach.nodes == 1 else f"{reach.nodes} nodes"
        return "True", "InForce", f"in the kernel of {nodes}, for {pods}"
    count = f"{reach.current} of {reach.nodes} nodes have it"
    if reach.idle:
        return "False", "NodesNotEnforcing", f"{count}; not enforcing: {_named(reach.idle)}"
    return "False", "NodesBehind", f"{count}; an earlier generation is in force on {_named(reach.behind)}"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names)
