"""One rule of a FirewallPolicy: from its fields to a `Rule` that can never fail open.

Owns the meaning of every field of ``spec.rules[]`` (policy.md "Fields" and "What counts as
understood"). Never decides about packets. Invariant: every item of the list becomes exactly one
`Rule`, so its index is its place; a rule in which anything is an error has ``understood=False``, and
each part of it that was not understood holds its widest value.
"""

from __future__ import annotations

from typing import cast

import msgspec

from policy.manifest_findings import Place, shown
from policy.manifest_groups import ANYWHERE, SmartGroup, WebGroup
from policy.manifest_references import BUILT_IN_SMART_GROUPS, BUILT_IN_WEB_GROUPS, referred
from policy.manifest_shapes import (
    ABSENT,
    Fields,
    boolean,
    choice,
    is_namespace_name,
    known_fields,
    labels,
    mapping,
    text,
    whole_number,
)
from policy.rules import Action, Destination, PortRange, Rule, RuleProtocol, Selector

RULE_FIELDS = (
    "name",
    "action",
    "selector",
    "destinationSmartGroups",
    "webGroups",
    "protocol",
    "port",
    "endPort",
    "logging",
    "logProfile",
    "watch",
    "flowAppRequirement",
    "decryptPolicy",
    "tlsProfile",
)
_MEANT = {
    "ports": "write port: 443, one number without quotes, and endPort for the last of a range",
    "destinationPort": "write port",
    "domains": "write the domains in spec.webGroups and refer to that group in webGroups",
    "destinations": "write destinationSmartGroups",
    "source": "write selector: the source is always pods of the policy's own namespace",
    "sourceSmartGroups": "write selector: the source is always pods of the policy's own namespace",
    "priority": "remove it: the order of the rules is their priority",
    "log": "write logging: true",
}
_SELECTOR_MEANT = {
    "matchExpressions": "write matchLabels: only equality of labels is known",
    "namespaceSelector": "remove it: a rule applies to the policy's own namespace",
    "podSelector": "write matchLabels right under selector",
}
_ACTIONS = ("permit", "deny", "intrusion_detection_permit")
_ACTIONS_MEANT = {
    **dict.fromkeys(("permit", "allow", "allowed", "accept", "pass"), "permit"),
    **dict.fromkeys(("deny", "drop", "block", "reject", "forbid"), "deny"),
}
FIELDS_WITHOUT_EFFECT = ("logging", "logProfile", "tlsProfile", "decryptPolicy", "flowAppRequirement")
"""Accepted and checked, but they change no decision."""

_EVERYTHING = frozenset({"0.0.0.0/0", "::/0"})


class Groups(msgspec.Struct, frozen=True):
    """The groups that are defined in one policy, by name."""

    smart: dict[str, SmartGroup]
    web: dict[str, WebGroup]


def read_rule(item: object, index: int, groups: Groups, place: Place) -> Rule:
    """Read one item of ``spec.rules``. Total."""
    before = place.report.errors
    fields = mapping(item, place)
    if not isinstance(item, dict):
        return Rule(name=f"(rule {index + 1})", action="deny", destinations=(ANYWHERE,), understood=False)
    known_fields(fields, RULE_FIELDS, place, _MEANT)
    name = _name(fields, index, place)
    action = _action(fields, place)
    selector = read_selector(fields, place)
    web_groups = _web_groups(fields, action, groups, place)
    destinations = _destinations(fields, action, web_groups is not None, groups, place)
    protocol, ports = _protocol_and_ports(fields, place)
    watch = boolean(fields["watch"], place.at("watch")) if "watch" in fields else False
    _side_fields(fields, action, place)
    return Rule(
        name=name,
        action=action,
        destinations=destinations,
        selector=selector,
        web_groups=web_groups,
        protocol=protocol,
        ports=ports,
        watch=watch is True,
        understood=place.report.errors == before,
    )


def _name(fields: Fields, index: int, place: Place) -> str:
    stand_in = f"(rule {index + 1})"
    if "name" not in fields:
        place.error("the rule has no name", "write a name that no other rule of this policy has")
        return stand_in
    name = text(fields["name"], place.at("name"))
    if name is not None and not (name.strip() and name.isprintable() and len(name) <= 256):
        place.at("name").error("the name is empty, too long or not printable", "write a short word")
        return stand_in
    return name or stand_in


def _action(fields: Fields, place: Place) -> Action:
    """An action nobody understands might have been a deny, so it is kept as one."""
    value = fields.get("action", ABSENT)
    if value is ABSENT:
        place.error("the rule has no action", "write action: permit or action: deny")
        return "deny"
    known = choice(value, _ACTIONS, place.at("action"), _ACTIONS_MEANT)
    if known == "intrusion_detection_permit":
        place.at("action").warning("no intrusion detection is done here: this is a permit", "write permit")
    if known is None and isinstance(value, str):
        known = _ACTIONS_MEANT.get(value.strip().lower())
    return "deny" if known in {None, "deny"} else "permit"


