"""The structure of our nftables tables, as text: chains, rules and empty sets.

Owns what a packet meets and in which order. Pure: text in, text out; never lists pods, grants or
addresses (those are elements, ``enforcer.elements``), so its size does not depend on them.
Invariant: a packet of a governed pod that no element explains is dropped.

The order for a packet that a governed pod sends: source check and DNS capture in raw prerouting;
flows that one exact element keeps live (``opened``: most packets end here); the witness; ports 53, 853
and 5353 (but, where 53 is not captured, other nodes' resolvers); cluster exemption; live flows; grants;
static permits; refusal. What passes is marked with ``PASSED``, which the guard table asks for one hook
later and which our own next chain clears.
"""

from __future__ import annotations

from enforcer.capture import astray, capture_chains, captured, output_chains, questions
from enforcer.flow_rules import LOOKUPS, from_peers, lookups, opened, replies, static, to_node, to_peers
from enforcer.layout import (
    BLOCK_SIZES,
    FAMILIES,
    GUARD_TABLE,
    ICMP,
    ICMPV6,
    MULTICAST_MEMBERSHIP,
    NEIGHBOURS,
    PASSED,
    PORTED,
    SCTP,
    TABLE,
    TCP,
    TYPES,
    Layout,
    chain,
    clear_mark,
    from_pods,
    log,
    marked,
    of_pods,
)
from enforcer.witness import arriving, asking_chain, leaving, seen_sets, to_witness, witness_chain

__all__ = [
    "BLOCK_SIZES",
    "COUNTERS",
    "GUARD_TABLE",
    "PASSED",
    "TABLE",
    "Layout",
    "guard",
    "remove",
    "structure",
]

_ERROR_MARGIN = 65536


def structure(layout: Layout) -> str:
    """Text that replaces ``inet nameward`` in one transaction; all its sets are empty afterwards.

    The hooks that let packets through stand first: when a table goes, the kernel takes its hooks away
    one by one in this order, and the others keep their rules until it is their turn. A forward hook
    that outlived the source check would mark what that check had dropped.
    """
    return _replace(
        TABLE,
        [
            *_sets(layout),
            *_base_chains(layout),
            *_prerouting(layout),
            *capture_chains(layout),
            *_filter(layout),
            *output_chains(layout),
            *asking_chain(),
        ],
    )


def guard(layout: Layout) -> str:
    """Text of the owned table that drops what the policy table has not marked.

    It survives ``nft flush ruleset`` by others and goes with the socket that made it, so run it in
    a context that stays open. Its sets (``elements.GUARD_SETS``) repeat those of the policy table:
    another table's sets cannot be looked up.
    """
    check = [
        f"{marked()} accept",
        *[f"{ip} saddr @governed{v} goto leak" for ip, v in FAMILIES],
        *[f'{ip} daddr @governed{v} counter name "guard" drop' for ip, v in FAMILIES],  # not its doing
        *from_pods(layout, "iif", "goto unmarked"),
    ]
    neighbours = f"icmpv6 type {{ {NEIGHBOURS} }} accept"
    ungoverned = [f"iifname . {ip} saddr @podsrc{v} accept" for ip, v in FAMILIES]  # what is left of them
    unknown = ["goto leak"] if layout.unknown_pods == "deny" else ["iifname @podifs goto leak"]
    lines = [
        "flags owner",
        *_pod_sets(),
        "counter guard { }",
        *chain("prerouting", ["type filter hook prerouting priority raw - 11; policy accept;", clear_mark()]),
        *chain("leak", [log("guard", layout, "10/second"), 'counter name "guard"', "drop"]),
        *chain("unmarked", [*ungoverned, *unknown]),
        *chain("forward", ["type filter hook forward priority filter - 4; policy accept;", *check]),
        *chain("input", ["type filter hook input priority filter - 4; policy accept;", neighbours, *check]),
    ]
    return _replace(GUARD_TABLE, lines, " { flags owner; }")


def remove() -> str:
    """Text that takes the policy table away (uninstall); no error when it is not there."""
    return f"table inet {TABLE}\ndelete table inet {TABLE}\n"


_DNS_PORTS = "{ 53, 853, 5353 }"


def _replace(table: str, lines: list[str], first: str = "") -> str:
    """Add, delete, define: the deletion must find a table; ``first`` says it as an owned one must be said."""
    body = "\n".join("  " + line for line in lines)
    return f"table inet {table}{first}\ndelete table inet {table}\ntable inet {table} {{\n{body}\n}}\n"


def _pod_sets() -> list[str]:
    """Who is who: both tables ask."""
    lines = [f"set {name} {{ type ifname; }}" for name in ("uplinks", "podifs", "bridges")]
    for v, ip in TYPES:
        lines.append(f"set governed{v} {{ type {ip}; }}")
        lines.append(f"set podsrc{v} {{ type ifname . {ip}; }}")
    return lines


