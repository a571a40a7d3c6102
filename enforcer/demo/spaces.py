"""Network namespaces that live exactly as long as this process.

Owns namespaces without names: each is a descriptor, so the kernel frees it, with its interfaces
and tables, when the process ends in whatever way. Never mounts anything under /run/netns.
Invariant: a thread leaves ``entered`` in the namespace in which it came.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from enforcer.demo.failure import CannotRunHereError

_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


def _made() -> int:
    """Return a descriptor of a fresh network namespace; the calling thread stays where it is."""
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise CannotRunHereError(
                f"Network namespaces cannot be made here ({reason}): run as root on the host, "
                "or in a container started with --privileged."
            )
        try:
            return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _enter(home)
    finally:
        os.close(home)


class Space:
    """One network namespace. ``name`` is for people; the kernel knows only the descriptor."""

    def __init__(self, name: str, of: int | None = None) -> None:
        """Make one, or take that of the process ``of``, which is then held until ``close``.

        Raises CannotRunHereError, or OSError if there is no such process.
        """
        self.name = name
        self._fd = _made() if of is None else os.open(f"/proc/{of}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """A path by which ``ip`` and ``nsenter`` find it while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread (and what it forks or opens) into this namespace for a while."""
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self._fd)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket that belongs to this namespace for ever, whoever uses it."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def sysctl(self, **values: int) -> None:
        """Set ``net.*`` values; ``__`` in a key stands for a dot (``ipv4__ip_forward=1``)."""
        with self.entered():
            for key, value in values.items():
                path = Path("/proc/sys/net", *key.split("__"))
                try:
                    path.write_text(str(value))
                except OSError as error:
                    raise CannotRunHereError(
                        f"{path} cannot be written ({error.strerror}): in a container, "
                        "/proc/sys must be writable (--privileged)."
                    ) from error

    def has_settled(self, interface: str) -> bool:
        """Say whether IPv6 on the interface is ready: a link-local address, none tentative.

        Before that the kernel cannot ask for neighbours, and drops what would need them.
        """
        with self.entered():
            lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
        rows = [fields for line in lines if (fields := line.split())[5] == interface]
        tentative = any(int(fields[4], 16) & 0x40 for fields in rows)
        return not tentative and any(fields[3] == "20" for fields in rows)

    def close(self) -> None:
        """Let go of it; the kernel frees it when the last socket in it is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
