"""Manifests to the values that a decision depends on: the one entrance of the codec.

Owns how files become policies, pods, Services and namespaces, and what relates objects to each
other (duplicates, references to Services, governed namespaces). Never does I/O and never raises on
what users wrote. Invariant: whatever is wrong in one object is a finding and changes no other one,
except that two objects with one name both count for nothing but their denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from policy.break_glass import Unreadable, read_marks
from policy.manifest_findings import Finding
from policy.manifest_kubernetes import NAME_LABEL, NamespaceLabels, Slice
from policy.manifest_links import link_services, shared_claims, single_objects
from policy.manifest_objects import Entry, read_objects
from policy.manifest_yaml import Document, read_documents
from policy.pods import Labels, Pod, Service, labels_match
from policy.rules import Policy

__all__ = [
    "EVERY_NAMESPACE",
    "SUFFIXES",
    "Document",
    "FileRead",
    "Finding",
    "Governed",
    "GovernedNamespaces",
    "Loaded",
    "assemble",
    "governs",
    "load_manifests",
    "read_documents",
    "read_file",
]

SUFFIXES = (".yaml", ".yml", ".json")
"""Endings of file names that are manifests; others in a folder are not read."""


class Governed(Protocol):
    """Which namespaces are governed: by name, or by labels (an empty mapping: all of them)."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def match_labels(self) -> Labels | None: ...


class GovernedNamespaces(msgspec.Struct, frozen=True):
    """The plain form of `Governed`."""

    names: tuple[str, ...] = ()
    match_labels: Labels | None = None


EVERY_NAMESPACE = GovernedNamespaces(match_labels={})


class Loaded(msgspec.Struct, frozen=True):
    """What all manifests together say. ``namespaces`` maps declared names to labels.

    ``marks`` maps names of namespaces to their annotations ``nameward.dev/…``; one without any is left out.
    """

    policies: tuple[Policy, ...]
    pods: tuple[Pod, ...]
    services: tuple[Service, ...]
    namespaces: dict[str, Labels]
    findings: tuple[Finding, ...]
    marks: dict[str, dict[str, str]] = {}


class FileRead(msgspec.Struct, frozen=True):
    """The objects of one file. ``readable`` is False if its YAML could not be read completely."""

    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]
    readable: bool


def load_manifests(files: Mapping[str, bytes | str], governed: Governed) -> Loaded:
    """Read all files, in the order of their names. Total: mistakes are in ``findings``."""
    return assemble((read_file(file, files[file]) for file in sorted(files)), governed)


def read_file(file: str, content: bytes | str) -> FileRead:
    """Read one file by itself: the part of loading that can be kept while the file is unchanged."""
    file = file.encode("utf-8", "backslashreplace").decode()
    documents, problems = read_documents(file, content)
    entries: list[Entry] = []
    findings = list(problems)
    for document in documents:
        found, more = read_objects(document)
        entries += found
        findings += more
    findings.sort(key=lambda finding: finding.document)
    return FileRead(tuple(entries), tuple(findings), all(problem.severity != "error" for problem in problems))


def assemble(files: Iterable[FileRead], governed: Governed) -> Loaded:
    """Put the objects of all files together."""
    findings: list[Finding] = []
    entries: list[Entry] = []
    for read in files:
        entries += read.entries
        findings += read.findings
    entries = single_objects(entries, findings)
    services = _services(entries)
    entries = link_services(entries, services, findings)
    shared_claims(entries, findings)
    namespaces = {
        entry.value.name: entry.value.labels for entry in entries if isinstance(entry.value, NamespaceLabels)
    }
    marks = {
        entry.value.name: entry.value.marks
        for entry in entries
        if isinstance(entry.value, NamespaceLabels) and entry.value.marks
    }
    findings += _unreadable(entries)
    pods = []
    policies = []
    for entry in entries:
        value = entry.value
        if isinstance(value, Pod):
            pods.append(governed_pod(value, governed, namespaces))
        elif isinstance(value, Policy):
            policies.append(value)
            findings += without_effect(entry, value, governed, namespaces)
    findings.sort(key=place_of)
    return Loaded(tuple(policies), tuple(pods), tuple(services.values()), namespaces, tuple(findings), marks)


def place_of(finding: Finding) -> tuple[str, int]:
    """Return what findings are sorted by."""
    return finding.file, finding.document


def governed_pod(pod: Pod, governed: Governed, namespaces: Mapping[str, Labels]) -> Pod:
    """Return the pod, governed or not as its namespace is."""
    is_governed = governs(governed, namespaces, pod.namespace)
    return pod if pod.governed == is_governed else msgspec.structs.replace(pod, governed=is_governed)


def without_effect(
    entry: Entry, policy: Policy, governed: Governed, namespaces: Mapping[str, Labels]
) -> list[Finding]:
    """Report a policy whose namespace is not governed."""
    if governs(governed, namespaces, policy.namespace):
        return []
    message = f"the namespace {policy.namespace} is not governed, so the policy has no effect"
    return [_warning(entry, message, "add it to policy.governedNamespaces")]


def _unreadable(entries: list[Entry]) -> list[Finding]:
    """Break-glass that cannot be read: it opens nothing. The Namespace's labels count all the same."""
    found = []
    for entry in entries:
        if isinstance(entry.value, NamespaceLabels) and entry.value.marks:
            asked = read_marks(entry.value.name, entry.value.marks)
            if isinstance(asked, Unreadable):
                pointer = f"{entry.pointer}/metadata/annotations/{asked.mark.replace('/', '~1')}"
                words = (asked.message, asked.fix)
                found.append(Finding(entry.file, entry.document, pointer, "error", *words))
    return found


def _warning(entry: Entry, message: str, fix: str) -> Finding:
    pointer = f"{entry.pointer}/metadata/namespace"
    return Finding(entry.file, entry.document, pointer, "warning", message, fix)


def _services(entries: list[Entry]) -> dict[tuple[str, str], Service]:
    """Services by namespace and name, with the addresses of their slices."""
    behind: dict[tuple[str, str], dict[str, None]] = {}
    for entry in entries:
        if isinstance(entry.value, Slice):
            found = behind.setdefault((entry.value.namespace, entry.value.service), {})
            found.update(dict.fromkeys(entry.value.addresses))
    services = {}
    for entry in entries:
        service = entry.value
        if isinstance(service, Service):
            key = (service.namespace, service.name)
            if key in behind:
                service = msgspec.structs.replace(service, addresses=tuple(behind[key]))
            services[key] = service
    return services


def governs(governed: Governed, namespaces: Mapping[str, Labels], namespace: str) -> bool:
    """Say whether a namespace is governed. One whose labels are unknown is: nobody can say that it is not."""
    if namespace in governed.names:
        return True
    wanted = governed.match_labels
    if wanted is None:
        return False
    labels = namespaces.get(namespace)
    if labels is None:
        return wanted.get(NAME_LABEL, namespace) == namespace
    return labels_match(wanted, labels)
