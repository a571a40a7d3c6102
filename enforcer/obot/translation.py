"""One MCPNetworkPolicy to one FirewallPolicy.

Pure. Owns what Obot's fields mean: the domains on tcp/443, then a deny of the rest; no domains and no
``denyAllEgress`` is every name on tcp/443; ``denyAllEgress`` is the deny alone. Never knows what stands in
the cluster. Invariants: a field that is not understood permits nothing; pods are selected as Obot says,
and never all of a namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from enforcer.kube.answers import Json
from enforcer.obot.domains import EVERY_NAME, Domains, read_domains
from enforcer.obot.naming import (
    LEFT_OUT,
    MANAGED_BY,
    SOURCE_NAME,
    SOURCE_SERVER,
    SOURCE_UID,
    is_label,
    policy_name,
)
from policy.manifest_findings import Place, Report, printable, shown
from policy.manifest_objects import API_VERSION
from policy.manifest_shapes import is_object_name, labels

KIND: Final = "FirewallPolicy"
_MAX_SAID: Final = 1024
_MAX_SERVER_CHARS: Final = 200
_ANY: Final = "any-destination"


class Shape(NamedTuple):
    """What all FirewallPolicies of one bridge have in common."""

    namespace: str
    """Of the MCP servers' pods."""
    managed_by: str
    always: tuple[str, ...] = ()
    """Patterns that every server may reach that is not denied everything."""


class Wanted(NamedTuple):
    """One FirewallPolicy as it should stand; ``said`` are sentences about what was left out."""

    source: str
    uid: str
    name: str
    body: Json
    said: tuple[str, ...]


class Unreadable(Exception):
    """The MCPNetworkPolicy cannot be carried over; the text is a sentence that names it."""


class Wishes(NamedTuple):
    """What one LIST of Obot's says."""

    policies: dict[str, Wanted]
    """By the FirewallPolicy's name."""
    kept: frozenset[str]
    """Names of FirewallPolicies whose source is there and cannot be read: what stands stays."""
    refused: tuple[str, ...]
    """A sentence about each source that has no FirewallPolicy of its own."""


def wishes(sources: Iterable[Json], shape: Shape) -> Wishes:
    """Translate all sources; their order does not matter."""
    found: dict[str, Wanted] = {}
    kept: set[str] = set()
    refused: list[str] = []
    for source in sorted(sources, key=_order):
        name = _order(source)[0]
        try:
            wanted = translate(source, shape)
        except Unreadable as error:
            kept.add(policy_name(name))
            refused.append(f"{error}; what stands in the cluster for it stays as it is")
            continue
        if wanted.name in found:
            refused.append(
                f"MCPNetworkPolicy {name}: {found[wanted.name].source} has the same name in the cluster"
            )
            continue
        found[wanted.name] = wanted
    return Wishes(found, frozenset(kept - found.keys()), tuple(refused))


def _order(source: Json) -> tuple[str, str]:
    metadata = source.get("metadata")
    fields = metadata if isinstance(metadata, dict) else {}
    return str(fields.get("name")), str(fields.get("uid"))


def translate(source: Json, shape: Shape) -> Wanted:
    """Translate one. Raises ``Unreadable``."""
    name, uid = _identity(source)
    spec = source.get("spec")
    if not isinstance(spec, dict):
        raise Unreadable(f"MCPNetworkPolicy {name} has no spec")
    server = _server(spec.get("mcpServerName"), name)
    selector = _selector(spec.get("podSelector"), name)
    domains = _domains(spec, shape, name)
    body: Json = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": policy_name(name),
            "namespace": shape.namespace,
            "labels": _labels(name, server, shape),
            "annotations": _annotations(uid, domains),
        },
        "spec": _spec(server, selector, domains.patterns, shape.namespace),
    }
    said = tuple(f"MCPNetworkPolicy {name}: {sentence}" for sentence in domains.left_out)
    return Wanted(name, uid, policy_name(name), body, said)


# --- reading -------------------------------------------------------------------------------------


