"""Pods behind a bridge: the text of ``bridge nameward``, and which bridges are pods' bridges.

Pure. Owns what passes between the ports of a bridge. The inet table sees only the bridge, so two
things are decided here: a port sends with its own pod's addresses alone (hardware, IPv4, IPv6, ARP
sender, the target of a neighbour advertisement), and every IP packet from or to a governed pod is
led to the bridge itself (its hardware address is put on the frame), so that the node routes it
through the inet table, also between two ports. Invariant: no IP packet of a governed pod crosses
the bridge; what cannot be led home is dropped.

What the sets hold changes when a pod comes or goes, as one transaction; the rest with the layout alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from enforcer.bridge_sets import TARGET, Contents, Entry, declarations
from enforcer.layout import BRIDGE_TABLE, FAMILIES, MULTICAST_MEMBERSHIP, Layout, chain, log


class Port(NamedTuple):
    """A bridge's port: its name and rtnetlink kind, and what its peer says in its own namespace.

    ``addresses`` are packed; both are empty where the peer is no interface of another namespace.
    """

    name: str
    kind: str
    addresses: frozenset[bytes] = frozenset()
    hardware: bytes = b""


class Bridge(NamedTuple):
    """A bridge of this node: hardware address, its own addresses (packed), its ports."""

    name: str
    hardware: bytes
    addresses: frozenset[bytes]
    ports: tuple[Port, ...]


class Bridged(NamedTuple):
    """The pods' bridges, and the ports of bridges that are uplinks (``aside``: none of our business)."""

    bridges: tuple[Bridge, ...] = ()
    aside: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pods' bridges."""
        return tuple(bridge.name for bridge in self.bridges)


def pods_bridges(layout: Layout, found: Iterable[Bridge], uplinks: Iterable[str]) -> Bridged:
    """Tell the pods' bridges: named by ``podInterfaces``, or with a port that is; never an uplink."""
    bridges, aside = [], []
    for bridge in sorted(found):
        if bridge.name in uplinks:
            aside += [port.name for port in bridge.ports]
        elif _is_named(layout, bridge) or any(is_pods(layout, port.name, port.kind) for port in bridge.ports):
            bridges.append(bridge)
    return Bridged(tuple(bridges), tuple(sorted(aside)))


def is_pods(layout: Layout, name: str, kind: str) -> bool:
    """Say whether ``podInterfaces`` takes an interface of this name and kind for a pod's."""
    return kind in layout.pod_interface_kinds or any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in layout.pod_interface_names
    )


def _is_named(layout: Layout, bridge: Bridge) -> bool:
    return is_pods(layout, bridge.name, "bridge")


def located(bridged: Bridged, interfaces: Mapping[bytes, str]) -> dict[bytes, str]:
    """Say behind which port each address is (``interfaces``: the bridge that leads to it).

    An address that two ports have is behind none.
    """
    found: dict[bytes, str | None] = {}
    for bridge in bridged.bridges:
        for port in filter(lambda port: port.hardware, bridge.ports):
            for address in port.addresses:
                if interfaces.get(address) == bridge.name:
                    found[address] = None if address in found else port.name
    return {address: port for address, port in found.items() if port}


def contents(
    layout: Layout,
    bridged: Bridged,
    pods: Mapping[bytes, bool],
    ports: Mapping[bytes, str],
    ready: Iterable[str] | None = None,
) -> Contents:
    """Return what the table's sets hold.

    ``pods``: every address that pods of this node claim, and whether it is governed; ``ports``: as
    ``located``. ``ready``: the bridges that the inet table knows already (None: all), for to others
    nothing is led.
    """
    homes = bridged.names if ready is None else set(ready)
    behind = set(ports.values())
    own = {address for bridge in bridged.bridges for address in bridge.addresses}
    every = [(bridge, port) for bridge in bridged.bridges for port in bridge.ports]
    found: dict[str, set[Entry]] = {
        "aside": {(name,) for name in bridged.aside},
        "named": {(port.name,) for bridge, port in every if _is_named(layout, bridge)},
        "ports": {(name,) for name in behind},
        # a pod reaches others by its own hardware address; the node's view of it is the port's peer
        "hardware": {(port.name, port.hardware) for _, port in every if port.name in behind},
        "home": {(port.name, bridge.hardware) for bridge, port in every if bridge.name in homes},
        "target6": {(port, address) for address, port in ports.items() if len(address) == 16},
        "taken6": {(address,) for address in {*own, *pods} if len(address) == 16},
    }
    for size, v in ((4, 4), (16, 6)):
        found[f"source{v}"] = {(port, address) for address, port in ports.items() if len(address) == size}
        found[f"pods{v}"] = {(address,) for address in pods if len(address) == size}
        found[f"governed{v}"] = {(address,) for address, is_ in pods.items() if is_ and len(address) == size}
        found[f"ours{v}"] = {(address,) for address in own if len(address) == size}
    return {name: frozenset(entries) for name, entries in found.items()}


def bridge_table(layout: Layout, held: Contents) -> str:
    """Return text that replaces ``bridge nameward``, with what its sets hold."""
    lines = [
        *declarations(held),
        "counter forged { }",
        "counter astray { }",
        *chain("forged", ['counter name "forged"', log("forged", layout, "10/second"), "drop"]),
        *chain("astray", ['counter name "astray"', "drop"]),
        *chain("home", ["ether daddr set iifname map @home meta pkttype set host accept", "drop"]),
        *_arrival(),
        *_arp(),
        *_ipv4(layout),
        *_ipv6(layout),
        *_base(layout),
    ]
    body = "\n".join("  " + line for line in lines)
    name = f"table bridge {BRIDGE_TABLE}"
    return f"{name}\ndelete {name}\n{name} {{\n{body}\n}}\n"


