"""The administrators' ceiling as rules: denied, allowed, granted.

Owns which entries apply to which pods. Never decides. Invariant: an entry that cannot be read
denies more or permits less, never the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable

from policy.addresses import ALL_ADDRESSES, NO_ADDRESSES, AddressSet, cidr_set, with_nat64
from policy.compiled import CompiledRule, Effect, parse_all
from policy.destinations import Destinations
from policy.intervals import normal
from policy.pods import Pod
from policy.ports import EVERYTHING, PortSet
from policy.rules import Ceiling, CeilingAllowed, CeilingGrant

CEILING = "ceiling"


class CompiledCeiling:
    """The ceiling's rules; ``rules_for`` gives those of one pod."""

    __slots__ = ("_ceiling", "_denied", "_destinations", "_found", "_problems")

    def __init__(self, ceiling: Ceiling, destinations: Destinations, problems: list[str]) -> None:
        self._ceiling = ceiling
        self._destinations = destinations
        self._problems = problems
        self._denied = self._compile_denied()
        self._found: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[CompiledRule, ...]] = {}

    def rules_for(self, pod: Pod) -> tuple[CompiledRule, ...]:
        """Return the rules for a pod; the same tuple for pods that the same entries apply to."""
        allowed = tuple(i for i, entry in enumerate(self._ceiling.allowed) if _applies(entry, pod))
        grants = tuple(i for i, entry in enumerate(self._ceiling.grant) if _applies(entry, pod))
        found = self._found.get((allowed, grants))
        if found is None:
            rules = list(self._denied)
            for i in allowed:
                rules += self._compile_allowed(self._ceiling.allowed[i])
            for i in grants:
                rules += self._compile_grant(self._ceiling.grant[i])
            found = self._found[allowed, grants] = tuple(rules)
        return found

    def _compile_denied(self) -> list[CompiledRule]:
        denied = self._ceiling.denied
        problems: list[str] = []
        patterns = parse_all(denied.names, "ceiling.denied.names", problems)
        addresses = NO_ADDRESSES
        for cidr in denied.cidrs:
            try:
                addresses = addresses.union(with_nat64(cidr_set(cidr)))
            except ValueError:
                problems.append(f"ceiling.denied.cidrs: {cidr!r} is not a CIDR")
        if problems:
            self._problems += [
                f"{problem}; until it is corrected everything is denied" for problem in problems
            ]
            addresses = ALL_ADDRESSES
        rules = []
        if patterns:
            rules.append(_rule("denied", Effect.CEILING_DENIED, ALL_ADDRESSES)._replace(patterns=patterns))
        if addresses != NO_ADDRESSES:
            rules.append(_rule("denied", Effect.CEILING_DENIED, addresses))
        return rules

    def _compile_allowed(self, entry: CeilingAllowed) -> list[CompiledRule]:
        patterns = parse_all(entry.names, "ceiling.allowed.names", self._problems)
        addresses = NO_ADDRESSES
        for cidr in self._readable(entry.cidrs, "ceiling.allowed.cidrs"):
            addresses = addresses.union(cidr)
        rules = [_rule("allowed", Effect.CEILING_ALLOWED, ALL_ADDRESSES)._replace(patterns=patterns)]
        if addresses != NO_ADDRESSES:
            rules.append(_rule("allowed", Effect.CEILING_ALLOWED, addresses))
        return rules

    def _compile_grant(self, entry: CeilingGrant) -> list[CompiledRule]:
        ports = PortSet(tcp=normal((port, port) for port in entry.ports if 0 <= port <= 65535))
        patterns = parse_all(entry.names, "ceiling.grant.names", self._problems)
        addresses = NO_ADDRESSES
        for cidr in self._readable(entry.cidrs, "ceiling.grant.cidrs"):
            addresses = addresses.union(self._destinations.inside(cidr))
        rules = []
        if patterns:
            named = _rule("grant", Effect.CEILING_GRANT, self._destinations.public())
            rules.append(named._replace(patterns=patterns, ports=ports))
        if addresses != NO_ADDRESSES:
            wide = not {"0.0.0.0/0", "::/0"}.isdisjoint(entry.cidrs)
            rules.append(_rule("grant", Effect.CEILING_GRANT, addresses)._replace(ports=ports, wide=wide))
        return rules

    def _readable(self, cidrs: Iterable[str], place: str) -> Iterable[AddressSet]:
        for cidr in cidrs:
            try:
                yield cidr_set(cidr)
            except ValueError:
                self._problems.append(f"{place}: {cidr!r} is not a CIDR; it is left out")


def _rule(name: str, effect: Effect, addresses: AddressSet) -> CompiledRule:
    return CompiledRule(-1, CEILING, name, effect, addresses, EVERYTHING)


def _applies(entry: CeilingAllowed | CeilingGrant, pod: Pod) -> bool:
    return entry.namespace in {"", pod.namespace} and pod.name.startswith(entry.pod_name_prefix)
