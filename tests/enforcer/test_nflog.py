"""Logged packets are hostile bytes: read within their length, or not at all."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.netlink import attribute
from enforcer.nflog import parse

SRC4, DST4 = bytes((10, 0, 0, 1)), bytes((45, 1, 0, 2))
SRC6, DST6 = b"\xfd" + bytes(14) + b"\1", b"\x26" + bytes(14) + b"\2"


def logged(packet: bytes, prefix: bytes = b"denied\0", hook: int = 2) -> bytes:
    """One NFULNL message as the kernel writes it."""
    header = attribute(1, struct.pack(">HBx", 0x0800, hook))
    return bytes(4) + header + attribute(10, prefix) + attribute(9, packet)


def ipv4(protocol: int, body: bytes, fragment: int = 0, options: bytes = b"") -> bytes:
    """An IPv4 header before a body."""
    first = 0x40 | 5 + len(options) // 4
    return struct.pack(">BBHHHBBH", first, 0, 0, 0, fragment, 64, protocol, 0) + SRC4 + DST4 + options + body


def ipv6(following: int, body: bytes) -> bytes:
    """An IPv6 header before a body."""
    return struct.pack(">IHBB", 6 << 28, len(body), following, 64) + SRC6 + DST6 + body


PORTS = struct.pack(">HH", 40000, 443) + bytes(4)


@pytest.mark.parametrize(
    ("packet", "protocol", "port"),
    [
        (ipv4(6, PORTS), "tcp", 443),
        (ipv4(17, PORTS, options=bytes(8)), "udp", 443),
        (ipv4(1, b"\x08\0"), "icmp", None),
        (ipv4(47, b""), "gre", None),
        (ipv4(99, b""), "99", None),
        (ipv4(17, PORTS, fragment=5), "udp", None),
        (ipv4(6, b"\0"), "tcp", None),
        (ipv6(17, PORTS), "udp", 443),
        (ipv6(58, b"\x80"), "icmp", None),
        (ipv6(0, bytes((6, 0)) + bytes(6) + PORTS), "tcp", 443),
        (ipv6(44, bytes((6, 0, 0, 1)) + bytes(4) + PORTS), "tcp", 443),
        (ipv6(44, bytes((6, 0, 1, 0)) + bytes(4) + PORTS), "tcp", None),
        (ipv6(60, bytes((60, 0)) + bytes(6)) + (bytes((60, 0)) + bytes(6)) * 20, "60", None),
    ],
)
def test_protocol_and_port_are_found_behind_options_and_extensions(packet, protocol, port):
    """Later fragments and cut packets have no port; endless extension headers end."""
    found = parse(logged(packet))
    assert found is not None
    assert (found.protocol, found.port) == (protocol, port)
    assert found.source in (SRC4, SRC6)
    assert found.destination in (DST4, DST6)
    assert (found.prefix, found.hook) == ("denied", "forward")


@given(st.binary(max_size=160), st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(packet, prefix):
    """Never an exception."""
    parse(logged(packet, prefix))
    parse(packet)
