"""Lints: policies that are understood and probably do not do what their author means.

Owns the warnings of ``nameward check`` that need whole rules or several of them. Never reports what
`policy.manifest` already does, never changes a policy. Invariant: every lint is a warning with a
fix, and a world that its authors would call right has none but for patterns that are over-broad.
"""

from __future__ import annotations

from collections.abc import Iterator

from policy.addresses import NO_ADDRESSES, AddressSet, cidr_set
from policy.check_coverage import guarded, reach, rule_covers
from policy.compiled import Effect, compile_policy, is_wide
from policy.manifest import Loaded
from policy.manifest_findings import Finding, Place, Report, shown, steps_of
from policy.patterns import parse_pattern
from policy.rules import Destination, Policy, Rule

_MAX_PAIRS = 200_000
"""Pairs of rules compared across policies, and within one; what is beyond is not compared."""
_MAX_WORK = 10_000_000
"""Microseconds, about, for all policies of one call: a controller reads them while it leads. What is beyond
has no lints."""


class _Work:
    """What is left of that."""

    def __init__(self) -> None:
        self._left = _MAX_WORK

    def may_compare(self, wide: Rule, narrow: Rule) -> bool:
        """Say whether the two may still be compared, and count it."""
        names = len(wide.web_groups or ()) * len(narrow.web_groups or ())
        return self._may(3 * names + 60 * (len(wide.destinations) + len(narrow.destinations)))

    def may_read(self, policy: Policy) -> bool:
        """Say whether the policy may still be looked at, and count it."""
        return self._may(
            100 * sum(len(rule.web_groups or ()) + len(rule.destinations) for rule in policy.rules)
        )

    def _may(self, cost: int) -> bool:
        if cost > self._left:
            return False
        self._left -= cost
        return True


def check(loaded: Loaded) -> tuple[Finding, ...]:
    """All lints, by file and document. Add them to ``loaded.findings`` for the whole picture."""
    findings: list[Finding] = []
    work = _Work()
    for policy in loaded.policies:
        if not work.may_read(policy):
            continue
        place = _place(policy)
        for index, rule in enumerate(policy.rules):
            if rule.understood:
                _alone(rule, _rule_place(policy, place, index))
        _stopped(policy, place)
        _shadowed(policy, place, work)
        findings += place.report.findings
    findings += _denied_elsewhere(loaded.policies, work)
    return tuple(sorted(findings, key=lambda finding: (finding.file, finding.document)))


def _place(policy: Policy) -> Place:
    file, _, rest = policy.source.rpartition("#")
    number, slash, pointer = rest.partition("/")
    return Place(Report(file, int(number)), steps_of(slash + pointer))


def _rule_place(policy: Policy, place: Place, index: int) -> Place:
    return place.at("spec", "rules", index) if policy.kind == "FirewallPolicy" else place.at("spec")


def _alone(rule: Rule, place: Place) -> None:
    """Lints of one rule by itself."""
    if rule.watch:
        _watched(rule, place)
    elif rule.action == "permit":
        if rule.web_groups is None:
            _static(rule, place)
        else:
            _named(rule, rule.web_groups, place)
        if reach(rule) and not reach(rule).ranges():
            place.at("port").warning(
                "ports 53 and 853 are never granted, so the permit opens nothing",
                "remove the rule: DNS is answered by Nameward itself",
            )


def _watched(rule: Rule, place: Place) -> None:
    if rule.action == "permit":
        message = "watch: true opens nothing: what the rule would permit is only recorded"
        place.at("watch").warning(message, "remove watch to permit")
    elif rule.web_groups is None and any(map(is_wide, rule.destinations)):
        message = "a watched deny of everything is not a permit: what no rule permits is denied all the same"
        place.at("watch").warning(message, "add a permit for what may pass, and remove this rule")


def _named(rule: Rule, web_groups: tuple[str, ...], place: Place) -> None:
    where = place.at("allowedDomains" if rule.name == "allowedDomains" else "webGroups")
    for text in web_groups:
        reason = parse_pattern(text).over_broad
        if reason is not None:
            where.warning(f"{shown(text)} is over-broad: {reason}", "name the hosts that are needed")
    if rule.ports is None and rule.protocol != "icmp":
        if rule.protocol == "udp":
            message = (
                "a permit of names without a port opens tcp/80 and tcp/443 only, so for udp it opens nothing"
            )
        else:
            message = "a permit of names without a port opens tcp/80 and tcp/443 only"
        place.warning(message, "write port: 443, or the ports that are needed, one rule for each")


