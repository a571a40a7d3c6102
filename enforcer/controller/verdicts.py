"""What is to be said of each policy by itself: understood or not, governed or not, and what is wrong.

Pure. Owns the memory of lints by namespace. Never looks at nodes. Invariant: the same objects give the same
verdicts, whatever came before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from policy.check import check
from policy.manifest import FileRead, Finding, Governed, Loaded, assemble, governs
from policy.rules import Policy

MAX_FINDINGS = 8


class Key(NamedTuple):
    """A policy's place."""

    kind: str
    namespace: str
    name: str


class Verdict(NamedTuple):
    """One policy as it is read."""

    key: Key
    uid: str
    generation: int
    is_governed: bool
    refused_rules: int
    """Rules that are not understood."""
    rules: int
    rejected: int
    """Errors in it: each is a part that permits nothing."""
    warnings: int
    findings: tuple[Finding, ...]
    """The first few, errors first."""


class Judge:
    """Reads all policies together, and remembers what need not be looked at again."""

    def __init__(self, governed: Governed) -> None:
        self._governed = governed
        self._linted: dict[str, tuple[tuple[Policy, ...], tuple[Finding, ...]]] = {}

    def judge(self, reads: Iterable[FileRead]) -> dict[Key, Verdict]:
        """Return the verdict on each policy among what was read."""
        loaded = assemble(reads, self._governed)
        found: defaultdict[str, list[Finding]] = defaultdict(list)
        for finding in (*loaded.findings, *self._lints(loaded)):
            found[finding.file].append(finding)
        verdicts = (self._verdict(each, loaded, found[_file_of(each)]) for each in loaded.policies)
        return {verdict.key: verdict for verdict in verdicts}

    def _verdict(self, policy: Policy, loaded: Loaded, findings: list[Finding]) -> Verdict:
        errors = [each for each in findings if each.severity == "error"]
        others = [each for each in findings if each.severity != "error"]
        return Verdict(
            key=Key(policy.kind, policy.namespace, policy.name),
            uid=policy.uid,
            generation=policy.generation,
            is_governed=governs(self._governed, loaded.namespaces, policy.namespace),
            refused_rules=sum(not rule.understood for rule in policy.rules),
            rules=len(policy.rules),
            rejected=len(errors),
            warnings=len(others),
            findings=tuple((errors + others)[:MAX_FINDINGS]),
        )

    def _lints(self, loaded: Loaded) -> Iterable[Finding]:
        """Lint each namespace whose policies are not the same objects as last time."""
        by_namespace: defaultdict[str, list[Policy]] = defaultdict(list)
        for policy in loaded.policies:
            by_namespace[policy.namespace].append(policy)
        linted = {}
        for namespace, policies in by_namespace.items():
            old = self._linted.get(namespace)
            if old is None or not _are_the_same(old[0], policies):
                old = (tuple(policies), check(Loaded(tuple(policies), (), (), {}, ())))
            linted[namespace] = old
        self._linted = linted
        return [finding for _, findings in linted.values() for finding in findings]


def _are_the_same(old: tuple[Policy, ...], new: list[Policy]) -> bool:
    return len(old) == len(new) and all(a is b or a == b for a, b in zip(old, new, strict=True))


def _file_of(policy: Policy) -> str:
    """Return what findings call the object that a policy was read from."""
    return policy.source.rpartition("#")[0]
