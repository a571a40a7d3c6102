"""Does one rule match everything that another one matches?

Owns that question, asked of two understood rules of one namespace. Never decides packets: it may say
no where the truth is yes (then a lint is missing), never yes where it is no, but for clusters whose
own addresses are not special-purpose ones: it does not know them.
"""

from __future__ import annotations

from functools import lru_cache

from policy import ports
from policy.addresses import (
    ALL_ADDRESSES,
    NO_ADDRESSES,
    AddressSet,
    GuardedRanges,
    cidr_set,
    together,
    with_nat64,
)
from policy.compiled import is_wide
from policy.patterns import Pattern, parse_pattern
from policy.ports import PortSet
from policy.rules import Destination, Rule, Selector

_MAX_PAIRS = 100_000
"""Pairs of patterns compared for two rules."""


def rule_covers(wide: Rule, narrow: Rule) -> bool:
    """Say whether ``wide`` matches whatever ``narrow`` matches."""
    return (
        selector_covers(wide.selector, narrow.selector)
        and not _only_narrow_resolves(wide, narrow)
        and _names_cover(wide.web_groups, narrow.web_groups)
        and not reach(narrow).difference(reach(wide))
        and _destinations_cover(wide, narrow)
    )


def _only_narrow_resolves(wide: Rule, narrow: Rule) -> bool:
    """A permit of names makes them resolvable; before it, a static one does so only if it is wide."""
    return (
        wide.action == narrow.action == "permit"
        and wide.web_groups is None
        and narrow.web_groups is not None
        and not any(map(is_wide, wide.destinations))
    )


def reach(rule: Rule) -> PortSet:
    """The ports a rule is about; a permit of names without a port is tcp/80 and tcp/443 only."""
    found = ports.from_rule(rule.protocol, rule.ports)
    if rule.action == "permit" and rule.web_groups is not None and rule.ports is None:
        return found.intersection(ports.WEB)
    return found


@lru_cache(maxsize=1)
def guarded() -> GuardedRanges:
    """The special-purpose addresses, without any cluster's own."""
    return GuardedRanges()


def selector_covers(wide: Selector, narrow: Selector) -> bool:
    """Say whether every pod that ``narrow`` selects is selected by ``wide`` too."""
    if wide == narrow or wide == Selector():
        return True
    if wide.match_labels is None or narrow.match_labels is None:
        return False
    return wide.match_labels.items() <= narrow.match_labels.items()


def _names_cover(wide: tuple[str, ...] | None, narrow: tuple[str, ...] | None) -> bool:
    if wide is None or wide == narrow:
        return True
    if narrow is None:
        return False
    left = set(narrow) - set(wide)
    if len(left) * len(wide) > _MAX_PAIRS:
        return False
    return all(any(pattern_covers(parse_pattern(text), one) for text in wide) for one in left)


def pattern_covers(wide: Pattern, narrow: str) -> bool:
    """Say whether every name that the pattern ``narrow`` matches is matched by ``wide``."""
    if "*" not in narrow:
        return wide.matches(narrow)
    if wide.text == "*":
        return True
    rest = wide.text.removeprefix("*")
    return rest != wide.text and "*" not in rest and narrow.endswith(rest)


def _destinations_cover(wide: Rule, narrow: Rule) -> bool:
    denies = wide.action == "deny"
    if denies and any(destination.kind == "anywhere" for destination in wide.destinations):
        return True
    left = together(_addresses(destination, permit=not denies) for destination in wide.destinations)
    # A permit contains less of a group than a deny does.
    same = wide.destinations if denies or narrow.action == "permit" else ()
    return all(
        destination in same
        or (
            destination.kind != "pods"
            and left.covers(_addresses(destination, permit=narrow.action == "permit"))
        )
        for destination in narrow.destinations
    )


def _addresses(destination: Destination, *, permit: bool) -> AddressSet:
    """What a rule contains (policy.md "Guarded addresses"); of pods nothing that is known here."""
    guard = guarded()
    if destination.kind == "pods":
        return NO_ADDRESSES
    if destination.kind == "public" or (permit and destination.kind == "anywhere"):
        return ALL_ADDRESSES.difference(guard.addresses)
    if destination.kind == "anywhere":
        return ALL_ADDRESSES
    addresses = cidr_set(destination.cidr)
    if not permit:
        return with_nat64(addresses)
    if guard.metadata.covers(addresses):
        return addresses
    inside = guard.addresses.covers(addresses)
    return addresses.difference(guard.metadata if inside else guard.addresses)
