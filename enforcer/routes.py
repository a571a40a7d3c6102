"""Interfaces, routes and the one rule that leads captured DNS to the resolver's sockets.

Owns rtnetlink and, in the routing policy, preferences 53 to 55 and table ``DNS_TABLE``; never
touches another's. Invariant: marked packets from outside are delivered locally, and nothing the
node itself sends (or looks up backwards for rp_filter) ever meets the DNS table.

The rule is three, because a rule cannot say "not from lo and marked": 53 skips what the node sends
to 55 (which does nothing), 54 looks marked packets up in the DNS table. A rule ``from POD-RANGE``
instead would need to know the range, and loses queries that a pod aims at another pod's address
where src_valid_mark or tcp_fwmark_accept is set.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from typing import Literal, NamedTuple

from enforcer import bridge_ports, tc_filters
from enforcer.bridge import Bridge
from enforcer.layout import DNS_MARK, DNS_MARK_MASK
from enforcer.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    NetlinkRefused,
    NetlinkSocket,
    attribute,
    attributes,
    text,
)
from enforcer.witness import ADDRESS
from policy.addresses import to_packed

DNS_TABLE = 28279
SKIP, LOOKUP, LANDING = 53, 54, 55
"""Preferences: after ``local`` (0), before what CNIs install (AWS from 512, Calico and others later)."""

Change = Literal["links", "routes", "rules", "filters", "lost"]
"""``filters``: something of tc, by which packets may be led past netfilter."""

_NEWLINK, _GETLINK, _GETADDR, _NEWROUTE, _DELROUTE, _GETROUTE = 16, 18, 22, 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_NEWQDISC = 36
_GROUP_TC, _GROUP_LINK, _GROUP_ROUTE4, _GROUP_RULE4, _GROUP_ROUTE6, _GROUP_RULE6 = 4, 1, 7, 8, 11, 19
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_TO_TABLE, _GOTO, _NOTHING = 1, 2, 3
_PROTOCOL = 110
_LO = 1


class Link(NamedTuple):
    """One interface; ``number`` is its index, ``kind`` is rtnetlink's (veth, bridge, …), "" for hardware."""

    number: int
    name: str
    kind: str


