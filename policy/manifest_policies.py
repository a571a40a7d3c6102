"""FirewallPolicy and WebgroupPolicy objects: the frame around the rules.

Owns ``spec`` and what remains of a policy whose frame is not understood. Never reads single rule
fields. Invariant: no policy, however mangled, loses a deny unnoticed: where rules cannot be read or
may have been lost, nothing in it is permitted and a deny of everything stands for what was lost, for
the pods its rules select, or for its whole namespace if none can be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from policy.manifest_findings import Place, shown
from policy.manifest_groups import (
    ANYWHERE,
    SmartGroup,
    WebGroup,
    read_domains,
    read_groups,
    read_smart_group,
    read_web_group,
)
from policy.manifest_rules import FIELDS_WITHOUT_EFFECT, Groups, read_rule, read_selector
from policy.manifest_shapes import ABSENT, Fields, known_fields, mapping, sequence
from policy.rules import PodGroup, Policy, PortRange, Rule, Selector

OBJECT_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
MAX_PARTS = 16384
"""Domains and selectors that all rules of one policy refer to, a group counted once for each rule: a small
object whose every rule refers to every group would else become gigabytes on every node."""
LOST_RULE = "(not understood)"
"""Name of the deny that stands for rules which could not be read."""

_MISPLACED = dict.fromkeys(
    ("rules", "smartGroups", "webGroups", "allowedDomains", "selector"), "indent it under spec"
)
_SPEC_MEANT = {
    "selector": "write selector in each rule",
    "priority": "remove it: policies have no order, an explicit deny in any of them wins",
    "defaultAction": "remove it: what no rule permits is denied",
    "allowedDomains": "write kind: WebgroupPolicy, or webGroups and rules",
}
_ONLY_FIREWALL = "remove it: a WebgroupPolicy permits tcp/443 only; write kind: FirewallPolicy for rules"
_WEBGROUP_MEANT = {
    **dict.fromkeys(
        ("action", "protocol", "port", "ports", "endPort", "logging", "rules", "webGroups", "smartGroups"),
        _ONLY_FIREWALL,
    ),
    "domains": "write allowedDomains",
}
_NO_EFFECT_FIX = {
    "logging": "nothing to do: every refused lookup and denied packet is recorded anyway",
    "flowAppRequirement": "remove it: TLS is not verified",
}


def read_firewall_policy(fields: Fields, namespace: str, name: str, broken: bool, place: Place) -> Policy:
    """Read a FirewallPolicy. ``broken``: its head was not understood, so nothing in it is."""
    before = place.report.errors
    known_fields(fields, OBJECT_FIELDS, place, _MISPLACED)
    here = place.at("spec")
    spec: Fields = {}
    if "spec" in fields:
        spec = mapping(fields["spec"], here)
        known_fields(spec, ("rules", "smartGroups", "webGroups"), here, _SPEC_MEANT)
    else:
        place.error("the policy has no spec", "write spec: with rules")
    items = _items(spec, here)
    lost = broken or items is None or place.report.errors != before
    if items == [] and not lost:
        _empty(spec, here)
    parts = _parts(spec, items or [])
    if parts > MAX_PARTS:
        here.at("rules").error(
            f"the rules refer to {parts} domains and selectors together, of at most {MAX_PARTS}",
            "refer to fewer groups in each rule",
        )
        groups, lost = Groups({}, {}), True
        rules = [_unread(item, index, here.at("rules", index)) for index, item in enumerate(items or [])]
    else:
        groups = _groups(spec, items or [], here)
        rules = [
            read_rule(item, index, groups, here.at("rules", index)) for index, item in enumerate(items or [])
        ]
        _warn(rules, items or [], here.at("rules"))
    if lost:
        rules = without_permits(rules)
        whom = (
            "the pods that its rules select"
            if rules[-1].selector != Selector()
            else f"all pods of {namespace}"
        )
        message = f"the policy is not understood as a whole, so it denies everything to {whom}"
        place.error(message, "correct its other errors")
    accepted = not lost and place.report.errors == before
    return Policy(
        namespace=namespace,
        name=name,
        kind="FirewallPolicy",
        rules=tuple(rules),
        source=place.origin,
        accepted=accepted,
        groups=_pod_groups(groups),
    )


def _parts(spec: Fields, items: list[object]) -> int:
    """Return how many domains and selectors the rules refer to, before any of them is read."""
    found = 0
    for groups, references, parts in (
        ("smartGroups", "destinationSmartGroups", "selectors"),
        ("webGroups", "webGroups", "domains"),
    ):
        sizes: Counter[str] = Counter()
        for group in _mappings(spec.get(groups)):
            if isinstance(name := group.get("name"), str) and isinstance(listed := group.get(parts), list):
                sizes[name] += len(listed)
        for item in _mappings(items):
            names = (each.get("name") for each in _mappings(item.get(references)))
            found += sum(sizes[name] for name in names if isinstance(name, str))
    return found


def _mappings(value: object) -> Iterator[Fields]:
    return (each for each in (value if isinstance(value, list) else ()) if isinstance(each, dict))


def _unread(item: object, index: int, place: Place) -> Rule:
    """A rule that stands for its selector alone."""
    selector = read_selector(item, place) if isinstance(item, dict) else Selector()
    return Rule(
        name=f"(rule {index + 1})",
        action="deny",
        destinations=(ANYWHERE,),
        selector=selector,
        understood=False,
    )


def _pod_groups(groups: Groups) -> tuple[PodGroup, ...]:
    """The groups that pick pods, with those of their selectors."""
    found = (
        (name, tuple(each for each in group.destinations or () if each.kind == "pods"))
        for name, group in groups.smart.items()
    )
    return tuple(PodGroup(name, destinations) for name, destinations in found if destinations)


def without_permits(rules: list[Rule]) -> list[Rule]:
    """The same rules, none understood, and a deny of everything for each set of pods they select."""
    selectors: list[Selector] = []
    for rule in rules:
        if rule.selector not in selectors:
            selectors.append(rule.selector)
    if not selectors or Selector() in selectors:
        selectors = [Selector()]
    defused = [msgspec.structs.replace(rule, understood=False) for rule in rules]
    return defused + [
        Rule(name=LOST_RULE, action="deny", destinations=(ANYWHERE,), selector=selector, understood=False)
        for selector in selectors
    ]


def _items(spec: Fields, place: Place) -> list[object] | None:
    """The rules as written; None: there may be some, but they cannot be read."""
    rules = spec.get("rules", ABSENT)
    return [] if rules is ABSENT else sequence(rules, place.at("rules"))


def _empty(spec: Fields, place: Place) -> None:
    if "rules" in spec:
        place.at("rules").error("an empty list of rules", "write at least one rule, or leave rules out")
    else:
        place.warning("the policy has no rules, so it changes nothing", "write rules, or remove the policy")


def _groups(spec: Fields, items: list[object], place: Place) -> Groups:
    smart: dict[str, SmartGroup] = {}
    web: dict[str, WebGroup] = {}
    if "smartGroups" in spec:
        used = _used(items, "destinationSmartGroups")
        smart = read_groups(
            spec["smartGroups"], used, place.at("smartGroups"), read_smart_group, SmartGroup(None)
        )
    if "webGroups" in spec:
        used = _used(items, "webGroups")
        web = read_groups(spec["webGroups"], used, place.at("webGroups"), read_web_group, WebGroup(None))
        for index, item in enumerate(spec["webGroups"] if isinstance(spec["webGroups"], list) else ()):
            name = item.get("name") if isinstance(item, dict) else None
            if isinstance(name, str) and name not in used:
                message = f"no rule refers to the webGroup {shown(name)}"
                place.at("webGroups", index).warning(message, "refer to it, or remove it")
    return Groups(smart, web)


def _used(items: list[object], field: str) -> frozenset[str]:
    """Names that any rule refers to, as far as they can be read."""
    names = set()
    for item in items:
        references = item.get(field) if isinstance(item, dict) else None
        for reference in references if isinstance(references, list) else ():
            name = reference.get("name") if isinstance(reference, dict) else None
            if isinstance(name, str):
                names.add(name)
    return frozenset(names)


def _warn(rules: list[Rule], items: list[object], place: Place) -> None:
    """Warnings about the list as a whole: names that stand twice, fields without effect."""
    counts = Counter(rule.name for rule in rules)
    for index, rule in enumerate(rules):
        if counts[rule.name] > 1:
            message = (
                f"{counts[rule.name]} rules are named {shown(rule.name)}, so records cannot tell them apart"
            )
            place.at(index, "name").warning(message, "give each rule its own name")
    for name in FIELDS_WITHOUT_EFFECT:
        having = [
            index
            for index, item in enumerate(items)
            if rules[index].understood and isinstance(item, dict) and name in item
        ]
        if having:
            count = f"{len(having)} rules" if len(having) > 1 else "one rule"
            message = f"{name} has no effect here (in {count} of this policy)"
            place.at(having[0], name).warning(
                message, _NO_EFFECT_FIX.get(name, "remove it, or leave it for other readers")
            )


def read_webgroup_policy(fields: Fields, namespace: str, name: str, broken: bool, place: Place) -> Policy:
    """Read a WebgroupPolicy: one permit of tcp/443 to its names, or, not understood, of nothing."""
    before = place.report.errors
    known_fields(fields, OBJECT_FIELDS, place, _MISPLACED)
    here = place.at("spec")
    spec = mapping(fields.get("spec"), here)
    known_fields(spec, ("allowedDomains", "selector"), here, _WEBGROUP_MEANT)
    selector = read_selector(spec, here)
    listed = None
    domains = here.at("allowedDomains")
    if "allowedDomains" in spec:
        listed = sequence(spec["allowedDomains"], domains)
    elif "spec" in fields:
        here.error("the policy has no allowedDomains", "write allowedDomains: with a list of domains")
    understood = not broken and place.report.errors == before
    if listed == []:
        domains.warning("an empty list: the policy permits nothing", "write the domains that are permitted")
    patterns = read_domains(listed or [], domains)
    rule = Rule(
        name="allowedDomains",
        action="permit",
        destinations=(ANYWHERE,),
        selector=selector,
        web_groups=tuple(dict.fromkeys(patterns)),
        protocol="tcp",
        ports=PortRange(443, 443),
        understood=understood,
    )
    return Policy(
        namespace=namespace,
        name=name,
        kind="WebgroupPolicy",
        rules=(rule,),
        source=place.origin,
        accepted=not broken and place.report.errors == before,
    )
