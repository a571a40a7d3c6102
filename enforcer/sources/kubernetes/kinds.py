"""What is asked of the API server, and what of its objects is kept.

Pure. Owns the collections and the cut of each object to the fields that are read. Never judges a value:
what has an unexpected shape is kept as it is, and its reader says what is wrong. Invariant: two objects
of equal cuts mean the same, so that only a changed cut is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from enforcer.kube.answers import Json
from policy.manifest_findings import printable
from policy.manifest_kubernetes import MARK_PREFIX, SERVICE_OF_SLICE

AVIATRIX = "networking.aviatrix.com/v1alpha1"
_MAX_PLACE = 400


class Cut(NamedTuple):
    """One object: its place, and what is kept of it as JSON in a fixed order of keys."""

    key: str
    """``namespace/name``, or the name alone."""
    raw: bytes


class Collection(NamedTuple):
    """One collection of the API, and how its objects are cut."""

    kind: str
    path: str
    cut: Callable[[Json], Cut]
    missing: str
    """What to do where the API server does not serve it."""


def file_of(kind: str, key: str) -> str:
    """Return what findings call an object: ``FirewallPolicy namespace/name``."""
    return printable(f"{kind} {key}")[:_MAX_PLACE]


_encode = msgspec.json.Encoder(order="sorted").encode


def _picked(fields: object, names: Iterable[str]) -> object:
    """Return only these fields; what is no mapping stays what it is."""
    if not isinstance(fields, Mapping):
        return fields
    return {name: fields[name] for name in names if fields.get(name) is not None}


def _object(api_version: str, kind: str, metadata: object, **parts: object) -> Cut:
    named = metadata if isinstance(metadata, Mapping) else {}
    namespace, name = named.get("namespace"), named.get("name")
    kept = {field: value for field, value in parts.items() if value is not None}
    raw = _encode({"apiVersion": api_version, "kind": kind, "metadata": metadata, **kept})
    return Cut(f"{namespace}/{name}" if namespace else str(name), raw)


def _policy(kind: str) -> Callable[[Json], Cut]:
    def cut(fields: Json) -> Cut:
        metadata = _picked(fields.get("metadata"), ("namespace", "name", "uid", "generation"))
        rest = {
            key: value
            for key, value in fields.items()
            if key not in {"apiVersion", "kind", "metadata", "status"}
        }
        return _object(AVIATRIX, kind, metadata, **rest)

    return cut


def _namespace(fields: Json) -> Cut:
    metadata = _picked(fields.get("metadata"), ("name", "uid", "labels", "annotations"))
    if isinstance(metadata, dict) and isinstance(metadata.get("annotations"), dict):
        ours = {key: value for key, value in metadata["annotations"].items() if key.startswith(MARK_PREFIX)}
        metadata["annotations"] = ours
    return _object("v1", "Namespace", metadata)


def _pod(fields: Json) -> Cut:
    spec = _picked(
        fields.get("spec"),
        ("nodeName", "hostNetwork", "containers", "initContainers", "ephemeralContainers"),
    )
    if isinstance(spec, dict):
        for group in ("containers", "initContainers", "ephemeralContainers"):
            if isinstance(spec.get(group), list):
                spec[group] = [each for each in map(_powers, spec[group]) if each]
    return _object(
        "v1",
        "Pod",
        _picked(fields.get("metadata"), ("namespace", "name", "uid", "labels")),
        spec=spec,
        status=_picked(fields.get("status"), ("phase", "podIP", "podIPs")),
    )


def _powers(container: object) -> object:
    """Return a container's security context, as far as it gives powers; nothing for most."""
    context = container.get("securityContext") if isinstance(container, Mapping) else None
    kept = _picked(context, ("privileged", "capabilities"))
    return {"securityContext": kept} if kept else None


def _service(fields: Json) -> Cut:
    metadata = _picked(fields.get("metadata"), ("namespace", "name", "uid"))
    spec = _picked(fields.get("spec"), ("selector", "clusterIP", "clusterIPs"))
    return _object("v1", "Service", metadata, spec=spec)


def _slice(fields: Json) -> Cut:
    metadata = _picked(fields.get("metadata"), ("namespace", "name", "labels"))
    if isinstance(metadata, dict):
        metadata["labels"] = _picked(metadata.get("labels", {}), (SERVICE_OF_SLICE,))
    endpoints = fields.get("endpoints")
    if isinstance(endpoints, list):
        endpoints = [_picked(each, ("addresses",)) for each in endpoints]
    return _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        metadata,
        addressType=fields.get("addressType"),
        endpoints=endpoints,
    )


_CRDS = "install its CustomResourceDefinition (crds/ of Nameward's chart)"
_SERVER = "use a Kubernetes of a supported version (docs/compatibility.md)"
FIREWALL_POLICIES = Collection(
    "FirewallPolicy", f"/apis/{AVIATRIX}/firewallpolicies", _policy("FirewallPolicy"), _CRDS
)
WEBGROUP_POLICIES = Collection(
    "WebgroupPolicy", f"/apis/{AVIATRIX}/webgrouppolicies", _policy("WebgroupPolicy"), _CRDS
)
NAMESPACES = Collection("Namespace", "/api/v1/namespaces", _namespace, _SERVER)
PODS = Collection("Pod", "/api/v1/pods", _pod, _SERVER)
SERVICES = Collection("Service", "/api/v1/services", _service, _SERVER)
SLICES = Collection("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices", _slice, _SERVER)

ALWAYS = (NAMESPACES, FIREWALL_POLICIES, WEBGROUP_POLICIES, SERVICES)
"""Followed from the start on; pods by their node or all of them, slices only of named Services."""
BY_KIND = {each.kind: each for each in (*ALWAYS, PODS, SLICES)}