class Routes:
    """Routing of this network namespace. One thread only."""

    def __init__(self) -> None:
        """OSError without netlink."""
        self._socket = NetlinkSocket(NETLINK_ROUTE, receive_bytes=4 << 20)
        self._strict = NetlinkSocket(NETLINK_ROUTE, receive_bytes=4 << 20)
        self._strict.check_strictly()
        self._monitor: NetlinkSocket | None = None

    def close(self) -> None:
        """Close the sockets; rules and routes stay until ``remove_dns_rule``."""
        self._socket.close()
        self._strict.close()
        if self._monitor is not None:
            self._monitor.close()

    def links(self) -> dict[int, Link]:
        """All interfaces by index."""
        found = {}
        for answer in self._socket.dump(_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
            fields = dict(attributes(answer.payload, 16))
            index = struct.unpack_from("=i", answer.payload, 4)[0]
            kind = dict(attributes(fields.get(18, b""))).get(1, b"")
            found[index] = Link(index, _string(fields.get(3, b"")), _string(kind))
        return found

    def bridges(self) -> list[Bridge]:
        """The node's bridges, and what is behind their ports."""
        return bridge_ports.bridges(self._strict)

    def addresses(self) -> frozenset[bytes]:
        """The node's own addresses, packed."""
        found = set()
        for answer in self._socket.dump(_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, 0)):
            fields = dict(attributes(answer.payload, 8))
            found.add(fields.get(2) or fields.get(1) or b"")  # IFA_LOCAL, else IFA_ADDRESS
        return frozenset(found - {b""})

    def uplinks(self) -> frozenset[str]:
        """Names of the interfaces that carry a default route, in any table and family."""
        names = {index: link.name for index, link in self.links().items()}
        indices: set[int] = set()
        for family in _FAMILIES:
            for answer in self._socket.dump(
                _GETROUTE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
            ):
                if answer.payload[1] == 0 and answer.payload[7] == 1:  # destination length; RTN_UNICAST
                    indices |= _outgoing(answer)
        return frozenset(names[index] for index in indices if index in names)

    def pod_interfaces(self, addresses: Iterable[bytes]) -> dict[bytes, str]:
        """Name the interface behind which each packed address is attached; others are left out.

        Attached: a unicast route without gateway, not over an uplink. One question an address, and
        the node's links and routes read once.
        """
        outgoing = {address: self._attached(address) for address in addresses}
        if not any(outgoing.values()):
            return {}
        names = {index: link.name for index, link in self.links().items()}
        uplinks = self.uplinks()
        found = {}
        for address, indices in outgoing.items():
            name = next((names[index] for index in indices if index in names), None)
            if name is not None and name not in uplinks:
                found[address] = name
        return found

    def closed_families(self) -> frozenset[int]:
        """Families (4, 6) in which the node itself has no way to an address outside."""
        return frozenset(version for version, text in ADDRESS.items() if not self._has_way(to_packed(text)))

    def _has_way(self, address: bytes) -> bool:
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        header = struct.pack("=BBBBBBBBI", family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
        try:
            return self._socket.get(_GETROUTE, header + attribute(1, address)).payload[7] == 1
        except NetlinkRefused:
            return False

    def filters(self, interface: str) -> tuple[str, ...]:
        """Name what of tc is on the way into the node from an interface; nothing if it is gone."""
        index = next((link.number for link in self.links().values() if link.name == interface), 0)
        return tc_filters.filters_at(self._socket, index) if index else ()

    def _attached(self, address: bytes) -> set[int]:
        """Indices of the interfaces that an address is directly behind."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        header = struct.pack("=BBBBBBBBI", family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
        try:
            answer = self._socket.get(_GETROUTE, header + attribute(1, address))
        except NetlinkRefused as refused:
            if refused.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return set()
            raise
        kinds = {kind for kind, _ in attributes(answer.payload, 12)}
        if answer.payload[7] != 1 or kinds & {5, 18}:  # RTA_GATEWAY, RTA_VIA
            return set()
        return _outgoing(answer)

    def install_dns_rule(self) -> None:
        """Make what is missing of the rule and the table, both families; NetlinkRefused: the host refuses."""
        for family in _FAMILIES:
            self._create(_NEWROUTE, _local_route(family))
            for preference in (LANDING, SKIP, LOOKUP):
                self._create(_NEWRULE, _rule(family, preference))

    def remove_dns_rule(self) -> None:
        """Take the rule and the table away; what is not there is no error."""
        for family in _FAMILIES:
            for preference in (LOOKUP, SKIP, LANDING):
                self._remove(_DELRULE, _rule(family, preference))
            self._remove(_DELROUTE, _local_route(family))

    def dns_rule_stands(self) -> bool:
        """Say whether all of it is there, both families (systemd-networkd removes foreign rules)."""
        for family in _FAMILIES:
            found = set()
            for answer in self._socket.dump(
                _GETRULE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
            ):
                fields = dict(attributes(answer.payload, 12))
                if fields.get(21) == bytes((_PROTOCOL,)):
                    found.add(struct.unpack("=I", fields.get(6, bytes(4)))[0])
            if not found >= {SKIP, LOOKUP, LANDING} or not self._table_stands(family):
                return False
        return True

    def _table_stands(self, family: int) -> bool:
        header = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        return any(
            dict(attributes(answer.payload, 12)).get(15) == struct.pack("=I", DNS_TABLE)
            for answer in self._socket.dump(_GETROUTE, header)
        )

    def _create(self, kind: int, payload: bytes) -> None:
        try:
            self._socket.request(kind, NLM_F_CREATE | NLM_F_EXCL, payload)
        except NetlinkRefused as refused:
            if refused.errno != errno.EEXIST:
                raise

    def _remove(self, kind: int, payload: bytes) -> None:
        try:
            self._socket.request(kind, 0, payload)
        except NetlinkRefused as refused:
            if refused.errno not in (errno.ENOENT, errno.ESRCH):
                raise

    def monitor_fd(self) -> int:
        """Descriptor that becomes readable when links, routes or rules change; opens the monitor."""
        if self._monitor is None:
            groups = (_GROUP_TC, _GROUP_LINK, _GROUP_ROUTE4, _GROUP_RULE4, _GROUP_ROUTE6, _GROUP_RULE6)
            self._monitor = NetlinkSocket(NETLINK_ROUTE, groups, receive_bytes=4 << 20)
        return self._monitor.fileno()

    def drain_changes(self) -> set[Change]:
        """Read what the monitor holds, without waiting; ``lost``: the buffer overflowed, look at all."""
        seen: set[Change] = set()
        while self._monitor is not None:
            try:
                batch = self._monitor.receive_pending()
            except OSError as lost:
                if lost.errno != errno.ENOBUFS:
                    raise
                seen.add("lost")
                continue
            if batch is None:
                break
            for notice in batch:
                seen.add(_change(notice.type))
        return seen


def _change(kind: int) -> Change:
    if kind >= _NEWQDISC:
        return "filters"
    return "rules" if kind >= _NEWRULE else "routes" if kind >= _NEWROUTE else "links"


def _outgoing(answer: Message) -> set[int]:
    """Interface indices of a route: its own, or those of its next hops."""
    indices = set()
    for kind, value in attributes(answer.payload, 12):
        if kind == 4:  # RTA_OIF
            indices.add(struct.unpack("=i", value)[0])
        elif kind == 9:  # RTA_MULTIPATH: struct rtnexthop { u16 length; u8 flags, hops; int ifindex; }
            at = 0
            while at + 8 <= len(value):
                length, index = struct.unpack_from("=Hxxi", value, at)
                indices.add(index)
                at += max(8, (length + 3) & ~3)
    return indices


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", "replace")


def _local_route(family: int) -> bytes:
    """``local default dev lo table DNS_TABLE``."""
    header = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, _PROTOCOL, 254, 2, 0)  # scope host, RTN_LOCAL
    return header + attribute(15, struct.pack("=I", DNS_TABLE)) + attribute(4, struct.pack("=i", _LO))


def _rule(family: int, preference: int) -> bytes:
    action = {SKIP: _GOTO, LOOKUP: _TO_TABLE, LANDING: _NOTHING}[preference]
    fields = attribute(6, struct.pack("=I", preference)) + attribute(21, bytes((_PROTOCOL,)))
    if preference != LANDING:
        fields += attribute(10, struct.pack("=I", DNS_MARK)) + attribute(16, struct.pack("=I", DNS_MARK_MASK))
    if preference == SKIP:
        fields += text(3, "lo") + attribute(4, struct.pack("=I", LANDING))
    if preference == LOOKUP:
        fields += attribute(15, struct.pack("=I", DNS_TABLE))
    return struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, action, 0) + fields
