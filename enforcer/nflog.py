"""Denied packets, as the ruleset logs them: one NFLOG group, read into values.

Owns the nfnetlink_log messages (linux/netfilter/nfnetlink_log.h). Packets are hostile bytes: each
is read within its length and never trusted further. Never says why a packet was denied.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from enforcer.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute, attributes

_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_THRESHOLD = 1, 2, 4, 5
_CMD_BIND, _COPY_PACKET = 1, 2
_HEADER, _INDEV, _OUTDEV, _PORT, _PAYLOAD, _PREFIX = 1, 4, 5, 6, 9, 10
_SNAP_BYTES = 128
_FLUSH_CENTISECONDS = 10
_FLUSH_PACKETS = 64
_PORTED = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_NAMED = {1: "icmp", 58: "icmp", 47: "gre", 50: "esp", 51: "ah", 4: "ipip", 41: "ipv6"}
_EXTENSIONS = frozenset((0, 43, 60, 135))
_EXTENSIONS_LIMIT = 8
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


class DeniedPacket(NamedTuple):
    """One logged packet: packed addresses, protocol by name or number, destination port or None.

    ``prefix`` is the chain that denied it (``denied``, ``port``, ``unknown``, ``forged``, ``fence``,
    ``guard``); ``interface`` where it came in (a bridge's port, where it is told), or, for the node's own,
    where it would have left.
    """

    source: bytes
    destination: bytes
    protocol: str
    port: int | None
    prefix: str
    interface: str
    hook: str


class Nflog:
    """Reader of one group. OSError EBUSY if another process has the group."""

    def __init__(self, group: int) -> None:
        """Bind the group; packets come in batches of up to 64, 0.1 s late at most."""
        self._socket = NetlinkSocket(NETLINK_NETFILTER, receive_bytes=2 << 20)
        head = struct.pack(">BBH", 0, 0, group)
        self._socket.request(_CONFIG, 0, head + attribute(_CFG_CMD, bytes((_CMD_BIND,))))
        mode = attribute(_CFG_MODE, struct.pack(">IBx", _SNAP_BYTES, _COPY_PACKET))
        timing = attribute(_CFG_TIMEOUT, struct.pack(">I", _FLUSH_CENTISECONDS))
        threshold = attribute(_CFG_THRESHOLD, struct.pack(">I", _FLUSH_PACKETS))
        self._socket.request(_CONFIG, 0, head + mode + timing + threshold)

    def fileno(self) -> int:
        """Descriptor for a reactor's reader."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; the group is free again."""
        self._socket.close()

    def read(self, limit: int = 1024) -> tuple[list[DeniedPacket], bool]:
        """Read what is there, at most about ``limit`` packets, and whether some were lost before."""
        packets: list[DeniedPacket] = []
        lost = False
        while len(packets) < limit:
            try:
                batch = self._socket.receive_pending()
            except OSError as overflow:
                if overflow.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            if batch is None:
                break
            packets += [packet for m in batch if m.type == _PACKET and (packet := parse(m.payload))]
        return packets, lost


def parse(payload: bytes) -> DeniedPacket | None:
    """Read one NFULNL_MSG_PACKET (from its nfgenmsg on); None if it holds no IP packet."""
    fields = dict(attributes(payload, 4))
    packet = fields.get(_PAYLOAD, b"")
    read = _ipv4(packet) if packet[:1] and packet[0] >> 4 == 4 else _ipv6(packet)
    if read is None:
        return None
    header = fields.get(_HEADER, b"")
    hook = _HOOKS[header[2]] if len(header) >= 3 and header[2] < len(_HOOKS) else ""
    prefix = fields.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
    device = fields.get(_PORT) or fields.get(_INDEV) or fields.get(_OUTDEV) or b""
    return DeniedPacket(*read, prefix, _interface(device), hook)


def _interface(device: bytes) -> str:
    if len(device) != 4:
        return ""
    try:
        return socket.if_indextoname(struct.unpack(">I", device)[0])
    except OSError:
        return ""  # gone since


def _ipv4(packet: bytes) -> tuple[bytes, bytes, str, int | None] | None:
    if len(packet) < 20:
        return None
    first_fragment = struct.unpack_from(">H", packet, 6)[0] & 0x1FFF == 0
    offset = 4 * (packet[0] & 0xF)
    name, port = _transport(packet, packet[9], offset if first_fragment else -1)
    return packet[12:16], packet[16:20], name, port


def _ipv6(packet: bytes) -> tuple[bytes, bytes, str, int | None] | None:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    following, offset = packet[6], 40
    for _ in range(_EXTENSIONS_LIMIT):
        if following == 44 and len(packet) >= offset + 8:  # fragment header, RFC 8200 4.5
            first_fragment = struct.unpack_from(">H", packet, offset + 2)[0] & 0xFFF8 == 0
            following, offset = packet[offset], offset + 8
            if not first_fragment:
                offset = -1
                break
        elif following in _EXTENSIONS and len(packet) >= offset + 8:
            following, offset = packet[offset], offset + 8 * (packet[offset + 1] + 1)
        else:
            break
    name, port = _transport(packet, following, offset)
    return packet[8:24], packet[24:40], name, port


def _transport(packet: bytes, protocol: int, offset: int) -> tuple[str, int | None]:
    if protocol in _PORTED:
        known = offset >= 0 and len(packet) >= offset + 4
        return _PORTED[protocol], struct.unpack_from(">H", packet, offset + 2)[0] if known else None
    return _NAMED.get(protocol, str(protocol)), None
