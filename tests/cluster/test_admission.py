"""The chart's admission policies: what is refused, for every writer, and with which words."""

from __future__ import annotations

import copy
import itertools
import json
import re
from typing import Any

import pytest
import yaml

from enforcer.kube.client import Api
from policy.manifest_groups import FOREIGN_FIELDS, K8S_FIELDS
from policy.manifest_policies import OBJECT_FIELDS
from policy.manifest_rules import RULE_FIELDS
from tests.cluster.charted import (
    CHART,
    NODE_STATUSES,
    POLICIES,
    RELEASE,
    SPACE,
    WEB_POLICIES,
    firewall_policy,
    install,
    refusal,
    refused,
    rendered,
    until,
    webgroup_policy,
)
from tests.cluster.real import RealApi, account

pytestmark = pytest.mark.cluster

Json = dict[str, Any]

WRITERS = {"lax": {"fieldValidation": "Ignore"}, "warned": {}, "strict": {"fieldValidation": "Strict"}}
"""Writers by what they ask for. The kinds keep unknown fields, so no writer's own validation sees them."""


@pytest.fixture(scope="module")
def door(guarded: RealApi) -> Api:
    """The administrator's door."""
    opened: Api = guarded.admin
    return opened


@pytest.fixture(scope="module")
def space(guarded: RealApi) -> str:
    """A namespace of this module's."""
    return guarded.namespace("admission")


