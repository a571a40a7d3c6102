"""From a world's policies and pods to profiles: the work of a snapshot's birth.

Owns what one compilation remembers for the next, the interning of profiles, and whom an address belongs
to. Never decides. Invariants: pods to which the same rules apply share one profile; what is remembered
changes no decision and no problem; the work follows what changed since the world before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from policy.access import PodState, identity
from policy.addresses import ALL_ADDRESSES, GuardedRanges, from_packed, to_packed
from policy.break_glass import opening_rules
from policy.ceiling import CompiledCeiling
from policy.changes import is_same
from policy.compiled import CompiledRule, Effect
from policy.destinations import Destinations
from policy.known import Known, KnownPolicies
from policy.names import canonical_zone
from policy.pods import Pod
from policy.ports import EVERYTHING
from policy.profile import Profile
from policy.rules import Ceiling
from policy.selection import Roster
from policy.world import World

NOBODY = Profile((), None, ())
"""Of a pod that may do nothing."""
_UNGOVERNED = Profile(
    [CompiledRule(0, "", "", Effect.PERMIT, ALL_ADDRESSES, EVERYTHING, wide=True)], None, ()
)

Applying = tuple[tuple[Known, int], ...]
"""The rules that apply to a pod, in their order."""
Above = tuple[CompiledRule, ...]
"""The rules that stand above those of policies: the ceiling's, break-glass's."""


class Compiled(NamedTuple):
    """A world, compiled: what a snapshot is made of. Nothing of it is changed later."""

    guard: GuardedRanges
    order: tuple[Known, ...]
    """The policies, in the order that decides which of several is named."""
    pods: Mapping[str, Pod]
    pods_at: Mapping[bytes, Pod]
    states: Mapping[str, PodState]
    """By pods' identity."""
    problems: tuple[str, ...]


class _Made(NamedTuple):
    """A profile, and what is above it: its key says which by their ``id``."""

    profile: Profile
    above: tuple[Above, Above]


class _Topmost(NamedTuple):
    """What stands above policies, compiled for one world and its pods."""

    said: tuple[Ceiling, object]
    ceiling: CompiledCeiling
    opened: Mapping[str, Above]
    known: dict[int, Above]
    """Interned rules by the ``id`` of what the ceiling returns."""
    problems: list[str]
    clashing: set[str]
    """Identities that several pods have."""


