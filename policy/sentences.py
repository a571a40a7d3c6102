"""Why something is not permitted, in one sentence for a person.

Owns the wording and the choice of the most useful reason. Never decides: it is asked after the
decision. Invariant: a sentence names the rule that a person would have to change, if there is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from policy.ceiling import CEILING
from policy.compiled import CompiledRule, Effect
from policy.decision import Permit
from policy.evaluation import ClassOutcome
from policy.names import is_permittable
from policy.pods import Pod
from policy.ports import RESOLVER_PORTS
from policy.profile import Outcome, Profile


class Why(NamedTuple):
    """A reason and the policy and rule behind it ("" where no rule is)."""

    reason: str
    policy: str = ""
    rule: str = ""


def name_refused(profile: Profile, outcome: Outcome, name: str, pod: Pod) -> Why:
    """Say why a name is not resolvable."""
    rules = [profile.rules[i] for i in outcome.matched]
    return (
        _denied_by_ceiling(rules, name)
        or _not_a_name(name)
        or _outside_ceiling(profile, outcome, rules, name, pod)
        or _denied(profile, outcome, rules, name)
        or _without_effect(rules, name)
        or _nothing_matches(profile, outcome, name, pod)
    )


def _denied_by_ceiling(rules: Iterable[CompiledRule], name: str) -> Why | None:
    for rule in rules:
        if rule.effect is Effect.CEILING_DENIED:
            return Why(f"the ceiling denies {name} everywhere", rule.policy, rule.name)
    return None


def _not_a_name(name: str) -> Why | None:
    if is_permittable(name):
        return None
    return Why(f"{name or 'the root'} is never permitted: only names of a-z, 0-9, - and _ are")


def _outside_ceiling(
    profile: Profile, outcome: Outcome, rules: list[CompiledRule], name: str, pod: Pod
) -> Why | None:
    if outcome.allowed or not (
        any(rule.opens for rule in rules) or any(found.permits for found in profile.nameless.classes)
    ):
        return None
    return Why(f"the ceiling does not allow {name} for {pod.key}", CEILING, "allowed")


def _denied(profile: Profile, outcome: Outcome, rules: list[CompiledRule], name: str) -> Why | None:
    for rule in rules:
        if rule.effect in {Effect.DENY, Effect.DENY_ALWAYS} and not rule.watch:
            return _denial(rule, name)
    if not any(rule.effect in {Effect.PERMIT, Effect.CEILING_GRANT} and not rule.watch for rule in rules):
        return None
    for found in outcome.classes:
        for hit in found.denies:
            return _denial(profile.rules[hit.rule], name)
    return None


def _denial(rule: CompiledRule, what: str) -> Why:
    if rule.effect is Effect.DENY_ALWAYS:
        sentence = f"{rule.label} is not understood and denies all that it could match, {what} too"
    else:
        sentence = f"{rule.label} denies {what}"
    return Why(sentence, rule.policy, rule.name)


def _without_effect(rules: list[CompiledRule], name: str) -> Why | None:
    for rule in rules:
        if rule.effect is Effect.INERT and not rule.watch:
            which = "a rule before it" if rule.understood else "it"
            sentence = f"{rule.label} would permit {name}, but {which} is not understood"
            return Why(sentence, rule.policy, rule.name)
    for rule in rules:
        if rule.opens and rule.watch:
            return Why(f"{rule.label} matches {name}, but it only watches", rule.policy, rule.name)
    for rule in rules:
        if rule.opens:
            sentence = f"{rule.label} permits {name}, but on no address and port that can be granted"
            return Why(sentence, rule.policy, rule.name)
    return None


def _nothing_matches(profile: Profile, outcome: Outcome, name: str, pod: Pod) -> Why:
    if not profile.selected:
        return Why(f"no policy selects {pod.key}")
    for found in outcome.classes:
        for permit in found.permits:
            sentence = f"{permit.policy}/{permit.rule} opens addresses, not names"
            return Why(sentence, permit.policy, permit.rule)
    return _by_default(profile, f"no rule permits {name} for {pod.key}", name)


def _by_default(profile: Profile, sentence: str, what: str) -> Why:
    """Name the rule that denies everything, if there is one, behind a refusal that needs none."""
    for rule in profile.refusing:
        if rule.effect is Effect.DENY_ALWAYS:
            return _denial(rule, what)
        return Why(sentence, rule.policy, rule.name)
    return Why(sentence)


def address_refused(
    profile: Profile, found: ClassOutcome, pod: Pod, address: str, *, guarded: str | None, name: str | None
) -> Why:
    """Say why an address (of a resolvable name, or without one) has no permit. ``guarded``: its class."""
    for hit in found.denies:
        rule = profile.rules[hit.rule]
        if rule.effect is Effect.CEILING_DENIED:
            return Why(f"the ceiling denies {address} everywhere", rule.policy, rule.name)
        return _denial(rule, address)
    if not profile.selected:
        return Why(f"no policy selects {pod.key}")
    if guarded is not None:
        sentence = f"{address} is a {guarded} address, which only a permit of its own CIDR opens"
    elif name is not None:
        sentence = f"no rule permits {address} as an address of {name} for {pod.key}"
    else:
        sentence = f"no rule permits {address} without a name for {pod.key}"
    return _by_default(profile, sentence, address)


def port_denied(
    profile: Profile, classes: Iterable[ClassOutcome], protocol: str, port: int | None, what: str
) -> Why:
    """Say why a port is not permitted where others are: the deny that took it, or what is open instead."""
    permits: list[Permit] = []
    for found in classes:
        permits += found.permits
        for hit in found.denies if found.permits else ():
            if hit.ports.has(protocol, port):
                asked = protocol if port is None else f"{protocol}/{port}"
                return _denial(profile.rules[hit.rule], f"{what} {asked}")
    return Why(_port_refused(permits, protocol, port, what))


def _port_refused(permits: Iterable[Permit], protocol: str, port: int | None, what: str) -> str:
    """Say which ports are permitted instead of this one."""
    spans = sorted({permit[:3] for permit in permits})
    same = [_span(first, last) for kind, first, last in spans if kind == protocol != "icmp"]
    asked = protocol if port is None else f"{protocol}/{port}"
    if same and port is not None:
        only = _listed(same)
        asked = f"port {port}" if protocol == "tcp" else f"{protocol} port {port}"
    else:
        only = _listed(
            [kind if kind == "icmp" else f"{kind}/{_span(first, last)}" for kind, first, last in spans]
        )
    return f"{asked} not permitted for {what}, only {only}"


def resolver_port(port: int) -> str:
    """Say why a port of the resolver's is never granted."""
    return f"port {port} is never granted: DNS is the resolver's"


def is_resolver_port(protocol: str, port: int | None) -> bool:
    """Say whether a port is one that is never granted (53, 853)."""
    return protocol in {"tcp", "udp"} and port in {first for first, _ in RESOLVER_PORTS}


def _span(first: int, last: int) -> str:
    return "any port" if (first, last) == (0, 65535) else str(first) if first == last else f"{first}-{last}"


def _listed(parts: list[str], most: int = 6) -> str:
    if len(parts) > most:
        parts = [*parts[:most], f"{len(parts) - most} more"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
