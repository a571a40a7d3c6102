"""The immutable compiled policy of a node, and the one function that decides.

Owns ``decide`` (policy.md) and the index from addresses and names to pods. Never changes after it
was compiled, except for what it remembers. Invariant: both processes compile the same World to
the same decisions; an address that two pods claim belongs to neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from policy import sentences
from policy.access import NameAccess, PodState, identity
from policy.addresses import from_packed, union_of
from policy.boxes import MAX_BOXES, static_boxes
from policy.compilation import NOBODY, Memory
from policy.compiled import CompiledRule
from policy.decision import Decision, StaticBox, Watched
from policy.evaluation import ClassOutcome
from policy.known import Known
from policy.names import canonical_zone, is_under
from policy.pods import Pod
from policy.profile import Profile
from policy.rules import Policy
from policy.world import World

_MDNS_PORT = 5353


class Snapshot:
    """One generation of the node's policy. Made by ``compile_snapshot``."""

    __slots__ = (
        "_cluster",
        "_domain",
        "_exempt",
        "_guard",
        "_hash",
        "_numbered",
        "_order",
        "_places",
        "_pods",
        "_pods_at",
        "_states",
        "generation",
        "problems",
        "world",
    )

    def __init__(self, world: World, memory: Memory) -> None:
        compiled = memory.compile(world)
        self.world = world
        self.generation = world.generation
        self._guard = compiled.guard
        self._exempt = world.cluster_traffic == "exempt"
        self._domain = canonical_zone(world.cluster_domain)
        self._cluster = (
            union_of(world.cluster_cidrs)
            .difference(self._guard.metadata)
            .difference(union_of(world.dns_addresses))
        )
        self._order = compiled.order
        self._pods = compiled.pods
        self._states = compiled.states
        self._pods_at = compiled.pods_at
        self.problems = compiled.problems
        self._places: dict[object, int] = {}
        self._numbered: dict[int, tuple[CompiledRule, ...]] = {}
        self._hash = ""

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies, in the order that decides which of several is named."""
        return tuple(known.policy for known in self._order)

    @property
    def policy_hash(self) -> str:
        """What two snapshots have in common that say the same of every pod's policies."""
        if not self._hash:
            self._hash = _policy_hash(self.world, self._order)
        return self._hash

    def pod_at(self, packed: bytes) -> Pod | None:
        """Return the pod that has the address (4 or 16 octets); None if none or several claim it."""
        return self._pods_at.get(packed)

    def pod(self, key: str) -> Pod | None:
        """Return the pod of that ``namespace/name``."""
        return self._pods.get(key)

    def access(self, pod: Pod, name: str) -> NameAccess:
        """Return what the pod may do with the name (in ``policy.names`` form). Remembered, bounded.

        A pod that is not in this snapshot may do nothing; one that is not governed, anything.
        """
        state = self._states.get(identity(pod))
        return NameAccess(pod, NOBODY, name, self._guard) if state is None else state.access(name)

    def decider(self, pod: Pod) -> object:
        """Return what decides for the pod: the object of the snapshot before, if that decides alike."""
        return self._states.get(identity(pod))

    def rules_for(self, pod: Pod) -> tuple[CompiledRule, ...]:
        """Return the rules that apply to the pod, the ceiling's first; none if it may do nothing at all.

        ``CompiledRule.group`` is the policy's place in ``policies``.
        """
        state = self._states.get(identity(pod))
        if state is None or not pod.governed:
            return ()
        profile = state.profile
        found = self._numbered.get(id(profile))
        if found is None:
            if not self._places:
                self._places = {known: place for place, known in enumerate(self._order)}
            places = [self._places[owner] for owner in profile.owners]
            found = self._numbered[id(profile)] = tuple(
                rule._replace(group=places[rule.group]) if rule.group >= 0 else rule for rule in profile.rules
            )
        return found

    def static_boxes(self, pod: Pod) -> tuple[StaticBox, ...]:
        """Return what is open to the pod without DNS; nothing for pods that are not governed."""
        state = self._states.get(identity(pod))
        return static_boxes(state.profile) if state is not None and pod.governed else ()

    def opens_too_much(self, pod: Pod) -> bool:
        """Say whether what is open to the pod without DNS would be too much for the kernel: nothing is."""
        state = self._states.get(identity(pod))
        return state is not None and pod.governed and state.profile.box_count > MAX_BOXES

    def is_cluster_address(self, packed: bytes) -> bool:
        """Say whether an address is the cluster's, metadata and the cluster's DNS servers apart."""
        return self._cluster.has(packed)

    def is_cluster_name(self, name: str) -> bool:
        """Say whether a name is the cluster's domain or below it."""
        return is_under(name, self._domain)

    def guard_class(self, packed: bytes) -> str | None:
        """Return the class of a guarded address (``private-use``, ``cluster``, ``node``…), or None."""
        return self._guard.classify(packed)

    def decide(
        self, pod: Pod, name: str | None, address: bytes | None, protocol: str, port: int | None
    ) -> Decision:
        """Decide a tuple: policy.md's one function.

        Without ``name``: a packet to ``address``. Without ``address``: is the port permitted at
        some address of the name? Without ``port``: is some port? ``protocol`` is tcp, udp, icmp or
        another's name. Raises ``ValueError`` without name and address.
        """
        if name is None and address is None:
            raise ValueError("a decision needs a name or an address")
        if not pod.governed:
            return Decision("permit", "", "", f"namespace {pod.namespace} is not governed")
        if sentences.is_resolver_port(protocol, port):
            return Decision("deny", "", "", sentences.resolver_port(port or 0))
        if self._is_exempt(name, address):
            if protocol in {"tcp", "udp"} and port == _MDNS_PORT:
                return Decision("deny", "", "", sentences.resolver_port(_MDNS_PORT))
            return Decision("permit", "", "", "traffic inside the cluster is exempt")
        state = self._states.get(identity(pod))
        if state is None or not self.world.loaded:
            return Decision(
                "deny", "", "", f"{pod.key} is not known here" if state is None else "nothing was loaded yet"
            )
        if name is None:
            return self._decide_packet(state, address or b"", protocol, port)
        return self._decide_name(pod, name, address, protocol, port)

    def watched(
        self, pod: Pod, name: str | None, address: bytes, protocol: str, port: int | None
    ) -> tuple[Watched, ...]:
        """Return what rules with ``watch: true`` would have decided about a tuple."""
        state = self._states.get(identity(pod))
        profile = NOBODY if state is None else state.profile
        outcome = profile.nameless if name is None else profile.look_up(name)[0]
        return tuple(
            profile.watched(hit)
            for hit in outcome.classes[profile.regions.number(address)].watched
            if hit.ports.has(protocol, port)
        )

    def _is_exempt(self, name: str | None, address: bytes | None) -> bool:
        if not self._exempt or (name is not None and not self.is_cluster_name(name)):
            return False
        return address is None or self.is_cluster_address(address)

    def _decide_packet(self, state: PodState, address: bytes, protocol: str, port: int | None) -> Decision:
        profile = state.profile
        found = profile.nameless.classes[profile.regions.number(address)]
        text = from_packed(address)
        if found.permits:
            return _by_port(profile, (found,), text, protocol, port)
        guarded = self._guard.classify(address)
        why = sentences.address_refused(profile, found, state.pod, text, guarded=guarded, name=None)
        return Decision("deny", why.policy, why.rule, why.reason, explicit=bool(found.denies))

    def _decide_name(
        self, pod: Pod, name: str, address: bytes | None, protocol: str, port: int | None
    ) -> Decision:
        access = self.access(pod, name)
        if not access.resolvable:
            return Decision("deny", access.policy, access.rule, access.reason, access.nearest)
        if address is None:
            return _by_port(access.profile, access.classes, name, protocol, port)
        found = access.at(address)
        if not found.permits:
            return Decision("deny", found.policy, found.rule, found.reason)
        what = f"{name} at {from_packed(address)}"
        return _by_port(access.profile, (access.class_at(address),), what, protocol, port)


