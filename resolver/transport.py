"""Sockets of the resolver: the one module that imports ``socket``.

Owns the descriptors' options, the ancillary data that says which address a client aimed at, and
the conversion between packed and textual addresses. Knows nothing of DNS. Invariant: a reply
leaves from the address that the query was sent to.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from array import array
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

Control = list[tuple[int, int, bytes]]
"""Ancillary data in the shape of ``recvmsg`` and ``sendmsg``."""
SockAddr = tuple[str, int] | tuple[str, int, int, int]
Socket = socket.socket
Peer = tuple[bytes, int]
"""A packed address, and a port."""

CONTROL_BYTES = 64
"""Room for one in6_pktinfo (CMSG_SPACE is 40) and nothing much else."""

_libc = ctypes.CDLL(None, use_errno=True)
_NOWHERE = bytes(16)
"""A sockaddr whose family is AF_UNSPEC."""
_NAME, _NAME_BYTES = ctypes.create_string_buffer(28), ctypes.c_uint32()
"""Where the kernel writes an address: a sockaddr_in6 is the longest."""
_QUESTION = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_CONNECTION = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _SO_MEMINFO = 26, 27, 55
_DROPS_AT = 8 * 4
"""Of the numbers that SO_MEMINFO gives (linux/sock_diag.h), the datagrams that the kernel dropped."""
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _UNLESS_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: from here on, offsets count from the IP header."""
_ALL = 0xFFFFFFFF
_RESET = struct.pack("@ii", 1, 0)
"""struct linger: on, for no time (socket(7))."""
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


def send_at_once(listening: Socket) -> None:
    """Have a listening socket's connections send what is written without waiting for more (TCP_NODELAY)."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def accept(listening: Socket) -> tuple[int, Peer]:
    """Accept a connection: its descriptor, not blocking, and the packed address and port of its other end.

    A bare descriptor, for ``os.read`` and ``os.write``: Python's own way there makes two more system calls,
    and text of the address. OSError as of accept(2).
    """
    _NAME_BYTES.value = len(_NAME)
    descriptor = _libc.accept4(listening.fileno(), _NAME, ctypes.byref(_NAME_BYTES), _CONNECTION)
    if descriptor < 0:
        raise _failure()
    return descriptor, _named()


def own_address(connection: int) -> bytes:
    """Return the packed address of our end of a connection."""
    _NAME_BYTES.value = len(_NAME)
    if _libc.getsockname(connection, _NAME, ctypes.byref(_NAME_BYTES)) != 0:
        raise _failure()
    return _named()[0]


def _named() -> Peer:
    """Read a sockaddr_in6 or a sockaddr_in (ipv6(7), ip(7))."""
    name = _NAME.raw
    return name[8:24] if _NAME_BYTES.value == len(name) else name[4:8], name[2] << 8 | name[3]


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def reset(connection: int) -> None:
    """Close a connection with a reset (RST): the kernel keeps nothing for a client that does not read."""
    with socket.socket(fileno=connection) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


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


def mute(sock: Socket, sources: Collection[bytes]) -> None:
    """Have the kernel drop what these addresses send to the socket, and nothing else; none: nobody.

    Of more than a filter can hold (4,096 instructions, and what net.core.optmem_max leaves: a few dozen IPv6
    addresses on older kernels), as many as it can. The last word holds, also after its process has gone.
    """
    size = 16 if sock.family == socket.AF_INET6 else 4
    known = [source for source in sources if len(source) == size]
    while (program := _dropping(known, size)) is not None:
        try:
            _attach(sock, program)
        except OSError as refused:
            if refused.errno not in (errno.EINVAL, errno.ENOMEM):
                raise
            _detach(sock)  # the one before counts, until it has gone
            known = known[: len(known) // 2]
        else:
            return
    _detach(sock)


def _detach(sock: Socket) -> None:
    with suppress(FileNotFoundError):  # there was none
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _attach(sock: Socket, program: bytes) -> None:
    code = array("B", program)
    address, _ = code.buffer_info()
    described = struct.pack("@HP", len(program) // _INSTRUCTION.size, address)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def _dropping(sources: list[bytes], size: int) -> bytes | None:
    """Return a classic BPF program that knows an IP header with one of these sources (RFC 791, RFC 8200)."""
    if not sources:
        return None
    first = _NETWORK_HEADER + (12 if size == 4 else 8)
    program = bytearray()
    for source in sources:
        for at in range(size - 4, -4, -4):  # the last word first: addresses of one node differ there
            word = int.from_bytes(source[at : at + 4], "big")
            program += _INSTRUCTION.pack(_LOAD, 0, 0, first + at)
            program += _INSTRUCTION.pack(_UNLESS_EQUAL, 0, at // 2 + 1, word)
        program += _INSTRUCTION.pack(_RETURN, 0, 0, 0)
    return bytes(program + _INSTRUCTION.pack(_RETURN, 0, 0, _ALL))


def drops(sock: Socket) -> int:
    """Return how many datagrams the kernel has dropped of what came to the socket, since it was opened."""
    told = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _DROPS_AT + 4)
    return int(struct.unpack_from("=I", told, _DROPS_AT)[0]) if len(told) > _DROPS_AT else 0


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
    return bool(_libc.connect(descriptor, _NOWHERE, len(_NOWHERE)) == 0)
