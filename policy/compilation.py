"""From a world's policies and pods to profiles: the work of a snapshot's birth.

Owns the order of policies, missing Services, the interning of profiles, and what one compilation
remembers for the next. Never decides. Invariants: pods to which the same rules apply share one profile;
what is remembered changes no decision and no problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from policy.access import PodState, identity
from policy.addresses import ALL_ADDRESSES, GuardedRanges
from policy.break_glass import opening_rules
from policy.ceiling import CompiledCeiling
from policy.compiled import CompiledRule, Effect, compile_policy
from policy.destinations import Destinations
from policy.names import canonical_zone
from policy.pods import Pod
from policy.ports import EVERYTHING
from policy.profile import Profile
from policy.rules import Policy
from policy.selection import Roster, RuleIndex
from policy.world import World

_encode = msgspec.json.Encoder(order="deterministic").encode


def ordered(policies: Iterable[Policy]) -> list[tuple[bytes, Policy]]:
    """Return the policies in the order that decides which of several is named, and their encoding."""
    return _in_order((_encode(policy), policy) for policy in policies)


def _in_order(encoded: Iterable[tuple[bytes, Policy]]) -> list[tuple[bytes, Policy]]:
    return sorted(encoded, key=lambda pair: (pair[1].namespace, pair[1].name, pair[1].kind, pair[0]))


NOBODY = Profile((), None, ())
"""Of a pod that may do nothing."""
_UNGOVERNED = Profile(
    [CompiledRule(0, "", "", Effect.PERMIT, ALL_ADDRESSES, EVERYTHING, wide=True)], None, ()
)


class _Known:
    """One policy as it was compiled: its rules as those of policy 0, and what is wrong with it."""

    __slots__ = ("policy", "problems", "rules")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.rules: tuple[CompiledRule, ...] = ()
        self.problems: tuple[str, ...] = ()

    @property
    def stands_alone(self) -> bool:
        """Say whether it means the same whatever pods and Services there are."""
        return not any(
            rule.selector.service or any(to.kind == "pods" for to in rule.destinations)
            for rule in self.policy.rules
        )


Applying = tuple[tuple[_Known, int], ...]
"""The rules that apply to a pod, in their order."""
Above = tuple[CompiledRule, ...]
"""The rules that stand above those of policies: the ceiling's, break-glass's."""


class _Made(NamedTuple):
    """A profile, and the numbers its policies had."""

    profile: Profile
    numbers: tuple[int, ...]


class Memory:
    """What one compilation leaves for the next: what did not change is not compiled again.

    For one world after the other, never for two at once. Nothing in it decides: with it or without it
    the same world compiles to the same snapshot.
    """

    def __init__(self) -> None:
        self._forget((), GuardedRanges())

    def _forget(self, settings: tuple[object, ...], guard: GuardedRanges) -> None:
        self.settings = settings
        self.guard = guard
        self.encoded: dict[int, tuple[Policy, bytes]] = {}
        self.known: dict[bytes, _Known] = {}
        self.index: RuleIndex[_Known] = RuleIndex()
        self.above: dict[Above, Above] = {}
        self.profiles: dict[tuple[int, int, Applying], _Made] = {}
        self.states: dict[str, PodState] = {}
        """By pods' identity."""

    def begin(self, world: World) -> None:
        """Forget what was compiled for other settings than this world's."""
        settings = (
            world.cluster_cidrs,
            world.node_addresses,
            world.cluster_traffic,
            world.cluster_domain,
            world.private_zones,
        )
        if settings != self.settings:
            self._forget(settings, GuardedRanges(world.cluster_cidrs, world.node_addresses))

    def ordered(self, policies: Iterable[Policy]) -> list[tuple[bytes, Policy]]:
        """Return what the function ``ordered`` returns; what was encoded before is not encoded again."""
        listed = [self.encoded.get(id(policy)) or (policy, _encode(policy)) for policy in policies]
        self.encoded = {id(each[0]): each for each in listed}
        return _in_order((raw, policy) for policy, raw in listed)


