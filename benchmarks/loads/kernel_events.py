"""What the kernel says of its nftables, heard in a namespace: the moment at which an element is there.

Owns one netlink socket of the events' group. The event is sent by the commit itself, so what is heard
is in force. Never changes a rule.
"""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

_NETLINK_NETFILTER, _GROUP_NFTABLES = 12, 7
_CLONE_NEWNET = 0x40000000


@contextmanager
def inside(netns: str) -> Iterator[None]:
    """Be in a network namespace: what is opened here belongs to it. One thread only."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as before, open(f"/run/netns/{netns}", "rb") as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"namespace {netns}")
        try:
            yield
        finally:
            libc.setns(before.fileno(), _CLONE_NEWNET)


class Events:
    """The events of one namespace."""

    def __init__(self, netns: str) -> None:
        with inside(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self._socket.bind((0, 1 << (_GROUP_NFTABLES - 1)))

    def wait_for(self, octets: bytes, within_s: float) -> float:
        """Return when (monotonic) an event came that has these octets, as an element's key has them."""
        until = time.monotonic() + within_s
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                message = self._socket.recv(1 << 20)
            except TimeoutError:
                break
            if octets in message:
                return time.monotonic()
        raise SystemExit(f"nothing of {octets.hex()} came into the kernel within {within_s:.0f} s")

    def skip(self) -> None:
        """Forget what has come so far."""
        self._socket.settimeout(0)
        try:
            while True:
                self._socket.recv(1 << 20)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
