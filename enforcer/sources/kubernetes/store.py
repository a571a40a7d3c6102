"""What the API server has said, object by object, each read once.

Pure. Owns the objects, and what follows from them about what else must be asked for: the endpoints of
Services that have no selector, pods of other nodes. Invariant: an object is read again only when what is
kept of it changed; what is not listed yet is not nothing, it is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from enforcer.sources.kubernetes.kinds import BY_KIND, Cut, file_of
from policy.manifest import FileRead, Loaded
from policy.manifest_kubernetes import SERVICE_OF_SLICE
from policy.manifest_objects import read_objects
from policy.manifest_yaml import Document
from policy.pods import Service
from policy.rules import Policy

ServiceName = tuple[str, str]
"""Namespace ("" is any) and name."""
MAX_NAMED = 50
"""Where more Services are named, all EndpointSlices are asked for: a query has its length."""


class Held(NamedTuple):
    """One object as it is kept."""

    raw: bytes
    read: FileRead
    services: frozenset[ServiceName]
    """What Services a policy names."""
    names_pods: bool
    """Whether a policy has pods among its destinations."""


class Store:
    """Objects by kind and key."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Held]] = {kind: {} for kind in BY_KIND}
        self._reads: dict[str, dict[str, FileRead]] = {kind: {} for kind in BY_KIND}
        self._naming: Counter[ServiceName] = Counter()
        """How many policies name a Service."""
        self._naming_pods = 0
        self._endpoints: dict[frozenset[str], frozenset[str]] = {}
        self._services_read: dict[frozenset[str], list[FileRead]] = {}

    def replace(self, kind: str, cuts: Iterable[Cut]) -> bool:
        """Take a complete list of a kind. Returns whether anything changed."""
        old = self._objects[kind]
        new = {cut.key: _held(kind, cut, old.get(cut.key)) for cut in cuts}
        if new.keys() == old.keys() and all(held is old[key] for key, held in new.items()):
            return False
        for held in old.values():
            self._count(kind, held, -1)
        for held in new.values():
            self._count(kind, held, 1)
        self._objects[kind] = new
        self._reads[kind] = {key: held.read for key, held in new.items()}
        return True

    def put(self, kind: str, cut: Cut) -> bool:
        """Take one object as it is now. Returns whether that changes anything."""
        objects = self._objects[kind]
        old = objects.get(cut.key)
        held = objects[cut.key] = _held(kind, cut, old)
        if held is old:
            return False
        self._reads[kind][cut.key] = held.read
        if old is not None:
            self._count(kind, old, -1)
        self._count(kind, held, 1)
        return True

    def drop(self, kind: str, cut: Cut) -> bool:
        """Forget an object that was deleted. Returns whether it was known."""
        held = self._objects[kind].pop(cut.key, None)
        if held is None:
            return False
        del self._reads[kind][cut.key]
        self._count(kind, held, -1)
        return True

    def raws(self) -> dict[str, list[Cut]]:
        """Return everything as it is kept, by kind."""
        return {
            kind: [Cut(key, held.raw) for key, held in objects.items()]
            for kind, objects in self._objects.items()
        }

    def count(self, kind: str) -> int:
        """Return how many objects of a kind there are."""
        return len(self._objects[kind])

    def _count(self, kind: str, held: Held, by: int) -> None:
        """Count what a policy names, or no longer does; forget what followed where it may differ now."""
        if kind == "Service" or held.services or held.names_pods:
            self._endpoints.clear()
            self._services_read.clear()
        self._naming_pods += by * held.names_pods
        for name in held.services:
            self._naming[name] += by
            if not self._naming[name]:
                del self._naming[name]

    # --- what follows ------------------------------------------------------------------------------

    @property
    def names_pods(self) -> bool:
        """Say whether a policy has pods as a destination: they may be on any node."""
        return self._naming_pods > 0

    def endpoints_needed(self, dns_servers: frozenset[str]) -> frozenset[str]:
        """Return the names of Services whose EndpointSlices are needed.

        Those are what policies name and no selector explains, and the cluster's DNS servers: what is
        behind these must be known wherever it runs, because traffic to it is never exempt.
        """
        found = self._endpoints.get(dns_servers)
        if found is None:
            found = self._endpoints[dns_servers] = frozenset(
                service.name
                for service in self._services()
                if not dns_servers.isdisjoint(service.cluster_ips)
                or (service.selector is None and _is_named(service, self._naming))
            )
        return found

    def reads(self, dns_servers: frozenset[str]) -> list[FileRead]:
        """Return everything that is needed of what was read; the Services only that somebody names."""
        found: list[FileRead] = []
        for kind, reads in self._reads.items():
            if kind != "Service" or self.names_pods:
                found += reads.values()
            else:
                found += self._needed_services(dns_servers)
        return found

    def _needed_services(self, dns_servers: frozenset[str]) -> list[FileRead]:
        found = self._services_read.get(dns_servers)
        if found is None:
            found = self._services_read[dns_servers] = []
            for held in self._objects["Service"].values():
                service = _value(held)
                if (
                    not isinstance(service, Service)
                    or _is_named(service, self._naming)
                    or not dns_servers.isdisjoint(service.cluster_ips)
                ):
                    found.append(held.read)
        return found

    def _services(self) -> Iterator[Service]:
        for held in self._objects["Service"].values():
            service = _value(held)
            if isinstance(service, Service):
                yield service


def only_needed(loaded: Loaded, node: str, *, names_pods: bool) -> Loaded:
    """Leave out what decides nothing here: pods of other nodes that neither ask nor are destinations."""
    if names_pods:
        return loaded
    pods = tuple(pod for pod in loaded.pods if pod.governed or pod.node in {"", node})
    return loaded if len(pods) == len(loaded.pods) else msgspec.structs.replace(loaded, pods=pods)


def _held(kind: str, cut: Cut, old: Held | None) -> Held:
    if old is not None and old.raw == cut.raw:
        return old
    entries, findings = read_objects(Document(file_of(kind, cut.key), 0, msgspec.json.decode(cut.raw)))
    read = FileRead(tuple(entries), tuple(findings), readable=True)
    services: set[ServiceName] = set()
    names_pods = False
    for policy in [entry.value for entry in entries if isinstance(entry.value, Policy)]:
        for rule in policy.rules:
            if rule.selector.service:
                services.add((policy.namespace, rule.selector.service))
            for to in rule.destinations:
                names_pods |= to.kind == "pods"
                if to.service:
                    services.add((to.namespace, to.service))
    return Held(cut.raw, read, frozenset(services), names_pods)


def _value(held: Held) -> object:
    entries = held.read.entries
    return entries[0].value if entries else None


def _is_named(service: Service, named: Container[ServiceName]) -> bool:
    return (service.namespace, service.name) in named or ("", service.name) in named


def selector_of(names: frozenset[str]) -> Mapping[str, str]:
    """Return the query that picks the EndpointSlices of Services with these names."""
    if len(names) > MAX_NAMED:
        return {}
    return {"labelSelector": f"{SERVICE_OF_SLICE} in ({','.join(sorted(names))})"}