def read_selector(fields: Fields, place: Place) -> Selector:
    """``selector`` of a rule or a WebgroupPolicy; with errors it is all pods of the namespace."""
    if "selector" not in fields:
        return Selector()
    here = place.at("selector")
    before = here.report.errors
    selector = mapping(fields["selector"], here)
    known_fields(selector, ("matchLabels", "service"), here, _SELECTOR_MEANT)
    match_labels = (
        labels(selector["matchLabels"], here.at("matchLabels")) if "matchLabels" in selector else None
    )
    service = text(selector["service"], here.at("service")) if "service" in selector else None
    if service and not is_namespace_name(service):
        here.at("service").error(
            f"{shown(service)} is no name of a Service", "write the Service's metadata.name"
        )
    if match_labels is not None and service:
        here.error("both matchLabels and service", "write one of the two")
    if here.report.errors != before:
        return Selector()
    return Selector(match_labels=match_labels or None, service=service or None)


def _web_groups(fields: Fields, action: Action, groups: Groups, place: Place) -> tuple[str, ...] | None:
    """Patterns in the order written, each once; None: no webGroups, or a deny's not understood."""
    if "webGroups" not in fields:
        return None
    here = place.at("webGroups")
    before = here.report.errors
    found = referred(fields["webGroups"], groups.web, BUILT_IN_WEB_GROUPS, "webGroup", here)
    patterns: dict[str, None] = {}
    for group in found or ():
        if group.patterns is None:
            here.error("it refers to a webGroup that is not understood", "correct that group")
        elif action == "deny" and not group.whole:
            here.error(
                "a deny refers to a webGroup with a bad domain, so it denies all names", "correct that domain"
            )
        patterns.update(dict.fromkeys(group.patterns or ()))
    if fields.get("protocol") == "icmp":
        here.error("icmp carries no name", "remove webGroups, or write protocol: tcp")
    if action == "deny" and here.report.errors != before:
        return None
    return tuple(patterns)


def _destinations(
    fields: Fields, action: Action, has_names: bool, groups: Groups, place: Place
) -> tuple[Destination, ...]:
    """Destinations of all groups together; with any error: everything.

    0.0.0.0/0 and ::/0 mean both address families, except in a static permit (policy.md).
    """
    here = place.at("destinationSmartGroups")
    if "destinationSmartGroups" not in fields:
        place.error(
            "the rule has no destinationSmartGroups",
            "name a smartGroup, for example one with cidr: 0.0.0.0/0",
        )
        return (ANYWHERE,)
    found = referred(
        fields["destinationSmartGroups"], groups.smart, BUILT_IN_SMART_GROUPS, "smartGroup", here
    )
    destinations: list[Destination] = []
    for group in found or ():
        if group.destinations is None:
            here.error("it refers to a smartGroup that is not understood", "correct that group")
            return (ANYWHERE,)
        for destination in group.destinations:
            both = destination.cidr in _EVERYTHING and (action == "deny" or has_names)
            destinations.append(ANYWHERE if both else destination)
    return tuple(destinations) if found is not None else (ANYWHERE,)


def _protocol_and_ports(fields: Fields, place: Place) -> tuple[RuleProtocol, PortRange | None]:
    protocol = "any"
    if "protocol" in fields:
        read = choice(fields["protocol"], ("tcp", "udp", "icmp", "any"), place.at("protocol"))
        if read is None:
            _ports(fields, place)
            return "any", None
        protocol = read
    ports = _ports(fields, place)
    if protocol == "icmp" and ("port" in fields or "endPort" in fields):
        place.at("port" if "port" in fields else "endPort").error(
            "icmp has no ports", "remove it, or write protocol: tcp"
        )
        ports = None
    return cast("RuleProtocol", protocol), ports


def _ports(fields: Fields, place: Place) -> PortRange | None:
    before = place.report.errors
    first = whole_number(fields["port"], 1, 65535, place.at("port")) if "port" in fields else None
    last = whole_number(fields["endPort"], 1, 65535, place.at("endPort")) if "endPort" in fields else first
    if "endPort" in fields and "port" not in fields:
        place.at("endPort").error("endPort without port", "write port too: the first port of the range")
    if first is None or last is None or place.report.errors != before:
        return None
    if last < first:
        place.at("endPort").error(f"endPort {last} is below port {first}", "write the lower port in port")
        return None
    return PortRange(first, last)


def _side_fields(fields: Fields, action: Action, place: Place) -> None:
    """Fields that change no decision: their types and values are checked all the same."""
    if "logging" in fields:
        boolean(fields["logging"], place.at("logging"))
    for name in ("logProfile", "tlsProfile"):
        if name in fields:
            text(fields[name], place.at(name))
    if "decryptPolicy" in fields:
        choice(fields["decryptPolicy"], ("decryptAllowed", "decryptNotAllowed"), place.at("decryptPolicy"))
    if "flowAppRequirement" in fields:
        here = place.at("flowAppRequirement")
        value = choice(fields["flowAppRequirement"], ("tlsRequired", "tlsNotRequired"), here)
        if value == "tlsRequired" and action == "permit":
            here.error(
                "tlsRequired is not verified here, so the permit opens nothing",
                "remove it, or accept any protocol",
            )
