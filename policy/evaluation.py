"""One class of addresses, one set of matching rules: what remains permitted.

Owns the order of policy.md: the ceiling, first match within each policy, explicit denies over all
policies, the union of the permits. Never knows names, pods or single addresses. Invariant: the
outcome does not depend on the order of the groups except for which rule is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from policy import intervals
from policy.compiled import CompiledRule, Effect
from policy.decision import Permit
from policy.intervals import Intervals
from policy.ports import EVERY_PORT, EVERYTHING, MAX_PORT, NOTHING, PortSet, grantable

Matched = tuple[int, ...]
"""Indexes of rules, ascending: those whose patterns match a name."""


class Hit(NamedTuple):
    """Ports on which a rule (by its index in the profile) decides for one class of addresses."""

    rule: int
    ports: PortSet


class ClassOutcome(NamedTuple):
    """What is decided at the addresses of one class.

    ``denies``: what explicit denies match; ``openers``: rules that make a name resolvable here if
    they may (narrow static permits may not, except in private zones); ``watched``: what rules that
    only watch would have decided.
    """

    permits: tuple[Permit, ...]
    denies: tuple[Hit, ...]
    openers: tuple[int, ...]
    watched: tuple[Hit, ...]


class Ceiling(NamedTuple):
    """Indexes in a profile of the ceiling's rules, and of what break-glass opens."""

    denied: Matched = ()
    allowed: Matched = ()
    grants: Matched = ()
    opened: Matched = ()


class _Tally:
    __slots__ = ("denies", "openers", "permits", "watched")

    def __init__(self) -> None:
        self.permits: list[Hit] = []
        self.openers: list[Hit] = []
        self.denies: list[Hit] = []
        self.watched: list[Hit] = []


Applies = Callable[[int], bool]
"""Says whether the rule of that index matches the name (if any) and the class of addresses."""


def evaluate(
    rules: Sequence[CompiledRule],
    ceiling: Ceiling,
    groups: Iterable[Matched],
    applies: Applies,
    *,
    name_allowed: bool,
) -> ClassOutcome:
    """Return the outcome for one class of addresses. ``groups`` are the policies' rules in order."""
    for i in ceiling.denied:
        if applies(i):
            return ClassOutcome((), (Hit(i, EVERYTHING),), (), ())
    address_allowed = name_allowed or any(applies(i) for i in ceiling.allowed if rules[i].patterns is None)
    tally = _Tally()
    for group in groups:
        _walk(rules, group, applies, tally)
    denied = NOTHING
    for _, ports in tally.denies:
        denied = denied.union(ports)
    granted = [Hit(i, rules[i].ports) for i in ceiling.grants if applies(i)]
    opened = [Hit(i, rules[i].ports) for i in ceiling.opened if applies(i)]

    def remaining(hits: Iterable[Hit]) -> list[Hit]:
        found = granted + [Hit(i, ports.difference(denied)) for i, ports in hits]
        return opened + [
            hit
            for hit in found
            if hit.ports.ranges() and (address_allowed if rules[hit.rule].patterns is None else name_allowed)
        ]

    return ClassOutcome(
        attributed(rules, remaining(tally.permits)),
        tuple(tally.denies),
        tuple(hit.rule for hit in remaining(tally.openers)),
        tuple(tally.watched),
    )


def _walk(rules: Sequence[CompiledRule], group: Matched, applies: Applies, tally: _Tally) -> None:
    """Let one policy decide: the first rule that matches takes the ports it matches."""
    left = EVERYTHING
    undenied = EVERYTHING
    for i in group:
        rule = rules[i]
        if rule.effect is Effect.INERT or not applies(i):
            continue
        hit = left.intersection(rule.ports)
        if rule.watch:
            if hit:
                tally.watched.append(Hit(i, hit))
        elif rule.effect is Effect.DENY_ALWAYS:
            tally.denies.append(Hit(i, rule.ports))
        elif rule.effect is Effect.PERMIT:
            if hit:
                tally.permits.append(Hit(i, hit))
                left = left.difference(hit)
            # A permit of addresses before it takes nothing from a name: they agree.
            opened = undenied.intersection(rule.ports)
            if opened:
                tally.openers.append(Hit(i, opened))
        elif hit:
            if rule.effect is Effect.DENY:
                tally.denies.append(Hit(i, hit))
            left = left.difference(hit)
            undenied = undenied.difference(hit)


def attributed(rules: Sequence[CompiledRule], hits: Sequence[Hit]) -> tuple[Permit, ...]:
    """Return the union as disjoint permits, each with a rule behind it.

    A protocol that is permitted wholly is one permit, of the rule that gives most of it; what
    several rules permit is named after the first.
    """
    total = NOTHING
    for _, ports in hits:
        total = total.union(ports)
    if not hits:
        return ()
    if total.ranges()[0].protocol == "any":
        widest = rules[next(i for i, ports in hits if ports.other)]
        return (Permit("any", 0, MAX_PORT, widest.policy, widest.name),)
    permits: list[Permit] = []
    for protocol in ("tcp", "udp"):
        spans = [(rules[i], ports.tcp if protocol == "tcp" else ports.udp) for i, ports in hits]
        permits += _spread(protocol, spans)
    for i, ports in hits:
        if ports.icmp:
            permits.append(Permit("icmp", 0, MAX_PORT, rules[i].policy, rules[i].name))
            break
    return tuple(permits)


def _spread(protocol: str, spans: list[tuple[CompiledRule, Intervals]]) -> list[Permit]:
    total: Intervals = ()
    for _, ports in spans:
        total = intervals.union(total, ports)
    if grantable(total) == EVERY_PORT:
        widest, _ = max(spans, key=lambda span: sum(last - first + 1 for first, last in span[1]))
        return [Permit(protocol, 0, MAX_PORT, widest.policy, widest.name)]
    permits = []
    taken: Intervals = ()
    for rule, ports in spans:
        for first, last in grantable(intervals.difference(ports, taken)):
            permits.append(Permit(protocol, first, last, rule.policy, rule.name))
        taken = intervals.union(taken, ports)
    return permits
