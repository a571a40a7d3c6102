"""From a world's policies and pods to profiles: the work of a snapshot's birth.

Owns the order of policies, missing Services and the interning of profiles. Never decides.
Invariant: pods to which the same rules apply share one profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

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
from policy.selection import Roster, RuleId, RuleIndex
from policy.world import World


def ordered(policies: Iterable[Policy]) -> list[tuple[bytes, Policy]]:
    """Return the policies in the order that decides which of several is named, and their encoding."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    found = [(encode(policy), policy) for policy in policies]
    found.sort(key=lambda pair: (pair[1].namespace, pair[1].name, pair[1].kind, pair[0]))
    return found


class Compilation:
    """Profiles of one world's pods; problems found on the way are appended as sentences."""

    __slots__ = (
        "_ceiling",
        "_index",
        "_opened",
        "_private_zones",
        "_profiles",
        "_rules",
        "_spared_zone",
        "nobody",
        "ungoverned",
    )

    def __init__(
        self, world: World, policies: Sequence[Policy], guard: GuardedRanges, problems: list[str]
    ) -> None:
        roster = Roster(world.pods, world.services)
        destinations = Destinations(guard, roster, problems)
        self._index = RuleIndex(policies, roster)
        self._ceiling = CompiledCeiling(world.ceiling, destinations, problems)
        self._spared_zone = (
            canonical_zone(world.cluster_domain) if world.cluster_traffic == "exempt" else None
        )
        self._private_zones = tuple(map(canonical_zone, world.private_zones))
        self._opened = opening_rules(world.break_glass, destinations.public())
        self._rules: list[tuple[CompiledRule, ...]] = []
        for number, policy in enumerate(policies):
            readable = self._readable(number, policy, problems)
            self._rules.append(compile_policy(number, readable, destinations.resolve, problems))
        self._profiles: dict[tuple[int, str, tuple[RuleId, ...]], Profile] = {}
        self.nobody = Profile((), None, ())
        self.ungoverned = Profile(
            [CompiledRule(0, "", "", Effect.PERMIT, ALL_ADDRESSES, EVERYTHING, wide=True)], None, ()
        )

    def profile_of(self, pod: Pod) -> Profile:
        """Return the pod's profile, made once for all pods with the same rules."""
        if not pod.governed:
            return self.ungoverned
        ceiling = self._ceiling.rules_for(pod)
        applying = self._index.rules_of(pod)
        opened = self._opened.get(pod.namespace, ())
        key = (id(ceiling), pod.namespace if opened else "", applying)
        found = self._profiles.get(key)
        if found is None:
            positions: dict[int, set[int]] = {}
            for policy, rule in applying:
                positions.setdefault(policy, set()).add(rule)
            rules = tuple(self._rules[policy][rule].for_pod(positions[policy]) for policy, rule in applying)
            found = self._profiles[key] = Profile(
                ceiling + opened + rules, self._spared_zone, self._private_zones
            )
        return found

    def _readable(self, number: int, policy: Policy, problems: list[str]) -> Policy:
        """Mark rules whose Service does not exist as not understood."""
        missing = {rule for policy_, rule in self._index.missing if policy_ == number}
        if not missing:
            return policy
        rules = []
        for position, rule in enumerate(policy.rules):
            if position in missing:
                if rule.understood:  # else the reader has said so
                    service = f"{policy.namespace}/{rule.selector.service}"
                    problems.append(f"{policy.key}/{rule.name}: there is no Service {service}")
                rules.append(msgspec.structs.replace(rule, understood=False))
            else:
                rules.append(rule)
        return msgspec.structs.replace(policy, rules=tuple(rules))