class Compilation:
    """Profiles of one world's pods; problems found on the way are appended as sentences."""

    __slots__ = (
        "_above",
        "_ceiling",
        "_index",
        "_memory",
        "_numbers",
        "_opened",
        "_private_zones",
        "_profiles",
        "_spared_zone",
    )

    def __init__(
        self, world: World, policies: Sequence[tuple[bytes, Policy]], memory: Memory, problems: list[str]
    ) -> None:
        roster = Roster(world.pods, world.services)
        destinations = Destinations(memory.guard, roster)
        self._memory = memory
        self._ceiling = CompiledCeiling(world.ceiling, destinations, problems)
        self._spared_zone = (
            canonical_zone(world.cluster_domain) if world.cluster_traffic == "exempt" else None
        )
        self._private_zones = tuple(map(canonical_zone, world.private_zones))
        self._opened = opening_rules(world.break_glass, destinations.public())
        self._index: RuleIndex[_Known] = RuleIndex()
        """Of the policies that depend on this world's pods and Services; the memory has the others'."""
        self._numbers: dict[_Known, int] = {}
        self._above: dict[int, Above] = {}
        self._profiles: dict[tuple[int, int, Applying], _Made] = {}
        self._read(policies, roster, destinations, problems)

    def _read(
        self,
        policies: Sequence[tuple[bytes, Policy]],
        roster: Roster,
        destinations: Destinations,
        problems: list[str],
    ) -> None:
        """Compile the policies that are not known, and forget those that are not there any more."""
        memory = self._memory
        known: dict[bytes, _Known] = {}
        for number, (encoded, policy) in enumerate(policies):
            found = memory.known.get(encoded)
            if found is None or encoded in known:
                found = _Known(policy)
                alone = found.stands_alone and encoded not in known
                missing = (memory.index if alone else self._index).add(found, policy, roster)
                wrong: list[str] = []
                readable = _readable(policy, missing, wrong)
                found.rules = compile_policy(0, readable, destinations.resolve, wrong)
                found.problems = tuple(wrong)
                if alone:
                    known[encoded] = found
            else:
                known[encoded] = found
            self._numbers[found] = number
            problems += found.problems
        for encoded, gone in memory.known.items():
            if encoded not in known:
                memory.index.remove(gone, gone.policy)
        memory.known = known

    def profile_of(self, pod: Pod) -> Profile:
        """Return the pod's profile, made once for all pods with the same rules."""
        if not pod.governed:
            return _UNGOVERNED
        numbers = self._numbers
        rules = self._memory.index.rules_of(pod) + self._index.rules_of(pod)
        rules.sort(key=lambda rule: (numbers[rule[0]], rule[1]))
        applying = tuple(rules)
        ceiling = self._interned(self._ceiling.rules_for(pod))
        opened = self._interned(self._opened.get(pod.namespace, ()))
        key = (id(ceiling), id(opened), applying)
        made = self._profiles.get(key)
        if made is None:
            made = self._profiles[key] = self._made(key, ceiling + opened)
        return made.profile

    def state_of(self, pod: Pod, profile: Profile) -> PodState:
        """Return the pod's state: the one of before, with all that it remembers, if nothing changed."""
        old = self._memory.states.get(identity(pod))
        if old is not None and old.profile is profile and (old.pod is pod or old.pod == pod):
            return old
        return PodState(pod, profile, self._memory.guard)

    def finish(self, states: dict[str, PodState]) -> None:
        """Leave for the next compilation what this one used, and nothing else."""
        self._memory.states = states
        self._memory.above = {rules: rules for rules in self._above.values()}
        self._memory.profiles = self._profiles

    def _made(self, key: tuple[int, int, Applying], above: Above) -> _Made:
        applying = key[2]
        numbers = tuple(self._numbers[owner] for owner, _ in applying)
        old = self._memory.profiles.get(key)
        if old is not None and old.numbers == numbers:
            return old
        positions: dict[_Known, set[int]] = {}
        for owner, position in applying:
            positions.setdefault(owner, set()).add(position)
        rules = tuple(
            owner.rules[position].for_pod(positions[owner])._replace(group=number)
            for (owner, position), number in zip(applying, numbers, strict=True)
        )
        if old is not None:
            return _Made(old.profile.renumbered(above + rules), numbers)
        return _Made(Profile(above + rules, self._spared_zone, self._private_zones), numbers)

    def _interned(self, rules: Above) -> Above:
        """Return the same object for equal rules, now and in the compilations before."""
        found = self._above.get(id(rules))
        if found is None:
            found = self._memory.above.setdefault(rules, rules)
            self._above[id(rules)] = self._above[id(found)] = found
        return found


def _readable(policy: Policy, missing: frozenset[int], problems: list[str]) -> Policy:
    """Mark rules whose Service does not exist as not understood."""
    if not missing:
        return policy
    rules = list(policy.rules)
    for position in sorted(missing):
        rule = rules[position]
        if rule.understood:  # else the reader has said so
            service = f"{policy.namespace}/{rule.selector.service}"
            problems.append(f"{policy.key}/{rule.name}: there is no Service {service}")
        rules[position] = msgspec.structs.replace(rule, understood=False)
    return msgspec.structs.replace(policy, rules=tuple(rules))
