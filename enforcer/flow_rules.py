"""Rules that compare a packet's flow with what is permitted: grants, live flows, static permits, answers.

Owns which side of a flow is compared. A packet of a flow is the flow's own, but an ICMP error belongs to
whatever flow its sender quotes, so who sends is always the packet's own source, never what it quotes.
"""

from __future__ import annotations

from typing import Literal

from enforcer.layout import BLOCK_SIZES, FAMILIES, ICMP, ICMPV6, PORTED, TCP, UDP, Layout

LOOKUPS = ("", "_block", "_span", "_protocol", "_all")


def opened(ip: str, v: int) -> str:
    """The short way of a flow that an exact element keeps live: what every further packet of it meets.

    It passes nothing that the whole way would not: what comes before ``live`` there refuses a flow with
    its first packet, and only a flow whose first packet passed is confirmed. Revocation takes the element.
    """
    return f"meta nfproto ipv{v} ct status confirmed {PORTED} {_key(ip, '')} @live{v} jump opened{v}"


def lookups(ip: str, v: int, kind: Literal["grants", "live"], state: str) -> list[str]:
    """Return to the caller if an element opens this flow. ICMP comes here as errors of a flow, too;
    its own flows are in ``_protocol`` and ``_all`` only, where no port is compared."""
    by_sender = state != "ct direction reply"
    rules = []
    for suffix in LOOKUPS:
        when = state if suffix in {"_protocol", "_all"} else f"{state} {_ported(v)}"
        rules.append(f"{when} {_key(ip, suffix, by_sender=by_sender)} @{kind}{suffix}{v} return")
    return rules


def static(ip: str, v: int, state: str = "") -> list[str]:
    """Interval sets, looked up last: nothing of them is ever written by a grant."""
    ported = f"{state}{_ported(v)}"
    by_sender = not state
    return [
        f"{ported} {_key(ip, '', by_sender=by_sender)} @static{v} return",
        f"{state}{_key(ip, '_all', by_sender=by_sender)} @static_all{v} return",
    ]


def replies(ip: str, v: int) -> list[str]:
    """What a pod sends back to who asked it: those that ``down`` lets in, whatever conntrack still holds.

    An entry may be older than the pod's admission, and an ICMP error quotes whatever flow its sender likes:
    only the end that answers may complain of it.
    """
    own = f"ct state related {ip} saddr . ct reply {ip} saddr @self{v}"
    return [
        f"ct direction reply {state} {asker} return"
        for asker in (f"ct original {ip} saddr @cluster{v}", "ct status dnat")
        for state in ("ct state established", own)
    ] + [f"ct direction reply goto denied{v}"]


def to_node() -> list[str]:
    """What pods send back to sockets of the node's own: the node asked."""
    own = [f"related {ip} saddr . ct reply {ip} saddr @self{v}" for ip, v in FAMILIES]
    return [f"ct direction reply ct state {state} goto pass" for state in ("established", *own)]


def to_peers(layout: Layout, ip: str, v: int) -> list[str]:
    """Where port 53 is not captured: other nodes' resolvers, both the address aimed at and what is behind."""
    if layout.capture:
        return []
    aimed = f"ct original proto-dst 53 ct original {ip} daddr @peers{v}"
    return [f"{PORTED} {aimed} th dport 53 {ip} daddr @peers{v} return"]


def from_peers(layout: Layout, ip: str, v: int) -> list[str]:
    """Their answers, and the errors of these flows."""
    if layout.capture:
        return []
    packets = f"meta l4proto {{ {TCP}, {UDP}, {ICMP if v == 4 else ICMPV6} }}"
    flows = f"{packets} ct original protocol {{ {TCP}, {UDP} }}"
    return [f"ct direction reply {flows} ct original proto-dst 53 ct original {ip} daddr @peers{v} return"]


def _key(ip: str, suffix: str, *, by_sender: bool = False) -> str:
    """The original tuple as conntrack keeps it, in the shape of the set with this suffix.

    ``by_sender``: with the packet's own source, for an ICMP error is of the flow that it quotes.
    """
    addresses = f"{'' if by_sender else 'ct original '}{ip} saddr . ct original {ip} daddr"
    if suffix == "_all":
        return addresses
    if suffix == "_protocol":
        return f"{addresses} . ct original protocol"
    mask = f" & {0x10000 - BLOCK_SIZES[suffix[1:]]:#x}" if suffix else ""
    return f"{addresses} . ct original protocol . ct original proto-dst{mask}"


def _ported(v: int) -> str:
    """Packets of flows that have ports: their errors, too."""
    return f"meta l4proto {{ {TCP}, {UDP}, {ICMP if v == 4 else ICMPV6} }}"