def compile_snapshot(world: World, memory: Memory | None = None) -> Snapshot:
    """Compile a world; what cannot be kept is in ``problems``. ``ValueError`` only for bad settings.

    With the memory of the compilation before, only what changed is compiled.
    """
    return Snapshot(world, memory or Memory())


def _by_port(
    profile: Profile, classes: tuple[ClassOutcome, ...], what: str, protocol: str, port: int | None
) -> Decision:
    """Decide by port alone, at classes of addresses of which one at least has permits."""
    permits = [permit for found in classes for permit in found.permits]
    for permit in permits:
        if permit.has(protocol, port):
            label = f"{permit.policy}/{permit.rule}"
            asked = protocol if port is None else f"{protocol}/{port}"
            return Decision("permit", permit.policy, permit.rule, f"{label} permits {what} {asked}")
    why = sentences.port_denied(profile, classes, protocol, port, what)
    return Decision("deny", why.policy, why.rule, why.reason)


def _policy_hash(world: World, policies: Iterable[Known]) -> str:
    settings = (
        world.ceiling,
        world.cluster_cidrs,
        world.cluster_traffic,
        world.cluster_domain,
        world.private_zones,
    )
    digest = hashlib.blake2b(msgspec.json.encode(settings, order="deterministic"), digest_size=8)
    if world.break_glass:
        digest.update(msgspec.json.encode(world.break_glass, order="deterministic"))
    digest.update(b"".join([known.key[3] for known in policies]))
    return digest.hexdigest()
