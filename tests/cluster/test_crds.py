"""The chart's kinds in a real API server: what is taken, what is refused, what people see."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from enforcer.kube.client import Api
from policy.manifest import EVERY_NAMESPACE, Document, load_manifests
from policy.manifest_objects import read_objects
from policy.manifest_yaml import read_documents
from policy.rules import Policy
from tests.cluster.charted import (
    CHART,
    GROUP,
    NEEDED,
    NODE_STATUSES,
    POLICIES,
    STATUSES,
    WEB_POLICIES,
    firewall_policy,
    refused,
    until,
    webgroup_policy,
)
from tests.cluster.foreign import foreign_kinds
from tests.cluster.real import RealApi

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
PATHS = {"FirewallPolicy": POLICIES, "WebgroupPolicy": WEB_POLICIES}
ANYWHERE = "def000ad-0000-0000-0000-000000000000"
LAX = {"fieldValidation": "Ignore"}


@pytest.fixture(scope="module")
def door(guarded: RealApi) -> Api:
    """The administrator's door, with the admission policies in force."""
    opened: Api = guarded.admin
    return opened


@pytest.fixture(scope="module")
def space(guarded: RealApi) -> str:
    """A namespace of this module's."""
    return guarded.namespace("crds")


# --- what producers write ------------------------------------------------------------------------


def _policies_in(path: Path) -> list[Json]:
    """The policies of a file, as written."""
    documents, _ = read_documents(path.name, path.read_bytes())
    values = [document.value for document in documents]
    return [each for each in values if isinstance(each, dict) and each.get("kind") in PATHS]


EXAMPLES = [
    pytest.param(body, id=f"{path.stem}-{number}")
    for path in sorted((ROOT / "deploy" / "examples").glob("*.yaml"))
    for number, body in enumerate(_policies_in(path))
]


@pytest.mark.parametrize("body", EXAMPLES)
def test_what_producers_write_is_taken_and_kept_whole(door: Api, space: str, body: Json) -> None:
    """The examples, Obot's among them, come out as they went in, and the codec accepts both alike."""
    stored = door.create(PATHS[body["kind"]].format(space), _moved(body, space), fieldValidation="Strict")
    assert stored["spec"] == body["spec"]
    assert _accepted(stored) is True


FOREIGN_SELECTORS: list[Json] = [
    {"type": "vpc", "name": "a", "accountName": "b", "region": "c"},
    {"type": "k8s", "k8sClusterId": "arn:x", "k8sNamespace": "a", "k8sService": "b"},
    {"external": "geo", "extArgs": {"country_iso_code": "KP"}},
    {"s2c": "site"},
]


@pytest.mark.parametrize("selector", FOREIGN_SELECTORS)
def test_what_other_readers_need_is_taken_too(door: Api, space: str, selector: Json) -> None:
    """Groups that Nameward does not know are no reason to refuse an object: its status says it."""
    body = firewall_policy("x", spec={"smartGroups": [{"name": "any-destination", "selectors": [selector]}]})
    assert not refused(door, POLICIES.format(space), body, dryRun="All")


def test_groups_of_a_controller_may_be_named(door: Api, space: str) -> None:
    """References that are not resolved within the policy, and by uuid."""
    groups = [{"name": "made-by-terraform"}, {"uuid": ANYWHERE}]
    body = firewall_policy("x", destinationSmartGroups=groups)
    assert not refused(door, POLICIES.format(space), body, dryRun="All")


CORPUS = [
    pytest.param(body, id=f"{path.stem}-{number}")
    for path in sorted((ROOT / "tests" / "corpus" / "manifests").glob("*.yaml"))
    for number, body in enumerate(_policies_in(path))
    if body.get("apiVersion") == f"{GROUP}/v1alpha1"
]


@pytest.mark.parametrize("body", CORPUS)
def test_nothing_is_refused_that_the_codec_accepts(door: Api, space: str, body: Json) -> None:
    """The two checks agree in the direction that counts: what is refused is wrong for the codec too."""
    moved = _moved(body, space)
    words = refused(door, PATHS[str(body["kind"])].format(space), moved, dryRun="All", **LAX)
    if words:
        assert _accepted(moved) is not True


