"""Whatever stands in a manifest, reading it ends in findings, never in an exception."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.check import check
from policy.manifest import EVERY_NAMESPACE, GovernedNamespaces, Loaded, load_manifests
from policy.manifest_findings import MAX_FINDINGS
from policy.manifest_scalars import plain_value
from policy.rules import Policy

FIELDS = [
    *(
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "status",
        "name",
        "namespace",
        "labels",
        "uid",
        "rules",
        "items",
    ),
    *("smartGroups", "webGroups", "destinationSmartGroups", "selectors", "domains", "cidr", "type", "tags"),
    *(
        "action",
        "protocol",
        "port",
        "endPort",
        "selector",
        "matchLabels",
        "service",
        "uuid",
        "watch",
        "logging",
    ),
    *(
        "allowedDomains",
        "podIPs",
        "ip",
        "podIP",
        "phase",
        "hostNetwork",
        "nodeName",
        "clusterIP",
        "clusterIPs",
    ),
    *("endpoints", "addresses", "addressType", "k8sNamespace", "k8sService", "flowAppRequirement", "<<", "x"),
]
WORDS = [
    *(
        "networking.aviatrix.com/v1alpha1",
        "v1",
        "discovery.k8s.io/v1",
        "FirewallPolicy",
        "WebgroupPolicy",
        "List",
    ),
    *(
        "PodList",
        "Pod",
        "Namespace",
        "Service",
        "EndpointSlice",
        "permit",
        "deny",
        "tcp",
        "any",
        "icmp",
        "k8s",
        "all",
    ),
    *(
        "api.example.com",
        "*.example.com",
        "*",
        "**",
        "xn--a",
        "bücher.example",
        "10.0.0.0/8",
        "::/0",
        "::ffff:0:0/96",
    ),
    *(
        "def000ad-0000-0000-0000-000000000000",
        "tlsRequired",
        "kubernetes.io/service-name",
        "None",
        "Running",
        "",
    ),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 70000),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=12),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=4)), inner, max_size=6),
    ),
    max_leaves=12,
)
RULES = st.lists(st.dictionaries(st.sampled_from(FIELDS[15:35]), VALUES, max_size=8), max_size=3)
OBJECTS = st.fixed_dictionaries(
    {
        "apiVersion": st.sampled_from(WORDS[:3]),
        "kind": st.sampled_from(WORDS[3:11]),
        "metadata": st.one_of(
            st.just({"name": "a", "namespace": "shop"}), st.dictionaries(st.sampled_from(FIELDS), VALUES)
        ),
        "spec": st.one_of(VALUES, st.dictionaries(st.sampled_from(FIELDS), st.one_of(VALUES, RULES))),
    },
    optional={"status": VALUES, "items": VALUES, "endpoints": VALUES, "x": VALUES},
)

EXAMPLES = [
    document
    for path in sorted((Path(__file__).parents[2] / "deploy" / "examples").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """An example with a few of its values replaced, removed, or fields added."""
    document = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(1, 4))):
        at = document
        for _ in range(draw(st.integers(0, 6))):
            inner = [
                v for v in (at.values() if isinstance(at, dict) else at) if isinstance(v, (dict, list)) and v
            ]
            if not inner:
                break
            at = draw(st.sampled_from(inner))
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        change = draw(st.integers(0, 3))
        if change == 0:
            del at[key]
            if not at:
                break
        elif change == 1 and isinstance(at, dict):
            at[draw(st.sampled_from(FIELDS))] = draw(SCALARS)
        else:
            at[key] = draw(st.one_of(SCALARS, st.just([]), st.just({}), st.lists(SCALARS, max_size=2)))
    return document


def total(files: dict[str, bytes | str]) -> Loaded:
    """Load and lint; the result is encodable and bounded."""
    loaded = load_manifests(files, EVERY_NAMESPACE)
    findings = (*loaded.findings, *check(loaded))
    for finding in findings:
        assert finding.message.isascii()
        assert finding.message.isprintable()
        assert finding.fix.isascii()
        assert finding.fix.isprintable()
    return loaded


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_in_findings(content: bytes) -> None:
    """Arbitrary octets never raise."""
    total({"a": content})


@given(
    st.text(
        alphabet=st.sampled_from("-:{}[]&*!|>'\"%@`#,?~<\n\t ab01.\\\r\ufeff\x85\u2028\x00\ud800"),
        max_size=60,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_arrangement_of_yaml_signs_ends_in_findings(content: str) -> None:
    """Text made of YAML's indicators never raises, lone surrogates included."""
    total({"a": content})


