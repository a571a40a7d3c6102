"""SmartGroups and WebGroups of a FirewallPolicy.

Owns what a group's selectors and domains mean. Never decides what becomes of a rule whose group is
not understood: the rule's reader widens or refuses. Invariant: a group that no rule refers to makes
no error (Obot's provider always writes one such).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from policy.manifest_findings import Place, shown
from policy.manifest_shapes import (
    ABSENT,
    Fields,
    is_namespace_name,
    is_object_name,
    known_fields,
    labels,
    mapping,
    sequence,
    text,
)
from policy.patterns import PatternError, is_plain, parse_pattern
from policy.rules import Destination

ANYWHERE = Destination("anywhere")
PUBLIC = Destination("public")


_MAX_DOMAIN = 1000
"""Characters before parsing: longer text is not worth a look (253 are allowed, white space aside)."""

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_AS_READ = re.compile(rf"(?:{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}/32|0\.0\.0\.0/0)\Z")
"""Ranges that are written as they are read: one IPv4 address, and all of them."""

K8S_FIELDS = ("k8sNamespace", "k8sPodName", "k8sService", "tags")
FOREIGN_FIELDS = (
    "name",
    "accountId",
    "accountName",
    "region",
    "zone",
    "s2c",
    "external",
    "extArgs",
    "k8sClusterId",
)
_FOREIGN_TYPES = ("vpc", "subnet", "vm", "k8s_node", "serverless")
_SELECTOR_MEANT = {
    "k8sClusterId": "remove it: there is one cluster here",
    "fqdn": "a SmartGroup holds pods or CIDRs; names belong in a WebGroup: webGroups[].domains",
    "matchLabels": "write type: k8s and tags",
    "namespace": "write type: k8s and k8sNamespace",
}


class SmartGroup(msgspec.Struct, frozen=True):
    """Destinations of one group; None: not understood."""

    destinations: tuple[Destination, ...] | None


class WebGroup(msgspec.Struct, frozen=True):
    """Canonical patterns of one group. ``whole``: no domain was skipped. None: not understood."""

    patterns: tuple[str, ...] | None
    whole: bool = True


Group = TypeVar("Group", SmartGroup, WebGroup)


def read_groups(
    value: object, used: frozenset[str], place: Place, read: Callable[[Fields, Place], Group], nothing: Group
) -> dict[str, Group]:
    """Read ``smartGroups`` or ``webGroups`` by name; a name that stands twice is not understood."""
    groups: dict[str, Group] = {}
    for index, item in enumerate(sequence(value, place) or ()):
        here = place.at(index)
        fields = item if isinstance(item, dict) else {}
        name = fields.get("name")
        if isinstance(name, str) and name not in used:
            here = here.without_effect()
        if not isinstance(name, str) or not name:
            here.error("a group without a name", "write name: and use that name in the rules")
        elif name in groups:
            here.at("name").error(f"the group {shown(name)} is defined twice", "give each group its own name")
            groups[name] = nothing
        else:
            groups[name] = read(fields, here)
    return groups


def read_smart_group(fields: Fields, place: Place) -> SmartGroup:
    """``{name, selectors}``: the union of its selectors."""
    before = place.report.errors
    known_fields(fields, ("name", "selectors"), place, {"cidr": "write selectors: [{cidr: ...}]"})
    selectors = fields.get("selectors", ABSENT)
    here = place.at("selectors")
    if selectors is ABSENT or selectors == []:
        here.error("the group has no selectors", "write at least one, for example cidr: 0.0.0.0/0")
        return SmartGroup(None)
    found = [_selector(item, here.at(index)) for index, item in enumerate(sequence(selectors, here) or ())]
    if place.lenient or place.report.errors != before:
        return SmartGroup(None)
    return SmartGroup(tuple(destination for destination in found if destination is not None))


def _selector(item: object, place: Place) -> Destination | None:
    before = place.report.errors
    fields = mapping(item, place)
    known_fields(fields, ("cidr", "type", *K8S_FIELDS, *FOREIGN_FIELDS), place, _SELECTOR_MEANT)
    if "cidr" in fields:
        others = [name for name in fields if name != "cidr"]
        if others:
            place.at(others[0]).error("a selector with cidr has no other field", "write two selectors")
        return cidr(fields["cidr"], place.at("cidr"))
    for name in FOREIGN_FIELDS:
        if name in fields:
            fix = _SELECTOR_MEANT.get(name, "write type: k8s or cidr")
            place.at(name).error(f"{name} selects what Nameward does not know", fix)
    kind = fields.get("type", ABSENT)
    if kind == "k8s":
        return _pods(fields, place)
    if kind is ABSENT:
        if place.report.errors == before:
            fix = "write cidr: 0.0.0.0/0, or type: k8s with k8sNamespace"
            place.error("the selector has neither cidr nor type", fix)
    elif kind in _FOREIGN_TYPES:
        place.at("type").error(f"the type {shown(kind)} is not known to Nameward", "write type: k8s or cidr")
    else:
        place.at("type").error(f"{shown(kind)} is not a type of selector", "write type: k8s or cidr")
    return None


def _pods(fields: Fields, place: Place) -> Destination:
    namespace = _name(fields, "k8sNamespace", place, is_namespace_name)
    pod_name = _name(fields, "k8sPodName", place, is_object_name)
    service = _name(fields, "k8sService", place, is_namespace_name)
    if pod_name and service:
        place.at("k8sService").error("k8sPodName and k8sService cannot stand together", "write two selectors")
    if (pod_name or service) and not namespace:
        place.error("a pod or Service is named without its namespace", "write k8sNamespace too")
    tags = labels(fields["tags"], place.at("tags")) if "tags" in fields else {}
    return Destination("pods", namespace=namespace, pod_name=pod_name, service=service, labels=tags or {})


def _name(fields: Fields, name: str, place: Place, is_name: Callable[[str], bool]) -> str:
    if name not in fields:
        return ""
    value = text(fields[name], place.at(name))
    if value is not None and not is_name(value):
        place.at(name).error(
            f"{shown(value)} is no Kubernetes name", "write lower-case letters, digits and '-'"
        )
    return value or ""


def cidr(value: object, place: Place) -> Destination | None:
    """A CIDR or a single address; an IPv4-mapped range is the IPv4 range it maps."""
    written = text(value, place)
    if written is None:
        return None
    if _AS_READ.match(written):  # nearly all are; to read a network and write it costs twenty times this
        return Destination("cidr", cidr=written)
    try:
        if "%" in written:
            raise ValueError(written)
        network = ipaddress.ip_network(written, strict=False)
    except ValueError:
        fix = "write an address and a prefix length, for example 203.0.113.0/24"
        if any(character.isalpha() for character in written) and ":" not in written:
            fix = "names belong in a WebGroup: webGroups[].domains"
        place.error(f"{shown(written)} is not a CIDR", fix)
        return None
    if "/" in written and str(network.network_address) != str(ipaddress.ip_address(written.split("/")[0])):
        place.warning(
            f"{shown(written)} has bits set beyond its prefix", f"write {network}, which is how it is read"
        )
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return Destination("cidr", cidr=str(ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))))
    return Destination("cidr", cidr=str(network))


def read_web_group(fields: Fields, place: Place) -> WebGroup:
    """``{name, domains}``. A bad domain is reported and skipped, and the group is not whole."""
    before = place.report.errors
    meant = {"urls": "inline WebGroups hold domains only", "selectors": "write domains"}
    known_fields(fields, ("name", "domains"), place, meant)
    value = fields.get("domains", ABSENT)
    here = place.at("domains")
    if value is ABSENT or value == []:
        here.error("the WebGroup has no domains", "write at least one, for example api.example.com")
        return WebGroup(None)
    listed = sequence(value, here)
    if listed is None or place.report.errors != before:
        return WebGroup(None)
    patterns = read_domains(listed, here)
    return WebGroup(tuple(patterns), whole=len(patterns) == len(listed))


def read_domains(listed: list[object], place: Place) -> list[str]:
    """Canonical texts of the good domains; bad ones are reported and skipped."""
    patterns = []
    for index, item in enumerate(listed):
        if isinstance(item, str) and is_plain(item):  # nearly all are; a place costs more than this
            patterns.append(item)
            continue
        here = place.at(index)
        domain = text(item, here)
        if domain is None:
            continue
        if len(domain) > _MAX_DOMAIN:
            here.error(f"a domain of {len(domain)} characters; the domain is skipped", "write at most 253")
            continue
        try:
            pattern = parse_pattern(domain)
        except PatternError as problem:
            here.error(f"{problem.message}; the domain is skipped", problem.fix)
            continue
        patterns.append(pattern.text)
    return patterns
