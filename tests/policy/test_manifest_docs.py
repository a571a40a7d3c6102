"""The examples and the policy reference say what the codec does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policy import manifest_builder, manifest_groups, manifest_rules, manifest_yaml
from policy.check import check
from policy.manifest import EVERY_NAMESPACE, load_manifests
from policy.manifest_references import BUILT_IN_SMART_GROUPS, BUILT_IN_WEB_GROUPS
from policy.patterns import parse_pattern

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "policy.md").read_text()
EXAMPLES = {path.name: path.read_bytes() for path in sorted((ROOT / "deploy" / "examples").glob("*.yaml"))}
SELECTOR_FIELDS = ("cidr", "type", *manifest_groups.K8S_FIELDS, *manifest_groups.FOREIGN_FIELDS)


def test_the_examples_have_no_errors_and_are_accepted() -> None:
    """`nameward check deploy/examples` is clean of errors; every policy and rule is understood."""
    loaded = load_manifests(EXAMPLES, EVERY_NAMESPACE)
    assert not [finding for finding in loaded.findings if finding.severity == "error"]
    assert len(loaded.policies) == 7
    assert all(policy.accepted for policy in loaded.policies)
    assert all(rule.understood for policy in loaded.policies for rule in policy.rules)


def test_the_examples_warn_only_of_what_their_comments_say() -> None:
    """What a reader copies gives no surprising warning."""
    loaded = load_manifests(EXAMPLES, EVERY_NAMESPACE)
    warnings = {
        (finding.file, finding.message.split(":")[0]) for finding in (*loaded.findings, *check(loaded))
    }
    no_effect = {warning for warning in warnings if warning[1].startswith("logging has no effect")}
    assert {file for file, _ in no_effect} <= {
        name for name in EXAMPLES if name.startswith(("obot-", "enterprise"))
    }
    assert warnings - no_effect == {
        ("obot-allow-all.yaml", '"*" is over-broad'),
        ("obot-github.yaml", '"*.githubusercontent.com" is over-broad'),
        ("static-permits.yaml", "the permit opens addresses, not names"),
    }


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL))
def test_yaml_in_the_reference_is_accepted(block: str) -> None:
    """Each policy in docs/policy.md is understood wholly, without errors."""
    loaded = load_manifests({"policy.md": block}, EVERY_NAMESPACE)
    assert not [finding for finding in loaded.findings if finding.severity == "error"]
    assert loaded.policies
    assert all(policy.accepted for policy in loaded.policies)


def test_the_reference_has_a_row_for_every_field() -> None:
    """No field of the two kinds is missing in the tables, and no row speaks of one that is not known."""
    rows = set(re.findall(r"^\| `((?:spec|status)[^`]*)` \|", REFERENCE, re.MULTILINE))
    lists = {"destinationSmartGroups", "webGroups"}
    rules = {f"spec.rules[].{name}" + ("[]" if name in lists else "") for name in manifest_rules.RULE_FIELDS}
    selectors = {f"spec.smartGroups[].selectors[].{name}" for name in SELECTOR_FIELDS}
    assert rows == rules | selectors | {
        *("spec", "status", "spec.rules", "spec.allowedDomains[]", "spec.selector"),
        *("spec.rules[].selector.matchLabels", "spec.rules[].selector.service"),
        *("spec.smartGroups[].name", "spec.smartGroups[].selectors[]"),
        *("spec.webGroups[].name", "spec.webGroups[].domains[]"),
    }


def test_the_reference_names_every_built_in_group() -> None:
    """The table of uuids is the codec's."""
    assert set(re.findall(r"^\| `(def000ad-[0-9a-f-]+)`", REFERENCE, re.MULTILINE)) == {
        *BUILT_IN_SMART_GROUPS,
        *BUILT_IN_WEB_GROUPS,
    }


def test_the_patterns_in_the_reference_match_as_it_says() -> None:
    """Every row of the table of patterns holds."""
    rows = re.findall(r"^\| `([^`|]*[.*][^`|]*)` \| ([^|]*) \| ([^|]*) \|$", REFERENCE, re.MULTILINE)
    assert len(rows) == 5
    for text, yes, no in rows:
        pattern = parse_pattern(text)
        assert all(
            pattern.matches(name)
            for name in [*re.findall("`([^`]*)`", yes), *([text] if pattern.exact else [])]
        )
        assert not any(pattern.matches(name) for name in re.findall("`([^`]*)`", no))


def test_the_reference_states_the_limits() -> None:
    """The bounds on files are the codec's."""
    for limit in (
        manifest_yaml.MAX_DOCUMENTS,
        manifest_builder.MAX_NODES,
        manifest_builder.MAX_ALIASED_NODES,
    ):
        assert f"{limit:,}" in REFERENCE
    assert f"{manifest_yaml.MAX_FILE_BYTES // 2**20} MiB" in REFERENCE
    assert f"{manifest_builder.MAX_DEPTH} levels" in REFERENCE


def test_the_finding_in_the_reference_is_the_real_one() -> None:
    """The session shown is what `check` says about that mistake."""
    bad = "apiVersion: networking.aviatrix.com/v1alpha1\nkind: FirewallPolicy\n"
    bad += (
        "metadata: {name: p, namespace: n}\nspec:\n  rules:\n  - {name: r, action: permit, ports: ['443'], "
    )
    bad += "destinationSmartGroups: [{uuid: def000ad-0000-0000-0000-000000000001}]}\n"
    (finding,) = load_manifests({"policy.yaml": bad}, EVERY_NAMESPACE).findings
    for words in (
        finding.message,
        finding.fix,
        f"{finding.file}, document {finding.document}, {finding.pointer}",
    ):
        assert words in REFERENCE
