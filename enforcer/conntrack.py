"""What conntrack holds of pods: read it, delete it.

Owns the ctnetlink messages (linux/netfilter/nfnetlink_conntrack.h). Deletes one flow at a time, by
tuple and id, from a dump that was filtered twice (kernel and here): a filtered flush would empty
the whole table on a kernel that does not know the filter. Invariant: a flow of which no given
address is an end is never deleted.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from enforcer.elements import PROTOCOL_NAMES
from enforcer.netlink import (
    NETLINK_NETFILTER,
    NLA_NESTED,
    Message,
    NetlinkRefused,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
)

_GET, _DELETE, _STATS = 1 << 8 | 1, 1 << 8 | 2, 1 << 8 | 5
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SRC, _DST = (1, 3), (2, 4)
_STATS_ENTRIES = 1
_FILTER_IP_SRC = 1
_FILTERED_DUMPS = 4
"""Up to so many addresses the kernel filters, two walks of its table each; more are one whole dump."""
_FEW_ENTRIES = 1_000
"""So many are read sooner than the table, whose empty buckets count too, is walked once more (12 ms)."""
_PASSES = 3
_AF = {4: 2, 16: 10}
_BOTH = 0
"""AF_UNSPEC: entries of every family, in one walk."""


class Flow(NamedTuple):
    """The original tuple of a flow: packed addresses, protocol number, destination port (0: none)."""

    source: bytes
    destination: bytes
    protocol: int
    port: int


class Conntrack:
    """Conntrack of this network namespace. Each call has a socket of its own, so any thread may make it.

    All raise NetlinkRefused if the kernel lacks nf_conntrack_netlink.
    """

    def flows(self) -> Iterator[Flow]:
        """All original tuples: 1.5 µs of Python each, so not on a loop that serves."""
        with _opened() as door:
            for found in door.dump(_GET, struct.pack(">BBH", _BOTH, 0, 0)):
                yield _original(found.payload)

    def used(self, candidates: Iterable[tuple[bytes, bytes]]) -> set[tuple[bytes, bytes, str, int]]:
        """Of these pairs (pod, destination) the flows there are: pair, protocol's name, port (0: none)."""
        pairs = set(candidates)
        return {
            (flow.source, flow.destination, PROTOCOL_NAMES.get(flow.protocol, str(flow.protocol)), flow.port)
            for flow in self.flows()
            if (flow.source, flow.destination) in pairs
        }

    def count(self) -> int:
        """How many entries the table holds."""
        with _opened() as door:
            return _entries(door)

    def delete_flows(self, addresses: Iterable[bytes]) -> int:
        """Delete every flow that one of these packed pod addresses opened or answers; return how many.

        A walk may miss entries that the kernel moves meanwhile, so it ends with one that found none
        (or after three: a live pod opens new ones).
        """
        ends = frozenset(addresses)
        deleted = 0
        with _opened() as door:
            for _ in range(_PASSES):
                found = [entry for entry in candidates(door, ends) if not ends.isdisjoint(_ends(entry))]
                deleted += sum(_delete(door, entry) for entry in found)
                if not found:
                    break
        return deleted


@contextmanager
def _opened() -> Iterator[NetlinkSocket]:
    door = NetlinkSocket(NETLINK_NETFILTER, receive_bytes=4 << 20)
    try:
        yield door
    finally:
        door.close()


def _entries(door: NetlinkSocket) -> int:
    answer = door.get(_STATS, struct.pack(">BBH", 0, 0, 0))
    return int(struct.unpack(">I", dict(attributes(answer.payload, 4))[_STATS_ENTRIES])[0])


def candidates(door: NetlinkSocket, addresses: frozenset[bytes]) -> list[Message]:
    """Read the entries that may have one of these addresses, and more if that is cheaper."""
    if len(addresses) > _FILTERED_DUMPS or _entries(door) <= _FEW_ENTRIES:
        families = {_AF[len(address)] for address in addresses}
        return door.dump(_GET, struct.pack(">BBH", families.pop() if len(families) == 1 else _BOTH, 0, 0))
    return [
        m for address in addresses for side in (_TUPLE_ORIG, _TUPLE_REPLY) for m in _from(door, address, side)
    ]


def _from(door: NetlinkSocket, address: bytes, side: int) -> list[Message]:
    header = struct.pack(">BBH", _AF[len(address)], 0, 0)
    source = nested(side, nested(_TUPLE_IP, attribute(_SRC[len(address) == 16], address)))
    flags = (_FILTER_IP_SRC, 0) if side == _TUPLE_ORIG else (0, _FILTER_IP_SRC)
    wanted = b"".join(attribute(kind, struct.pack("=I", bits)) for kind, bits in enumerate(flags, 1))
    try:
        return door.dump(_GET, header + source + nested(_FILTER, wanted))
    except NetlinkRefused as refused:
        if refused.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return door.dump(_GET, header)  # before 5.8: no filter


def _delete(door: NetlinkSocket, entry: Message) -> int:
    """Delete exactly this flow: the id makes sure it is not a later one with the same tuple."""
    kept = b"".join(
        attribute(k | (NLA_NESTED if k == _TUPLE_ORIG else 0), v)
        for k, v in attributes(entry.payload, 4)
        if k in (_TUPLE_ORIG, _ID, _ZONE)
    )
    try:
        door.request(_DELETE, 0, entry.payload[:4] + kept)
    except NetlinkRefused as refused:
        if refused.errno != errno.ENOENT:
            raise
        return 0
    return 1


def _ends(entry: Message) -> set[bytes]:
    """The addresses whose pods a flow belongs to: who opened it, and who answers (after translation)."""
    fields = dict(attributes(entry.payload, 4))
    return {_flow(fields[side]).source for side in (_TUPLE_ORIG, _TUPLE_REPLY) if side in fields}


def _original(payload: bytes) -> Flow:
    """Read the original tuple of an entry; nearly all are TCP's and UDP's over IPv4, which look alike."""
    if (
        payload[4:16] == _IPV4_SOURCE
        and payload[20:24] == _IPV4_DESTINATION
        and payload[28:36] == _PROTOCOL_NUMBER
        and payload[48:52] == _PORT
    ):
        return Flow(payload[16:20], payload[24:28], payload[36], payload[52] << 8 | payload[53])
    return _flow(next(v for k, v in attributes(payload, 4) if k == _TUPLE_ORIG))


_IPV4_SOURCE = struct.pack("=6H", 52, _TUPLE_ORIG | NLA_NESTED, 20, _TUPLE_IP | NLA_NESTED, 8, _SRC[0])
_IPV4_DESTINATION = struct.pack("=2H", 8, _DST[0])
_PROTOCOL_NUMBER = struct.pack("=4H", 28, _TUPLE_PROTO | NLA_NESTED, 5, 1)
_PORT = struct.pack("=2H", 6, 3)


def _flow(body: bytes) -> Flow:
    source = destination = b""
    protocol = port = 0
    for kind, value in attributes(body):
        for inner, data in attributes(value):
            if kind == _TUPLE_IP and inner in _SRC:
                source = data
            elif kind == _TUPLE_IP and inner in _DST:
                destination = data
            elif kind == _TUPLE_PROTO and inner == 1:
                protocol = data[0]
            elif kind == _TUPLE_PROTO and inner == 3:
                port = struct.unpack(">H", data)[0]
    return Flow(source, destination, protocol, port)
