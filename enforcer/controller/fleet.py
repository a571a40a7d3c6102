"""What the nodes say that they enforce.

Pure. Owns the NodeStatus objects, cut to what counts here, and the index from a policy to the nodes that
have pods of it. Never believes a shape: what is none is left out. Invariant: a node speaks for itself only,
so that a lying one changes what is said of its own pods and nothing else.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

Json = dict[str, Any]

MAX_POLICIES = 512
MAX_PODS = 10_000
"""Of one policy on one node; more is no number that a node can mean."""
_NAMED = 3


class Held(NamedTuple):
    """A policy as one node has it."""

    generation: int
    pods: int


class NodeCut(NamedTuple):
    """One NodeStatus, as far as it is read."""

    name: str
    is_enforcing: bool
    is_truncated: bool
    policies: Mapping[str, Held]
    """By the policies' uids."""


class Reach(NamedTuple):
    """What all nodes together say of one policy."""

    pods: int
    nodes: int
    current: int
    """Nodes that have this generation of it, or a later one, and enforce."""
    behind: tuple[str, ...]
    """Some of those that enforce an earlier one."""
    idle: tuple[str, ...]
    """Some of those that do not enforce."""
    all_nodes: int
    """Nodes that said anything."""
    truncated: int
    """Nodes that have more policies than they listed, this one not among them."""


def cut_node(fields: Json) -> NodeCut:
    """Cut a NodeStatus object. Total."""
    metadata = fields.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    status = fields.get("status")
    said: Json = status if isinstance(status, dict) else {}
    listed = said.get("policies")
    policies: dict[str, Held] = {}
    for each in (listed if isinstance(listed, list) else ())[:MAX_POLICIES]:
        if isinstance(each, dict) and isinstance(uid := each.get("uid"), str):
            held = _held(_count(each.get("generation"), 1 << 62), _count(each.get("pods"), MAX_PODS))
            if uid and held.pods:
                policies[sys.intern(uid)] = held
    return NodeCut(
        name=str(name),
        is_enforcing=said.get("enforcing") is True and said.get("removed") is not True,
        is_truncated=said.get("truncated") is True,
        policies=policies,
    )


@lru_cache(maxsize=4096)
def _held(generation: int, pods: int) -> Held:
    """Return one value for all that are equal: thousands of nodes say the same."""
    return Held(generation, pods)


def _count(value: object, most: int) -> int:
    return max(0, min(value, most)) if type(value) is int else 0


class Fleet:
    """All nodes. Every change returns the uids of the policies of which there is something new to say."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeCut] = {}
        self._having: defaultdict[str, set[str]] = defaultdict(set)
        self._truncated: set[str] = set()

    def __len__(self) -> int:
        """Return how many nodes said anything."""
        return len(self._nodes)

    def replace(self, cuts: Iterable[NodeCut]) -> set[str]:
        """Take the complete list."""
        new = {cut.name: cut for cut in cuts}
        touched: set[str] = set()
        for name in self._nodes.keys() - new.keys():
            touched |= self.drop(name)
        for cut in new.values():
            touched |= self.put(cut)
        return touched

    def put(self, cut: NodeCut) -> set[str]:
        """Take one node's object as it is now."""
        old = self._nodes.get(cut.name)
        if old == cut:
            return set()
        before = old.policies if old is not None else {}
        self._nodes[cut.name] = cut
        for uid in before.keys() - cut.policies.keys():
            self._forget(uid, cut.name)
        for uid in cut.policies.keys() - before.keys():
            self._having[uid].add(cut.name)
        if cut.is_truncated != (cut.name in self._truncated):
            self._truncated ^= {cut.name}
            return {*before, *self._having}
        if old is not None and old.is_enforcing == cut.is_enforcing:
            return {
                uid for uid in before.keys() | cut.policies.keys() if before.get(uid) != cut.policies.get(uid)
            }
        return {*before, *cut.policies}

    def drop(self, name: str) -> set[str]:
        """Forget a node that has gone."""
        old = self._nodes.pop(name, None)
        if old is None:
            return set()
        for uid in old.policies:
            self._forget(uid, name)
        if name in self._truncated:
            self._truncated.discard(name)
            return {*old.policies, *self._having}
        return set(old.policies)

    def _forget(self, uid: str, name: str) -> None:
        having = self._having[uid]
        having.discard(name)
        if not having:
            del self._having[uid]

    def reach(self, uid: str, generation: int) -> Reach:
        """Return what the nodes say of the policy with that uid."""
        pods = current = 0
        behind: list[str] = []
        idle: list[str] = []
        names = self._having.get(uid, set())
        for name in names:
            node = self._nodes[name]
            held = node.policies[uid]
            pods += held.pods
            if not node.is_enforcing:
                idle.append(name)
            elif held.generation < generation:
                behind.append(name)
            else:
                current += 1
        return Reach(
            pods=pods,
            nodes=len(names),
            current=current,
            behind=tuple(sorted(behind)[:_NAMED]),
            idle=tuple(sorted(idle)[:_NAMED]),
            all_nodes=len(self._nodes),
            truncated=len(self._truncated - names),
        )
