"""Pods, Namespaces, Services and EndpointSlices, as kubectl prints them.

Owns the few fields of these objects that matter here; all others pass unread, because other
programs own them. Never says which namespaces are governed. Invariant: an address that is not a
pod's own (host network, a finished pod) is never taken for its.
"""

from __future__ import annotations

import re

import msgspec

from policy.manifest_findings import Place, shown
from policy.manifest_shapes import (
    Fields,
    boolean,
    ip_address,
    is_object_name,
    labels,
    mapping,
    sequence,
    text,
)
from policy.pods import Labels, Pod, Service

SERVICE_OF_SLICE = "kubernetes.io/service-name"
NAME_LABEL = "kubernetes.io/metadata.name"
"""Every Namespace carries its own name in this label; the API server writes it."""

MARK_PREFIX = "nameward.dev/"
"""Annotations of Namespaces that begin so are read; all others belong to other programs."""
MAX_MARKS = 16
MAX_MARK_CHARS = 1024

_MARK = re.compile(re.escape(MARK_PREFIX) + r"[-_.A-Za-z0-9]{1,63}\Z")
_FINISHED = ("Succeeded", "Failed")
_POWERS = frozenset({"ALL", "BPF", "NET_ADMIN", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE"})
"""Capabilities with which a container may be stronger than what contains it."""


class NamespaceLabels(msgspec.Struct, frozen=True):
    """A Namespace: its name, its labels, and its annotations that begin with ``MARK_PREFIX``."""

    name: str
    labels: Labels
    marks: dict[str, str] = {}


class Slice(msgspec.Struct, frozen=True):
    """An EndpointSlice: addresses behind a Service of its namespace."""

    namespace: str
    service: str
    addresses: tuple[str, ...]


def _part(fields: Fields, name: str, place: Place) -> Fields:
    """A sub-object that may be absent or null."""
    return mapping(fields[name], place.at(name)) if fields.get(name) is not None else {}


def _optional_text(fields: Fields, name: str, place: Place) -> str:
    return (text(fields[name], place.at(name)) or "") if fields.get(name) is not None else ""


def _labels(metadata: Fields, place: Place) -> Labels:
    value = metadata.get("labels")
    return (labels(value, place.at("metadata", "labels")) or {}) if value is not None else {}


def read_pod(fields: Fields, namespace: str, name: str, place: Place) -> Pod:
    """Read a Pod; without ``status.podIPs`` it is kept without addresses (not started yet)."""
    metadata = _part(fields, "metadata", place)
    spec = _part(fields, "spec", place)
    status = _part(fields, "status", place)
    uid = _optional_text(metadata, "uid", place.at("metadata"))
    if not (uid.isascii() and uid.isprintable() and len(uid) <= 128):
        place.at("metadata", "uid").error(f"{shown(uid)} is no uid", "write the uid as Kubernetes gives it")
    if not uid:
        place.at("metadata").warning(
            "the pod has no uid: a later pod of the same name would be taken for this one",
            "write metadata.uid",
        )
        uid = f"{namespace}/{name}"
    node = _optional_text(spec, "nodeName", place.at("spec"))
    if node and not is_object_name(node):
        place.at("spec", "nodeName").error(
            f"{shown(node)} is no name of a node", "write the Node's metadata.name"
        )
    host_network = False
    if spec.get("hostNetwork") is not None:
        host_network = boolean(spec["hostNetwork"], place.at("spec", "hostNetwork")) is not False
    addresses = _pod_addresses(status, place.at("status"))
    if host_network:
        place.at("spec", "hostNetwork").warning(
            "the pod uses the node's network: no policy contains it",
            "remove hostNetwork if it runs code nobody audited",
        )
    if host_network or status.get("phase") in _FINISHED:
        addresses = ()
    return Pod(
        namespace=namespace,
        name=name,
        uid=uid,
        addresses=addresses,
        labels=_labels(metadata, place),
        node=node,
        host_network=host_network,
        powers=_powers(spec),
    )


def _powers(spec: Fields) -> tuple[str, ...]:
    """What containers may do to the node. The API server has checked the shapes: others are passed over."""
    found: set[str] = set()
    for field in ("containers", "initContainers", "ephemeralContainers"):
        listed = spec.get(field)
        for container in listed if isinstance(listed, list) else ():
            context = container.get("securityContext") if isinstance(container, dict) else None
            if not isinstance(context, dict):
                continue
            if context.get("privileged") is True:
                found.add("privileged")
            capabilities = context.get("capabilities")
            added = capabilities.get("add") if isinstance(capabilities, dict) else None
            names = {str(each).removeprefix("CAP_") for each in added} if isinstance(added, list) else set()
            found |= names & _POWERS
    return tuple(sorted(found))


def _pod_addresses(status: Fields, place: Place) -> tuple[str, ...]:
    found: dict[str, None] = {}
    if status.get("podIPs") is not None:
        here = place.at("podIPs")
        for index, item in enumerate(sequence(status["podIPs"], here) or ()):
            entry = mapping(item, here.at(index))
            if "ip" in entry:
                address = ip_address(entry["ip"], here.at(index, "ip"))
                if address is not None:
                    found[address] = None
            elif isinstance(item, dict):
                here.at(index).error("an entry without ip", "write ip: and the address")
    if status.get("podIP"):
        address = ip_address(status["podIP"], place.at("podIP"))
        if address is not None:
            found[address] = None
    return tuple(found)


def read_namespace(fields: Fields, name: str, place: Place) -> NamespaceLabels:
    """Read a Namespace's labels and marks."""
    metadata = _part(fields, "metadata", place)
    labelled = {**_labels(metadata, place), NAME_LABEL: name}
    return NamespaceLabels(name, labelled, _marks(metadata, place.at("metadata", "annotations")))


def _marks(metadata: Fields, place: Place) -> dict[str, str]:
    """Read the annotations that are ours, in the order of their names. A bad one is left out.

    Nothing here is an error of the Namespace: that would take its labels from it, and so govern it.
    """
    annotations = metadata.get("annotations")
    if not isinstance(annotations, dict):
        return {}
    names = sorted(each for each in annotations if isinstance(each, str) and _MARK.match(each))
    if len(names) > MAX_MARKS:
        message = f"{len(names)} annotations begin with {MARK_PREFIX}: the first {MAX_MARKS} are read"
        place.warning(message, "remove those that Nameward does not know")
    found: dict[str, str] = {}
    for name in names[:MAX_MARKS]:
        value, here = annotations[name], place.without_effect().at(name)
        if not isinstance(value, str):
            text(value, here)
        elif len(value) > MAX_MARK_CHARS:
            here.warning(f"a value of more than {MAX_MARK_CHARS} characters is not read", "shorten it")
        else:
            found[name] = value
    return found


def read_service(fields: Fields, namespace: str, name: str, place: Place) -> Service:
    """Read a Service; an empty selector is none, as in Kubernetes."""
    spec = _part(fields, "spec", place)
    here = place.at("spec")
    selector = labels(spec["selector"], here.at("selector")) if spec.get("selector") is not None else None
    addresses: dict[str, None] = {}
    listed = spec.get("clusterIPs")
    if listed is not None:
        for index, item in enumerate(sequence(listed, here.at("clusterIPs")) or ()):
            _cluster_ip(item, addresses, here.at("clusterIPs", index))
    if "clusterIP" in spec:
        _cluster_ip(spec["clusterIP"], addresses, here.at("clusterIP"))
    return Service(namespace=namespace, name=name, selector=selector or None, cluster_ips=tuple(addresses))


def _cluster_ip(value: object, addresses: dict[str, None], place: Place) -> None:
    if value in (None, "", "None"):
        return
    address = ip_address(value, place)
    if address is not None:
        addresses[address] = None


def read_endpoint_slice(fields: Fields, namespace: str, place: Place) -> Slice | None:
    """Read an EndpointSlice; None if it belongs to no Service or holds names instead of addresses."""
    service = _labels(_part(fields, "metadata", place), place).get(SERVICE_OF_SLICE)
    if service is None:
        place.at("metadata", "labels").warning(
            f"the slice has no label {SERVICE_OF_SLICE}", "name its Service there"
        )
        return None
    if fields.get("addressType") == "FQDN":
        place.at("addressType").warning("a slice of names has no addresses", "nothing to do")
        return None
    found: dict[str, None] = {}
    here = place.at("endpoints")
    endpoints = fields.get("endpoints")
    for index, item in enumerate((sequence(endpoints, here) or ()) if endpoints is not None else ()):
        entry = mapping(item, here.at(index))
        listed = entry.get("addresses")
        if listed is None:
            here.at(index).error(
                f"an endpoint without addresses ({shown(entry)})", "write addresses: and a list"
            )
            continue
        for position, value in enumerate(sequence(listed, here.at(index, "addresses")) or ()):
            address = ip_address(value, here.at(index, "addresses", position))
            if address is not None:
                found[address] = None
    return Slice(namespace, service, tuple(found))
