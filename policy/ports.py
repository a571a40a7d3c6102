"""Sets of (protocol, port): the part of a rule, a permit or a deny that is not about addresses.

Owns the algebra and what a rule's ``protocol``, ``port`` and ``endPort`` mean. Never knows names
or addresses. Invariant: equal sets are equal values.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from policy import intervals
from policy.intervals import Intervals
from policy.rules import PortRange, RuleProtocol

MAX_PORT = 65535
EVERY_PORT: Intervals = ((0, MAX_PORT),)
RESOLVER_PORTS: Intervals = ((53, 53), (853, 853))
"""Never granted, on TCP and UDP: DNS and DNS over TLS are the resolver's."""


class PermittedPorts(NamedTuple):
    """One interval as it is shown and granted; ``any`` is all protocols, ``icmp`` has no ports."""

    protocol: str
    first: int
    last: int


class PortSet(NamedTuple):
    """A set of ports per protocol. ``other`` stands for all protocols beside TCP, UDP and ICMP."""

    tcp: Intervals = ()
    udp: Intervals = ()
    icmp: bool = False
    other: bool = False

    def union(self, more: PortSet) -> PortSet:
        """Return what is in either of them."""
        if not self or not more:
            return self or more
        return PortSet(
            intervals.union(self.tcp, more.tcp),
            intervals.union(self.udp, more.udp),
            self.icmp or more.icmp,
            self.other or more.other,
        )

    def intersection(self, more: PortSet) -> PortSet:
        """Return what is in both of them."""
        if self is EVERYTHING or self == more:
            return more
        if more is EVERYTHING:
            return self
        return PortSet(
            intervals.intersection(self.tcp, more.tcp),
            intervals.intersection(self.udp, more.udp),
            self.icmp and more.icmp,
            self.other and more.other,
        )

    def difference(self, less: PortSet) -> PortSet:
        """Return what is in this set and not in the other."""
        if not less:
            return self
        return PortSet(
            intervals.difference(self.tcp, less.tcp),
            intervals.difference(self.udp, less.udp),
            self.icmp and not less.icmp,
            self.other and not less.other,
        )

    def __bool__(self) -> bool:
        return bool(self.tcp or self.udp or self.icmp or self.other)

    def ranges(self) -> tuple[PermittedPorts, ...]:
        """Return the set as it can be granted: without ports 53 and 853.

        A protocol whose ports are all in the set (53 and 853 aside) is one full interval: the
        kernel drops those two before it looks at grants. Protocols beside TCP, UDP and ICMP can
        be granted only where everything is ("any").
        """
        return _ranges(self)

    def has(self, protocol: str, port: int | None) -> bool:
        """Say whether the port is in the set; None asks for any port of the protocol."""
        ports = self.tcp if protocol == "tcp" else self.udp if protocol == "udp" else None
        if ports is None:
            return self.icmp if protocol == "icmp" else self.other
        return bool(ports) if port is None else intervals.contains(ports, port)


EVERYTHING = PortSet(EVERY_PORT, EVERY_PORT, icmp=True, other=True)
NOTHING = PortSet()
WEB = PortSet(tcp=((80, 80), (443, 443)))
"""What a permit with webGroups and without a port opens: its ``ports`` may have been pruned."""
_RESOLVER = PortSet(RESOLVER_PORTS, RESOLVER_PORTS)


@lru_cache(maxsize=4096)
def _ranges(ports: PortSet) -> tuple[PermittedPorts, ...]:
    if ports.union(_RESOLVER) == EVERYTHING:
        return (PermittedPorts("any", 0, MAX_PORT),)
    found = [PermittedPorts("tcp", first, last) for first, last in grantable(ports.tcp)]
    found += [PermittedPorts("udp", first, last) for first, last in grantable(ports.udp)]
    if ports.icmp:
        found.append(PermittedPorts("icmp", 0, MAX_PORT))
    return tuple(found)


@lru_cache(maxsize=4096)
def grantable(ports: Intervals) -> Intervals:
    """Return the intervals without 53 and 853, except that all others together stay one interval."""
    if intervals.union(ports, RESOLVER_PORTS) == EVERY_PORT:
        return EVERY_PORT
    return intervals.difference(ports, RESOLVER_PORTS)


def from_rule(protocol: RuleProtocol, ports: PortRange | None) -> PortSet:
    """Return what a rule's protocol and ports mean: ``any`` with ports is TCP and UDP."""
    if protocol == "icmp":
        return PortSet(icmp=True)
    if ports is None:
        if protocol == "any":
            return EVERYTHING
        return PortSet(tcp=EVERY_PORT) if protocol == "tcp" else PortSet(udp=EVERY_PORT)
    spans: Intervals = intervals.normal([(max(ports.first, 0), min(ports.last, MAX_PORT))])
    return PortSet(tcp=spans if protocol != "udp" else (), udp=spans if protocol != "tcp" else ())
