"""The way of DNS: from a pod to the resolver's sockets, back, and where the resolver may speak.

Pure: lines of nft text. Owns port 53 of governed and unknown pods, and the fence around the
resolver's uid. Invariant: an answer leaves towards a pod only, and what is captured but finds no
socket is dropped, never forwarded.
"""

from __future__ import annotations

import ipaddress

from enforcer.layout import (
    DNS_MARK,
    DNS_MARK_MASK,
    FAMILIES,
    PORTED,
    TCP,
    UDP,
    Layout,
    chain,
    from_pods,
    log,
)

EARLY_PORT = 10053
"""Where port 53 goes before others look, when captured by rewriting (``Layout.capture_by``)."""


def questions() -> list[str]:
    """Rules that send what aims at port 53 to the chain ``capture``."""
    return ["udp dport 53 goto capture", "tcp dport 53 goto capture"]


def capture_chains(layout: Layout) -> list[str]:
    """Chain ``capture`` in raw prerouting; by rewriting, also the translation there and back."""
    if not layout.capture:
        return []
    by_rule = layout.capture_by == "rule"
    mark = f"meta mark set meta mark & {~DNS_MARK_MASK & 0xFFFFFFFF:#x} | {DNS_MARK:#x} notrack "
    way, port = (mark, layout.dns_port) if by_rule else ("", EARLY_PORT)
    # RFC 768: checksum 0 is "none"; a rewrite that updated it would invent one.
    lines = chain(
        "capture",
        [
            f"udp checksum 0 {way}th dport set {port} accept",
            f"meta l4proto {UDP} {way}udp dport set {port} accept",
            f"meta l4proto {TCP} {way}tcp dport set {port} accept",
        ],
    )
    if by_rule:
        return lines
    to = {address.version: f"{address}" for address in map(ipaddress.ip_address, layout.rewrite_to)}
    targets = {
        "ipv4": f"dnat ip to {to[4]}:{layout.dns_port}" if 4 in to else f"redirect to :{layout.dns_port}",
        "ipv6": f"dnat ip6 to [{to[6]}]:{layout.dns_port}" if 6 in to else f"redirect to :{layout.dns_port}",
    }
    there = [
        rule
        for family, target in targets.items()
        for rule in from_pods(layout, "iif", f"meta nfproto {family} {PORTED} th dport {EARLY_PORT} {target}")
    ]
    back = [
        rule
        for protocol in ("udp", "tcp")
        for rule in from_pods(
            layout,
            "oif",
            f"ct direction reply ct status dnat {protocol} sport {EARLY_PORT} {protocol} sport set 53",
        )
    ]
    lines += chain("translate", ["type nat hook prerouting priority dstnat - 10; policy accept;", *there])
    return lines + chain(
        "translate_back", ["type filter hook postrouting priority srcnat + 10; policy accept;", *back]
    )


def captured(layout: Layout) -> list[str]:
    """Rules for input: what was captured passes, nothing else reaches the sockets."""
    if not layout.capture:
        return []
    foreign = f"{PORTED} th dport {layout.dns_port} drop"
    ours = foreign.removesuffix(" drop")
    proof = f"meta mark & {DNS_MARK_MASK:#x} == {DNS_MARK:#x}"
    if layout.capture_by == "rewrite":
        return [f"{ours} ct status dnat ct original proto-dst {EARLY_PORT} goto pass", foreign]
    return [f"{proof} {ours} goto pass", foreign]


def astray(layout: Layout) -> list[str]:
    """Rules for forward: what was captured and found no socket ends here."""
    if not layout.capture:
        return []
    if layout.capture_by == "rewrite":
        return from_pods(layout, "iif", f"{PORTED} th dport {EARLY_PORT} drop")
    return [f"meta mark & {DNS_MARK_MASK:#x} == {DNS_MARK:#x} {PORTED} th dport {layout.dns_port} drop"]


def output_chains(layout: Layout) -> list[str]:
    """Output: answers take port 53 again and go to pods only; the resolver's uid is fenced in."""
    port = layout.dns_port
    lines: list[str] = []
    if layout.capture:
        lines += chain(
            "answers",
            [
                "type filter hook output priority raw - 10; policy accept;",
                f"udp sport {port} goto from_resolver",
                f"tcp sport {port} goto from_resolver",
            ],
        )
        to_pods = from_pods(layout, "oif", "goto to_pod")
        again = [f"meta l4proto {UDP} udp sport set 53 notrack accept", "tcp sport set 53 notrack accept"]
        lines += chain("to_pod", again if layout.capture_by == "rule" else ["accept"])
        lines += chain("from_resolver", [*to_pods, 'counter name "fence"', "drop"])
    answers = from_pods(layout, "oif", f"{PORTED} th sport 53 ct state untracked accept")
    upstreams = [
        rule
        for ip, v in FAMILIES
        for rule in (
            f"{ip} daddr . meta l4proto . th dport @upstreams{v} accept",
            f"{PORTED} ct original {ip} daddr . ct original protocol"
            f" . ct original proto-dst @upstreams{v} accept",
        )
    ]
    refuse = [
        log("fence", layout, "10/second"),
        'counter name "fence"',
        f"meta l4proto {TCP} reject with tcp reset",
    ]
    lines += chain(
        "resolver",
        [
            *upstreams,
            *(answers if layout.capture else []),
            "ct direction reply ct state established accept",
            *refuse,
            "reject with icmpx type admin-prohibited",
        ],
    )
    fence = f"meta skuid {layout.resolver_uid} goto resolver"
    return lines + chain("output", ["type filter hook output priority filter - 5; policy accept;", fence])