class Memory:
    """What one compilation leaves for the next: what did not change is not compiled again.

    For one world after the other, never for two at once. Nothing in it decides: with it or without it
    the same world compiles to the same snapshot.
    """

    def __init__(self) -> None:
        self._settings: tuple[object, ...] = ()
        self._forget(GuardedRanges(), None, ())

    def _forget(self, guard: GuardedRanges, spared_zone: str | None, zones: tuple[str, ...]) -> None:
        self._guard = guard
        self._spared_zone = spared_zone
        self._private_zones = zones
        self._policies = KnownPolicies()
        self._roster: Roster | None = None
        self._topmost: _Topmost | None = None
        self._interned: dict[Above, Above] = {}
        self._profiles: dict[tuple[int, int, Applying], _Made] = {}
        self._states: dict[str, PodState] = {}
        self._pods: dict[str, Pod] = {}
        self._pods_at: dict[bytes, Pod] = {}
        self._claims: list[str] = []

    def _begin(self, world: World) -> None:
        """Forget what was compiled for other settings than this world's."""
        settings = (
            world.cluster_cidrs,
            world.node_addresses,
            world.cluster_traffic,
            world.cluster_domain,
            world.private_zones,
        )
        if settings != self._settings:
            spared = canonical_zone(world.cluster_domain) if world.cluster_traffic == "exempt" else None
            guard = GuardedRanges(world.cluster_cidrs, world.node_addresses)
            self._forget(guard, spared, tuple(map(canonical_zone, world.private_zones)))
            self._settings = settings

    def compile(self, world: World) -> Compiled:
        """Compile a world. ``ValueError`` only for bad settings; what follows any error is compiled anew."""
        try:
            return self._compile(world)
        except BaseException:
            self._settings = ()  # half of this world is remembered: the next begins without
            raise

    def _compile(self, world: World) -> Compiled:
        self._begin(world)
        roster, topmost = self._roster, self._topmost
        if (
            roster is None
            or not is_same(roster.pods, world.pods)
            or not is_same(roster.services, world.services)
        ):
            self._roster, topmost = Roster(world.pods, world.services), None
            roster = self._roster
            self._pods = {pod.key: pod for pod in world.pods}
            self._pods_at, self._claims = _by_address(world.pods)
        destinations = Destinations(self._guard, roster)
        touched = self._policies.follow(world.policies, roster, destinations)
        if topmost is None or topmost.said != (world.ceiling, world.break_glass):
            self._look_at_all(world, destinations)
        elif touched:
            self._look_at_some(touched, roster, topmost)
        assert self._topmost is not None  # noqa: S101 - it was looked at all pods once
        problems = (*self._topmost.problems, *self._policies.problems, *self._claims)
        return Compiled(
            self._guard,
            tuple(self._policies.order),
            self._pods,
            self._pods_at,
            self._states,
            tuple(dict.fromkeys(problems)),
        )

    def _look_at_all(self, world: World, destinations: Destinations) -> None:
        """Find every pod's profile."""
        problems: list[str] = []
        ceiling = CompiledCeiling(world.ceiling, destinations, problems)
        opened = opening_rules(world.break_glass, destinations.public())
        said = (world.ceiling, world.break_glass)
        topmost = self._topmost = _Topmost(said, ceiling, opened, {}, problems, set())
        states: dict[str, PodState] = {}
        for pod in world.pods:
            uid = identity(pod)
            profile, other = self._profile_of(pod, topmost), states.get(uid)
            if other is not None:
                problems.append(f"{other.pod.key} and {pod.key} have the same uid: neither may do anything")
                topmost.clashing.add(uid)
                profile = NOBODY
            states[uid] = self._state_of(pod, profile)
        self._states = states
        self._interned = {rules: rules for rules in topmost.known.values()}
        self._tidy()

    def _look_at_some(self, touched: Iterable[Known], roster: Roster, topmost: _Topmost) -> None:
        """Find the profiles of the pods to which these policies' rules apply, or did."""
        perhaps: dict[str, Pod] = {}
        for known in touched:
            for rule in known.policy.rules:
                for pod in roster.pods_perhaps(known.policy.namespace, rule.selector):
                    perhaps[identity(pod)] = pod
        states = dict(self._states)
        for uid, pod in perhaps.items():
            if uid not in topmost.clashing:
                states[uid] = self._state_of(pod, self._profile_of(pod, topmost))
        self._states = states
        self._tidy()

    def _tidy(self) -> None:
        """Forget profiles that no pod has any more."""
        used = {id(state.profile) for state in self._states.values()}
        self._profiles = {key: made for key, made in self._profiles.items() if id(made.profile) in used}

    def _profile_of(self, pod: Pod, topmost: _Topmost) -> Profile:
        """Return the pod's profile, made once for all pods with the same rules."""
        if not pod.governed:
            return _UNGOVERNED
        rules = self._policies.index.rules_of(pod)
        rules.sort(key=_rank)
        applying = tuple(rules)
        ceiling = self._intern(topmost.ceiling.rules_for(pod), topmost)
        opened = self._intern(topmost.opened.get(pod.namespace, ()), topmost)
        key = (id(ceiling), id(opened), applying)
        made = self._profiles.get(key)
        if made is None:
            made = self._profiles[key] = _Made(self._made(applying, ceiling + opened), (ceiling, opened))
        return made.profile

    def _made(self, applying: Applying, above: Above) -> Profile:
        positions: dict[Known, set[int]] = {}
        for owner, position in applying:
            positions.setdefault(owner, set()).add(position)
        numbers = {owner: number for number, owner in enumerate(positions)}
        rules = tuple(
            self._policies.rules(owner)[position].for_pod(positions[owner])._replace(group=numbers[owner])
            for owner, position in applying
        )
        return Profile(above + rules, self._spared_zone, self._private_zones, tuple(positions))

    def _state_of(self, pod: Pod, profile: Profile) -> PodState:
        """Return the pod's state: the one of before, with all that it remembers, if nothing changed."""
        old = self._states.get(identity(pod))
        if old is not None and old.profile is profile and (old.pod is pod or old.pod == pod):
            return old
        return PodState(pod, profile, self._guard)

    def _intern(self, rules: Above, topmost: _Topmost) -> Above:
        """Return the same object for equal rules, now and in the compilations before."""
        found = topmost.known.get(id(rules))
        if found is None:
            found = self._interned.setdefault(rules, rules)
            topmost.known[id(rules)] = topmost.known[id(found)] = found
        return found


def _rank(rule: tuple[Known, int]) -> tuple[object, ...]:
    return rule[0].key, rule[1]


def _by_address(pods: Sequence[Pod]) -> tuple[dict[bytes, Pod], list[str]]:
    """Index the pods by address; those of the host's network have none of their own."""
    found: dict[bytes, Pod] = {}
    claimed: dict[bytes, list[Pod]] = {}
    for pod in pods:
        if pod.host_network:
            continue
        for address in pod.addresses:
            packed = to_packed(address)
            other = found.get(packed)
            if other is not None and other is not pod:
                claimed.setdefault(packed, [other]).append(pod)
            found[packed] = pod
    problems = []
    for packed, claimants in claimed.items():
        del found[packed]
        named = ", ".join(pod.key for pod in claimants)
        problems.append(f"{from_packed(packed)} is claimed by several pods, so it is nobody's: {named}")
    return found, problems
