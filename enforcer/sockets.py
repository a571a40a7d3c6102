"""The sockets that pods' questions arrive at, opened by the privileged side and passed on.

Owns their options. Never reads or writes them. Invariant: each belongs to the resolver's uid, so
that the output fence (``ruleset``, chain ``resolver``) holds whoever uses it.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

RECEIVE_BYTES = 8 << 20
"""Receive buffer: what arrives while the resolver restarts (0.2 s) waits here."""
BACKLOG = 4096

_IP_PKTINFO, _IP_TRANSPARENT = 8, 19
_IPV6_RECVPKTINFO, _IPV6_TRANSPARENT = 49, 75
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_IPV6_FREEBIND, _IP_FREEBIND = 78, 15
_SO_ATTACH_REUSEPORT_CBPF = 51
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _TO_X, _XOR_X, _MODULO, _RETURN_A = 0x20, 0x07, 0xAC, 0x94, 0x16
_NETWORK_HEADER = 0xFFF00000


class SocketRefused(OSError):
    """A socket that pods need could not be opened: which one, and why."""


Opened = Mapping[str, socket.socket]
T = TypeVar("T")


class _Wanted(NamedTuple):
    """One socket for each process: its name, and what it is bound to. ``optional``: if there is IPv6."""

    name: str
    family: socket.AddressFamily
    kind: socket.SocketKind
    address: tuple[str, int]
    transparent: bool = True
    optional: bool = False


def open_dns_sockets(
    port: int, resolver_uid: int, given: Opened | None = None, *, beside: bool = False, processes: int = 1
) -> dict[str, socket.socket]:
    """Open the captured sockets on ``port``: ``udp4``, ``udp6``, ``tcp4``, ``tcp6``.

    They accept packets for any address (IP_TRANSPARENT) and say which (PKTINFO; TCP: getsockname).
    Where the host has no IPv6, only the IPv4 ones. What ``given`` has already (from the one before
    us, with what waits in it) is not opened again. ``beside``: others of the same user may hold the port,
    if they were opened so too. ``processes``: so many sets, of which the kernel chooses one by the source
    address of what comes. SocketRefused names what failed.
    """
    wanted = []
    for name in ("udp4", "udp6", "tcp4", "tcp6"):
        family = socket.AF_INET if name[3] == "4" else socket.AF_INET6
        kind = socket.SOCK_DGRAM if name.startswith("udp") else socket.SOCK_STREAM
        address = ("0.0.0.0" if name[3] == "4" else "::", port)
        wanted.append(_Wanted(name, family, kind, address, optional=family == socket.AF_INET6))
    return _open_all(wanted, resolver_uid, given, beside=beside, processes=processes)


def open_listen_sockets(
    endpoints: Iterable[tuple[str, int]],
    resolver_uid: int,
    given: Opened | None = None,
    *,
    beside: bool = False,
    processes: int = 1,
) -> dict[str, socket.socket]:
    """Open ``dns.listen``: (address, port) each as ``listen:udp:ADDRESS:PORT`` and ``listen:tcp:…``.

    Addresses that the node does not have yet are bound all the same (FREEBIND).
    ``given``, ``beside`` and ``processes`` as above.
    """
    wanted = []
    for address, port in endpoints:
        family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
        for name, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
            key = f"listen:{name}:{address}:{port}"
            wanted.append(_Wanted(key, family, kind, (address, port), transparent=False))
    return _open_all(wanted, resolver_uid, given, beside=beside, processes=processes)


def _open_all(
    wanted: Iterable[_Wanted], uid: int, given: Opened | None, *, beside: bool, processes: int
) -> dict[str, socket.socket]:
    opened: dict[str, socket.socket] = {}
    shared = processes > 1 or processes_of(given or {}) > 1
    try:
        for each in wanted:
            try:
                made = [_of_given(each, number, given, uid, shared=shared) for number in range(processes)]
                for number in range(processes):
                    sock = made[number] or _open(each, uid, shared=beside or shared)
                    opened[_numbered(each.name, number)] = sock
                if shared:
                    steer(opened[each.name], processes)
            except OSError as refused:
                if each.optional and refused.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    continue
                said = f"{each.name} port {each.address[1]}: {os.strerror(refused.errno or 0)}"
                raise SocketRefused(refused.errno, said) from refused
    except SocketRefused:
        _close(opened)
        raise
    return opened


def _numbered(name: str, number: int) -> str:
    return f"{name}#{number}" if number else name


def processes_of(names: Iterable[str]) -> int:
    """Return for how many resolvers there are sockets."""
    return 1 + max((int(name.partition("#")[2] or 0) for name in names), default=0)


def of_process(sockets: Mapping[str, T], number: int) -> dict[str, T]:
    """Return one resolver's sockets, by the names that a resolver knows."""
    own = {name: name.partition("#") for name in sockets}
    return {own[name][0]: sock for name, sock in sockets.items() if int(own[name][2] or 0) == number}


