"""What pods with the same rules may do: their rules, compiled together once.

Owns the index from a name to the rules that match it, the cut of the address space, and the
memory of outcomes. Never knows a pod. Invariant: looking up a name costs the name's length, and
one evaluation for each set of rules that ever matched together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policy.addresses import AddressSet
from policy.compiled import CompiledRule, Effect
from policy.decision import Permit, Watched
from policy.evaluation import Ceiling, ClassOutcome, Hit, Matched, evaluate
from policy.names import is_permittable, is_under
from policy.patterns import Pattern
from policy.regions import Regions, regions_of
from policy.trie import PatternTrie

_MEMO_ENTRIES = 4096
_BEYOND_POLICIES = (
    Effect.CEILING_DENIED,
    Effect.CEILING_ALLOWED,
    Effect.CEILING_GRANT,
    Effect.BREAK_GLASS,
)
"""As ``evaluation.Ceiling`` lists them."""


class Outcome(NamedTuple):
    """What the rules that match a name decide; ``classes`` is indexed like ``Regions.classes``.

    ``openers`` are the rules that make the name resolvable, ascending; none: it is not.
    """

    matched: Matched
    allowed: bool
    classes: tuple[ClassOutcome, ...]
    openers: Matched
    watched: tuple[Watched, ...]


Spans = tuple[tuple[bytes, bytes, tuple[Permit, ...]], ...]


class Profile:
    """One list of rules: the ceiling's for these pods, then the policies', sorted, in their order."""

    def __init__(
        self,
        rules: Sequence[CompiledRule],
        spared_zone: str | None,
        private_zones: tuple[str, ...],
        owners: tuple[object, ...] = (),
    ) -> None:
        """``spared_zone``: the cluster's domain where ``*`` does not match it, else None.

        ``owners`` are what stands for the policies that ``CompiledRule.group`` counts.
        """
        self.rules = tuple(rules)
        self.owners = owners
        self._private_zones = private_zones
        self._set_of, sets = _interned([rule.addresses for rule in rules])
        self.regions = regions_of(tuple(sets))
        self._ceiling = Ceiling(
            *(
                tuple(i for i, rule in enumerate(rules) if rule.effect is effect)
                for effect in _BEYOND_POLICIES
            )
        )
        self._groups, self._group_of = _grouped(rules)
        self._static_groups = {
            number for number, group in enumerate(self._groups) if any(_binds_alone(rules[i]) for i in group)
        }
        self._names = _NameIndex(rules, spared_zone)
        self._memo: dict[tuple[Matched, bool], Outcome] = {}
        # Made when they are asked for (not by cached_property, which compiled code would call each time):
        self._nameless: Outcome | None = None
        self._spans: Spans | None = None
        self._patterns: tuple[Pattern, ...] | None = None
        self._refusing: tuple[CompiledRule, ...] | None = None

    @property
    def restricted(self) -> bool:
        """Say whether the ceiling lists what may be permitted to these pods."""
        return bool(self._ceiling.allowed)

    @property
    def selected(self) -> bool:
        """Say whether any policy (or grant of the ceiling, or break-glass) has a rule for these pods."""
        return bool(self._groups or self._ceiling.grants or self._ceiling.opened)

    def look_up(self, name: str) -> tuple[Outcome, Matched]:
        """Return what is decided for a name, and the rules that match it by an exact pattern."""
        matched, exact = self._names.look_up(name)
        return self._remembered(matched, private=self._is_private(name)), exact

    def look_up_together(self, name: str, more: Matched) -> Outcome:
        """Return what is decided for a name if these rules match it too."""
        matched, _ = self._names.look_up(name)
        return self._remembered(tuple(sorted({*matched, *more})), private=self._is_private(name))

    def _is_private(self, name: str) -> bool:
        return bool(self._private_zones) and any(is_under(name, zone) for zone in self._private_zones)

    def _remembered(self, matched: Matched, *, private: bool) -> Outcome:
        key = (matched, private)
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            found = self._memo[key] = self._outcome(matched, private=private)
        return found

    @property
    def nameless(self) -> Outcome:
        """What is decided for addresses without a name: static permits only."""
        found = self._nameless
        if found is None:
            found = self._nameless = self._outcome((), private=False, named=False)
        return found

    @property
    def spans(self) -> Spans:
        """Ranges of addresses (first, last) with what is permitted there without a name."""
        found = self._spans
        if found is None:
            found = self._spans = _spans(self.regions, self.nameless.classes)
        return found

    @property
    def box_count(self) -> int:
        """How many boxes (``policy.boxes``) the spans have."""
        return sum(len(permits) for _, _, permits in self.spans)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns that permit a name, each once, in the order of the rules."""
        found = self._patterns
        if found is None:
            permitting = (pattern for rule in self.rules if rule.opens for pattern in rule.patterns or ())
            found = self._patterns = tuple(dict.fromkeys(permitting))
        return found

    @property
    def refusing(self) -> tuple[CompiledRule, ...]:
        """The first rule that refuses everything else, if there is one."""
        found = self._refusing
        if found is None:
            found = self._refusing = next(((rule,) for rule in self.rules if _refuses(rule)), ())
        return found

    def watched(self, hit: Hit) -> Watched:
        """Return what a rule that only watches would have decided."""
        rule = self.rules[hit.rule]
        return Watched(rule.policy, rule.name, "permit" if rule.opens else "deny")

    def _outcome(self, matched: Matched, *, private: bool, named: bool = True) -> Outcome:
        rules = self.rules
        active = frozenset(matched)
        allowed = not self.restricted or any(i in active for i in self._ceiling.allowed)
        touched = {self._group_of[i] for i in matched if i in self._group_of}
        groups = [self._groups[number] for number in sorted(touched | self._static_groups)]
        classes = []
        openers: set[int] = set()
        for members in self.regions.classes:

            def applies(i: int, members: frozenset[int] = members) -> bool:
                return (rules[i].patterns is None or i in active) and self._set_of[i] in members

            outcome = evaluate(rules, self._ceiling, groups, applies, name_allowed=allowed)
            classes.append(outcome)
            openers.update(outcome.openers)
        opening = (
            i
            for i in openers
            if rules[i].patterns is not None
            or private
            or (rules[i].wide and (allowed or rules[i].effect is Effect.BREAK_GLASS))
        )
        return Outcome(
            matched, allowed, tuple(classes), tuple(sorted(opening)) if named else (), self._watched(classes)
        )

    def _watched(self, classes: Sequence[ClassOutcome]) -> tuple[Watched, ...]:
        """What rules that only watch would have decided about the name as such."""
        found = {hit.rule: self.watched(hit) for outcome in classes for hit in outcome.watched}
        named = (i for i in sorted(found) if self.rules[i].patterns is not None or self.rules[i].wide)
        return tuple(found[i] for i in named)


