"""An Obot's two namespaces in a real API server, its service account with exactly its rules, and Helm as it.

The rules are those of Obot's chart (v0.24 to v0.26), written down again: what it holds in its own namespace,
in the namespace of its MCP servers, and in the cluster.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.real import RealApi, account

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "nameward-obot-provider"
CRDS = ROOT / "deploy" / "charts" / "nameward" / "crds"
RELEASE = "obot-network-policy-provider"
ALL = ("create", "get", "list", "watch", "update", "patch", "delete")
READ = ("get", "list", "watch")


def rule(group: str, resources: str, *verbs: str) -> Json:
    """One rule of RBAC."""
    return {"apiGroups": [group], "resources": resources.split(), "verbs": list(verbs)}


RELEASE_RULES = [
    rule("", "secrets", *ALL),
    rule("", "serviceaccounts/token", "create"),
    rule("", "pods pods/log", *READ),
    rule("apps", "deployments", *ALL),
    rule("apps", "replicasets", *READ),
    rule("", "services", *READ),
    rule("discovery.k8s.io", "endpointslices", *READ),
]
MCP_RULES = [
    rule("", "secrets services persistentvolumeclaims configmaps serviceaccounts", *ALL),
    rule("", "resourcequotas", *ALL),
    rule("", "pods pods/log events", *READ),
    rule("", "pods/attach", "create", "get"),
    rule("apps", "deployments", *ALL),
    rule("rbac.authorization.k8s.io", "roles rolebindings", *ALL),
    rule("networking.aviatrix.com", "firewallpolicies", *ALL),
    rule("batch", "jobs", *ALL),
    rule("coordination.k8s.io", "leases", *ALL),
]
CLUSTER_RULES = [
    rule("scheduling.k8s.io", "priorityclasses", *ALL),
    rule("", "namespaces", "create", *READ),
    rule("", "nodes", "get", "list"),
    rule("", "nodes/proxy nodes/stats", "get"),
    rule("metrics.k8s.io", "pods", "get", "list"),
]


class Obot:
    """One Obot's place in the cluster; ``kubeconfig`` is its service account's."""

    def __init__(self, api: RealApi, *, with_crds: bool = True) -> None:
        self.api = api
        self.home = api.namespace("obot")
        self.mcp = api.namespace("obot-mcp", labels={"nameward.dev/governed": "true"})
        if with_crds:
            install_crds(api)
        api.apply(account(self.home, "obot"))
        self._grant(self.home, "obot-runtime-role", RELEASE_RULES)
        self._grant(self.mcp, "obot-mcp-role", MCP_RULES)
        self._grant("", f"{self.home}-cluster-role", CLUSTER_RULES)
        self.kubeconfig = api.kubeconfig_as(self.home, "obot")

    def _grant(self, namespace: str, name: str, rules: list[Json]) -> None:
        kind = "Role" if namespace else "ClusterRole"
        metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
        group = "rbac.authorization.k8s.io"
        subject = {"kind": "ServiceAccount", "name": "obot", "namespace": self.home}
        self.api.apply(
            {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "rules": rules},
            {
                "apiVersion": f"{group}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": kind, "name": name},
                "subjects": [subject],
            },
        )

    def values(self, **more: Any) -> Json:
        """What Obot passes, and what an administrator merges over it."""
        return {
            "releaseNamespace": self.home,
            "mcpRuntimeNamespace": self.mcp,
            "obotStorageURL": f"https://obot.{self.home}.svc.cluster.local:8443",
            "secretName": RELEASE,
            "obotStorageTokenFile": f"/var/run/secrets/{RELEASE}/apiKey",
            "obot": {"serviceAccount": {"name": "obot", "namespace": self.home}},
            **more,
        }

    def grant_bridge(self) -> None:
        """Make the chart's Role and RoleBinding, as Obot: without waiting for a Deployment."""
        file = self.api.folder / f"{self.home}.json"
        file.write_text(json.dumps(self.values()))
        rendered = self.helm("template", RELEASE, str(CHART), "-f", str(file), "-s", "templates/access.yaml")
        self.api.apply(rendered)

    @property
    def bridge_access(self) -> Any:
        """``Access`` of the account that the bridge's pod has."""
        return self.api.as_account(self.home, "default")

    def helm(self, *arguments: str) -> str:
        """Helm as Obot: with its permissions and none beside them."""
        return self.api.helm(*arguments, "-n", self.home, kubeconfig=self.kubeconfig)

    def start(self, folder: Path, *more: str, **values: Any) -> str:
        """What Obot does at each of its starts: install or upgrade, wait, atomic, two minutes."""
        file = folder / "values.json"
        file.write_text(json.dumps(self.values(**values)))
        exists = RELEASE in self.helm("list", "-q", "--all")
        verb = ("upgrade", "--reset-values") if exists else ("install",)
        flags = ("--wait", "--atomic", "--timeout", "2m", "-f", str(file))
        return self.helm(*verb, RELEASE, str(CHART), *flags, *more)


def install_crds(api: RealApi) -> None:
    """As Helm does for an administrator."""
    api.kubectl("apply", "--server-side", "-f", str(CRDS))
    for plural in ("firewallpolicies", "webgrouppolicies"):
        crd = f"crd/{plural}.networking.aviatrix.com"
        api.kubectl("wait", "--for=condition=Established", crd, "--timeout=60s")
