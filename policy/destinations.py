"""What the destinations of a rule contain, as addresses.

Owns the families and the guard of policy.md "Fields" and "Guarded addresses". Never knows names
or ports. Invariant: a permit contains a guarded address only through a CIDR (or a pod) that lies
wholly inside the guarded ranges.
"""

from __future__ import annotations

from policy.addresses import (
    ALL_ADDRESSES,
    NO_ADDRESSES,
    AddressSet,
    GuardedRanges,
    cidr_set,
    together,
    union_of,
    with_nat64,
)
from policy.pods import Pod, labels_match
from policy.rules import Destination
from policy.selection import Roster

_Key = tuple[object, ...]


class Destinations:
    """Resolves the destinations of one world's rules; equal ones are resolved once."""

    __slots__ = ("_found", "_guard", "_public", "_roster")

    def __init__(self, guard: GuardedRanges, roster: Roster) -> None:
        self._guard = guard
        self._roster = roster
        self._public = ALL_ADDRESSES.difference(guard.addresses)
        self._found: dict[_Key, tuple[AddressSet, tuple[str, ...]]] = {}

    def resolve(
        self, destinations: tuple[Destination, ...], permit: bool, named: bool, problems: list[str]
    ) -> AddressSet:
        """Return the addresses of all the destinations together; what is wrong with them is appended."""
        key = (permit, named, *map(_key, destinations))
        found = self._found.get(key)
        if found is None:
            wrong: list[str] = []
            addresses = together(
                self._permitted(each, named, wrong) if permit else self._denied(each, wrong)
                for each in destinations
            )
            found = self._found[key] = addresses, tuple(wrong)
        problems += found[1]
        return found[0]

    def public(self) -> AddressSet:
        """Return the Public Internet: everything that is not guarded."""
        return self._public

    def inside(self, addresses: AddressSet) -> AddressSet:
        """Return the part of one CIDR that a permit of it contains."""
        if self._guard.metadata.covers(addresses):
            return addresses
        if self._guard.addresses.covers(addresses):
            return addresses.difference(self._guard.metadata)
        return addresses.difference(self._guard.addresses)

    def _permitted(self, destination: Destination, named: bool, problems: list[str]) -> AddressSet:
        if destination.kind == "pods":
            return self._pods(destination, permit=True).difference(self._guard.metadata)
        if destination.kind != "cidr" or (named and destination.cidr in {"0.0.0.0/0", "::/0"}):
            return self._public
        try:
            return self.inside(cidr_set(destination.cidr))
        except ValueError:
            problems.append(f"{destination.cidr!r} is not a CIDR: no permit opens it")
            return NO_ADDRESSES

    def _denied(self, destination: Destination, problems: list[str]) -> AddressSet:
        if destination.kind == "public":
            return self._public
        if destination.kind == "pods":
            return self._pods(destination, permit=False)
        if destination.kind == "anywhere" or destination.cidr in {"0.0.0.0/0", "::/0"}:
            return ALL_ADDRESSES
        try:
            return with_nat64(cidr_set(destination.cidr))
        except ValueError:
            problems.append(f"{destination.cidr!r} is not a CIDR: the deny covers every address")
            return ALL_ADDRESSES

    def _pods(self, wanted: Destination, *, permit: bool) -> AddressSet:
        addresses: list[str] = []
        behind = (
            self._roster.pods_behind(wanted.namespace, wanted.service)
            if wanted.service
            else self._roster.pods
        )
        for pod in behind:
            if is_wanted(pod, wanted):
                addresses += pod.addresses
        if not wanted.pod_name:
            # A group of pods contains the Services in front of them: their addresses are what
            # rules match, before translation. A permit asks that all pods behind are in the group.
            for service in self._roster.services:
                if wanted.namespace not in {"", service.namespace} or wanted.service not in {
                    "",
                    service.name,
                }:
                    continue
                behind = self._roster.pods_behind(service.namespace, service.name)
                matching = [labels_match(wanted.labels, pod.labels) for pod in behind]
                if not wanted.labels or (matching and (all(matching) if permit else any(matching))):
                    addresses += service.cluster_ips
        return union_of(addresses)


def is_wanted(pod: Pod, wanted: Destination) -> bool:
    """Say whether a selector's namespace, name and labels are the pod's (its Service aside)."""
    return (
        wanted.namespace in {"", pod.namespace}
        and wanted.pod_name in {"", pod.name}
        and labels_match(wanted.labels, pod.labels)
    )


def _key(destination: Destination) -> _Key:
    if destination.kind != "pods":
        return (destination.kind, destination.cidr)
    labels = tuple(sorted(destination.labels.items()))
    return (destination.kind, destination.namespace, destination.pod_name, destination.service, labels)
