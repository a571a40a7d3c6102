"""Every file of the corpus of bad manifests yields what is written down for it.

``tests/corpus/manifests/expected.txt`` holds one block per file: ``== NAME``, a line per finding
(document, pointer, severity, message, fix), and what was loaded in spite of them. A new file's block
is in the message of the test that fails for want of it: read it, then add it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policy.check import check
from policy.manifest import EVERY_NAMESPACE, Finding, Loaded, load_manifests
from policy.rules import Destination, Policy, Rule

CORPUS = Path(__file__).parents[1] / "corpus" / "manifests"
BYSTANDERS = """
apiVersion: networking.aviatrix.com/v1alpha1
kind: WebgroupPolicy
metadata: {name: bystander, namespace: elsewhere}
spec: {allowedDomains: [bystander.example.com]}
---
apiVersion: v1
kind: Pod
metadata: {name: bystander, namespace: elsewhere, uid: bystander}
status: {podIPs: [{ip: 192.0.2.1}]}
"""


def expected() -> dict[str, str]:
    """Blocks of expected.txt by file name."""
    blocks = (CORPUS / "expected.txt").read_text().split("== ")[1:]
    return {name: block.rstrip("\n") for name, _, block in (block.partition("\n") for block in blocks)}


def load(name: str) -> Loaded:
    """Load one file of the corpus beside the bystanders."""
    return load_manifests({name: (CORPUS / name).read_bytes(), "bystanders": BYSTANDERS}, EVERY_NAMESPACE)


def described(name: str, loaded: Loaded) -> str:
    """The block for a file."""
    lines = [finding_line(finding) for finding in (*loaded.findings, *check(loaded)) if finding.file == name]
    for policy in loaded.policies:
        if policy.name != "bystander":
            lines += policy_lines(policy)
    lines += [f"pod {pod.key} {' '.join(pod.addresses)}" for pod in loaded.pods if pod.name != "bystander"]
    lines += [f"service {service.namespace}/{service.name}" for service in loaded.services]
    lines += [f"namespace {namespace}" for namespace in loaded.namespaces]
    return "\n".join(line.rstrip() for line in lines)


def finding_line(finding: Finding) -> str:
    """One finding on one line; the pointer escaped as JSON does it."""
    pointer = json.dumps(finding.pointer)[1:-1].replace("\\\\", "\\").replace('\\"', '"')
    return f"{finding.document} {pointer} {finding.severity}: {finding.message} | {finding.fix}"


def policy_lines(policy: Policy) -> list[str]:
    """A policy and its rules, everything that decides in them."""
    state = "accepted" if policy.accepted else "rejected"
    return [f"{policy.kind} {policy.key} {state}", *(f"  {rule_line(rule)}" for rule in policy.rules)]


def rule_line(rule: Rule) -> str:
    """A rule on one line."""
    names = "" if rule.web_groups is None else f" [{' '.join(rule.web_groups)}]"
    ports = "" if rule.ports is None else f"/{rule.ports.first}-{rule.ports.last}"
    labels = rule.selector.match_labels
    source = f"service {rule.selector.service}" if rule.selector.service else f"pods {labels or 'all'}"
    to = ", ".join(map(_destination, rule.destinations))
    flags = (" watched" if rule.watch else "") + ("" if rule.understood else " NOT UNDERSTOOD")
    return f"{rule.name}: {rule.action} {source} to {to}{names} {rule.protocol}{ports}{flags}"


def _destination(destination: Destination) -> str:
    if destination.kind == "cidr":
        return destination.cidr
    if destination.kind != "pods":
        return destination.kind
    where = f"{destination.namespace or '*'}/{destination.pod_name or destination.service or '*'}"
    return f"pods {where} {destination.labels or ''}".rstrip()


FILES = sorted(path.name for path in CORPUS.glob("*.yaml"))
EXPECTED = expected()


@pytest.mark.parametrize("name", FILES)
def test_a_bad_manifest_has_exactly_the_expected_findings_and_outcome(name: str) -> None:
    """Findings (place, severity, words, fix) and what remains of the policies are as written down."""
    assert described(name, load(name)) == EXPECTED.get(name, "(no block in expected.txt)")


@pytest.mark.parametrize("name", FILES)
def test_a_bad_manifest_leaves_those_of_other_files_alone(name: str) -> None:
    """The bystanders are loaded word for word as they are without the bad file."""
    alone = load_manifests({"bystanders": BYSTANDERS}, EVERY_NAMESPACE)
    loaded = load(name)
    assert [policy for policy in loaded.policies if policy.name == "bystander"] == list(alone.policies)
    assert [pod for pod in loaded.pods if pod.name == "bystander"] == list(alone.pods)
    assert not [finding for finding in loaded.findings if finding.file == "bystanders"]


@pytest.mark.parametrize("name", FILES)
def test_words_for_people_are_safe_on_a_terminal(name: str) -> None:
    """Messages and fixes are printable ASCII and of bounded length, whatever the file holds."""
    loaded = load(name)
    for finding in (*loaded.findings, *check(loaded)):
        for words in (finding.message, finding.fix):
            assert words
            assert words.isascii()
            assert words.isprintable()
            assert len(words) <= 700


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("fine-")])
def test_nothing_of_a_bad_manifest_is_silent(name: str) -> None:
    """A file that is not fine has a finding, except where the corpus says that there is none."""
    silent = {
        "destination-uuid-capitals",
        "list-of-pods",
        "pod-finished",
        "pod-no-addresses",
        "selector-service-empty",
    }
    loaded = load(name)
    found = any(finding.file == name for finding in (*loaded.findings, *check(loaded)))
    assert found != (name.removesuffix(".yaml") in silent)


def test_every_block_has_its_file() -> None:
    """expected.txt speaks of no file that is gone."""
    assert set(EXPECTED) == set(FILES)
