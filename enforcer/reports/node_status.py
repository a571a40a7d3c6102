"""The NodeStatus of one node: what it says, and when it is worth a write.

Pure. Owns the shape of the object and its bounds. Never reads a clock. Invariants: what changes by itself
(numbers of generations, times, counts inside sentences) causes no write; two writes are ``PAUSE_S`` apart,
but for the one that says that everything was removed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from policy.manifest_findings import printable
from policy.pods import Pod
from policy.snapshot import Snapshot

API_VERSION = "nameward.dev/v1alpha1"
MAX_PROBLEMS = 8
MAX_PROBLEM_CHARS = 1024
MAX_POLICIES = 512
MAX_BREAK_GLASS = 64
PAUSE_S = 10.0
SETTLE_S = 1.0
SPREAD_S = 2.0
"""A change of all nodes at once is written by each at its own time within so many seconds."""
CHECK_S = 900.0
"""So often the stored object is compared: somebody may have deleted it."""
RETRY_S = (2.0, 120.0)

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
Json = dict[str, Any]


class InForce(NamedTuple):
    """One stored policy that has rules for pods of this node."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    pods: int


class Facts(NamedTuple):
    """What the object says, but for the time of its writing."""

    version: str
    enforcing: bool
    problems: tuple[str, ...]
    pods: int
    generation: int
    removed: bool
    break_glass: tuple[str, ...]
    policies: tuple[InForce, ...]
    truncated: bool

    @property
    def significant(self) -> Facts:
        """The same without what changes by itself."""
        return self._replace(generation=0, problems=tuple(_NUMBER.sub("0", each) for each in self.problems))


def facts_of(
    row: Mapping[str, Any],
    *,
    policies: Sequence[InForce],
    break_glass: Sequence[str],
    removed: bool,
    unsaid: Iterable[str],
) -> Facts:
    """Return the facts of a node. ``row`` is its ``nameward status``; ``unsaid`` problems are left out."""
    hidden = set(unsaid)
    problems = [printable(each)[:MAX_PROBLEM_CHARS] for each in row["problems"] if each not in hidden]
    if len(problems) > MAX_PROBLEMS:
        more = len(problems) - MAX_PROBLEMS + 1
        problems[MAX_PROBLEMS - 1 :] = [f"{more} more problems: see nameward status on the node"]
    return Facts(
        version=str(row["version"])[:128],
        enforcing=bool(row["enforcing"]) and not removed,
        problems=tuple(problems),
        pods=int(row["pods"]),
        generation=int(row["generation"]),
        removed=removed,
        break_glass=tuple(break_glass[:MAX_BREAK_GLASS]),
        policies=tuple(policies[:MAX_POLICIES]),
        truncated=len(policies) > MAX_POLICIES,
    )


def in_force(snapshot: Snapshot, pods: Iterable[Pod]) -> list[InForce]:
    """Return the stored policies that have rules for these pods, in the order of policies."""
    alike: Counter[int] = Counter()
    groups: dict[int, frozenset[int]] = {}
    for pod in pods:
        rules = snapshot.rules_for(pod)
        if id(rules) not in groups:
            groups[id(rules)] = frozenset(rule.group for rule in rules if rule.group >= 0)
        alike[id(rules)] += 1
    counts: Counter[int] = Counter()
    for same, count in alike.items():
        for group in groups[same]:
            counts[group] += count
    if not counts:
        return []
    return [
        InForce(each.kind, each.namespace, each.name, each.uid, each.generation, counts[number])
        for number, each in enumerate(snapshot.policies)
        if number in counts and each.uid
    ]


def status_of(facts: Facts, updated_at: str) -> Json:
    """Return the object's ``status``."""
    return {
        "version": facts.version,
        "enforcing": facts.enforcing,
        "problems": list(facts.problems),
        "pods": facts.pods,
        "generation": facts.generation,
        "updatedAt": updated_at,
        "removed": facts.removed,
        "breakGlass": list(facts.break_glass),
        "policies": [each._asdict() for each in facts.policies],
        "truncated": facts.truncated,
    }


def object_of(node: str, uid: str, status: Json) -> Json:
    """Return the whole object, owned by the Node with that uid."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
    return {
        "apiVersion": API_VERSION,
        "kind": "NodeStatus",
        "metadata": {"name": node, "ownerReferences": [owner]},
        "status": status,
    }


def is_as_written(stored: Json, written: Json) -> bool:
    """Say whether an object of the API server is still what was written."""
    metadata = stored.get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, dict) else None
    uids = [each.get("uid") for each in owners if isinstance(each, dict)] if isinstance(owners, list) else []
    return (
        uids == [each["uid"] for each in written["metadata"]["ownerReferences"]]
        and stored.get("status") == written["status"]
    )


class Pace:
    """When to write, by what was written and when."""

    def __init__(self, node: str) -> None:
        digest = hashlib.blake2b(node.encode(), digest_size=2).digest()
        self._spread_s = SPREAD_S * int.from_bytes(digest, "big") / 65536
        self._written: Facts | None = None
        self._changed_at = float("inf")
        self._next_at = float("-inf")
        self._check_at = float("inf")
        self._retry_s = RETRY_S[0]

    def is_due(self, facts: Facts, now: float) -> bool:
        """Say whether these facts are to be written now."""
        if self._written is not None and facts.significant == self._written.significant:
            self._changed_at = float("inf")
            return False
        self._changed_at = min(self._changed_at, now)
        if self._written is not None and facts.removed and not self._written.removed:
            return now >= self._next_at or self._retry_s == RETRY_S[0]
        return now >= max(self._next_at, self._changed_at + SETTLE_S + self._spread_s)

    def is_check_due(self, now: float) -> bool:
        """Say whether to look at what is stored."""
        return now >= max(self._check_at, self._next_at)

    def written(self, facts: Facts, now: float) -> None:
        """These facts are stored, or were found as they are."""
        self._written = facts
        self._changed_at = float("inf")
        self._next_at = now + PAUSE_S
        self._check_at = now + CHECK_S + 60 * self._spread_s
        self._retry_s = RETRY_S[0]

    def lost(self, now: float) -> None:
        """What was written is not there any more."""
        self._written = None
        self._next_at = now

    def failed(self, now: float, at_least_s: float = 0.0) -> None:
        """The API server did not take it: again later, and ever later."""
        self._next_at = now + max(self._retry_s, at_least_s)
        self._retry_s = min(self._retry_s * 2, RETRY_S[1])
