"""What is written: the PolicyStatus of a policy, and the part of it that stands on the policy itself.

Pure. Owns names and bodies. Never decides what they say. Invariant: two bodies of equal content are not
written twice, whatever times and versions the stored one has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from enforcer.controller.conditions import by_type
from enforcer.controller.fleet import Reach
from enforcer.controller.verdicts import Key, Verdict
from enforcer.kube.answers import version_of
from policy.manifest_findings import Finding, printable

Json = dict[str, Any]

POLICY_API = "networking.aviatrix.com/v1alpha1"
STATUS_API = "nameward.dev/v1alpha1"
PLURALS = {"FirewallPolicy": "firewallpolicies", "WebgroupPolicy": "webgrouppolicies"}
_MAX_NAME = 253
_MAX_TEXT = 1000


def name_of(key: Key) -> str:
    """Return the name of a policy's PolicyStatus: ``firewallpolicy-NAME``, hashed where that is too long."""
    name = f"{key.kind.lower()}-{key.name}"
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: _MAX_NAME - 17].rstrip('.-')}-{digest}"


class StatusCut(NamedTuple):
    """A stored PolicyStatus, as far as it is read."""

    namespace: str
    name: str
    uid: str
    version: str
    content: Json
    """``policy``, ``status`` and the owners' uids."""

    @property
    def policy_uid(self) -> str:
        """The uid of the policy that it is about; "" if it does not say."""
        policy = self.content["policy"]
        uid = policy.get("uid") if isinstance(policy, dict) else None
        return uid if isinstance(uid, str) else ""


def cut_status(fields: Json) -> StatusCut:
    """Cut a PolicyStatus object. Total."""
    found = fields.get("metadata")
    metadata: Json = found if isinstance(found, dict) else {}
    owners = metadata.get("ownerReferences")
    uids = [each.get("uid") for each in owners if isinstance(each, dict)] if isinstance(owners, list) else []
    content = {"policy": fields.get("policy"), "status": fields.get("status"), "owners": uids}
    namespace, name, uid = (str(metadata.get(field) or "") for field in ("namespace", "name", "uid"))
    return StatusCut(namespace, name, uid, version_of(fields), content)


class Mirrored(NamedTuple):
    """What stands in the ``status`` of a stored policy, as far as it is ours."""

    conditions: dict[str, Json]
    enforcement: object


def cut_mirrored(fields: Json) -> Mirrored:
    """Cut the ``status`` of a policy. Total."""
    status = fields.get("status")
    return Mirrored(by_type(status), status.get("enforcement") if isinstance(status, dict) else None)


def status_of(verdict: Verdict, reach: Reach, conditions: Sequence[Json]) -> Json:
    """Return the ``status`` of a PolicyStatus."""
    return {
        "observedGeneration": verdict.generation,
        "conditions": list(conditions),
        "rules": verdict.rules,
        "pods": reach.pods,
        "rejected": verdict.rejected,
        "realizedNodes": f"{reach.current}/{reach.nodes}",
        "findings": [_finding(each) for each in verdict.findings],
    }


def _finding(finding: Finding) -> Json:
    return {
        "severity": finding.severity,
        "pointer": printable(finding.pointer)[:_MAX_TEXT],
        "message": finding.message[:_MAX_TEXT],
        "fix": finding.fix[:_MAX_TEXT],
    }


def object_of(verdict: Verdict, status: Json) -> Json:
    """Return the whole PolicyStatus, owned by its policy."""
    kind, namespace, name = verdict.key
    owner = {"apiVersion": POLICY_API, "kind": kind, "name": name, "uid": verdict.uid}
    return {
        "apiVersion": STATUS_API,
        "kind": "PolicyStatus",
        "metadata": {
            "name": name_of(verdict.key),
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "nameward"},
            "ownerReferences": [owner],
        },
        "policy": {"kind": kind, "name": name, "uid": verdict.uid},
        "status": status,
    }


def is_as_stored(body: Json, stored: StatusCut) -> bool:
    """Say whether the stored PolicyStatus says the same already, times aside."""
    owners = [each["uid"] for each in body["metadata"]["ownerReferences"]]
    return (
        stored.content["policy"] == body["policy"]
        and stored.content["owners"] == owners
        and _timeless(stored.content["status"]) == _timeless(body["status"])
    )


def mirror_of(verdict: Verdict, status: Json, fields: frozenset[str]) -> Json:
    """Return what is applied to the policy's own status: of ours what its schema has a place for."""
    kind, namespace, name = verdict.key
    mirrored: Json = {}
    if "conditions" in fields:
        mirrored["conditions"] = status["conditions"]
    if "enforcement" in fields:
        mirrored["enforcement"] = {each: status[each] for each in ("rules", "pods", "rejected")}
    return {
        "apiVersion": POLICY_API,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": verdict.uid},
        "status": mirrored,
    }


def is_mirrored(body: Json, stored: Mirrored) -> bool:
    """Say whether the policy's status says the same already, times aside."""
    wanted = body["status"]
    conditions = wanted.get("conditions", [])
    return (
        stored.enforcement == wanted.get("enforcement", stored.enforcement)
        and {each["type"] for each in conditions} <= stored.conditions.keys()
        and all(_without_time(each) == _without_time(stored.conditions[each["type"]]) for each in conditions)
    )


def _timeless(status: object) -> object:
    conditions = status.get("conditions") if isinstance(status, dict) else None
    if not isinstance(status, dict) or not isinstance(conditions, list):
        return status
    return status | {"conditions": [_without_time(each) for each in conditions]}


def _without_time(condition: object) -> object:
    if not isinstance(condition, dict):
        return condition
    return {key: value for key, value in condition.items() if key != "lastTransitionTime"}