_QUESTIONS = "nd-neighbor-solicit, nd-router-solicit"
_NEIGHBOURS = f"icmpv6 type {{ {_QUESTIONS}, {MULTICAST_MEMBERSHIP} }}"


def _arrival() -> list[str]:
    """What is sent to a governed pod meets the inet table too: a flow is seen in both directions."""
    return chain(
        "arrive",
        [
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept",
            *[f"{ip} daddr @governed{v} goto home" for ip, v in FAMILIES],
            "accept",
        ],
    )


def _arp() -> list[str]:
    return chain(
        "port_arp",
        [
            "iifname . arp saddr ip @source4 iifname . arp saddr ether @hardware accept",
            "arp saddr ip 0.0.0.0 accept",  # RFC 5227: is this address free?
            "iifname @ports goto forged",
            "arp saddr ip @pods4 goto forged",
            "arp saddr ip @ours4 goto forged",
            "accept",
        ],
    )


def _ipv4(layout: Layout) -> list[str]:
    known = ["ip saddr @governed4 goto home", "goto arrive"]
    return chain("known4", known) + chain(
        "port4",
        [
            "iifname . ip saddr @source4 goto known4",
            "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
            "iifname @ports goto forged",
            "ip saddr @pods4 goto forged",
            "ip saddr @ours4 goto forged",
            _of_unknown(layout),
        ],
    )


def _ipv6(layout: Layout) -> list[str]:
    known = ["ip6 saddr @governed6 goto home", "goto arrive"]
    advert = [
        f"iifname . {TARGET} @target6 accept",
        f"{TARGET} @taken6 goto forged",
        "@th,64,16 & 0xffc0 == 0xfe80 accept",
        "iifname @ports goto forged",
        "accept",
    ]
    return [
        *chain("known6", known),
        *chain("advert", advert),
        *chain(
            "port6",
            [
                "icmpv6 type { nd-router-advert, nd-redirect } goto forged",
                f"ip6 saddr {{ ::, fe80::/10 }} ip6 saddr != @ours6 {_NEIGHBOURS} accept",
                f"iifname . ip6 saddr @source6 {_NEIGHBOURS} accept",
                "ip6 saddr fe80::/10 ip6 saddr != @ours6 icmpv6 type nd-neighbor-advert goto advert",
                "iifname . ip6 saddr @source6 icmpv6 type nd-neighbor-advert goto advert",
                "iifname . ip6 saddr @source6 goto known6",
                "ip6 saddr fe80::/10 udp sport 546 udp dport 547 accept",
                "iifname @ports goto forged",
                "ip6 saddr @pods6 goto forged",
                "ip6 saddr @ours6 goto forged",
                f"{_NEIGHBOURS} accept",
                _of_unknown(layout),
            ],
        ),
    ]


def _of_unknown(layout: Layout) -> str:
    """An unknown pod's packets go to the inet table, which hears its questions and drops the rest."""
    return "goto arrive" if layout.unknown_pods == "allow" else "goto home"


def _base(layout: Layout) -> list[str]:
    other = "iifname @ports drop" if layout.unknown_pods == "allow" else "drop"
    port = [
        "iifname @ports iifname . ether saddr != @hardware goto forged",
        "meta protocol arp goto port_arp",
        "meta protocol ip goto port4",
        "meta protocol ip6 goto port6",
        other,  # tagged twice, LLC, what no pod needs
    ]
    taken = [f"{ip} saddr @pods{v} goto forged" for ip, v in FAMILIES]
    crossing = [f"{ip} {end} @governed{v} goto astray" for ip, v in FAMILIES for end in ("saddr", "daddr")]
    strangers = [
        *[f"iifname . {ip} saddr @source{v} accept" for ip, v in FAMILIES],
        "ip saddr 0.0.0.0 udp dport 67 accept",
        "ip6 saddr fe80::/10 udp dport 547 accept",
        *_from_ports(layout, "meta protocol { ip, ip6 } goto astray"),
    ]
    return [
        *chain("port", port),
        *chain(
            "prerouting",
            [
                "type filter hook prerouting priority -310; policy accept;",  # before br_netfilter's
                "iifname @aside accept",
                *_from_ports(layout, "goto port"),
                *taken,
                "arp saddr ip @pods4 goto forged",
                "goto arrive",
            ],
        ),
        *chain(
            "forward",
            [
                "type filter hook forward priority -310; policy accept;",
                "iifname @aside accept",
                f"{_NEIGHBOURS} accept",
                "icmpv6 type nd-neighbor-advert accept",
                *crossing,
                *(strangers if layout.unknown_pods == "deny" else []),
            ],
        ),
    ]


def _from_ports(layout: Layout, verdict: str) -> list[str]:
    """One rule per kind or name pattern, one for the ports of bridges that ``podInterfaces`` names."""
    kinds = [f'meta iifkind "{kind}" {verdict}' for kind in layout.pod_interface_kinds if kind != "bridge"]
    names = [f'iifname "{name}" {verdict}' for name in layout.pod_interface_names]
    return [*kinds, *names, f"iifname @named {verdict}"]
