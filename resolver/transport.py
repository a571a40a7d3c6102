"""Sockets of the resolver: the one module that imports ``socket``.

Owns the descriptors' options, the ancillary data that says which address a client aimed at, and
the conversion between packed and textual addresses. Knows nothing of DNS. Invariant: a reply
leaves from the address that the query was sent to.
"""

from __future__ import annotations

import ctypes
import os
import socket
from typing import NamedTuple

Control = list[tuple[int, int, bytes]]
"""Ancillary data in the shape of ``recvmsg`` and ``sendmsg``."""
SockAddr = tuple[str, int] | tuple[str, int, int, int]
Socket = socket.socket

CONTROL_BYTES = 64
"""Room for one in6_pktinfo (CMSG_SPACE is 40) and nothing much else."""

_libc = ctypes.CDLL(None)
_NOWHERE = bytes(16)
"""A sockaddr whose family is AF_UNSPEC."""
_QUESTION = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_IP_PKTINFO = 8  # socket.IP_PKTINFO exists from Python 3.12 only


class Aim(NamedTuple):
    """The address a datagram was sent to, packed, and the control data that replies from it."""

    address: bytes
    reply: Control


def adopt(descriptor: int) -> Socket:
    """Take over a descriptor as a non-blocking socket; OSError if it is none."""
    sock = socket.socket(fileno=descriptor)
    sock.settimeout(0)
    return sock


def is_datagram(sock: Socket) -> bool:
    """Say whether it carries datagrams (UDP) rather than streams."""
    return sock.type == socket.SOCK_DGRAM


def same_socket(one: Socket, other: Socket) -> bool:
    """Say whether two descriptors are one kernel socket (the same inode)."""
    first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def report_aims(sock: Socket) -> None:
    """Ask the kernel to tell with each datagram which address it was sent to."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def is_wildcard(sock: Socket) -> bool:
    """Say whether it is bound to every address (and so must be told which one to reply from)."""
    return sock.getsockname()[0] in ("0.0.0.0", "::")


def aim(control: Control, sock: Socket) -> Aim:
    """Return where a datagram was aimed; without PKTINFO, the socket's own address.

    IPv4: struct in_pktinfo {ifindex, spec_dst, addr}; ``addr`` is the header's destination.
    IPv6: struct in6_pktinfo {addr, ifindex} (RFC 3542, 6.2).
    """
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) == 12:
            return Aim(data[8:12], reply_from(data[8:12]))
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) == 20:
            return Aim(data[:16], reply_from(data[:16]))
    return Aim(packed(sock.getsockname()[0]), [])


def reply_from(address: bytes) -> Control:
    """Return the control data that makes ``address`` a datagram's source.

    The interface is left to routing: the way in need not be the way out.
    """
    if len(address) == 4:
        return [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + address + bytes(4))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, address + bytes(4))]


def packed(address: str) -> bytes:
    """Return 4 or 16 octets; a zone (``%eth0``) is left out."""
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    return socket.inet_pton(socket.AF_INET, address)


def text(address: bytes) -> str:
    """Return a packed address as text."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def sockaddr(address: bytes, port: int) -> SockAddr:
    """Return the address to send to."""
    return (text(address), port)


def question_socket(*, is_ipv6: bool) -> Socket:
    """Return a fresh UDP socket without a port; OSError if there is none to be had.

    The kernel draws a random free port at each ``connect`` after ``disconnect`` (measured: uniform over the
    local range, the one says nothing of the next), and hands over datagrams of the server's address
    and port only (RFC 5452, 9.2).
    """
    return socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, _QUESTION)


def question_address(host: str, port: int) -> SockAddr:
    """Return where to connect a question's socket to; OSError if its zone is no interface."""
    if "%" not in host:
        return (host, port)
    bare, _, zone = host.partition("%")
    return (bare, port, 0, socket.if_nametoindex(zone))


def disconnect(descriptor: int) -> bool:
    """Take a UDP socket's port and peer away: it gets nothing until it is connected anew. False: it failed.

    ``socket.connect`` has no way to say AF_UNSPEC (connect(2)), so libc is called.
    """
    return _libc.connect(descriptor, _NOWHERE, len(_NOWHERE)) == 0
