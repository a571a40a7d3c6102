"""What the ruleset is made from: the layout, the names of our tables, and the words rules share.

Pure. Owns the configuration that decides the structure; the rules themselves are in
``enforcer.ruleset`` and, for DNS, ``enforcer.capture``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

import msgspec

TABLE = "nameward"
GUARD_TABLE = "nameward_guard"
BRIDGE_TABLE = "nameward"
"""In the bridge family."""
PASSED = 0x40000000
"""Mark bit: the policy table let this packet through. Lives between two adjacent hooks only."""
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
PORTED = f"meta l4proto {{ {TCP}, {UDP} }}"
"""Protocols by number: for names nft needs /etc/protocols, which a bare host does not have."""
DNS_MARK = 0x53
DNS_MARK_MASK = 0xFF
BLOCK_SIZES = {"block": 64, "span": 4096}
"""Aligned port blocks that a wide range is cut into, so that ranges need no interval set."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What the structure depends on: configuration only, so that a change of pods never reloads it.

    ``pod_interface_kinds`` are rtnetlink kinds (veth), ``pod_interface_names`` names or prefixes
    ending in ``*``. ``grants`` is the limit of grants the node may hold. With ``capture`` port 53 of
    governed and unknown pods leads to ``dns_port``: ``rule``, by mark and the rule of
    ``enforcer.routes``; ``rewrite``, where the host refuses rules, by translation to ``rewrite_to``: at
    most one address of the node per family, not link-local; without one, to the pod interface's own
    address, which routed CNIs often do not give it.
    """

    pod_interface_kinds: tuple[str, ...] = ("veth",)
    pod_interface_names: tuple[str, ...] = ()
    capture: bool = True
    cluster_traffic: Literal["exempt", "govern"] = "exempt"
    unknown_pods: Literal["deny", "allow"] = "deny"
    nflog_group: int = 5353
    resolver_uid: int = 65353
    dns_port: int = 15353
    capture_by: Literal["rule", "rewrite"] = "rule"
    rewrite_to: tuple[str, ...] = ()
    grants: int = 1_000_000

    def __post_init__(self) -> None:
        """Refuse what would open the node or break out of the text (ValueError names the field)."""
        for name in (*self.pod_interface_kinds, *self.pod_interface_names):
            if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,15}\*?", name) or name == "*":
                raise ValueError(f"podInterfaces: {name!r} is not an interface kind, name or prefix*")
        if not self.pod_interface_kinds and not self.pod_interface_names:
            raise ValueError("podInterfaces: name at least one interface kind or name pattern")
        for text in self.rewrite_to:
            ipaddress.ip_address(text)
        if self.resolver_uid <= 0:
            raise ValueError("the resolver's uid must not be root's: its output is fenced by uid")
        if not 0 <= self.nflog_group <= 0xFFFF:
            raise ValueError("nflogGroup: 0 to 65535")


FAMILIES = (("ip", 4), ("ip6", 6))
TYPES = ((4, "ipv4_addr"), (6, "ipv6_addr"))
NEIGHBOURS = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit"
MULTICAST_MEMBERSHIP = "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report"


def chain(name: str, rules: list[str]) -> list[str]:
    return [f"chain {name} {{", *["  " + rule for rule in rules], "}"]


def log(prefix: str, layout: Layout, rate: str) -> str:
    return f'limit rate {rate} log prefix "{prefix}" group {layout.nflog_group} snaplen 128'


def marked() -> str:
    return f"meta mark & {PASSED:#x} == {PASSED:#x}"


def clear_mark() -> str:
    return f"meta mark set meta mark & {~PASSED & 0xFFFFFFFF:#x}"


def of_pods(layout: Layout, side: Literal["iif", "oif"]) -> list[str]:
    """One match per kind or name pattern of pods' own interfaces; an uplink may be of such a kind, too."""
    kinds = [f'meta {side}kind "{kind}"' for kind in layout.pod_interface_kinds]
    return [*kinds, *[f'{side}name "{name}"' for name in layout.pod_interface_names]]


def from_pods(layout: Layout, side: Literal["iif", "oif"], verdict: str) -> list[str]:
    """One rule per kind or name pattern, one for pods' bridges; never what carries a default route."""
    return [
        *[f"{match} {side}name != @uplinks {verdict}" for match in of_pods(layout, side)],
        f"{side}name @bridges {verdict}",
    ]
