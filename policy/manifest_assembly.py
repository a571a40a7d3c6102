"""All manifests put together, one change after the other, at the cost of the change.

Owns what one assembly leaves for the next. Never reads a manifest, never judges: what it cannot follow
step by step (namespaces, Services, objects that collide) is put together anew by ``policy.manifest``.
Invariant: the outcome is that of putting everything together anew, but for the order of objects; what
did not change is the same object as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from policy.changes import gone_and_come
from policy.manifest import (
    FileRead,
    Finding,
    Governed,
    Loaded,
    assemble,
    governed_pod,
    place_of,
    without_effect,
)
from policy.manifest_links import claims_of, identity_of, link_services
from policy.manifest_objects import Entry
from policy.pods import Pod, Service
from policy.rules import Policy

_Identity = tuple[str, str, str]
_T = TypeVar("_T", Pod, Policy, Service)


class Assembly:
    """Puts the objects of files together; see the module. ``governed`` is as in ``assemble``."""

    def __init__(self, governed: Governed) -> None:
        self._governed = governed
        self._reads: Sequence[FileRead] = ()
        self._loaded = Loaded((), (), (), {}, ())
        self._parts: _Parts | None = None

    def assemble(self, reads: Iterable[FileRead]) -> Loaded:
        """Return what ``policy.manifest.assemble`` does of the same files."""
        listed = tuple(reads)
        gone, came = gone_and_come(self._reads, listed)
        self._reads = listed
        if self._parts is not None and self._parts.exchange(gone, came):
            self._loaded = self._parts.loaded()
        else:
            self._loaded = _reusing(self._loaded, assemble(listed, self._governed))
            parts = _Parts(self._governed, self._loaded)
            self._parts = parts if parts.exchange((), listed, at_first=True) else None
        return self._loaded


class _Parts:
    """Policies and pods one by one, where no two objects collide."""

    def __init__(self, governed: Governed, whole: Loaded) -> None:
        self._governed = governed
        self._whole = whole
        self._services = {(each.namespace, each.name): each for each in whole.services}
        both: tuple[Policy | Pod, ...] = (*whole.policies, *whole.pods)
        self._known: Mapping[_Identity, Policy | Pod] = {identity_of(each): each for each in both}
        self._claims: Counter[str] = Counter()
        self._names: Counter[_Identity] = Counter()
        self._policies: dict[_Identity, Policy] = {}
        self._pods: dict[_Identity, Pod] = {}
        self._read: dict[int, tuple[Finding, ...]] = {}
        """What was found in a file, by its ``id``; the file lives as long as this knows it."""
        self._linked: dict[_Identity, list[Finding]] = {}
        self._effect: dict[_Identity, list[Finding]] = {}
        self._else: list[Finding] = []
        self._files: dict[int, FileRead] = {}

    def exchange(self, gone: Iterable[FileRead], came: Sequence[FileRead], *, at_first: bool = False) -> bool:
        """Forget files and take others. False: this cannot be followed, and nothing here holds any more."""
        followed = Policy | Pod
        left: dict[_Identity, None] = {}
        for read in gone:
            self._forget(read)
            for entry in read.entries:
                if not isinstance(entry.value, followed):
                    return False
                left[self._leave(entry.value)] = None
        for read in came:
            if read.findings:
                self._files[id(read)], self._read[id(read)] = read, read.findings
            for entry in read.entries:
                if isinstance(entry.value, followed):
                    left.pop(self._take(entry), None)
                elif not at_first:
                    return False
        for identity in left:
            self._policies.pop(identity, None)
            self._pods.pop(identity, None)
        self._known = {}
        if at_first:
            self._else = self._not_of_these()
        return self._is_plain(came)

    def loaded(self) -> Loaded:
        """Return everything."""
        findings = [finding for found in self._read.values() for finding in found]
        for found in (*self._linked.values(), *self._effect.values(), self._else):
            findings += found
        findings.sort(key=place_of)
        return msgspec.structs.replace(
            self._whole,
            policies=tuple(self._policies.values()),
            pods=tuple(self._pods.values()),
            findings=tuple(findings),
        )

    def _is_plain(self, came: Iterable[FileRead]) -> bool:
        """Say whether nothing that came collides with anything."""
        for read in came:
            for entry in read.entries:
                value = entry.value
                if self._names[identity_of(value)] > 1:
                    return False
                if isinstance(value, Pod) and any(self._claims[what] > 1 for _, what in claims_of(value)):
                    return False
        return True

    def _forget(self, read: FileRead) -> None:
        self._files.pop(id(read), None)
        self._read.pop(id(read), None)

    def _leave(self, value: Policy | Pod) -> _Identity:
        identity = identity_of(value)
        self._names[identity] -= 1
        self._linked.pop(identity, None)
        self._effect.pop(identity, None)
        if isinstance(value, Pod):
            self._claims.subtract(what for _, what in claims_of(value))
            for _, what in claims_of(value):
                if not self._claims[what]:
                    del self._claims[what]
        if not self._names[identity]:
            del self._names[identity]
        return identity

    def _take(self, entry: Entry) -> _Identity:
        identity = identity_of(entry.value)
        self._names[identity] += 1
        namespaces = self._whole.namespaces
        if isinstance(entry.value, Pod):
            self._claims.update(what for _, what in claims_of(entry.value))
            pod = governed_pod(entry.value, self._governed, namespaces)
            self._pods[identity] = _old(pod, self._known or self._pods)
            return identity
        found: list[Finding] = []
        (linked,) = link_services([entry], self._services, found)
        policy = linked.value
        assert isinstance(policy, Policy)  # noqa: S101 - a policy stays one
        self._policies[identity] = _old(policy, self._known or self._policies)
        remarks = without_effect(linked, policy, self._governed, namespaces)
        for place, said in ((self._linked, found), (self._effect, remarks)):
            if said:
                place[identity] = said
        return identity

    def _not_of_these(self) -> list[Finding]:
        """Return what the whole assembly found beside what is kept by file and by object."""
        rest = Counter(self._whole.findings)
        rest.subtract(finding for found in self._read.values() for finding in found)
        for found in (*self._linked.values(), *self._effect.values()):
            rest.subtract(found)
        found = []
        for finding in self._whole.findings:
            if rest[finding] > 0:
                rest[finding] -= 1
                found.append(finding)
        return found


def _reusing(old: Loaded, new: Loaded) -> Loaded:
    """Return the new, with the old's objects where they are equal."""
    return msgspec.structs.replace(
        new,
        policies=_reused(old.policies, new.policies),
        pods=_reused(old.pods, new.pods),
        services=_reused(old.services, new.services),
    )


def _reused(old: Sequence[_T], new: Sequence[_T]) -> tuple[_T, ...]:
    known: dict[_Identity, _T] = {identity_of(each): each for each in old}
    return tuple(_old(each, known) for each in new)


def _old(new: _T, known: Mapping[_Identity, object]) -> _T:
    """Return the object of that name that is known, if it is equal."""
    found = known.get(identity_of(new))
    return found if isinstance(found, type(new)) and found == new else new
