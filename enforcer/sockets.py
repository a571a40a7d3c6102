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
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

RECEIVE_BYTES = 8 << 20
"""Receive buffer: what arrives while the resolver restarts (0.2 s) waits here."""
BACKLOG = 4096

_IP_PKTINFO, _IP_TRANSPARENT = 8, 19
_IPV6_RECVPKTINFO, _IPV6_TRANSPARENT = 49, 75
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_IPV6_FREEBIND, _IP_FREEBIND = 78, 15


class SocketRefused(OSError):
    """A socket that pods need could not be opened: which one, and why."""


Opened = Mapping[str, socket.socket]


def open_dns_sockets(
    port: int, resolver_uid: int, given: Opened | None = None, *, beside: bool = False
) -> dict[str, socket.socket]:
    """Open the captured sockets on ``port``: ``udp4``, ``udp6``, ``tcp4``, ``tcp6``.

    They accept packets for any address (IP_TRANSPARENT) and say which (PKTINFO; TCP: getsockname).
    Where the host has no IPv6, only the IPv4 ones. What ``given`` has already (from the one before
    us, with what waits in it) is not opened again. ``beside``: others of the same user may hold the port,
    if they were opened so too. SocketRefused names what failed.
    """
    opened: dict[str, socket.socket] = {}
    try:
        for name in ("udp4", "udp6", "tcp4", "tcp6"):
            family = socket.AF_INET if name[3] == "4" else socket.AF_INET6
            kind = socket.SOCK_DGRAM if name.startswith("udp") else socket.SOCK_STREAM
            address = ("0.0.0.0" if name[3] == "4" else "::", port)
            try:
                opened[name] = _taken(name, address, given, resolver_uid) or _open(
                    family, kind, address, resolver_uid, beside=beside
                )
            except OSError as refused:
                if family == socket.AF_INET6 and refused.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    continue
                raise SocketRefused(
                    refused.errno, f"{name} port {port}: {os.strerror(refused.errno or 0)}"
                ) from refused
    except SocketRefused:
        _close(opened)
        raise
    return opened


def open_listen_sockets(
    endpoints: Iterable[tuple[str, int]],
    resolver_uid: int,
    given: Opened | None = None,
    *,
    beside: bool = False,
) -> dict[str, socket.socket]:
    """Open ``dns.listen``: (address, port) each as ``listen:udp:ADDRESS:PORT`` and ``listen:tcp:…``.

    Addresses that the node does not have yet are bound all the same (FREEBIND).
    ``given`` and ``beside`` as above.
    """
    opened: dict[str, socket.socket] = {}
    try:
        for address, port in endpoints:
            family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
            for name, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
                key = f"listen:{name}:{address}:{port}"
                try:
                    opened[key] = _taken(key, (address, port), given, resolver_uid) or _open(
                        family, kind, (address, port), resolver_uid, transparent=False, beside=beside
                    )
                except OSError as refused:
                    raise SocketRefused(
                        refused.errno, f"{key}: {os.strerror(refused.errno or 0)}"
                    ) from refused
    except SocketRefused:
        _close(opened)
        raise
    return opened


def _taken(name: str, address: tuple[str, int], given: Opened | None, uid: int) -> socket.socket | None:
    """Return the socket that was given by that name, if it is bound where this one has to be.

    The owner of its inode is who opened it: of another user, the kernel's fence would not hold it.
    """
    found = (given or {}).get(name)
    if found is None or found.getsockname()[1] != address[1] or os.fstat(found.fileno()).st_uid != uid:
        return None
    return found


def _open(
    family: int,
    kind: int,
    address: tuple[str, int],
    resolver_uid: int,
    *,
    transparent: bool = True,
    beside: bool = False,
) -> socket.socket:
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
        if beside:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
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