def _sets(layout: Layout) -> list[str]:
    size = layout.grants + _ERROR_MARGIN  # expired elements count until they are collected
    lines = [*_pod_sets(), "set settled { type nf_proto; }"]
    lines.append("set talkative { type ifname; size 4096; flags dynamic,timeout; timeout 1m; }")
    for v, ip in TYPES:
        pair = f"{ip} . {ip}"
        lines += [
            f"set pods{v} {{ type {ip}; }}",
            f"set self{v} {{ type {pair}; }}",
            f"set never{v} {{ type {ip}; }}",
            f"set cluster{v} {{ type {ip}; flags interval; }}",
            f"set peers{v} {{ type {ip}; flags interval; }}",
            f"set upstreams{v} {{ type {ip} . inet_proto . inet_service; }}",
            f"set listen{v} {{ type {ip} . inet_proto . inet_service; }}",
            f"set talkers{v} {{ type {ip}; size 65536; flags dynamic,timeout; timeout 1m; }}",
            f"set static{v} {{ type {pair} . inet_proto . inet_service; flags interval; }}",
            f"set static_all{v} {{ type {pair}; flags interval; }}",
        ]
        for suffix in LOOKUPS:
            key = {"_all": pair, "_protocol": f"{pair} . inet_proto"}.get(
                suffix, f"{pair} . inet_proto . inet_service"
            )
            lines.append(f"set grants{suffix}{v} {{ type {key}; size {size}; flags timeout; }}")
            # Without a size: one would have the kernel allot it whole (160 MB, 0.6 s); our count bounds it.
            lines.append(f"set live{suffix}{v} {{ type {key}; }}")
    return [*lines, *seen_sets(), *[f"counter {name} {{ }}" for name in COUNTERS]]


COUNTERS = ("forged", "unknown", "port", "denied", "answer", "fence", "passed")
"""Named counters of the policy table: packets dropped for each reason, and packets let through."""


def _prerouting(layout: Layout) -> list[str]:
    known = {v: f"iifname . {ip} saddr @podsrc{v} goto known{v}" for ip, v in FAMILIES}
    pods = [f"{ip} saddr @pods{v} goto forged" for ip, v in FAMILIES]
    capture = questions() if layout.capture else []
    lines = chain(
        "prerouting",
        [
            "type filter hook prerouting priority raw - 10; policy accept;",
            *[f"{match} {rule}" for match in of_pods(layout, "iif") for rule in known.values()],
            "iifname @uplinks goto outside",
            'iifname "lo" accept',
            *from_pods(layout, "iif", "goto pod"),
            "goto outside",
        ],
    )
    lines += chain("outside", pods)
    for ip, v in FAMILIES:
        question = f"th dport 53 {PORTED} {ip} saddr @governed{v} goto capture"
        routers = [_ROUTERS] if v == 6 else []
        lines += chain(f"known{v}", [*routers, *([question] if capture else ["accept"])])
    neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"  # or no question could come
    lines += chain(
        "pod",
        [
            _ROUTERS,
            *known.values(),
            f"ip6 saddr {{ ::, fe80::/10 }} icmpv6 type {{ {NEIGHBOURS}, {MULTICAST_MEMBERSHIP} }} accept",
            "ip6 saddr fe80::/10 udp sport 546 udp dport 547 accept",
            "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
            "iifname @podifs goto forged",
            *pods,
            *(["accept"] if layout.unknown_pods == "allow" else [neighbours, *capture, "goto unknown"]),
        ],
    )
    talk = "update @talkative { iifname limit rate 10/second burst 20 packets }"
    lines += chain(
        "forged", ['counter name "forged"', f"{talk} {log('forged', layout, '200/second')}", "drop"]
    )
    lines += chain(
        "unknown", ['counter name "unknown"', f"{talk} {log('unknown', layout, '200/second')}", "drop"]
    )
    return lines


_ROUTERS = "icmpv6 type { nd-router-advert, nd-redirect } goto forged"