def steer(sock: socket.socket, processes: int) -> None:
    """Have the kernel choose, of all that share the socket's port, the one for the source address.

    Socket number (address mod ``processes``), in the order in which they were bound: a pod is answered by one
    process, which knows what it has asked. Classic BPF, which reads from the IP header on (SKF_NET_OFF).
    """
    is_v6 = sock.family == socket.AF_INET6
    words = range(8, 24, 4) if is_v6 else range(12, 16, 4)
    program = [(_LOAD, _NETWORK_HEADER + words[0])]
    for at in words[1:]:
        program += [(_TO_X, 0), (_LOAD, _NETWORK_HEADER + at), (_XOR_X, 0)]
    program += [(_MODULO, processes), (_RETURN_A, 0)]
    code = array("B", b"".join(_INSTRUCTION.pack(number, 0, 0, operand) for number, operand in program))
    described = struct.pack("@HP", len(program), code.buffer_info()[0])
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, described)


def _of_given(
    wanted: _Wanted, number: int, given: Opened | None, uid: int, *, shared: bool
) -> socket.socket | None:
    found = _taken(_numbered(wanted.name, number), wanted.address, given, uid)
    if found is not None and shared:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # one process had it for itself
    return found


def _taken(name: str, address: tuple[str, int], given: Opened | None, uid: int) -> socket.socket | None:
    """Return the socket that was given by that name, if it is bound where this one has to be.

    The owner of its inode is who opened it: of another user, the kernel's fence would not hold it.
    """
    found = (given or {}).get(name)
    if found is None or found.getsockname()[1] != address[1] or os.fstat(found.fileno()).st_uid != uid:
        return None
    return found


def _open(wanted: _Wanted, resolver_uid: int, *, shared: bool) -> socket.socket:
    family, kind, transparent = wanted.family, wanted.kind, wanted.transparent
    with _as_filesystem_user(resolver_uid):
        made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT if transparent else _IPV6_FREEBIND, 1)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT if transparent else _IP_FREEBIND, 1)
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        if kind == socket.SOCK_DGRAM:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
            made.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, RECEIVE_BYTES)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(wanted.address)
        if kind == socket.SOCK_STREAM:
            made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def _as_filesystem_user(uid: int) -> Iterator[None]:
    """``meta skuid`` is the fsuid at ``socket()``, and no later owner; nothing else of the process changes.

    Main thread only: setfsuid is per thread, and a reactor's other threads must not open files meanwhile
    as somebody else.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("DNS sockets are opened before threads start")
    libc = ctypes.CDLL(None)
    before = libc.setfsuid(uid)
    try:
        if libc.setfsuid(-1) != uid:
            raise PermissionError(errno.EPERM, f"cannot open sockets as uid {uid}")
        yield
    finally:
        libc.setfsuid(before)


def _close(opened: Opened) -> None:
    for made in opened.values():
        made.close()