UNKNOWN = {
    "ports": (
        firewall_policy("x", port=None, ports=["443"]),
        "in the rule allow-approved-egress the field ports is unknown: write port: 443, one number without",
    ),
    "capitals": (
        firewall_policy("x", port=None, Port=443),
        "the field Port is unknown: the fields of a rule are name, action, selector",
    ),
    "misspelt webGroups": (
        firewall_policy("x", webGroups=None, webgroups=[{"name": "approved"}]),
        "the field webgroups is unknown",
    ),
    "domains in a rule": (
        firewall_policy("x", domains=["example.com"]),
        "write the domains in spec.webGroups",
    ),
    "matchExpressions": (
        firewall_policy("x", selector={"matchExpressions": []}),
        "in the selector of the rule allow-approved-egress the field matchExpressions is unknown: write ",
    ),
    "reference": (
        firewall_policy("x", destinationSmartGroups=[{"name": "any-destination", "cidr": "::/0"}]),
        "the rule allow-approved-egress refers to a group by a field that is unknown",
    ),
    "web reference": (
        firewall_policy("x", webGroups=[{"name": "approved", "domains": []}]),
        "refers to a group by a field that is unknown",
    ),
    "smartGroup": (
        firewall_policy("x", spec={"smartGroups": [{"name": "any-destination", "cidr": "0.0.0.0/0"}]}),
        "in the group any-destination the field cidr is unknown: write selectors: [{cidr: ...}]",
    ),
    "smartGroup's selector": (
        firewall_policy(
            "x",
            spec={
                "smartGroups": [{"name": "g", "selectors": [{"cidr": "::/0"}, {"type": "vm", "fqdn": "a.b"}]}]
            },
        ),
        "in a selector of the group g the field fqdn is unknown: a SmartGroup holds pods or CIDRs",
    ),
    "webGroup": (
        firewall_policy("x", spec={"webGroups": [{"name": "approved", "urls": ["https://a.b/c"]}]}),
        "in the group approved the field urls is unknown: write domains",
    ),
    "spec": (
        firewall_policy("x", spec={"defaultAction": "deny"}),
        "spec: the field defaultAction is unknown here: remove it: what no rule permits is denied",
    ),
    "beside spec": (
        firewall_policy("x") | {"rules": []},
        "the field rules is unknown here: indent it under spec",
    ),
}
UNKNOWN_WEB = {
    "domains": (
        webgroup_policy("x", domains=["example.com"]),
        "spec: the field domains is unknown here: write allowedDomains",
    ),
    "action": (
        webgroup_policy("x", action="permit"),
        "the field action is unknown here: remove it: a WebgroupPolicy permits tcp/443 only",
    ),
    "protocol": (webgroup_policy("x", protocol="tcp"), "write kind: FirewallPolicy for rules"),
    "ports": (webgroup_policy("x", ports=["443"]), "a WebgroupPolicy permits tcp/443 only"),
    "logging": (webgroup_policy("x", logging=True), "a WebgroupPolicy permits tcp/443 only"),
    "matchExpressions": (
        webgroup_policy("x", selector={"matchExpressions": []}),
        "spec.selector: the field matchExpressions is unknown: write matchLabels",
    ),
    "beside spec": (webgroup_policy("x") | {"allowedDomains": []}, "indent it under spec"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("mistake", UNKNOWN)
def test_an_unknown_field_is_refused_for_every_writer(
    door: Api, space: str, mistake: str, writer: str
) -> None:
    """Whatever validation the writer asked for, the words name the field and what to write instead."""
    body, words = UNKNOWN[mistake]
    assert words in refused(door, POLICIES.format(space), body, **WRITERS[writer])


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("mistake", UNKNOWN_WEB)
def test_an_unknown_field_of_a_webgroup_policy_is_refused(
    door: Api, space: str, mistake: str, writer: str
) -> None:
    """The mistakes of published examples: domains, action, protocol, ports, logging."""
    body, words = UNKNOWN_WEB[mistake]
    assert words in refused(door, WEB_POLICIES.format(space), body, **WRITERS[writer])


def _apply(api: RealApi, validate: str, body: Json) -> str:
    """How kubectl ends that should fail."""
    arguments = ("apply", f"--validate={validate}", "-f", "-")
    return api.refusal(*arguments, text=json.dumps(body))


@pytest.mark.parametrize("validate", ["strict", "ignore"])
def test_kubectl_says_what_to_write(guarded: RealApi, space: str, validate: str) -> None:
    """`kubectl apply`, strict or lax, ends with our sentence and stores nothing."""
    body = _in(space, firewall_policy("ports", port=None, ports=["443"]))
    assert "one number without quotes" in _apply(guarded, validate, body)
    assert "not found" in guarded.refusal("get", "fwp", "ports", "-n", space)


@pytest.mark.parametrize("validate", ["strict", "ignore"])
def test_the_kind_has_a_small_g(guarded: RealApi, space: str, validate: str) -> None:
    """`WebGroupPolicy`, as some examples spell it, is no kind of the API server."""
    body = _in(space, webgroup_policy("capital")) | {"kind": "WebGroupPolicy"}
    assert 'no matches for kind "WebGroupPolicy"' in _apply(guarded, validate, body)


def test_server_side_apply_and_patches_are_writers_too(door: Api, space: str) -> None:
    """No way of writing gets round the policy."""
    path = POLICIES.format(space)
    door.create(path, firewall_policy("patched"))
    stray = {"spec": {"rules": [firewall_policy("x")["spec"]["rules"][0] | {"ports": ["443"]}]}}
    one = f"{path}/patched"
    added: list[Json] = [{"op": "add", "path": "/spec/rules/0/ports", "value": ["443"]}]
    assert "ports is unknown" in refusal(lambda: door.patch(one, stray, "merge"))
    assert "ports is unknown" in refusal(lambda: door.patch(one, added, "json"))
    applied = firewall_policy("patched", ports=["443"])
    assert "ports is unknown" in refusal(
        lambda: door.patch(one, applied, "apply", fieldManager="test", force="true")
    )


def test_what_was_stored_before_stays_changeable_in_its_metadata(guarded: RealApi, space: str) -> None:
    """A policy with an unknown field, older than the admission policy: its finalizers can be taken away."""
    door = guarded.admin
    binding = f"{RELEASE}-firewallpolicy-fields"
    kept = door.get(f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{binding}")
    path = POLICIES.format(space)
    old = firewall_policy("old", ports=["443"])
    old["metadata"]["finalizers"] = ["example.com/hold"]
    elsewhere = copy.deepcopy(kept)
    elsewhere["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {"nobody": "has-this"}}}
    one = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{binding}"
    door.replace(one, elsewhere)
    try:
        until_taken(door, path, old)
    finally:
        changed = door.get(one)
        door.replace(one, kept | {"metadata": changed["metadata"]})
    until_refused(door, path, firewall_policy("late", ports=["443"]))
    policy = f"{path}/old"
    assert door.patch(policy, {"metadata": {"labels": {"seen": "yes"}}}, "merge")["metadata"]["labels"]
    assert "ports is unknown" in refusal(lambda: door.patch(policy, {"spec": {"smartGroups": []}}, "merge"))
    door.delete(policy)
    door.patch(policy, {"metadata": {"finalizers": []}}, "merge")
    assert "not found" in refusal(lambda: door.get(policy))


def test_a_policy_that_is_to_go_is_no_way_round(door: Api, space: str) -> None:
    """A finalizer of his own keeps it: what nobody may store (and nobody could read) is not stored in it."""
    body = firewall_policy("going")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    door.create(POLICIES.format(space), body)
    one = f"{POLICIES.format(space)}/going"
    door.delete(one)
    assert "stray is unknown" in refusal(lambda: door.patch(one, {"spec": {"stray": {}}}, "merge"))
    door.patch(one, {"metadata": {"finalizers": []}}, "merge")
    assert "not found" in refusal(lambda: door.get(one))


def until_taken(door: Api, path: str, body: Json) -> None:
    """Create it as soon as it is taken."""
    until(lambda: not refused(door, path, body), "the policy is taken")


def until_refused(door: Api, path: str, body: Json) -> None:
    """Wait until it is refused again."""
    until(lambda: refused(door, path, body, dryRun="All"), "the policy is refused")


FIELDS = {
    "inRule": set(RULE_FIELDS),
    "top": set(OBJECT_FIELDS),
    "inSpec": {"rules", "smartGroups", "webGroups"},
    "inSelector": {"matchLabels", "service"},
    "inReference": {"name", "uuid"},
    "inSmartGroup": {"name", "selectors"},
    "inGroupSelector": {"cidr", "type", *K8S_FIELDS, *FOREIGN_FIELDS},
    "inWebGroup": {"name", "domains"},
}


@pytest.mark.parametrize("variable", FIELDS)
def test_the_policy_knows_the_fields_that_the_codec_knows(variable: str) -> None:
    """What the node's own reader knows is let in, and nothing else."""
    text = (CHART / "templates" / "admission-fields.yaml").read_text()
    found = re.search(rf"- name: {variable}\n\s+expression: (.*?)\n    - name", text, re.DOTALL)
    assert found is not None
    assert set(re.findall(r"'(\w+)': 0", found[1])) == FIELDS[variable]


def test_the_definition_knows_the_fields_that_the_codec_knows() -> None:
    """The CRD's schema lists them too: for `kubectl explain`, and for their types."""
    crd = yaml.safe_load((CHART / "crds" / "networking.aviatrix.com_firewallpolicies.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]["properties"]
    rule = spec["rules"]["items"]["properties"]
    group = spec["smartGroups"]["items"]["properties"]
    assert set(schema["properties"]) == FIELDS["top"]
    assert set(spec) == FIELDS["inSpec"]
    assert set(rule) == FIELDS["inRule"]
    assert set(rule["selector"]["properties"]) == FIELDS["inSelector"]
    assert set(rule["webGroups"]["items"]["properties"]) == FIELDS["inReference"]
    assert set(rule["destinationSmartGroups"]["items"]["properties"]) == FIELDS["inReference"]
    assert set(group) == FIELDS["inSmartGroup"]
    assert set(group["selectors"]["items"]["properties"]) == FIELDS["inGroupSelector"]
    assert set(spec["webGroups"]["items"]["properties"]) == FIELDS["inWebGroup"]


# --- namespaces ----------------------------------------------------------------------------------

GOVERNED = {"nameward.dev/governed": "true"}
UNTIL = "nameward.dev/break-glass-until"
REASON = "nameward.dev/break-glass-reason"
UNINSTALL = "nameward.dev/uninstall"
GLASS = {UNTIL: "2026-12-31T18:00:00Z", REASON: "incident 4711"}


@pytest.fixture(scope="module")
def tenant(guarded: RealApi, space: str) -> Api:
    """Somebody who may do what they like with namespaces, and holds none of our verbs."""
    return _who_may(guarded, space, "tenant")


@pytest.fixture(scope="module")
def governor(guarded: RealApi, space: str) -> Api:
    """The same, who is one of the chart's governors."""
    found = _who_may(guarded, space, "governor")
    guarded.kubectl(
        "create",
        "clusterrolebinding",
        f"{space}-may-govern",
        f"--clusterrole={RELEASE}-governor",
        f"--serviceaccount={space}:governor",
    )
    return found


def _who_may(api: RealApi, space: str, name: str) -> Api:
    api.apply(account(space, name))
    resources = "--resource=namespaces,namespaces/status,namespaces/finalize"
    api.kubectl("create", "clusterrole", f"{space}-{name}", "--verb=get,create,update,patch", resources)
    api.kubectl(
        "create",
        "clusterrolebinding",
        f"{space}-{name}",
        f"--clusterrole={space}-{name}",
        f"--serviceaccount={space}:{name}",
    )
    return Api(api.as_account(space, name))


def _set(door: Api, name: str, *, below: str = "", **metadata: Json) -> str:
    """Change a namespace's labels or annotations; the words of the refusal, or ""."""
    path = f"/api/v1/namespaces/{name}{below}"
    return refusal(lambda: door.patch(path, {"metadata": metadata}, "merge"))


@pytest.mark.parametrize("below", ["", "/status"])
@pytest.mark.parametrize("value", ["false", None])
def test_the_label_that_governs_is_protected(
    guarded: RealApi, tenant: Api, governor: Api, below: str, value: str | None
) -> None:
    """Who may write namespaces may not ungovern one, by no subresource either; a governor may."""
    name = guarded.namespace("governed", labels=GOVERNED)
    words = _set(tenant, name, below=below, labels={"nameward.dev/governed": value})
    assert f"to change it on {name} you need the verb govern on namespaces.nameward.dev" in words
    assert not _set(tenant, name, labels={"team": "a"}, annotations={"note": "b"})
    assert not _set(governor, name, labels={"nameward.dev/governed": value})


def test_finalize_is_no_way_round(guarded: RealApi, tenant: Api) -> None:
    """The subresource by which namespaces lose their finalizers writes labels as well."""
    name = guarded.namespace("governed", labels=GOVERNED)
    body = guarded.admin.get(f"/api/v1/namespaces/{name}")
    body["metadata"]["labels"]["nameward.dev/governed"] = "false"
    words = refusal(lambda: tenant.replace(f"/api/v1/namespaces/{name}/finalize", body))
    assert "verb govern" in words


def test_a_new_namespace_may_be_governed_from_the_beginning(
    guarded: RealApi, tenant: Api, space: str
) -> None:
    """Who makes one may put it into Nameward's hands, and not take it out again."""
    name = f"{space}-new"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": GOVERNED}}
    assert not refused(tenant, "/api/v1/namespaces", body)
    assert "verb govern" in _set(tenant, name, labels={"nameward.dev/governed": None})


def test_the_label_of_the_configuration_is_protected_as_well(guarded: RealApi, tenant: Api) -> None:
    """Where namespaces are governed by a label of the cluster's own, that one counts."""
    for each in rendered(
        "-s",
        "templates/admission-namespaces.yaml",
        "--set",
        "config.policy.governedNamespaces.matchLabels.team=agents",
    ):
        if each["kind"].startswith("Validating"):
            copied = yaml.safe_dump(each).replace(f"{RELEASE}-namespaces", "by-team-namespaces")
            guarded.apply(copied)
    name = guarded.namespace("team", labels={"team": "agents"})
    values = (f"other-{number}" for number in itertools.count())
    until(lambda: "the label team" in _set(tenant, name, labels={"team": next(values)}), "team is protected")
    guarded.kubectl(
        "delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "by-team-namespaces"
    )


def test_breaking_the_glass_needs_its_verb(guarded: RealApi, tenant: Api, governor: Api) -> None:
    """To set it: a governor. To end it early: whoever may write the namespace."""
    name = guarded.namespace("glass", labels=GOVERNED)
    assert "you need the verb breakglass" in _set(tenant, name, annotations=GLASS)
    assert not _set(governor, name, annotations=GLASS)
    assert "verb breakglass" in _set(tenant, name, annotations={UNTIL: "2027-12-31T18:00:00Z"})
    assert not _set(tenant, name, annotations={"note": "a"})
    assert not _set(tenant, name, annotations={UNTIL: None, REASON: None})


@pytest.mark.parametrize(
    ("glass", "words"),
    [
        ({UNTIL: "tomorrow", REASON: "x"}, "is no time: write it like 2026-12-31T18:00:00Z"),
        ({UNTIL: "2026-12-31", REASON: "x"}, "is no time"),
        ({REASON: "x"}, "is no time"),
        ({UNTIL: "2026-12-31T18:00:00Z"}, "needs a reason"),
        ({UNTIL: "2026-12-31T18:00:00Z", REASON: "  "}, "needs a reason"),
        ({UNTIL: "2026-12-31T18:00:00Z", REASON: "x" * 513}, "at most 512 characters"),
    ],
)
def test_a_break_glass_that_no_node_would_read_is_refused(
    guarded: RealApi, governor: Api, glass: Json, words: str
) -> None:
    """A time as RFC 3339 has it, and a reason for the records."""
    name = guarded.namespace("glass")
    assert words in _set(governor, name, annotations=glass)


@pytest.mark.parametrize("time", ["2026-12-31T18:00:00Z", "2026-12-31T18:00:00.123+02:00"])
def test_times_of_rfc_3339_are_taken(guarded: RealApi, governor: Api, time: str) -> None:
    """With a fraction and an offset too."""
    assert not _set(governor, guarded.namespace("glass"), annotations={UNTIL: time, REASON: "x"})


def test_uninstalling_needs_its_own_verb(guarded: RealApi, tenant: Api, governor: Api, space: str) -> None:
    """The mark on which nodes take their rules away: a governor may not set it, the hook's account may."""
    name = guarded.namespace("own")
    note = {UNINSTALL: "2026-12-31T18:00:00Z"}
    assert "the verb uninstall" in _set(tenant, name, annotations=note)
    assert "the verb uninstall" in _set(governor, name, annotations=note)
    hook = _who_may(guarded, space, "hook")
    role = f"{space}-uninstalling"
    guarded.apply(_uninstaller(role, name))
    guarded.kubectl(
        "create", "clusterrolebinding", role, f"--clusterrole={role}", f"--serviceaccount={space}:hook"
    )
    assert not _set(hook, name, annotations=note)
    assert "the verb uninstall" in _set(hook, guarded.namespace("other"), annotations=note)


def _uninstaller(role: str, name: str) -> Json:
    rule = {
        "apiGroups": ["nameward.dev"],
        "resources": ["namespaces"],
        "resourceNames": [name],
        "verbs": ["uninstall"],
    }
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": role},
        "rules": [rule],
    }


# --- nodes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agents(guarded: RealApi) -> dict[str, Api]:
    """The chart's agent on two nodes, and with a token of no pod."""
    install(guarded, "agent-rbac")
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"agent-{node}", "namespace": SPACE},
            "spec": {
                "nodeName": node,
                "serviceAccountName": f"{RELEASE}-agent",
                "containers": [{"name": "main", "image": "nothing"}],
            },
        }
        for node in ("node-a", "node-b")
    ]
    guarded.apply(*pods)
    found = {
        node: Api(guarded.as_account(SPACE, f"{RELEASE}-agent", pod=f"agent-{node}"))
        for node in ("node-a", "node-b")
    }
    return found | {"nobody": Api(guarded.as_account(SPACE, f"{RELEASE}-agent"))}


def _node_status(name: str, **metadata: object) -> Json:
    return {
        "apiVersion": "nameward.dev/v1alpha1",
        "kind": "NodeStatus",
        "metadata": {"name": name} | metadata,
        "status": {"enforcing": True, "version": "0.1.0", "pods": 3},
    }


def test_a_node_writes_its_own_status_only(agents: dict[str, Api]) -> None:
    """By the token's own word: not another's, not with a token that names no node."""
    assert not refused(agents["node-a"], NODE_STATUSES, _node_status("node-a"))
    assert "node-b writes its own NodeStatus only, not that of node-a" in refusal(
        lambda: agents["node-b"].patch(f"{NODE_STATUSES}/node-a", {"status": {"pods": 4}}, "merge")
    )
    assert not refusal(
        lambda: agents["node-a"].patch(f"{NODE_STATUSES}/node-a", {"status": {"pods": 4}}, "merge")
    )
    assert "not that of node-c" in refused(agents["node-b"], NODE_STATUSES, _node_status("node-c"))
    assert "the token does not name a node" in refused(
        agents["nobody"], NODE_STATUSES, _node_status("node-c")
    )


def test_a_node_status_belongs_to_its_node(agents: dict[str, Api]) -> None:
    """An owner of another kind or name would let it go with something else."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": "node-b", "uid": "1"}
    right = _node_status("node-b", ownerReferences=[owner])
    wrong = _node_status("node-b", ownerReferences=[owner | {"kind": "Namespace"}])
    other = _node_status("node-b", ownerReferences=[owner | {"name": "node-a"}])
    words = "owned by its Node and by nothing else"
    assert words in refused(agents["node-b"], NODE_STATUSES, wrong)
    assert words in refused(agents["node-b"], NODE_STATUSES, other)
    assert not refused(agents["node-b"], NODE_STATUSES, right)


def _in(space: str, body: Json) -> Json:
    return body | {"metadata": body["metadata"] | {"namespace": space}}
