"""The objects that the benches make: what Obot's provider writes for one server, and its pods.

Owns their form, for every bench that writes manifests or feeds a source. Never measures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

API = "networking.aviatrix.com/v1alpha1"
Json = dict[str, Any]


def policy(
    name: str, namespace: str, app: str, domains: Iterable[str], cidrs: Iterable[str] = (), **metadata: object
) -> Json:
    """One server's policy: its names on port 443, addresses beside them, and nothing else."""
    groups: list[Json] = [{"name": "internet", "selectors": [{"cidr": "0.0.0.0/0"}]}]
    rules = [_rule("approved", app, "internet", protocol="tcp", port=443, webGroups=[{"name": "approved"}])]
    if ranges := [{"cidr": cidr} for cidr in cidrs]:
        groups.append({"name": "fixed", "selectors": ranges})
        rules.append(_rule("fixed", app, "fixed", protocol="tcp", port=443))
    rules.append(_rule("rest", app, "internet", action="deny", protocol="any"))
    return {
        "apiVersion": API,
        "kind": "FirewallPolicy",
        "metadata": {"name": name, "namespace": namespace} | metadata,
        "spec": {
            "smartGroups": groups,
            "webGroups": [{"name": "approved", "domains": list(domains)}],
            "rules": rules,
        },
    }


def _rule(name: str, app: str, to: str, *, action: str = "permit", **more: object) -> Json:
    selector = {"matchLabels": {"app": app}}
    return {
        "name": name,
        "selector": selector,
        "action": action,
        "destinationSmartGroups": [{"name": to}],
    } | more


def pod(name: str, namespace: str, app: str, ip: str, *, node: str, uid: str = "") -> Json:
    """A running pod of a node, labelled as a deployment's; without ``uid`` its API server gives it one."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": app, "pod-template-hash": "6d4cf56db6"},
        }
        | ({"uid": uid} if uid else {}),
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    }