def _identity(source: Json) -> tuple[str, str]:
    metadata = source.get("metadata")
    fields = metadata if isinstance(metadata, dict) else {}
    name, uid = fields.get("name"), fields.get("uid")
    if not isinstance(name, str) or not is_object_name(name):
        raise Unreadable(f"an MCPNetworkPolicy is called {shown(name)}, which is no name")
    return name, printable(uid)[:64] if isinstance(uid, str) else ""


def _server(value: object, name: str) -> str:
    if not isinstance(value, str) or not value or len(value) > _MAX_SERVER_CHARS or not value.isprintable():
        raise Unreadable(f"MCPNetworkPolicy {name}: mcpServerName is {shown(value)}, which names no server")
    return value


def _selector(value: object, name: str) -> dict[str, str]:
    report = Report("", 0)
    found = labels(value, Place(report).at("spec", "podSelector"))
    if report.errors:
        raise Unreadable(f"MCPNetworkPolicy {name}: podSelector: {report.findings[0].message}")
    if not found:
        raise Unreadable(
            f"MCPNetworkPolicy {name} has an empty podSelector: it would select every pod of the namespace"
        )
    return dict(sorted(found.items()))


def _domains(spec: Json, shape: Shape, name: str) -> Domains:
    """Return what is permitted; nothing, where everything is denied."""
    listed, deny_all = spec.get("egressDomains"), spec.get("denyAllEgress")
    listed = [] if listed is None else listed
    if not isinstance(listed, list):
        raise Unreadable(f"MCPNetworkPolicy {name}: egressDomains is {shown(listed)} and no list")
    if deny_all is not None and not isinstance(deny_all, bool):
        raise Unreadable(
            f"MCPNetworkPolicy {name}: denyAllEgress is {shown(deny_all)}; true or false belongs there"
        )
    if deny_all:
        said = ("denyAllEgress is set, so its domains are denied too",) if listed else ()
        return Domains((), said)
    if not listed:
        return Domains((EVERY_NAME,), ())
    found = read_domains(listed)
    if EVERY_NAME in found.patterns:
        return Domains((EVERY_NAME,), found.left_out)
    together = read_domains((*found.patterns, *shape.always)) if found.patterns or shape.always else found
    return Domains(together.patterns, (*found.left_out, *together.left_out))


# --- writing -------------------------------------------------------------------------------------


def _labels(name: str, server: str, shape: Shape) -> dict[str, str]:
    marks = {MANAGED_BY: shape.managed_by, SOURCE_NAME: name, SOURCE_SERVER: server}
    return {key: value for key, value in marks.items() if is_label(value)}


def _annotations(uid: str, domains: Domains) -> dict[str, str]:
    marks = {SOURCE_UID: uid} if uid else {}
    if domains.left_out:
        marks[LEFT_OUT] = printable("; ".join(domains.left_out))[:_MAX_SAID]
    return marks


def _spec(server: str, selector: dict[str, str], patterns: tuple[str, ...], namespace: str) -> Json:
    """Return rules and groups; the group of the server's own pods is always there, and unused."""
    approved = f"obot-{server}-approved-domains"
    spec: Json = {
        "rules": [_deny(selector)],
        "smartGroups": [
            {
                "name": f"obot-{server}-pods",
                "selectors": [{"type": "k8s", "k8sNamespace": namespace, "tags": dict(selector)}],
            },
            {"name": _ANY, "selectors": [{"cidr": "0.0.0.0/0"}]},
        ],
    }
    if patterns:
        spec["rules"].insert(0, _permit(selector, approved))
        spec["webGroups"] = [{"name": approved, "domains": list(patterns)}]
    return spec


def _permit(selector: dict[str, str], approved: str) -> Json:
    return {
        "name": "allow-approved-egress",
        "action": "permit",
        "selector": {"matchLabels": dict(selector)},
        "destinationSmartGroups": [{"name": _ANY}],
        "webGroups": [{"name": approved}],
        "protocol": "tcp",
        "port": 443,
        "logging": True,
    }


def _deny(selector: dict[str, str]) -> Json:
    return {
        "name": "deny-all-external",
        "action": "deny",
        "selector": {"matchLabels": dict(selector)},
        "destinationSmartGroups": [{"name": _ANY}],
        "protocol": "any",
        "logging": True,
    }
