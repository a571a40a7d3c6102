"""What conntrack holds of pods: read it, delete it.

Owns the ctnetlink messages (linux/netfilter/nfnetlink_conntrack.h). Deletes one flow at a time, by
tuple and id, from a dump that was filtered twice (kernel and here): a filtered flush would empty
the whole table on a kernel that does not know the filter. Invariant: a flow of which no given
address is an end is never deleted.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from enforcer.netlink import (
    NETLINK_NETFILTER,
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
"""Up to so many addresses the kernel filters, a walk of its table each; more are one whole dump."""
_PASSES = 3
_AF = {4: 2, 16: 10}


class Flow(NamedTuple):
    """The original tuple of a flow: packed addresses, protocol number, destination port (0: none)."""

    source: bytes
    destination: bytes
    protocol: int
    port: int


class Conntrack:
    """Conntrack of this network namespace. One thread only."""

    def __init__(self) -> None:
        """OSError without netlink; NetlinkRefused comes later if nf_conntrack_netlink is missing."""
        self._socket = NetlinkSocket(NETLINK_NETFILTER, receive_bytes=4 << 20)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def flows(self) -> Iterator[Flow]:
        """All original tuples: 2 µs of Python each, so not on a loop that serves."""
        for family in _AF.values():
            for found in self._socket.dump(_GET, struct.pack(">BBH", family, 0, 0)):
                yield _flow(next(v for k, v in attributes(found.payload, 4) if k == _TUPLE_ORIG))

    def count(self) -> int:
        """How many entries the table holds."""
        answer = self._socket.get(_STATS, struct.pack(">BBH", 0, 0, 0))
        fields = dict(attributes(answer.payload, 4))
        return int(struct.unpack(">I", fields[_STATS_ENTRIES])[0])

    def delete_flows(self, addresses: Collection[bytes]) -> int:
        """Delete every flow that one of these packed pod addresses opened or answers; return how many.

        A walk may miss entries that the kernel moves meanwhile, so it ends with one that found none
        (or after three: a live pod opens new ones).
        """
        deleted = 0
        for _ in range(_PASSES):
            found = [entry for entry in self._candidates(addresses) if _ends(entry) & set(addresses)]
            deleted += sum(self._delete(entry) for entry in found)
            if not found:
                break
        return deleted

    def _candidates(self, addresses: Collection[bytes]) -> list[Message]:
        if len(addresses) > _FILTERED_DUMPS:
            families = {_AF[len(address)] for address in addresses}
            return [
                m for family in families for m in self._socket.dump(_GET, struct.pack(">BBH", family, 0, 0))
            ]
        return [
            m
            for address in addresses
            for side in (_TUPLE_ORIG, _TUPLE_REPLY)
            for m in self._from(address, side)
        ]

    def _from(self, address: bytes, side: int) -> list[Message]:
        header = struct.pack(">BBH", _AF[len(address)], 0, 0)
        source = nested(side, nested(_TUPLE_IP, attribute(_SRC[len(address) == 16], address)))
        flags = (_FILTER_IP_SRC, 0) if side == _TUPLE_ORIG else (0, _FILTER_IP_SRC)
        wanted = b"".join(attribute(kind, struct.pack("=I", bits)) for kind, bits in enumerate(flags, 1))
        try:
            return self._socket.dump(_GET, header + source + nested(_FILTER, wanted))
        except NetlinkRefused as refused:
            if refused.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            return self._socket.dump(_GET, header)  # before 5.8: no filter

    def _delete(self, entry: Message) -> int:
        """Delete exactly this flow: the id makes sure it is not a later one with the same tuple."""
        kept = b"".join(
            attribute(k | (0x8000 if k == _TUPLE_ORIG else 0), v)
            for k, v in attributes(entry.payload, 4)
            if k in (_TUPLE_ORIG, _ID, _ZONE)
        )
        try:
            self._socket.request(_DELETE, 0, entry.payload[:4] + kept)
        except NetlinkRefused as refused:
            if refused.errno != errno.ENOENT:
                raise
            return 0
        return 1


def _ends(entry: Message) -> set[bytes]:
    """The addresses whose pods a flow belongs to: who opened it, and who answers (after translation)."""
    fields = dict(attributes(entry.payload, 4))
    return {_flow(fields[side]).source for side in (_TUPLE_ORIG, _TUPLE_REPLY) if side in fields}


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
