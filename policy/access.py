"""What one pod may do with one name, and why not.

Owns the answer that the resolver and the enforcer keep for a lookup. Never evaluates rules: it
reads a profile's outcome. Invariant: immutable; ``at`` permits nothing for a name that is not
resolvable.
"""

from __future__ import annotations

from policy import sentences
from policy.addresses import GuardedRanges, from_packed
from policy.decision import AddressAccess, Permit, Watched
from policy.evaluation import ClassOutcome
from policy.nearest import nearest_pattern
from policy.pods import Pod
from policy.profile import Outcome, Profile
from policy.sentences import Why

_UNDERSCORE_OCTETS = 15
_NAMES_PER_POD = 2048


def identity(pod: Pod) -> str:
    """Return what tells a pod from all others, a later one of its name included."""
    return pod.uid or pod.key


class PodState:
    """One pod's profile and what it asked for: two generations of memory, the older one dropped."""

    __slots__ = ("_guard", "_older", "_recent", "pod", "profile")

    def __init__(self, pod: Pod, profile: Profile, guard: GuardedRanges) -> None:
        self.pod = pod
        self.profile = profile
        self._guard = guard
        self._recent: dict[str, NameAccess] = {}
        self._older: dict[str, NameAccess] = {}

    def access(self, name: str) -> NameAccess:
        """Return what the pod may do with the name. Remembered, bounded."""
        found = self._recent.get(name)
        if found is None:
            found = self._older.get(name) or NameAccess(self.pod, self.profile, name, self._guard)
            if len(self._recent) >= _NAMES_PER_POD:
                self._older = self._recent
                self._recent = {}
            self._recent[name] = found
        return found


class NameAccess:
    """What one pod may do with one name; the question's type plays no part but for ``tunnel``.

    ``exact``: permitted by an exact pattern. ``tunnel``: permitted only as one or two underscore
    labels before a permitted name, so only for SRV, TXT, HTTPS and SVCB, and without addresses.
    """

    __slots__ = ("_guard", "_outcome", "_pod", "_profile", "_why", "exact", "name", "resolvable", "tunnel")

    def __init__(self, pod: Pod, profile: Profile, name: str, guard: GuardedRanges) -> None:
        outcome, exact = profile.look_up(name)
        self.tunnel = False
        if not outcome.openers and name.startswith("_"):
            below = _under_underscores(profile, name, outcome)
            if below is not None:
                outcome, exact, self.tunnel = below, (), True
        self.name = name
        self.resolvable = bool(outcome.openers)
        self.exact = bool(exact) and not set(exact).isdisjoint(outcome.openers)
        self._pod = pod
        self._profile = profile
        self._outcome = outcome
        self._guard = guard
        self._why: Why | None = None

    @property
    def policy(self) -> str:
        """The policy that permits the name, or that stands behind the refusal ("" if none does)."""
        return self._decided().policy

    @property
    def rule(self) -> str:
        """The rule of ``policy``."""
        return self._decided().rule

    @property
    def reason(self) -> str:
        """A sentence: what permits the name, or why nothing does."""
        return self._decided().reason

    @property
    def nearest(self) -> str | None:
        """The closest pattern that does not match, for a name that no rule matches."""
        if self.resolvable or self._outcome.matched:
            return None
        return nearest_pattern(self.name, self._profile.patterns)

    @property
    def watched(self) -> tuple[Watched, ...]:
        """What rules with ``watch: true`` would have decided about the name."""
        return self._outcome.watched

    @property
    def permits(self) -> tuple[Permit, ...]:
        """Every permit that some address of the name could have, each once."""
        if not self.resolvable:
            return ()
        return tuple(dict.fromkeys(permit for found in self._outcome.classes for permit in found.permits))

    def permits_port(self, protocol: str, port: int | None) -> bool:
        """Say whether the port (None: some port) is permitted at some address of the name."""
        if sentences.is_resolver_port(protocol, port):
            return False
        return any(permit.has(protocol, port) for permit in self.permits)

    @property
    def profile(self) -> Profile:
        """The rules behind it."""
        return self._profile

    @property
    def classes(self) -> tuple[ClassOutcome, ...]:
        """What is decided, per class of addresses of the profile."""
        return self._outcome.classes

    def class_at(self, packed: bytes) -> ClassOutcome:
        """Return what is decided for the class of an address, if the name is resolvable."""
        return self._outcome.classes[self._profile.regions.number(packed)]

    def opens(self, packed: bytes) -> bool:
        """Say whether anything is permitted at one of the name's addresses; ``at`` says what, or why not."""
        if not self.resolvable or self.tunnel:
            return False
        return bool(self._outcome.classes[self._profile.regions.number(packed)].permits)

    def at(self, packed: bytes) -> AddressAccess:
        """Return what is permitted at one of the name's addresses (4 or 16 octets)."""
        if self.resolvable and not self.tunnel:
            found = self.class_at(packed)
            permits = found.permits
            if permits:
                return AddressAccess(permits, "", permits[0].policy, permits[0].rule)
            guarded = self._guard.classify(packed)
            why = sentences.address_refused(
                self._profile, found, self._pod, from_packed(packed), guarded=guarded, name=self.name
            )
        elif self.tunnel:
            decided = self._decided()
            why = decided._replace(reason=f"{self.name} is permitted for its records, not for addresses")
        else:
            why = self._decided()
        return AddressAccess((), *why)

    def _decided(self) -> Why:
        why = self._why
        if why is None:
            why = self._why = self._sentence()
        return why

    def _sentence(self) -> Why:
        if not self.resolvable:
            return sentences.name_refused(self._profile, self._outcome, self.name, self._pod)
        if not self._pod.governed:
            return Why(f"namespace {self._pod.namespace} is not governed")
        rule = self._profile.rules[self._outcome.openers[0]]
        return Why(f"{rule.label} permits {self.name}", rule.policy, rule.name)


def _under_underscores(profile: Profile, name: str, direct: Outcome) -> Outcome | None:
    """Decide for a permitted name one or two underscore labels up; denies of the name itself hold."""
    rest = name
    for _ in range(2):
        label, _, rest = rest.partition(".")
        if not rest or not label.startswith("_") or len(label) > _UNDERSCORE_OCTETS:
            return None
        below = profile.look_up_together(rest, direct.matched)
        if below.openers:
            return below
    return None
