"""Ports: what rules mean and what is granted."""

from __future__ import annotations

import pytest

from policy.ports import EVERYTHING, NOTHING, PermittedPorts, PortSet, from_rule
from policy.rules import PortRange, RuleProtocol


@pytest.mark.parametrize(
    ("protocol", "ports", "ranges"),
    [
        ("any", None, [("any", 0, 65535)]),
        ("tcp", None, [("tcp", 0, 65535)]),
        ("udp", PortRange(443, 443), [("udp", 443, 443)]),
        ("any", PortRange(443, 444), [("tcp", 443, 444), ("udp", 443, 444)]),
        ("icmp", None, [("icmp", 0, 65535)]),
        ("tcp", PortRange(53, 53), []),
        ("any", PortRange(853, 853), []),
        ("tcp", PortRange(1, 1000), [("tcp", 1, 52), ("tcp", 54, 852), ("tcp", 854, 1000)]),
        ("udp", PortRange(0, 65535), [("udp", 0, 65535)]),
    ],
)
def test_what_a_rule_grants(
    protocol: RuleProtocol, ports: PortRange | None, ranges: list[tuple[str, int, int]]
) -> None:
    """``any`` with a port is TCP and UDP; 53 and 853 are never granted; all ports are one interval."""
    assert from_rule(protocol, ports).ranges() == tuple(PermittedPorts(*span) for span in ranges)


def test_other_protocols_are_granted_only_with_everything() -> None:
    """Once something is denied, what is left of "any" is TCP, UDP and ICMP."""
    left = EVERYTHING.difference(from_rule("tcp", PortRange(25, 25)))
    assert left.has("sctp", None)
    assert [span.protocol for span in left.ranges()] == ["tcp"] * 4 + ["udp", "icmp"]


def test_membership() -> None:
    """A set answers for a port, for any port of a protocol, and for protocols without ports."""
    ports = PortSet(tcp=((80, 90),))
    assert ports.has("tcp", 85)
    assert ports.has("tcp", None)
    assert not ports.has("udp", None)
    assert not ports.has("icmp", None)
    assert not NOTHING
    assert PortSet(icmp=True).has("icmp", None)