class _NameIndex:
    """From a name to the rules with a pattern that matches it."""

    __slots__ = ("_every", "_spared_zone", "_trie")

    def __init__(self, rules: Sequence[CompiledRule], spared_zone: str | None) -> None:
        users: dict[Pattern, list[int]] = {}
        for i, rule in enumerate(rules):
            for pattern in rule.patterns or ():
                users.setdefault(pattern, []).append(i)
        self._spared_zone = spared_zone
        self._trie: PatternTrie[tuple[bool, Matched]] = PatternTrie()
        self._every: Matched = ()
        shared: dict[tuple[bool, Matched], tuple[bool, Matched]] = {}
        for pattern, indexes in users.items():
            if pattern.text == "*":
                self._every = tuple(indexes)
            else:
                value = (pattern.exact, tuple(indexes))
                self._trie.add(pattern, shared.setdefault(value, value))

    def look_up(self, name: str) -> tuple[Matched, Matched]:
        found = self._trie.lookup(name)
        every = self._every
        if every and (
            not is_permittable(name) or (self._spared_zone is not None and is_under(name, self._spared_zone))
        ):
            every = ()
        if not found:
            return every, ()
        if len(found) == 1 and not every:
            exact, indexes = found[0]
            return indexes, indexes if exact else ()
        matched = set(every)
        for _, indexes in found:
            matched.update(indexes)
        return tuple(sorted(matched)), tuple(i for exact, indexes in found if exact for i in indexes)


def _interned(sets: Sequence[AddressSet]) -> tuple[list[int], list[AddressSet]]:
    numbers: dict[AddressSet, int] = {}
    return [numbers.setdefault(addresses, len(numbers)) for addresses in sets], list(numbers)


def _grouped(rules: Sequence[CompiledRule]) -> tuple[list[Matched], dict[int, int]]:
    """Group the policies' rules by their policy; the ceiling's are in no group."""
    groups: dict[int, list[int]] = {}
    for i, rule in enumerate(rules):
        if rule.group >= 0:
            groups.setdefault(rule.group, []).append(i)
    ordered = [tuple(group) for group in groups.values()]
    return ordered, {i: number for number, group in enumerate(ordered) for i in group}


def _spans(regions: Regions, classes: Sequence[ClassOutcome]) -> Spans:
    found: list[tuple[bytes, bytes, tuple[Permit, ...]]] = []
    for first, last, number in regions:
        permits = classes[number].permits
        if found and len(found[-1][0]) == len(first) and found[-1][2] == permits:
            found[-1] = (found[-1][0], last, permits)
        else:
            found.append((first, last, permits))
    return tuple(found)


def _refuses(rule: CompiledRule) -> bool:
    """Say whether a rule denies every name that no other permits."""
    denies = rule.effect in {Effect.DENY_ALWAYS, Effect.DEFAULT, Effect.DENY}
    return denies and rule.patterns is None and rule.wide and not rule.watch


def _binds_alone(rule: CompiledRule) -> bool:
    """Say whether a rule without webGroups has an effect of its own, whatever the name."""
    if rule.patterns is not None:
        return False
    return rule.watch or rule.effect in {Effect.PERMIT, Effect.DENY, Effect.DENY_ALWAYS}
