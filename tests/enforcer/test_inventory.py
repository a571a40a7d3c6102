"""The inventory: which pod is covered by what, which is not contained, which policy selects nobody."""

from __future__ import annotations

from typing import Any

from enforcer.inventory import Inventory
from policy.manifest import GovernedNamespaces, load_manifests
from policy.rules import Ceiling, CeilingGrant
from policy.snapshot import compile_snapshot
from policy.world import World

FIELDS = "kind namespace pod podIPs node state smartGroups policies reason lost"
POD = """
apiVersion: v1
kind: Pod
metadata: {{namespace: {namespace}, name: {name}, uid: u-{name}, labels: {{app: {app}}}}}
spec: {{nodeName: {node}, {spec}}}
status: {{podIPs: [{ips}]}}
---"""
POLICY = """
apiVersion: networking.aviatrix.com/v1alpha1
kind: FirewallPolicy
metadata: {{namespace: mcp, name: {name}}}
spec:
  smartGroups:
  - {{name: any, selectors: [{{cidr: 0.0.0.0/0}}]}}
  - name: databases
    selectors: [{{type: k8s, k8sNamespace: mcp, tags: {{app: db}}}}, {{cidr: 192.0.2.0/24}}]
  - {{name: neighbours, selectors: [{{type: k8s, k8sNamespace: mcp}}]}}
  - {{name: single, selectors: [{{type: k8s, k8sNamespace: mcp, k8sPodName: db-0}}]}}
  - {{name: behind, selectors: [{{type: k8s, k8sNamespace: mcp, k8sService: front}}]}}
  rules:
  - name: allow
    action: permit
    selector: {{{selector}}}
    destinationSmartGroups:
      [{{name: any}}, {{name: databases}}, {{name: neighbours}}, {{name: single}}, {{name: behind}}]
    protocol: tcp
    port: 443
---"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {namespace: mcp, name: front}
spec: {selector: {app: crm}}
---"""


def pod(
    name: str, app: str = "crm", *, namespace: str = "mcp", node: str = "", spec: str = "", ip: str = ""
) -> str:
    """A Pod's manifest."""
    ips = f"{{ip: {ip}}}" if ip else ""
    return POD.format(namespace=namespace, name=name, app=app, node=node or '""', spec=spec, ips=ips)


def rows(*manifests: str, here: tuple[str, ...] = (), ceiling: Ceiling | None = None) -> list[dict[str, Any]]:
    """The inventory of node n1 with these manifests."""
    loaded = load_manifests({"all.yaml": "".join(manifests)}, GovernedNamespaces(names=("mcp",)))
    world = World(
        generation=1,
        pods=loaded.pods,
        policies=loaded.policies,
        services=loaded.services,
        ceiling=ceiling or Ceiling(),
    )
    return list(Inventory(compile_snapshot(world)).rows("n1", here))


def state_of(*manifests: str, **more: Any) -> tuple[str, str]:
    """State and reason of the only row."""
    (row,) = rows(*manifests, **more)
    return row["state"], row["reason"]


def test_a_pod_is_covered_by_the_policies_that_select_it() -> None:
    """With their names, and the SmartGroups that it is in; pods of other namespaces are not listed."""
    found = rows(
        pod("crm-0", ip="10.0.0.1", node="n2"),
        pod("db-0", "db", ip="10.0.0.2"),
        pod("x", namespace="elsewhere", ip="10.0.0.3"),
        POLICY.format(name="crm", selector="matchLabels: {app: crm}"),
        POLICY.format(name="all", selector=""),
        SERVICE,
        here=("mcp/db-0",),
    )
    assert [list(row) for row in found] == [FIELDS.split()] * 2
    crm, db = found
    assert (crm["pod"], crm["state"], crm["node"], crm["podIPs"]) == ("crm-0", "covered", "n2", ["10.0.0.1"])
    assert crm["policies"] == ["mcp/all", "mcp/crm"]
    assert crm["smartGroups"] == [
        "mcp/all/behind",
        "mcp/all/neighbours",
        "mcp/crm/behind",
        "mcp/crm/neighbours",
    ]
    assert (db["policies"], db["node"]) == (["mcp/all"], "n1")
    assert {group.removeprefix("mcp/all/") for group in db["smartGroups"] if "all/" in group} == {
        "databases", "neighbours", "single",
    }  # fmt: skip


def test_a_pod_that_no_policy_selects_is_denied_by_default() -> None:
    """And says that it is."""
    state, reason = state_of(pod("a", ip="10.0.0.1"))
    assert (state, reason) == (
        "default-denied", "no policy selects it: nothing outside the cluster is permitted",
    )  # fmt: skip


