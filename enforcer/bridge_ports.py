"""What is behind the ports of this node's bridges, as the kernel knows it.

Owns rtnetlink's view across network namespaces: a veth port says in which namespace its peer is and
which interface it is there; that interface's addresses can be read from here with CAP_NET_ADMIN
alone. So a port is known before its pod has sent anything, and nothing a pod sends (ARP, neighbour
advertisements) is believed. Never enters a namespace. Invariant: what cannot be read is not guessed.
"""

from __future__ import annotations

import struct

from enforcer.bridge import Bridge, Port
from enforcer.netlink import NetlinkRefused, NetlinkSocket, attribute, attributes

_GETLINK, _GETADDR = 18, 22
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 5, 10, 18
_IFLA_LINK_NETNSID, _IFLA_TARGET_NETNSID = 37, 46
_IFA_ADDRESS, _IFA_LOCAL, _IFA_TARGET_NETNSID = 1, 2, 10
_NAMEABLE = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('"*\\')


class _Link:
    """One interface of this namespace; ``peer`` is (index, namespace id) where it has one elsewhere."""

    def __init__(self, index: int, fields: dict[int, bytes]) -> None:
        self.index = index
        self.name = fields.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("ascii", "replace")
        info = dict(attributes(fields.get(_IFLA_LINKINFO, b"")))
        self.kind = info.get(1, b"").rstrip(b"\0").decode("ascii", "replace")
        self.hardware = fields.get(_IFLA_ADDRESS, b"")
        self.master = _number(fields.get(_IFLA_MASTER))
        peer, namespace = fields.get(_IFLA_LINK), fields.get(_IFLA_LINK_NETNSID)
        self.peer = (_number(peer), namespace) if peer and namespace is not None else None


def bridges(rtnetlink: NetlinkSocket) -> list[Bridge]:
    """Return the bridges of this namespace with their ports; ``rtnetlink`` checks strictly.

    Ports with names that nft text cannot hold are left out.
    """
    links = [_link(answer.payload) for answer in rtnetlink.dump(_GETLINK, _link_header(0))]
    found = []
    for bridge in links:
        if bridge.kind != "bridge" or not _NAMEABLE.issuperset(bridge.name):
            continue
        ports = tuple(
            _port(rtnetlink, link)
            for link in links
            if link.master == bridge.index and _NAMEABLE.issuperset(link.name)
        )
        own = _addresses(rtnetlink, bridge.index, b"")
        found.append(Bridge(bridge.name, bridge.hardware, own, ports))
    return found


def _port(rtnetlink: NetlinkSocket, link: _Link) -> Port:
    if link.peer is None:
        return Port(link.name, link.kind)
    index, namespace = link.peer
    try:
        there = rtnetlink.get(_GETLINK, _link_header(index) + attribute(_IFLA_TARGET_NETNSID, namespace))
        addresses = _addresses(rtnetlink, index, namespace)
    except NetlinkRefused:  # the namespace is going, or its owner is not ours to ask
        return Port(link.name, link.kind)
    return Port(link.name, link.kind, addresses, _link(there.payload).hardware)


def _addresses(rtnetlink: NetlinkSocket, index: int, namespace: bytes) -> frozenset[bytes]:
    where = attribute(_IFA_TARGET_NETNSID, namespace) if namespace else b""
    found = set()
    for answer in rtnetlink.dump(_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, index) + where):
        if struct.unpack_from("=i", answer.payload, 4)[0] == index:
            fields = dict(attributes(answer.payload, 8))
            found.add(fields.get(_IFA_LOCAL) or fields.get(_IFA_ADDRESS) or b"")
    return frozenset(found - {b""})


def _link_header(index: int) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, 0, 0)


def _link(payload: bytes) -> _Link:
    return _Link(struct.unpack_from("=i", payload, 4)[0], dict(attributes(payload, 16)))


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value and len(value) == 4 else 0
