"""The policies of one world after the other: each one's place, digest and rules, brought up to date.

Owns their order (which decides which of several is named), missing Services, and the index from a pod
to the rules that apply to it. Never decides. Invariant: what is kept is what all the policies read anew
would give; a policy is compiled when it applies to a pod for the first time.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import msgspec

from policy.changes import gone_and_come
from policy.compiled import CompiledRule, compile_policy, is_clear
from policy.destinations import Destinations
from policy.rules import Policy
from policy.selection import Roster, RuleIndex

_encode = msgspec.json.Encoder(order="deterministic").encode

_Base = tuple[str, str, str, bytes]
Key = tuple[str, str, str, bytes, int]
"""Namespace, name, kind, digest; and a number for each of equal ones."""


class Known:
    """One policy: ``rules`` are those of policy 0, None until they were compiled."""

    __slots__ = ("key", "missing", "policy", "problems", "rules")

    def __init__(self, key: Key, policy: Policy) -> None:
        self.key = key
        self.policy = policy
        self.missing: frozenset[int] = frozenset()
        """Positions of rules whose Service does not exist."""
        self.problems: tuple[str, ...] = ()
        self.rules: tuple[CompiledRule, ...] | None = None

    @property
    def stands_alone(self) -> bool:
        """Say whether it means the same whatever pods and Services there are."""
        return not any(
            rule.selector.service or any(to.kind == "pods" for to in rule.destinations)
            for rule in self.policy.rules
        )


class KnownPolicies:
    """All policies of the present world. For one world after the other."""

    def __init__(self) -> None:
        self.order: list[Known] = []
        self.index: RuleIndex[Known] = RuleIndex()
        self._keys: list[Key] = []
        self._known: dict[Key, Known] = {}
        self._seen: Sequence[Policy] = ()
        self._dependent: dict[Known, None] = {}
        self._wrong: dict[Known, None] = {}
        self._roster = Roster((), ())
        self._destinations: Destinations | None = None

    def follow(self, policies: Sequence[Policy], roster: Roster, destinations: Destinations) -> list[Known]:
        """Take the policies as they are now; return those that are gone and those that came."""
        old_roster, self._roster, self._destinations = self._roster, roster, destinations
        gone, came = gone_and_come(self._seen, policies)
        self._seen = policies
        touched = self._exchange(gone, came, old_roster)
        if roster is not old_roster:
            for known in list(self._dependent):
                if known not in touched:
                    self._anew(known, old_roster)
        return list(touched)

    def rules(self, known: Known) -> tuple[CompiledRule, ...]:
        """Return a policy's rules, compiled once."""
        if known.rules is None:
            assert self._destinations is not None  # noqa: S101 - there is no policy before the first world
            readable = _readable(known.policy, known.missing)
            known.rules = compile_policy(0, readable, self._destinations.resolve, [])
        return known.rules

    @property
    def problems(self) -> list[str]:
        """What is wrong with them, in their order."""
        found = sorted(self._wrong, key=lambda known: known.key)
        return [problem for known in found for problem in known.problems]

    def _exchange(
        self, gone: Iterable[Policy], came: Iterable[Policy], old_roster: Roster
    ) -> dict[Known, None]:
        """Forget and take; one that only became another object stays what it is."""
        less: dict[_Base, int] = {}
        for policy in gone:
            base = _base(policy)
            less[base] = less.get(base, 0) + 1
        new = []
        for policy in came:
            base = _base(policy)
            if less.get(base, 0):
                less[base] -= 1
                self._known[*base, less[base]].policy = policy
            else:
                new.append((base, policy))
        touched: dict[Known, None] = {}
        for base, count in less.items():
            for _ in range(count):
                touched[self._forget(base, old_roster)] = None
        for base, policy in new:
            touched[self._take(base, policy)] = None
        return touched

    def _take(self, base: _Base, policy: Policy) -> Known:
        key = (*base, self._count(base))
        known = self._known[key] = Known(key, policy)
        place = bisect_left(self._keys, key)
        self._keys.insert(place, key)
        self.order.insert(place, known)
        if not known.stands_alone:
            self._dependent[known] = None
        self._relate(known)
        return known

    def _forget(self, base: _Base, roster: Roster) -> Known:
        key = (*base, self._count(base) - 1)
        known = self._known.pop(key)
        place = bisect_left(self._keys, key)
        del self._keys[place], self.order[place]
        self._dependent.pop(known, None)
        self._wrong.pop(known, None)
        self.index.remove(known, known.policy, roster)
        return known

    def _anew(self, old: Known, old_roster: Roster) -> None:
        """Take a policy that means something else among other pods and Services: it is another one."""
        self.index.remove(old, old.policy, old_roster)
        self._wrong.pop(old, None)
        del self._dependent[old]
        known = self._known[old.key] = Known(old.key, old.policy)
        self.order[bisect_left(self._keys, old.key)] = known
        self._dependent[known] = None
        self._relate(known)

    def _count(self, base: _Base) -> int:
        """Return how many equal ones there are."""
        count = 0
        while (*base, count) in self._known:
            count += 1
        return count

    def _relate(self, known: Known) -> None:
        """Put it into the index, and find out what is wrong with it."""
        assert self._destinations is not None  # noqa: S101 - ``follow`` has just set it
        known.missing = self.index.add(known, known.policy, self._roster)
        found = [*_missing(known.policy, known.missing)]
        readable = _readable(known.policy, known.missing)
        if not is_clear(readable):
            known.rules = compile_policy(0, readable, self._destinations.resolve, found)
        known.problems = tuple(found)
        if found:
            self._wrong[known] = None


def _base(policy: Policy) -> _Base:
    digest = hashlib.blake2b(_encode(policy), digest_size=20).digest()
    return policy.namespace, policy.name, policy.kind, digest


def _missing(policy: Policy, missing: Iterable[int]) -> Iterable[str]:
    for position in sorted(missing):
        rule = policy.rules[position]
        if rule.understood:  # else the reader has said so
            service = f"{policy.namespace}/{rule.selector.service}"
            yield f"{policy.key}/{rule.name}: there is no Service {service}"


def _readable(policy: Policy, missing: frozenset[int]) -> Policy:
    """Mark rules whose Service does not exist as not understood."""
    if not missing:
        return policy
    rules = list(policy.rules)
    for position in missing:
        rules[position] = msgspec.structs.replace(rules[position], understood=False)
    return msgspec.structs.replace(policy, rules=tuple(rules))