def test_a_grant_of_the_ceiling_covers() -> None:
    """Under the ceiling's own name."""
    ceiling = Ceiling(grant=(CeilingGrant(namespace="mcp", names=("packages.example.com",)),))
    (row,) = rows(pod("a", ip="10.0.0.1"), ceiling=ceiling)
    assert (row["state"], row["policies"]) == ("covered", ["ceiling"])


def test_what_no_rule_can_hold_is_uncontained() -> None:
    """The node's network, privileged containers, capabilities over the network or the node; and why."""
    contexts = {
        "securityContext: {privileged: true}": "privileged",
        "securityContext: {capabilities: {add: [NET_ADMIN]}}": "NET_ADMIN",
        "securityContext: {capabilities: {add: [CAP_SYS_ADMIN, NET_ADMIN]}}": "NET_ADMIN and SYS_ADMIN",
        "securityContext: {capabilities: {add: [ALL]}}": "ALL",
    }
    for context, word in contexts.items():
        for field in ("containers", "initContainers", "ephemeralContainers"):
            state, reason = state_of(pod("a", ip="10.0.0.1", spec=f"{field}: [{{name: a}}, {{{context}}}]"))
            assert state == "uncontained"
            assert word in reason
    state, reason = state_of(pod("a", spec="hostNetwork: true"))
    assert state == "uncontained"
    assert "hostNetwork" in reason


def test_what_is_no_power_changes_nothing() -> None:
    """NET_RAW meets the source check; shapes that the API server would refuse are passed over."""
    for spec in (
        "containers: [{securityContext: {privileged: false}}]",
        "containers: [{securityContext: {capabilities: {add: [NET_RAW], drop: [NET_ADMIN]}}}]",
        "containers: [{securityContext: {capabilities: {add: 7}}}, {securityContext: []}, 7]",
        "containers: {securityContext: {privileged: true}}",
        'containers: [{securityContext: {privileged: "true", capabilities: [NET_ADMIN]}}]',
    ):
        assert state_of(pod("a", ip="10.0.0.1", spec=spec))[0] == "default-denied"


def test_a_pod_without_an_address_or_with_anothers_says_so() -> None:
    """It is in no other state for that."""
    assert state_of(pod("a"))[1] == "it has no address (not started yet, or ended)"
    one, two = rows(pod("a", ip="10.0.0.1"), pod("b", ip="10.0.0.1"))
    for row in (one, two):
        assert row["reason"] == "another pod claims 10.0.0.1 too: nothing is permitted there"


def test_policies_without_pods_are_listed_with_the_reason() -> None:
    """No such labels, no pods, only host-network pods, no rules, a namespace that is not governed."""
    idle = POLICY.format(name="idle", selector="matchLabels: {app: gone}")
    *_, row = rows(pod("a", ip="10.0.0.1"), idle)
    assert list(row) == FIELDS.split()
    assert (row["kind"], row["policies"], row["state"]) == ("policy", ["mcp/idle"], "selects-nothing")
    assert row["reason"] == "FirewallPolicy: it selects no pod that it could contain"
    assert state_of(idle) == ("selects-nothing", "FirewallPolicy: no pod of namespace mcp is known here")
    host = pod("h", "gone", spec="hostNetwork: true")
    assert [each["state"] for each in rows(host, idle)] == ["uncontained", "selects-nothing"]
    elsewhere = idle.replace("namespace: mcp, name: idle", "namespace: other, name: idle")
    (found,) = rows(pod("x", namespace="other", ip="10.0.0.9"), elsewhere)
    assert found["reason"] == "FirewallPolicy: namespace other is not governed"
    empty = "apiVersion: networking.aviatrix.com/v1alpha1\nkind: FirewallPolicy\n"
    assert state_of(empty + "metadata: {namespace: mcp, name: e}\nspec: {}\n")[1].endswith("it has no rules")


def test_a_policy_whose_service_is_gone_is_an_orphan() -> None:
    """Its server was deleted; with the Service there it selects pods."""
    left = POLICY.format(name="left", selector="service: front")
    *_, row = rows(pod("a", ip="10.0.0.1"), left)
    assert (row["state"], row["policies"]) == ("orphan", ["mcp/left"])
    assert "Service mcp/front" in row["reason"]
    assert [each["state"] for each in rows(pod("a", ip="10.0.0.1"), left, SERVICE)] == ["covered"]