@given(st.lists(st.one_of(mutated(), OBJECTS), max_size=2), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_shape_of_object_ends_in_findings(objects: list[dict[str, Any]], as_json: bool) -> None:
    """Objects with known fields of any type never raise, as YAML and as JSON."""
    if as_json:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    else:
        text = yaml.safe_dump_all(objects, allow_unicode=True)
    total({"a": text, "b": text})


@given(st.sampled_from(EXAMPLES), st.integers(0, 2000), st.binary(max_size=3))
@settings(max_examples=150, deadline=None)
def test_a_half_written_or_damaged_file_ends_in_findings(document: Any, at: int, octets: bytes) -> None:
    """A file cut off, or with a few octets overwritten, never raises."""
    content = yaml.safe_dump(document).encode()
    total({"a": content[:at]})
    total({"a": content[:at] + octets + content[at + len(octets) :]})


@given(st.text(max_size=20))
def test_any_scalar_has_a_value(text: str) -> None:
    """Plain scalars of any form are values of the four kinds."""
    assert isinstance(plain_value(text), (str, int, float, bool, type(None)))


def without_places(policies: tuple[Policy, ...]) -> list[str]:
    """Policies and their rules, but for where they stand."""
    return sorted(str([policy.key, policy.kind, sorted(map(str, policy.rules))]) for policy in policies)


@given(st.lists(mutated(), min_size=2, max_size=4), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_of_documents_changes_nothing(objects: list[Any], random: Any) -> None:
    """The same objects in any order are the same policies (they commute, duplicates included)."""
    shuffled = list(objects)
    random.shuffle(shuffled)
    one = load_manifests({"a": yaml.safe_dump_all(objects)}, EVERY_NAMESPACE)
    other = load_manifests({"a": yaml.safe_dump_all(shuffled)}, EVERY_NAMESPACE)
    assert without_places(one.policies) == without_places(other.policies)


@given(mutated())
@settings(max_examples=300, deadline=None)
def test_an_error_in_a_policy_is_never_without_effect(document: dict[str, Any]) -> None:
    """A policy with an error is rejected; one without is accepted and every rule understood."""
    loaded = load_manifests({"a": yaml.safe_dump(document)}, EVERY_NAMESPACE)
    errors = [finding for finding in loaded.findings if finding.severity == "error"]
    for policy in loaded.policies:
        assert policy.accepted == (not errors)
        if policy.accepted:
            assert all(rule.understood for rule in policy.rules)


@pytest.mark.parametrize("bad", ["ports: ['443']", "port: '443'", "action: Permit", "webGroups: []", "x: y"])
def test_findings_of_one_document_are_bounded(bad: str) -> None:
    """Ten thousand mistakes in one document make no ten thousand findings."""
    rules = "\n".join(f"  - {{name: r{n}, {bad}}}" for n in range(10_000))
    text = f"apiVersion: networking.aviatrix.com/v1alpha1\nkind: FirewallPolicy\nspec:\n  rules:\n{rules}"
    loaded = load_manifests({"a": text}, GovernedNamespaces())
    assert len(loaded.findings) <= MAX_FINDINGS + 2
    assert not any(rule.understood for policy in loaded.policies for rule in policy.rules)
