"""What the API server has said, object by object, each read once.

Pure. Owns the objects, and what follows from them about what else must be asked for: the endpoints of
Services that have no selector, pods of other nodes. Invariant: an object is read again only when what is
kept of it changed; what is not listed yet is not nothing, it is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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

    def replace(self, kind: str, cuts: Iterable[Cut]) -> bool:
        """Take a complete list of a kind. Returns whether anything changed."""
        old = self._objects[kind]
        new = {cut.key: _held(kind, cut, old.get(cut.key)) for cut in cuts}
        self._objects[kind] = new
        return new.keys() != old.keys() or any(held is not old[key] for key, held in new.items())

    def put(self, kind: str, cut: Cut) -> bool:
        """Take one object as it is now. Returns whether that changes anything."""
        objects = self._objects[kind]
        old = objects.get(cut.key)
        held = objects[cut.key] = _held(kind, cut, old)
        return held is not old

    def drop(self, kind: str, cut: Cut) -> bool:
        """Forget an object that was deleted. Returns whether it was known."""
        return self._objects[kind].pop(cut.key, None) is not None

    def raws(self) -> dict[str, list[Cut]]:
        """Return everything as it is kept, by kind."""
        return {
            kind: [Cut(key, held.raw) for key, held in objects.items()]
            for kind, objects in self._objects.items()
        }

    def count(self, kind: str) -> int:
        """Return how many objects of a kind there are."""
        return len(self._objects[kind])

    # --- what follows ------------------------------------------------------------------------------

    @property
    def names_pods(self) -> bool:
        """Say whether a policy has pods as a destination: they may be on any node."""
        return any(held.names_pods for held in self._policies())

    def endpoints_needed(self, dns_servers: frozenset[str]) -> frozenset[str]:
        """Return the names of Services whose EndpointSlices are needed.

        Those are what policies name and no selector explains, and the cluster's DNS servers: what is
        behind these must be known wherever it runs, because traffic to it is never exempt.
        """
        named = self._named()
        return frozenset(
            service.name
            for service in self._services()
            if not dns_servers.isdisjoint(service.cluster_ips)
            or (service.selector is None and _is_named(service, named))
        )

    def reads(self, dns_servers: frozenset[str]) -> list[FileRead]:
        """Return everything that is needed of what was read; the Services only that somebody names."""
        named = None if self.names_pods else self._named()
        found: list[FileRead] = []
        for kind, objects in self._objects.items():
            if kind != "Service" or named is None:
                found += [held.read for held in objects.values()]
                continue
            for held in objects.values():
                service = _value(held)
                if (
                    not isinstance(service, Service)
                    or _is_named(service, named)
                    or not dns_servers.isdisjoint(service.cluster_ips)
                ):
                    found.append(held.read)
        return found

    def _policies(self) -> Iterator[Held]:
        yield from self._objects["FirewallPolicy"].values()
        yield from self._objects["WebgroupPolicy"].values()

    def _services(self) -> Iterator[Service]:
        for held in self._objects["Service"].values():
            service = _value(held)
            if isinstance(service, Service):
                yield service

    def _named(self) -> frozenset[ServiceName]:
        return frozenset(name for held in self._policies() for name in held.services)


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


def _is_named(service: Service, named: frozenset[ServiceName]) -> bool:
    return (service.namespace, service.name) in named or ("", service.name) in named


def selector_of(names: frozenset[str]) -> Mapping[str, str]:
    """Return the query that picks the EndpointSlices of Services with these names."""
    if len(names) > MAX_NAMED:
        return {}
    return {"labelSelector": f"{SERVICE_OF_SLICE} in ({','.join(sorted(names))})"}