def _moved(body: Json, space: str) -> Json:
    moved = copy.deepcopy(body)
    metadata = moved.get("metadata") if isinstance(moved.get("metadata"), dict) else {}
    moved["metadata"] = {"name": str(metadata.get("name", "x")).lower(), "namespace": space}
    return moved


def _accepted(body: Json) -> bool | None:
    entries, _ = read_objects(Document("object", 1, body))
    values = [entry.value for entry in entries if isinstance(entry.value, Policy)]
    return values[0].accepted if values else None


# --- what is refused, and how --------------------------------------------------------------------

MISTAKES: dict[str, tuple[Json, str]] = {
    "no action": (firewall_policy("x", action=None), "the rule has no action: write action: permit or"),
    "action allow": (firewall_policy("x", action="allow"), 'supported values: "permit", "deny"'),
    "no name": (firewall_policy("x", name=None), "spec.rules[0].name: Required value"),
    "empty name": (firewall_policy("x", name=""), "spec.rules[0].name"),
    "no destination": (
        firewall_policy("x", destinationSmartGroups=None),
        "spec.rules[0].destinationSmartGroups: Required value",
    ),
    "empty destinations": (firewall_policy("x", destinationSmartGroups=[]), "at least 1 items"),
    "name and uuid": (
        firewall_policy("x", destinationSmartGroups=[{"name": "any-destination", "uuid": ANYWHERE}]),
        "a SmartGroup is named by name or by uuid: write one of the two",
    ),
    "neither name nor uuid": (
        firewall_policy("x", webGroups=[{}]),
        "a WebGroup is named by name or by uuid: write one of the two",
    ),
    "empty webGroups": (firewall_policy("x", webGroups=[]), "name a WebGroup, or leave webGroups out"),
    "both selectors": (
        firewall_policy("x", selector={"matchLabels": {"a": "b"}, "service": "c"}),
        "both matchLabels and service: write one of the two",
    ),
    "port as text": (firewall_policy("x", port="443"), "must be of type integer"),
    "port as list": (firewall_policy("x", port=[443]), "must be of type integer"),
    "port 0": (firewall_policy("x", port=0), "greater than or equal to 1"),
    "port 65536": (firewall_policy("x", port=65536), "less than or equal to 65535"),
    "endPort alone": (firewall_policy("x", port=None, endPort=500), "endPort without port: write port too"),
    "endPort below": (firewall_policy("x", endPort=80), "endPort is below port"),
    "icmp with port": (firewall_policy("x", protocol="icmp", webGroups=None), "icmp has no ports"),
    "icmp with names": (firewall_policy("x", protocol="icmp", port=None), "icmp carries no name"),
    "protocol sctp": (firewall_policy("x", protocol="sctp"), 'supported values: "tcp", "udp"'),
    "logging as text": (firewall_policy("x", logging="yes"), "must be of type boolean"),
    "label as number": (firewall_policy("x", selector={"matchLabels": {"a": 1}}), "must be of type string"),
    "no rules": (firewall_policy("x", spec={"rules": []}), "at least 1 items"),
    "rules as mapping": (firewall_policy("x", spec={"rules": {}}), "must be of type array"),
    "cidr and more": (
        firewall_policy(
            "x",
            spec={"smartGroups": [{"name": "g", "selectors": [{"cidr": "::/0", "type": "k8s"}]}]},
        ),
        "a selector with cidr has no other field: write two selectors",
    ),
    "neither cidr nor type": (
        firewall_policy("x", spec={"smartGroups": [{"name": "g", "selectors": [{"k8sNamespace": "a"}]}]}),
        "the selector has neither cidr nor type",
    ),
    "SmartGroup twice": (
        firewall_policy("x", spec={"smartGroups": [{"name": "g"}, {"name": "g"}]}),
        "two SmartGroups have the same name",
    ),
    "WebGroup twice": (
        firewall_policy("x", spec={"webGroups": [{"name": "g"}, {"name": "g"}]}),
        "two WebGroups have the same name",
    ),
    "spec as text": (firewall_policy("x") | {"spec": "all"}, "must be of type object"),
    "a very long domain": (
        firewall_policy("x", spec={"webGroups": [{"name": "approved", "domains": ["a" * 1001]}]}),
        "spec.webGroups[0].domains[0]: Too long",
    ),
    "no allowedDomains": (webgroup_policy("x", allowedDomains=None), "spec.allowedDomains: Required value"),
    "domains as text": (webgroup_policy("x", allowedDomains="a.example"), "must be of type array"),
    "both web selectors": (
        webgroup_policy("x", selector={"matchLabels": {"a": "b"}, "service": "c"}),
        "both matchLabels and service",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_in_words_that_help(door: Api, space: str, mistake: str) -> None:
    """By the schema alone, whatever the writer asked for; and the codec would not have accepted it either."""
    body, words = MISTAKES[mistake]
    assert words in refused(door, PATHS[body["kind"]].format(space), body, **LAX)
    if mistake != "a very long domain":
        assert _accepted(_moved(body, space)) is not True or mistake in {"SmartGroup twice", "WebGroup twice"}


def test_the_largest_policy_that_the_bounds_allow_is_taken(guarded: RealApi, space: str) -> None:
    """256 rules, 256 groups, 4,096 domains: no rule of the schema or of admission runs out of its budget."""
    groups = [
        {"name": f"group-{n}", "selectors": [{"cidr": f"10.{n}.{m}.0/24"} for m in range(16)]}
        for n in range(256)
    ]
    rule = firewall_policy("x")["spec"]["rules"][0]
    rules = [
        rule
        | {
            "name": f"rule-{n}",
            "destinationSmartGroups": [{"name": f"group-{(n + m) % 256}"} for m in range(8)],
        }
        for n in range(256)
    ]
    domains = [f"host-{n}.example.com" for n in range(4096)]
    webs = [{"name": "approved", "domains": domains}, *({"name": f"w{n}"} for n in range(255))]
    body = firewall_policy("large", spec={"rules": rules, "smartGroups": groups, "webGroups": webs})
    patient = Api(guarded.admin_access, timeout_s=120.0)
    stored = patient.create(POLICIES.format(space), body)
    assert len(stored["spec"]["rules"]) == 256


@pytest.mark.parametrize(
    ("field", "items", "most"),
    [
        ("rules", [firewall_policy("x")["spec"]["rules"][0]] * 257, 256),
        ("smartGroups", [{"name": f"g{n}"} for n in range(257)], 256),
        ("webGroups", [{"name": f"g{n}"} for n in range(257)], 256),
        ("webGroups", [{"name": "approved", "domains": ["a.example"] * 4097}], 4096),
        ("smartGroups", [{"name": "g", "selectors": [{"cidr": "::/0"}] * 1025}], 1024),
    ],
)
def test_beyond_its_bounds_it_is_refused(
    door: Api, space: str, field: str, items: list[Json], most: int
) -> None:
    """The bounds are said."""
    words = refused(door, POLICIES.format(space), firewall_policy("x", spec={field: items}))
    assert f"must have at most {most} items" in words


# --- what people see -----------------------------------------------------------------------------

TRUE_AT = {
    "status": "True",
    "lastTransitionTime": "2026-11-23T00:00:00Z",
    "message": "every node has it",
    "observedGeneration": 1,
}
CONDITIONS = [
    TRUE_AT | {"type": "Accepted", "reason": "Accepted"},
    TRUE_AT | {"type": "Realized", "reason": "InForce"},
]


def test_columns_show_what_became_of_a_policy(guarded: RealApi, door: Api) -> None:
    """`kubectl get fwp`: rules, pods, realized, rejected, age; the reason with -o wide."""
    space = guarded.namespace("columns")
    path = POLICIES.format(space)
    door.create(path, firewall_policy("shown"))
    status = {"conditions": CONDITIONS, "enforcement": {"rules": 2, "pods": 3, "rejected": 0}}
    door.patch(f"{path}/shown/status", {"status": status}, "merge")
    header, row = guarded.kubectl("get", "fwp", "-n", space).splitlines()
    assert header.split() == ["NAME", "RULES", "PODS", "REALIZED", "REJECTED", "AGE"]
    assert row.split()[:5] == ["shown", "2", "3", "True", "0"]
    wide = guarded.kubectl("get", "fwp", "-n", space, "-o", "wide").splitlines()
    assert wide[0].split()[-2:] == ["ACCEPTED", "MESSAGE"]
    assert "every node has it" in wide[1]


def test_columns_of_the_other_kinds(guarded: RealApi, door: Api) -> None:
    """`kubectl get wgp`, `fwps` and `nst`."""
    space = guarded.namespace("columns")
    web = WEB_POLICIES.format(space)
    door.create(web, webgroup_policy("web"))
    status = {"conditions": CONDITIONS, "enforcement": {"rules": 1, "pods": 4, "rejected": 0}}
    door.patch(f"{web}/web/status", {"status": status}, "merge")
    assert guarded.kubectl("get", "wgp", "-n", space).splitlines()[1].split()[:4] == ["web", "4", "True", "0"]
    policy = {"kind": "WebgroupPolicy", "name": "web", "uid": "1"}
    own = {
        "apiVersion": "nameward.dev/v1alpha1",
        "kind": "PolicyStatus",
        "metadata": {"name": "webgrouppolicy-web"},
        "policy": policy,
        "status": {"conditions": CONDITIONS, "rules": 1, "pods": 4, "rejected": 0, "realizedNodes": "2/2"},
    }
    door.create(STATUSES.format(space), own)
    row = guarded.kubectl("get", "fwps", "-n", space).splitlines()[1].split()
    assert row[1:8] == ["WebgroupPolicy", "web", "Accepted", "True", "1", "4", "0"]
    node = {
        "apiVersion": "nameward.dev/v1alpha1",
        "kind": "NodeStatus",
        "metadata": {"name": f"{space}-node"},
        "status": {"enforcing": False, "pods": 5, "version": "0.1.0", "updatedAt": "2026-11-23T00:00:00Z"},
    }
    door.create(NODE_STATUSES, node)
    row = guarded.kubectl("get", "nst", f"{space}-node").splitlines()[1].split()
    assert row[1:4] == ["false", "5", "0.1.0"]


def test_one_word_lists_them_all(guarded: RealApi, door: Api) -> None:
    """`kubectl get nameward` shows policies and their statuses."""
    space = guarded.namespace("category")
    door.create(POLICIES.format(space), firewall_policy("one"))
    door.create(WEB_POLICIES.format(space), webgroup_policy("two"))
    found = guarded.kubectl("get", "nameward", "-n", space, "-o", "name")
    assert "firewallpolicy.networking.aviatrix.com/one" in found
    assert "webgrouppolicy.networking.aviatrix.com/two" in found


def test_explain_has_a_sentence_for_every_field(guarded: RealApi) -> None:
    """Every field of every kind says what it is for, and kubectl prints it."""
    silent = []
    for path in sorted((CHART / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert schema["description"]
        silent += [f"{path.name}: {name}" for name in _silent(schema, "")]
    assert silent == []
    said = guarded.kubectl("explain", "firewallpolicies.spec.rules.port")
    assert "the first of a range that endPort ends" in " ".join(said.split())


def _silent(schema: Json, at: str) -> list[str]:
    """Fields without a description; those that every object has aside."""
    found = []
    for name, part in schema.get("properties", {}).items():
        here = f"{at}.{name}"
        if here not in {".apiVersion", ".kind", ".metadata"}:
            inner = part.get("items", part)
            found += [] if part.get("description") else [here]
            found += _silent(inner, here)
    return found


def test_foreign_status_fields_are_kept(guarded: RealApi, door: Api) -> None:
    """Another reader's status stands beside ours."""
    space = guarded.namespace("status")
    path = POLICIES.format(space)
    door.create(path, firewall_policy("both"))
    theirs = {
        "attachmentPoint": "a",
        "ruleset": "b",
        "lastReconciledGeneration": 1,
        "smartGroups": [{"name": "g", "uuid": "u"}],
        "webGroups": [{"name": "w", "uuid": "v"}],
    }
    door.patch(f"{path}/both/status", {"status": theirs}, "merge")
    ours = {"status": {"conditions": CONDITIONS}}
    stored = door.patch(f"{path}/both/status", ours, "merge")
    assert stored["status"] == theirs | ours["status"]


# --- beside another product's definitions --------------------------------------------------------


def test_helm_leaves_what_was_there_before(foreign: RealApi) -> None:
    """The chart installs beside the other product's definitions, and changes nothing in them."""
    before = foreign.get("crd", f"firewallpolicies.{GROUP}")
    foreign.helm("install", "nameward", str(CHART), "-n", "nameward-system", "--create-namespace", *NEEDED)
    after = foreign.get("crd", f"firewallpolicies.{GROUP}")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["spec"] == before["spec"]
    assert foreign.get("crd", "policystatuses.nameward.dev")["spec"]["scope"] == "Namespaced"


def test_a_chart_that_comes_later_leaves_ours(guarded: RealApi, door: Api, tmp_path: Path) -> None:
    """The other product's chart has its definitions in crds/ too: Helm creates none that is there."""
    chart = tmp_path / "other"
    (chart / "crds").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: other\nversion: 1.0.0\n")
    (chart / "crds" / "all.yaml").write_text(yaml.safe_dump_all(json.loads(foreign_kinds())["items"]))
    space = guarded.namespace("other")
    guarded.helm("install", "other", str(chart), "-n", space)
    served = guarded.get("crd", f"firewallpolicies.{GROUP}")
    assert served["spec"]["names"]["shortNames"] == ["fwp"]
    assert "rules" in refused(door, POLICIES.format(space), firewall_policy("x") | {"rules": []})


def test_beside_them_a_pruned_field_cannot_be_seen(foreign: RealApi) -> None:
    """What the other definition prunes never reaches admission: strict writers are told, lax ones are not.

    The permit that remains has names and no port, which opens tcp/80 and tcp/443 only.
    """
    door = foreign.admin
    space = foreign.namespace("pruned")
    body = firewall_policy("pruned", port=None, ports=["443"])
    words = refused(door, POLICIES.format(space), body, fieldValidation="Strict")
    assert 'unknown field "spec.rules[0].ports"' in words
    stored = door.create(POLICIES.format(space), body, **LAX)
    assert "ports" not in stored["spec"]["rules"][0]
    assert _accepted(stored) is True


def test_definitions_may_change_hands(foreign: RealApi) -> None:
    """Ours over theirs and back: the objects stay, columns and conditions come and go."""
    space = foreign.namespace("hands")
    door = foreign.admin
    path = POLICIES.format(space)
    door.create(path, firewall_policy("kept"))
    foreign.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds"))
    status = {"conditions": CONDITIONS, "ruleset": "theirs"}
    stored = door.patch(f"{path}/kept/status", {"status": status}, "merge")
    assert stored["status"]["conditions"] == CONDITIONS
    foreign.kubectl("replace", "-f", "-", text=foreign_kinds())
    kept = door.get(f"{path}/kept")
    assert kept["spec"] == firewall_policy("kept")["spec"]
    assert _accepted(kept) is True


def test_an_unknown_field_stays_where_admission_is_off(foreign: RealApi) -> None:
    """Our definition prunes nothing: without admission the node sees it, and does not understand it."""
    foreign.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds"))
    foreign.kubectl("delete", "validatingadmissionpolicybinding", "--all")
    space = foreign.namespace("kept")
    door = foreign.admin
    body = firewall_policy("kept", port=None, ports=["443"])
    path = POLICIES.format(space)
    until(lambda: not refused(door, path, body, **LAX), "admission is off")
    found = door.get(f"{path}/kept")
    assert found["spec"]["rules"][0]["ports"] == ["443"]
    assert _accepted(found) is False
    loaded = load_manifests({"object.yaml": yaml.safe_dump(found)}, EVERY_NAMESPACE)
    assert any("ports" in finding.message for finding in loaded.findings)