def _filter(layout: Layout) -> list[str]:
    lines: list[str] = []
    exempt = layout.cluster_traffic == "exempt"
    for ip, v in FAMILIES:
        cluster = f"@cluster{v} ct original {ip} daddr != @never{v}"
        ports = f"{PORTED} ct original proto-dst"
        lines += chain(
            f"up{v}",
            [
                to_witness(ip, v),
                *replies(ip, v),
                *to_peers(layout, ip, v),
                f"{ports} {_DNS_PORTS} goto port",
                f"ct status dnat {PORTED} th dport {_DNS_PORTS} goto port",
                *(
                    [
                        f"{protocols} ct original {ip} daddr {cluster} {ip} daddr != @never{v} return"
                        for protocols in _EXEMPT
                    ]
                    if exempt
                    else []
                ),
                *lookups(ip, v, "live", "ct status confirmed"),
                *leaving(ip, v),
                *lookups(ip, v, "grants", "ct state new"),
                *static(ip, v),
                f"goto denied{v}",
            ],
        )
        lines += chain(
            f"down{v}",
            [
                f"ct direction original ct original {ip} saddr @cluster{v} return",
                "ct direction original ct status dnat ct state new,established,related return",
                *from_peers(layout, ip, v),
                f"{ports} {_DNS_PORTS} goto answer",
                *([f"ct direction reply ct original {ip} daddr {cluster} return"] if exempt else []),
                *lookups(ip, v, "live", "ct direction reply"),
                *static(ip, v, "ct direction reply "),
                arriving(ip, v),
                "goto answer",
            ],
        )
        lines += witness_chain(ip, v)
        talk = f"update @talkers{v} {{ {ip} saddr limit rate 20/second burst 100 packets }}"
        lines += chain(
            f"denied{v}",
            ['counter name "denied"', f"{talk} {log('denied', layout, '500/second')}", "goto refuse"],
        )
    return [*lines, *_refusals(layout)]


def _refusals(layout: Layout) -> list[str]:
    reset = f"meta l4proto {TCP} reject with tcp reset"
    lines = chain("port", ['counter name "port"', log("port", layout, "100/second"), "goto refuse"])
    lines += chain("refuse", [*_UNSETTLED, reset, "reject with icmpx type admin-prohibited"])
    return lines + chain("answer", ['counter name "answer"', *_UNSETTLED, reset, "drop"])


_EXEMPT = (f"meta l4proto {{ {TCP}, {ICMP}, {ICMPV6}, {SCTP} }}", "udp dport != { 4789, 6081, 8472 }")
"""Nothing that a node of the cluster would unwrap (IPIP, GRE, VXLAN, Geneve): inside is any source."""

_UNSETTLED = ["ct state invalid drop", "meta nfproto != @settled drop"]
"""A reset for a packet out of window would end the flow it pretends to be of; and while elements are
refilled, flows must live on."""


_BRIDGED = [
    f"ip6 hoplimit 255 icmpv6 type {{ {NEIGHBOURS} }} iifname @bridges goto pass",
    f"ip6 daddr ff02::/16 icmpv6 type {{ {MULTICAST_MEMBERSHIP} }} iifname @bridges goto pass",
]
"""Neighbour discovery between a bridge's ports, where br_netfilter shows it here: hop limit 255 and
link-local groups are never routed (RFC 4861 6.1, RFC 4291 2.5.6)."""


def _base_chains(layout: Layout) -> list[str]:
    up = [f"{ip} saddr @governed{v} jump up{v}" for ip, v in FAMILIES]
    down = [f"{ip} daddr @governed{v} jump down{v}" for ip, v in FAMILIES]
    passed = [f"meta mark set meta mark | {PASSED:#x}", 'counter name "passed"', "accept"]
    neighbours = f"icmpv6 type {{ {NEIGHBOURS}, {MULTICAST_MEMBERSHIP} }} goto pass"
    listen = [f"{ip} daddr . meta l4proto . th dport @listen{v} goto pass" for ip, v in FAMILIES]
    # A new table's sets are empty: who is governed is not known yet, so nothing is marked as let through.
    # Asked first: a packet that sees ``settled`` sees every element that was committed before it.
    unsettled = "meta nfproto != @settled goto unsettled"
    lines = chain("pass", passed)
    lines += chain("unsettled", [*_BRIDGED, *from_pods(layout, "iif", "drop"), "accept"])
    for ip, v in FAMILIES:  # a second governed pod at the other end has a say of its own
        there = [f"original {ip} daddr", f"reply {ip} saddr"]
        lines += chain(f"opened{v}", [f"ct direction {end} != @governed{v} goto pass" for end in there])
    lines += chain(
        "forward",
        [
            "type filter hook forward priority filter - 5; policy accept;",
            unsettled,
            *[opened(ip, v) for ip, v in FAMILIES],
            *astray(layout),
            *_BRIDGED,
            *up,
            *down,
            "goto pass",
        ],
    )
    lines += chain(
        "input",
        [
            "type filter hook input priority filter - 5; policy accept;",
            *captured(layout),
            neighbours,
            *listen,
            unsettled,
            *to_node(),
            *up,
            "goto pass",
        ],
    )
    for hook in ("forward", "input"):
        lines += chain(
            f"{hook}_clear", [f"type filter hook {hook} priority filter - 3; policy accept;", clear_mark()]
        )
    return lines
