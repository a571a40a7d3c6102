"""Set elements: the values the ruleset looks packets up in, and their keys byte for byte.

Owns the layout of keys (what conntrack's original tuple looks like in each set) and what opens
what. Pure. Never talks to the kernel (``enforcer.kernel``) and never decides.

Invariant: a grant is two elements with the same key, ``grants*`` (timeout; new connections) and its
``live*`` twin (none; established packets). No interval set ever holds a grant.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from enforcer.layout import BLOCK_SIZES, ICMP, ICMPV6, TCP, UDP
from policy.special_purpose import METADATA

PROTOCOLS = {"tcp": TCP, "udp": UDP}
PROTOCOL_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}
EXPANDED_PORTS = 64
"""Ranges up to so many ports become one element a port; wider ones also use aligned blocks."""

COMMENT_BYTES = 252
"""Longest comment: 256 octets of user data less type, length, and the closing NUL."""

RANGE_SETS = frozenset(f"{name}{v}" for name in ("static", "static_all") for v in "46")
"""Concatenated interval sets: an element is ``key`` to ``key_end``, both included, in each field."""
PREFIX_SETS = frozenset(f"{name}{v}" for name in ("cluster", "peers") for v in "46")
"""One-field interval sets: ``key`` to ``key_end``, both included; disjoint."""

_SETTLED_KEYS = (b"\x02", b"\x0a")  # NFPROTO_IPV4, NFPROTO_IPV6


class Element(NamedTuple):
    """One element. ``timeout_ms`` 0: none. ``comment``: printable text for ``nft list set``."""

    set: str
    key: bytes
    key_end: bytes = b""
    timeout_ms: int = 0
    comment: bytes = b""


class Add(NamedTuple):
    """Add an element; one that is there already stays as it is, silently (the kernel's rule)."""

    element: Element


class Remove(NamedTuple):
    """Remove an element; one that is not there fails the whole transaction with ENOENT."""

    set: str
    key: bytes
    key_end: bytes = b""


class Renew(NamedTuple):
    """Give an element its full timeout again, or add it; its comment stays what it was.

    ``expires_ms`` other than 0: so much of it, where the kernel can (``Capabilities.renews``).
    """

    element: Element
    expires_ms: int = 0


Change = Add | Remove | Renew


class InstalledElement(NamedTuple):
    """An element as the kernel holds it. ``expires_ms`` is what remains, None without timeout."""

    key: bytes
    key_end: bytes
    expires_ms: int | None
    comment: bytes


class PortPermit(Protocol):
    """What ``policy.snapshot.Permit`` says about ports: 0 to 65535 is any; ICMP has none."""

    @property
    def protocol(self) -> str: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...


class Box(Protocol):
    """What ``policy.snapshot.StaticBox`` says: packed addresses and ports, first and last."""

    @property
    def first(self) -> bytes: ...
    @property
    def last(self) -> bytes: ...
    @property
    def protocol(self) -> str: ...
    @property
    def first_port(self) -> int: ...
    @property
    def last_port(self) -> int: ...


class KnownPod(NamedTuple):
    """A pod of this node as the kernel sees it: packed address, host interface ("" = not found)."""

    address: bytes
    interface: str
    governed: bool


class Endpoint(NamedTuple):
    """Packed address, ``tcp`` or ``udp``, port: an upstream, or an address of ``dns.listen``."""

    address: bytes
    protocol: str
    port: int


class Opening(NamedTuple):
    """What one grant element opens, read back from its key; ports 0 to 65535 is any."""

    pod: bytes
    destination: bytes
    protocol: str
    first: int
    last: int


def grant_keys(pod: bytes, destination: bytes, permit: PortPermit) -> tuple[tuple[str, bytes, bytes], ...]:
    """Say which elements open ``destination`` for ``pod``: (set, key, key_end ``b""``) each.

    A range of more than 64 ports is cut into single ports, aligned blocks of 64 and of 4096: at
    most 267 elements, and ranges of several rules may overlap freely. ValueError on mixed families.
    """
    if len(pod) != len(destination):
        raise ValueError("pod and destination are of different address families")
    v = "4" if len(pod) == 4 else "6"
    pair = pod + destination
    if permit.protocol == "any" and _all_ports(permit):
        return ((f"grants_all{v}", pair, b""),)
    if permit.protocol == "icmp":
        return ((f"grants_protocol{v}", pair + _protocol(ICMP if v == "4" else ICMPV6), b""),)
    keys: list[tuple[str, bytes, bytes]] = []
    for number in PROTOCOLS.values() if permit.protocol == "any" else (PROTOCOLS[permit.protocol],):
        start = pair + _protocol(number)
        if _all_ports(permit):
            keys.append((f"grants_protocol{v}", start, b""))
        else:
            keys += [
                (f"grants{s}{v}", start + _port(port), b"") for s, port in _pieces(permit.first, permit.last)
            ]
    return tuple(keys)


def live_twin(name: str) -> str:
    """``grants_block4`` → ``live_block4``: the set that decides established packets."""
    return name.replace("grants", "live", 1)


GRANT_SETS = tuple(
    f"grants{s}{v}" for v in "46" for s in ("", *(f"_{b}" for b in BLOCK_SIZES), "_protocol", "_all")
)
LIVE_SETS = tuple(live_twin(name) for name in GRANT_SETS)
_WIDTHS = {
    name: next((width for block, width in BLOCK_SIZES.items() if f"_{block}" in name), 1)
    for name in (*GRANT_SETS, *LIVE_SETS)
}
"""How many ports an element of the set stands for."""


def describe(name: str, key: bytes) -> Opening:
    """Read a key of a grants or live set back; ValueError if the set is no such."""
    width = _WIDTHS.get(name)
    if width is None:
        raise ValueError(f"{name} holds no grants")
    size = 4 if name[-1] == "4" else 16
    pod, destination, rest = key[:size], key[size : 2 * size], key[2 * size :]
    if not rest:
        return Opening(pod, destination, "any", 0, 65535)
    protocol = PROTOCOL_NAMES.get(rest[0], str(rest[0]))
    if len(rest) == 4:
        return Opening(pod, destination, protocol, 0, 65535)
    first = rest[4] << 8 | rest[5]
    return Opening(pod, destination, protocol, first, first + width - 1)


def static_elements(pod: bytes, boxes: Iterable[Box]) -> list[Element]:
    """Elements of the static sets for one pod address; boxes of the other family are left out."""
    elements: list[Element] = []
    v = "4" if len(pod) == 4 else "6"
    for box in boxes:
        if len(box.first) != len(pod):
            continue
        low, high = pod + box.first, pod + box.last
        any_port = (box.first_port, box.last_port) == (0, 65535)
        if box.protocol == "any" and any_port:
            elements.append(Element(f"static_all{v}", low, high))
            continue
        if box.protocol == "icmp":
            number = _protocol(ICMP if v == "4" else ICMPV6)
            elements.append(Element(f"static{v}", low + number + _port(0), high + number + _port(65535)))
            continue
        for protocol in PROTOCOLS.values() if box.protocol == "any" else (PROTOCOLS[box.protocol],):
            number = _protocol(protocol)
            elements.append(
                Element(
                    f"static{v}", low + number + _port(box.first_port), high + number + _port(box.last_port)
                )
            )
    return elements


def node_elements(
    pods: Iterable[KnownPod],
    *,
    cluster_cidrs: Iterable[str] = (),
    peers: Iterable[str] = (),
    never: Iterable[bytes] = (),
    uplinks: Iterable[str] = (),
    bridges: Iterable[str] = (),
    upstreams: Iterable[Endpoint] = (),
    listen: Iterable[Endpoint] = (),
    static: Mapping[bytes, Iterable[Box]] | None = None,
) -> dict[str, dict[bytes, Element]]:
    """Everything that is not a grant: set → key → element, every such set present, also when empty.

    ``peers`` are addresses and CIDRs of other nodes' resolvers. ``never`` are packed addresses that no
    exemption covers, beside the metadata addresses;
    ``static`` maps packed pod addresses to their boxes. ``pods*`` has every pod's address; one without
    interface is in no ``podsrc*``: whatever claims its address is dropped. ``podifs`` are the interfaces of
    one pod each: behind ``bridges`` others may come, their ports are told apart in the bridge table.
    """
    found: dict[str, dict[bytes, Element]] = {name: {} for name in NODE_SETS}

    def put(name: str, key: bytes, key_end: bytes = b"") -> None:
        found[name][key] = Element(name, key, key_end)

    shared = frozenset(bridges)
    for name, key in _pods(pods, shared):
        put(name, key)
    for kind, cidrs in (("cluster", cluster_cidrs), ("peers", peers)):
        for first, last in _merged(cidrs):
            put(f"{kind}{'4' if len(first) == 4 else '6'}", first, last)
    for address in (*never, *(ipaddress.ip_address(text).packed for text in METADATA)):
        put("never4" if len(address) == 4 else "never6", address)
    for name in uplinks:
        put("uplinks", interface_key(name))
    for name in shared:
        put("bridges", interface_key(name))
    for kind, endpoints in (("upstreams", upstreams), ("listen", listen)):
        for end in endpoints:
            key = end.address + _protocol(PROTOCOLS[end.protocol]) + _port(end.port)
            put(f"{kind}{'4' if len(end.address) == 4 else '6'}", key)
    for address, boxes in (static or {}).items():
        for element in static_elements(address, boxes):
            found[element.set][element.key] = element
    return found


def _pods(pods: Iterable[KnownPod], shared: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Say who pods are: sets and their keys."""
    for pod in pods:
        v = "4" if len(pod.address) == 4 else "6"
        yield f"pods{v}", pod.address
        if pod.governed:
            yield f"governed{v}", pod.address
            yield f"self{v}", pod.address + pod.address
        if pod.interface:
            yield f"podsrc{v}", interface_key(pod.interface) + pod.address
            if pod.interface not in shared:
                yield "podifs", interface_key(pod.interface)


NODE_SETS = (
    "uplinks",
    "podifs",
    "bridges",
    *(
        f"{name}{v}"
        for v in "46"
        for name in (
            "podsrc",
            "pods",
            "governed",
            "self",
            "cluster",
            "peers",
            "never",
            "upstreams",
            "listen",
            "static",
            "static_all",
        )
    ),
)
GUARD_SETS = (
    "uplinks",
    "podifs",
    "bridges",
    *(f"{name}{v}" for v in "46" for name in ("podsrc", "governed")),
)
"""The node sets that the guard table repeats."""


def settled() -> tuple[Element, ...]:
    """The switch: while these are absent, what is refused is dropped without a reset."""
    return tuple(Element("settled", key) for key in _SETTLED_KEYS)


def interface_key(name: str) -> bytes:
    """Interface name as a key: 16 octets, NUL-padded (IFNAMSIZ)."""
    return name.encode().ljust(16, b"\0")


def _protocol(number: int) -> bytes:
    return bytes((number, 0, 0, 0))


def _port(port: int) -> bytes:
    return struct.pack(">Hxx", port)


def _all_ports(permit: PortPermit) -> bool:
    return permit.first == 0 and permit.last == 65535


def _pieces(first: int, last: int) -> list[tuple[str, int]]:
    """Cut ports ``first`` to ``last`` into single ports and aligned blocks: (set suffix, start)."""
    pieces: list[tuple[str, int]] = []
    expand = last - first < EXPANDED_PORTS
    while first <= last:
        suffix, width = "", 1
        for block, size in BLOCK_SIZES.items():
            if not expand and first % size == 0 and first + size - 1 <= last:
                suffix, width = f"_{block}", size
        pieces.append((suffix, first))
        first += width
    return pieces


def _merged(cidrs: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """Disjoint (first, last) packed ranges that cover the CIDRs; host bits are ignored.

    Networks side by side are joined: a one-field interval set cannot tell where the first ends.
    """
    ends = sorted(
        (net.version, int(net.network_address), int(net.broadcast_address))
        for net in (ipaddress.ip_network(text, strict=False) for text in cidrs)
    )
    merged: list[tuple[int, int, int]] = []
    for version, first, last in ends:
        if merged and merged[-1][0] == version and first <= merged[-1][2] + 1:
            merged[-1] = (version, merged[-1][1], max(last, merged[-1][2]))
        else:
            merged.append((version, first, last))
    size = {4: 4, 6: 16}
    return [(first.to_bytes(size[v], "big"), last.to_bytes(size[v], "big")) for v, first, last in merged]
