"""What relates manifests to each other: one object per name, and Services that rules refer to.

Owns those two checks. Never reads YAML. Invariant: the outcome does not depend on the order of files
or documents (only which of two equal copies is called the second one does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from policy.manifest_findings import Finding, Severity, printable
from policy.manifest_groups import ANYWHERE
from policy.manifest_kubernetes import NamespaceLabels, Slice
from policy.manifest_objects import Entry, Value
from policy.manifest_policies import LOST_RULE
from policy.pods import Pod, Service
from policy.rules import Policy, Rule


def single_objects(entries: list[Entry], findings: list[Finding]) -> list[Entry]:
    """Keep one entry for each object.

    Equal copies are one object, with a warning. Of different ones under one name nobody can say
    which is meant: pods, namespaces and Services are dropped, of policies only the denies remain.
    """
    by_name: dict[tuple[str, str, str], list[Entry]] = {}
    kept: list[Entry] = []
    for entry in entries:
        if isinstance(entry.value, Slice):
            kept.append(entry)
        else:
            by_name.setdefault(identity_of(entry.value), []).append(entry)
    for (kind, namespace, name), copies in by_name.items():
        first = copies[0]
        if len(copies) == 1:
            kept.append(first)
            continue
        what = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        if all(_content(copy.value) == _content(first.value) for copy in copies):
            kept.append(first)
            for copy in copies[1:]:
                message = f"the {what} is also in {_where(first)}, word for word"
                findings.append(_finding(copy, "/metadata/name", "warning", message, "remove one of the two"))
            continue
        for copy in copies:
            other = _where(copies[1] if copy is first else first)
            outcome = "both permit nothing" if isinstance(copy.value, Policy) else "neither is loaded"
            message = f"the {what} is different in {other}, so {outcome}"
            findings.append(
                _finding(copy, "/metadata/name", "error", message, "remove one, or name it differently")
            )
        if isinstance(first.value, Policy):
            kept.append(_merged(copies))
    return kept


def identity_of(value: Value) -> tuple[str, str, str]:
    """Return kind, namespace and name: what no two objects but slices have in common."""
    if isinstance(value, Policy):
        return value.kind, value.namespace, value.name
    if isinstance(value, NamespaceLabels):
        return "Namespace", "", value.name
    kind = type(value).__name__
    return kind, value.namespace, "" if isinstance(value, Slice) else value.name


def _content(value: Value) -> Value:
    if isinstance(value, Policy):
        return msgspec.structs.replace(value, source="", uid="", generation=0)
    return value


def _where(entry: Entry) -> str:
    document = f" document {entry.document}" if entry.document else ""
    return f"{entry.file}{document}{entry.pointer}"


def _finding(entry: Entry, pointer: str, severity: Severity, message: str, fix: str) -> Finding:
    return Finding(entry.file, entry.document, entry.pointer + pointer, severity, printable(message), fix)


def _merged(copies: list[Entry]) -> Entry:
    policies = [copy.value for copy in copies if isinstance(copy.value, Policy)]
    denies = [rule for policy in policies for rule in policy.rules if rule.action == "deny"]
    defused = tuple(msgspec.structs.replace(rule, understood=False) for rule in denies)
    merged = msgspec.structs.replace(policies[0], rules=defused, accepted=False)
    return msgspec.structs.replace(copies[0], value=merged)


def link_services(
    entries: list[Entry], services: Mapping[tuple[str, str], Service], findings: list[Finding]
) -> list[Entry]:
    """Find rules that refer to Services which no manifest declares: they are not understood."""
    linked = []
    for entry in entries:
        policy = entry.value
        if isinstance(policy, Policy):
            rules = []
            for index, rule in enumerate(policy.rules):
                new, problems = _linked(rule, policy.namespace, services)
                rules.append(new)
                # A deny that stands for lost rules stands nowhere in the file.
                if rule.name != LOST_RULE:
                    place = f"/spec/rules/{index}" if policy.kind == "FirewallPolicy" else "/spec"
                    findings += [_finding(entry, place + at, "error", *words) for at, *words in problems]
            if tuple(rules) != policy.rules:
                changed = msgspec.structs.replace(policy, rules=tuple(rules), accepted=False)
                linked.append(msgspec.structs.replace(entry, value=changed))
                continue
        linked.append(entry)
    return linked


def _linked(
    rule: Rule, namespace: str, services: Mapping[tuple[str, str], Service]
) -> tuple[Rule, list[tuple[str, str, str]]]:
    """The rule, and (pointer below it, message, fix) of what is missing."""
    problems: list[tuple[str, str, str]] = []
    missing = "there is no Service {}/{}, so the rule is not understood"
    name = rule.selector.service
    if name is not None and (namespace, name) not in services:
        fix = "add the Service's manifest, or write matchLabels"
        problems.append(("/selector/service", missing.format(namespace, name), fix))
        rule = msgspec.structs.replace(rule, understood=False)
    for to in rule.destinations:
        if to.service and (to.namespace, to.service) not in services:
            fix = "add the Service's manifest, or write tags"
            problems.append(("/destinationSmartGroups", missing.format(to.namespace, to.service), fix))
            return msgspec.structs.replace(rule, destinations=(ANYWHERE,), understood=False), problems
    return rule, problems


def claims_of(pod: Pod) -> Iterator[tuple[str, str]]:
    """Yield what no two pods may both have, and where a pod says it."""
    yield "/metadata/uid", f"the uid {pod.uid}"
    for ip in dict.fromkeys(pod.addresses):
        yield "/status", ip


def shared_claims(entries: list[Entry], findings: list[Finding]) -> None:
    """Report pods that claim the uid or an address of another pod; the snapshot gives it to neither."""
    claims: dict[str, Entry] = {}
    for entry in entries:
        pod = entry.value
        if not isinstance(pod, Pod):
            continue
        for pointer, what in claims_of(pod):
            other = claims.setdefault(what, entry)
            if other is not entry and isinstance(other.value, Pod):
                message = f"the pods {pod.key} and {other.value.key} both claim {what}, so it is nobody's"
                fix = "remove the manifest of the pod that is gone"
                findings.append(_finding(entry, pointer, "error", message, fix))
