"""One rule in the form that decides: patterns, addresses and ports as sets, and what it does.

Owns what a rule means on its own and by its place in its policy (understood so far, the stated
default). Never knows pods or names that ask. Invariant: what is not understood opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import Enum
from typing import NamedTuple

from policy import ports
from policy.addresses import AddressSet, is_cidr
from policy.patterns import Pattern, PatternError, is_plain, parse_pattern
from policy.ports import PortSet
from policy.rules import Destination, Policy, Rule


class Effect(Enum):
    """What a rule that matches does."""

    PERMIT = "permit"
    DENY = "deny"
    DEFAULT = "default"
    """A deny that states the default: decides within its policy, binds no other policy."""
    DENY_ALWAYS = "deny always"
    """A deny that is not understood: denies in all policies, its own earlier permits included."""
    INERT = "inert"
    """A permit that does not count, because it or a rule before it is not understood."""
    CEILING_DENIED = "denied by the ceiling"
    CEILING_ALLOWED = "allowed by the ceiling"
    CEILING_GRANT = "granted by the ceiling"
    BREAK_GLASS = "opened by break-glass"
    """Opens beyond every deny but the ceiling's, and beyond what the ceiling allows."""


class CompiledRule(NamedTuple):
    """A rule ready to decide. ``patterns`` is None for a rule without webGroups: any name, and none.

    ``group`` is the number of its policy (two of one name are two), -1 for rules of no policy.
    ``repeats`` holds the positions of the permits whose default a deny states, if it states no other's:
    for a pod that none of them applies to it is an explicit deny (``for_pod``).
    ``wide`` says that its destination is everything or the Public Internet, of a family at least.
    """

    group: int
    policy: str
    name: str
    effect: Effect
    addresses: AddressSet
    ports: PortSet
    patterns: tuple[Pattern, ...] | None = None
    wide: bool = False
    watch: bool = False
    understood: bool = True
    repeats: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """``namespace/policy/rule``, as sentences name it."""
        return f"{self.policy}/{self.name}"

    def for_pod(self, applying: Collection[int]) -> CompiledRule:
        """Return the rule as it is for pods to which these rules of its policy apply."""
        if not self.repeats or any(position in applying for position in self.repeats):
            return self
        return self._replace(effect=Effect.DENY)

    @property
    def opens(self) -> bool:
        """Say whether it would permit, were it alone and not watched."""
        return self.effect in {Effect.PERMIT, Effect.INERT, Effect.CEILING_GRANT, Effect.BREAK_GLASS}


Resolve = Callable[[tuple[Destination, ...], bool, bool, list[str]], AddressSet]
"""Addresses of destinations, for a permit (first flag), for a rule with webGroups (second); problems."""


def is_wide(destination: Destination) -> bool:
    """Say whether a destination is everything (of one family at least) or the Public Internet."""
    return destination.kind in {"anywhere", "public"} or destination.cidr in {"0.0.0.0/0", "::/0"}


def parse_all(texts: Iterable[str], place: str, problems: list[str]) -> tuple[Pattern, ...]:
    """Parse patterns; one that is bad is left out and reported as a problem of ``place``."""
    found = []
    for text in texts:
        try:
            found.append(parse_pattern(text))
        except PatternError as error:
            problems.append(f"{place}: {error.message}")
    return tuple(found)


def is_clear(policy: Policy) -> bool:
    """Say whether compiling the policy has nothing to report; if not, it may have."""
    return all(_is_clear(rule) for rule in policy.rules)


def _is_clear(rule: Rule) -> bool:
    if rule.web_groups is not None and (
        (rule.action == "permit" and rule.ports is None) or not all(map(is_plain, rule.web_groups))
    ):
        return False
    return all(to.kind != "cidr" or is_cidr(to.cidr) for to in rule.destinations)


def compile_policy(
    group: int, policy: Policy, resolve: Resolve, problems: list[str]
) -> tuple[CompiledRule, ...]:
    """Compile a policy's rules, in order; problems found on the way are appended as sentences."""
    compiled: list[CompiledRule] = []
    counts = True
    named: dict[tuple[str, object], tuple[int, ...]] = {}
    for position, rule in enumerate(policy.rules):
        place = f"{policy.key}/{rule.name}"
        patterns: tuple[Pattern, ...] | None = None
        understood = rule.understood
        if rule.web_groups is not None:
            patterns = parse_all(rule.web_groups, place, problems)
            if rule.action == "deny" and len(patterns) < len(rule.web_groups):
                understood = False
        if not understood and rule.action == "deny" and (not patterns or rule.understood):
            patterns = None  # a part that is not understood keeps its widest value
        if rule.action == "permit" and rule.web_groups is not None and rule.ports is None:
            problems.append(f"{place} has webGroups and no port: it opens tcp/80 and tcp/443 only")
        wide = any(map(is_wide, rule.destinations))
        counts = counts and understood
        stated = (rule.protocol, rule.ports)
        effect = _effect(rule, counts=counts, understood=understood, wide=wide, repeats=stated in named)
        bare = stated == ("any", None)
        compiled.append(
            CompiledRule(
                group=group,
                policy=policy.key,
                name=rule.name,
                effect=effect,
                addresses=resolve(
                    rule.destinations, rule.action == "permit", rule.web_groups is not None, problems
                ),
                ports=_ports(rule),
                patterns=patterns,
                wide=wide,
                watch=rule.watch,
                understood=understood,
                repeats=named.get(stated, ()) if effect is Effect.DEFAULT and not bare else (),
            )
        )
        if rule.action == "permit" and rule.web_groups is not None and understood and not rule.watch:
            named[stated] = (*named.get(stated, ()), position)
    return tuple(compiled)


def _effect(rule: Rule, *, counts: bool, understood: bool, wide: bool, repeats: bool) -> Effect:
    if rule.action == "permit":
        return Effect.PERMIT if counts else Effect.INERT
    if not understood:
        return Effect.DENY_ALWAYS
    bare = rule.protocol == "any" and rule.ports is None
    if rule.web_groups is None and wide and (bare or repeats):
        return Effect.DEFAULT
    return Effect.DENY


def _ports(rule: Rule) -> PortSet:
    found = ports.from_rule(rule.protocol, rule.ports)
    if rule.action == "permit" and rule.web_groups is not None and rule.ports is None:
        # The API server prunes `ports: ["443"]`: no port is no licence for all ports.
        return found.intersection(ports.WEB)
    return found
