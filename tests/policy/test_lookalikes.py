"""Labels and names made to look like others': nothing is permitted to who only resembles."""

from __future__ import annotations

import pytest
import yaml

from policy.manifest import EVERY_NAMESPACE, load_manifests
from policy.rules import Ceiling, CeilingGrant
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

POLICY = """
apiVersion: networking.aviatrix.com/v1alpha1
kind: FirewallPolicy
metadata: {name: crm, namespace: obot-mcp}
spec:
  webGroups: [{name: crm, domains: [crm.example.com]}]
  smartGroups: [{name: anywhere, selectors: [{cidr: 0.0.0.0/0}]}]
  rules:
    - name: allow
      action: permit
      selector: {matchLabels: {app: ms1crm}}
      destinationSmartGroups: [{name: anywhere}]
      webGroups: [{name: crm}]
      protocol: tcp
      port: 443
"""
GRANT = CeilingGrant(namespace="obot-mcp", pod_name_prefix="tool-preview-", names=("npm.example.com",))
ADDRESS = "10.244.0.5"


def compiled(name: str, namespace: str, labels: object) -> Snapshot:
    """The policy, the grant by name, and one pod."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": "u1", "labels": labels},
        "status": {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]},
    }
    files = {"policy.yaml": POLICY, "pod.yaml": yaml.safe_dump(pod)}
    loaded = load_manifests(files, EVERY_NAMESPACE)
    world = World(generation=1, pods=loaded.pods, policies=loaded.policies, ceiling=Ceiling(grant=(GRANT,)))
    return compile_snapshot(world)


def permitted(snapshot: Snapshot, asked: str) -> bool:
    """Whether the pod may, if it was understood at all."""
    return any(snapshot.decide(pod, asked, None, "tcp", 443).permitted for pod in snapshot.world.pods)


@pytest.mark.parametrize("name", ["ms1crm-1", "anything"])
def test_the_label_is_what_counts(name: str) -> None:
    """So that the tests below can fail."""
    assert permitted(compiled(name, "obot-mcp", {"app": "ms1crm", "more": "x"}), "crm.example.com")


@pytest.mark.parametrize(
    ("namespace", "labels"),
    [
        ("obot-mcp2", {"app": "ms1crm"}),
        ("Obot-mcp", {"app": "ms1crm"}),
        ("obot-mcp", {"app": "ms1crm "}),
        ("obot-mcp", {"app": "MS1CRM"}),
        ("obot-mcp", {"app": "ms1crm\u200b"}),
        ("obot-mcp", {"app": "ms1\u0441rm"}),
        ("obot-mcp", {"app": "ms1crm-6c9f7d5b8"}),
        ("obot-mcp", {"App": "ms1crm"}),
        ("obot-mcp", {"app ": "ms1crm"}),
        ("obot-mcp", {"example.com/app": "ms1crm"}),
        ("obot-mcp", {"app": ["ms1crm"]}),
        ("obot-mcp", {"app": None}),
        ("obot-mcp", [{"app": "ms1crm"}]),
    ],
)
def test_who_only_resembles_gets_nothing(namespace: str, labels: object) -> None:
    """Another namespace, another case, another letter, white space, another key, another type."""
    assert not permitted(compiled("ms1crm-6c9f7d5b8-00010", namespace, labels), "crm.example.com")


@pytest.mark.parametrize(
    ("name", "namespace", "is_granted"),
    [
        ("tool-preview-0f3a", "obot-mcp", True),
        ("tool-preview", "obot-mcp", False),
        ("tool-previews-0f3a", "obot-mcp", False),
        ("x-tool-preview-0f3a", "obot-mcp", False),
        ("Tool-preview-0f3a", "obot-mcp", False),
        ("tool-preview-0f3a", "obot-mcp-2", False),
    ],
)
def test_a_grant_by_name_is_for_names_that_begin_so(name: str, namespace: str, is_granted: bool) -> None:
    """In its namespace, octet by octet."""
    assert permitted(compiled(name, namespace, {}), "npm.example.com") is is_granted
