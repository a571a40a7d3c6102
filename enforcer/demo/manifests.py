"""The manifests folder of the lab, written as a cluster and Obot's provider write theirs.

Owns the files in it. Each file appears whole (rename) or not at all. Decides nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from enforcer.demo import places
from enforcer.demo.places import NodePlace

Document = dict[str, Any]
"""One Kubernetes object as plain values, as YAML has it."""


def as_text(*documents: Document) -> str:
    """Return documents as YAML text."""
    return str(yaml.safe_dump_all(documents, sort_keys=False))


def namespace() -> Document:
    """Return the Namespace of the lab's pods."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": places.NAMESPACE}}


def pod(
    server: str, name: str, uid: str, addresses: Sequence[str], place: NodePlace = places.HOME
) -> Document:
    """Return a Pod as ``kubectl get -o yaml`` prints it (the parts that matter)."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": places.NAMESPACE,
            "uid": uid,
            "labels": {"app": server, "mcp-user-id": "1"},
        },
        "spec": {"nodeName": place.name, "containers": [{"name": "mcp", "image": "mcp"}]},
        "status": {
            "phase": "Running",
            "hostIP": place.node4,
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
        },
    }


def obot_policy(server: str, domains: Sequence[str], port: int = 443) -> Document:
    """Return the FirewallPolicy that Obot's provider makes of a server's egress domains."""
    group = f"obot-{server}-approved-domains"
    selector = {"matchLabels": {"app": server}}
    anywhere = [{"name": "any-destination"}]
    return {
        "apiVersion": "networking.aviatrix.com/v1alpha1",
        "kind": "FirewallPolicy",
        "metadata": {
            "name": f"obot-mnp-{server}-fw",
            "namespace": places.NAMESPACE,
            "labels": {
                "obot.ai/managed-by": "aviatrix-network-policy-controller",
                "obot.ai/mcp-network-policy-name": f"mnp-{server}",
                "obot.ai/mcp-server-name": server,
            },
        },
        "spec": {
            "smartGroups": [
                {
                    "name": f"obot-{server}-pods",
                    "selectors": [{"type": "k8s", "k8sNamespace": places.NAMESPACE, "tags": {"app": server}}],
                },
                {"name": "any-destination", "selectors": [{"cidr": "0.0.0.0/0"}]},
            ],
            "webGroups": [{"name": group, "domains": sorted(domains)}],
            "rules": [
                {
                    "name": "allow-approved-egress",
                    "action": "permit",
                    "selector": selector,
                    "destinationSmartGroups": anywhere,
                    "webGroups": [{"name": group}],
                    "protocol": "tcp",
                    "port": port,
                    "logging": True,
                },
                {
                    "name": "deny-all-external",
                    "action": "deny",
                    "selector": selector,
                    "destinationSmartGroups": anywhere,
                    "protocol": "any",
                    "logging": True,
                },
            ],
        },
    }


def udp_policy(server: str, name: str, domain: str) -> Document:
    """Return a policy of the platform team beside Obot's: UDP 443 (QUIC) to one domain."""
    document = obot_policy(server, [domain])
    permit = {**document["spec"]["rules"][0], "name": "quic", "protocol": "udp"}
    document["metadata"] = {"name": name, "namespace": places.NAMESPACE}
    document["spec"]["rules"] = [permit]
    return document


class Folder:
    """A folder of manifests, one file for each key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def put(self, key: str, *documents: Document) -> None:
        """Write or replace the file of ``key``."""
        waiting = self.path.parent / f".{key}.writing"
        waiting.write_text(as_text(*documents))
        os.replace(waiting, self.path / f"{key}.yaml")

    def remove(self, key: str) -> None:
        """Delete the file of ``key``, if there is one."""
        (self.path / f"{key}.yaml").unlink(missing_ok=True)