def _static(rule: Rule, place: Place) -> None:
    where = place.at("destinationSmartGroups")
    if any(map(is_wide, rule.destinations)):
        message = "the permit opens every public address and makes all names resolvable"
        where.warning(message, "add webGroups with the names, or a smartGroup with CIDRs")
        return
    if any(destination.kind == "cidr" for destination in rule.destinations):
        message = "the permit opens addresses, not names: no name is resolvable because of it"
        where.warning(
            message, "add webGroups in a rule of its own for names, or dns.privateZones for private ones"
        )
    guard = guarded()
    for destination in rule.destinations:
        if destination.kind != "cidr":
            continue
        addresses = cidr_set(destination.cidr)
        if guard.metadata.covers(addresses):
            where.warning(
                f"{destination.cidr} is the cloud's metadata service: it gives out the node's credentials",
                "remove it, unless these pods must have them",
            )
        elif any(guard.addresses.intersection(addresses)) and not guard.addresses.covers(addresses):
            where.warning(
                f"{destination.cidr} holds special-purpose addresses (private, ...): they stay closed",
                "add them as CIDRs of their own if they are meant",
            )


def _stopped(policy: Policy, place: Place) -> None:
    """The first permit that does not count because a rule before it is not understood."""
    culprit: Rule | None = None
    for index, rule in enumerate(policy.rules):
        if culprit is not None and rule.understood and rule.action == "permit":
            _rule_place(policy, place, index).warning(
                f"this permit and those after it do not count: {shown(culprit.name)} is not understood",
                "correct that rule first",
            )
            return
        if culprit is None and not rule.understood:
            culprit = rule


def _shadowed(policy: Policy, place: Place, work: _Work) -> None:
    """Rules that never decide, because one before them matches all that they match."""
    before: list[Rule] = []
    pairs = 0
    for index, rule in enumerate(policy.rules):
        pairs += len(before)
        if not rule.understood or pairs > _MAX_PAIRS:
            return
        by = next(
            (earlier for earlier in before if work.may_compare(earlier, rule) and rule_covers(earlier, rule)),
            None,
        )
        if by is not None and rule.web_groups != ():
            _rule_place(policy, place, index).warning(
                f"the rule never decides: {shown(by.name)} ({by.action}) before it matches all it matches",
                "move it up if it is an exception, or remove it",
            )
        elif not rule.watch:
            before.append(rule)


def _denied_elsewhere(policies: tuple[Policy, ...], work: _Work) -> Iterator[Finding]:
    """Permits that an explicit deny of another policy takes back wholly."""
    denies: dict[str, list[tuple[Policy, Rule]]] = {}
    for policy in policies:
        for rule in _explicit_denies(policy):
            denies.setdefault(policy.namespace, []).append((policy, rule))
    pairs = 0
    for policy in policies:
        place = _place(policy)
        for index, rule in enumerate(policy.rules):
            if rule.action != "permit" or rule.watch or not rule.understood or not rule.web_groups:
                continue
            for other, deny in denies.get(policy.namespace, ()):
                pairs += 1
                if pairs > _MAX_PAIRS:
                    return
                if other is not policy and work.may_compare(deny, rule) and rule_covers(deny, rule):
                    _rule_place(policy, place, index).warning(
                        f"the permit opens nothing: {other.key}/{deny.name} denies all of it",
                        "an explicit deny in any policy wins: remove or narrow one of the two",
                    )
                    break
        yield from place.report.findings


def _explicit_denies(policy: Policy) -> Iterator[Rule]:
    """Denies that bind all policies: those that do not state the default (policy.md "Order")."""
    for rule, compiled in zip(policy.rules, compile_policy(0, policy, _nowhere, []), strict=True):
        if compiled.effect in {Effect.DENY, Effect.DENY_ALWAYS} and not rule.watch:
            yield rule


def _nowhere(_to: tuple[Destination, ...], _permit: bool, _named: bool, _problems: list[str]) -> AddressSet:
    return NO_ADDRESSES
