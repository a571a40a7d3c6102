"""Objects out of documents: kinds, versions, names, lists.

Owns the dispatch from a document to the reader of its kind. Never relates objects to each other.
Invariant: an object of a foreign kind is a warning; a Pod, Namespace, Service or EndpointSlice with
an error is not loaded (its pods are unknown, and denied); what is meant as a FirewallPolicy always
becomes one, so that its denies are not lost.
"""

from __future__ import annotations

import msgspec

from policy.manifest_findings import Finding, Place, Report, nearest, shown
from policy.manifest_kubernetes import (
    NamespaceLabels,
    Slice,
    read_endpoint_slice,
    read_namespace,
    read_pod,
    read_service,
)
from policy.manifest_policies import read_firewall_policy, read_webgroup_policy
from policy.manifest_shapes import Fields, is_namespace_name, is_object_name, mapping, text
from policy.manifest_yaml import Document
from policy.pods import Pod, Service
from policy.rules import Policy

MAX_UID_CHARS = 128
GROUP = "networking.aviatrix.com"
API_VERSION = f"{GROUP}/v1alpha1"

_VERSIONS = {
    "FirewallPolicy": (API_VERSION,),
    "WebgroupPolicy": (API_VERSION,),
    "Pod": ("v1",),
    "Namespace": ("v1",),
    "Service": ("v1",),
    "EndpointSlice": ("discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"),
}

Value = Policy | Pod | Service | NamespaceLabels | Slice


class Entry(msgspec.Struct, frozen=True):
    """One object and where it stands."""

    value: Value
    file: str
    document: int
    pointer: str


def read_objects(document: Document) -> tuple[list[Entry], list[Finding]]:
    """Read a document: one object, or a ``List`` of them. Total."""
    report = Report(document.file, document.number)
    place = Place(report)
    entries: list[Entry] = []
    fields = document.value
    if not isinstance(fields, dict):
        place.error(f"{shown(fields)} where an object belongs", "write apiVersion, kind, metadata and spec")
        return entries, report.findings
    kind = fields.get("kind")
    if isinstance(kind, str) and kind.endswith("List") and "items" in fields:
        here = place.at("items")
        stem = kind.removesuffix("List")
        items = fields["items"]
        if not isinstance(items, list):
            here.error(f"{shown(items)} where a list belongs", "write items: and a list of objects")
            items = []
        for index, item in enumerate(items):
            inherited = {"apiVersion": fields.get("apiVersion"), "kind": stem} if stem in _VERSIONS else {}
            if isinstance(item, dict):
                _read(inherited | item, document.damaged, here.at(index), entries)
            else:
                here.at(index).error(
                    f"{shown(item)} where an object belongs", "write apiVersion, kind and metadata"
                )
    else:
        _read(fields, document.damaged, place, entries)
    return entries, report.findings


def _read(fields: Fields, damaged: bool, place: Place, entries: list[Entry]) -> None:
    before = place.report.errors
    kind = _kind(fields, place)
    if kind is None:
        return
    metadata = mapping(fields["metadata"], place.at("metadata")) if "metadata" in fields else {}
    name = _object_name(metadata, place)
    namespace = "" if kind == "Namespace" else _namespace(metadata, place)
    broken = damaged or place.report.errors != before
    value: Value | None
    if kind == "FirewallPolicy":
        value = read_firewall_policy(fields, namespace, name, broken, place)
    elif kind == "WebgroupPolicy":
        value = read_webgroup_policy(fields, namespace, name, broken, place)
    elif broken:
        value = None
    else:
        value = _read_kubernetes(kind, fields, namespace, name, place)
        if place.report.errors != before:
            value = None
    if isinstance(value, Policy):
        value = _stored(value, metadata)
    if value is not None:
        entries.append(Entry(value, place.report.file, place.report.document, place.pointer))


def _stored(policy: Policy, metadata: Fields) -> Policy:
    """The policy as an API server has stored it: its uid, and which version of its spec this is."""
    uid, generation = metadata.get("uid"), metadata.get("generation")
    is_uid = isinstance(uid, str) and uid.isascii() and uid.isprintable() and len(uid) <= MAX_UID_CHARS
    is_version = type(generation) is int and 0 < generation < 1 << 63
    if not (is_uid or is_version):
        return policy
    return msgspec.structs.replace(
        policy, uid=uid if is_uid else "", generation=generation if is_version else 0
    )


def _read_kubernetes(kind: str, fields: Fields, namespace: str, name: str, place: Place) -> Value | None:
    if kind == "Pod":
        return read_pod(fields, namespace, name, place)
    if kind == "Namespace":
        return read_namespace(fields, name, place)
    if kind == "Service":
        return read_service(fields, namespace, name, place)
    return read_endpoint_slice(fields, namespace, place)


def _kind(fields: Fields, place: Place) -> str | None:
    """The kind whose reader takes the object, or None; with an error if it is not exactly that kind."""
    kind = fields.get("kind")
    version = fields.get("apiVersion")
    ours = isinstance(version, str) and version.partition("/")[0] == GROUP
    if isinstance(kind, str) and kind in _VERSIONS:
        versions = _VERSIONS[kind]
        if version not in versions:
            fix = f"write apiVersion: {versions[0]}"
            if version is None:
                place.error("the object has no apiVersion", fix)
            else:
                place.at("apiVersion").error(f"{shown(version)} is not the apiVersion of a {kind}", fix)
        return kind
    if not isinstance(kind, str) or not kind:
        if not ours and "apiVersion" not in fields and "spec" not in fields:
            place.error("this is no Kubernetes object", "write apiVersion, kind, metadata and spec")
            return None
        place.error(
            "the object has no kind", "write kind: FirewallPolicy, WebgroupPolicy, Pod, Namespace or Service"
        )
        return "FirewallPolicy" if ours else None
    meant = nearest(kind, ("FirewallPolicy", "WebgroupPolicy") if ours else _VERSIONS)
    if ours:
        place.at("kind").error(
            f"{shown(kind)} is no kind of {GROUP}", f"write {meant or 'FirewallPolicy or WebgroupPolicy'}"
        )
        return meant or "FirewallPolicy"
    if meant is not None and meant.casefold() == kind.casefold():
        place.at("kind").error(f"{shown(kind)} is no kind: capitals count", f"write {meant}")
        return meant
    place.at("kind").warning(
        f"objects of kind {shown(kind)} are not read", "nothing to do, unless it is misspelt"
    )
    return None


def _object_name(metadata: Fields, place: Place) -> str:
    here = place.at("metadata", "name")
    if "name" not in metadata:
        place.at("metadata").error("the object has no name", "write metadata.name")
        return "(unnamed)"
    name = text(metadata["name"], here)
    if name is not None and not is_object_name(name):
        here.error(
            f"{shown(name)} is no Kubernetes name",
            "write lower-case letters, digits, '-' and '.', at most 253",
        )
        return "(unnamed)"
    return name or "(unnamed)"


def _namespace(metadata: Fields, place: Place) -> str:
    """The namespace; without one it is ``default``, as in Kubernetes, but reported."""
    here = place.at("metadata", "namespace")
    if "namespace" not in metadata:
        place.at("metadata").error("the object has no namespace", "write metadata.namespace")
        return "default"
    namespace = text(metadata["namespace"], here)
    if namespace is not None and not is_namespace_name(namespace):
        here.error(
            f"{shown(namespace)} is no name of a namespace",
            "write lower-case letters, digits and '-', at most 63",
        )
        return "default"
    return namespace or "default"
