"""Is it enforced? What can be proved on this node without touching anybody's traffic.

Owns the packets that prove it: one that the output hook must drop (from a captured DNS socket to an
address that is no pod's; RFC 5737), one to ourselves that both tables' input hooks must let through,
and questions to pods, whose answers have to come through the forward hook on their way to nobody.
Invariant: no packet of the probe leaves the node but to its pods, and no answer to it unless pods'
packets go past netfilter, which is what it is to find out.

The first two prove that the kernel runs our rules in the output and input hooks now; that a pod's packets
meet them is proved for each pod by itself (``enforcer.proofs``).
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal

from enforcer.witness import ADDRESS, ASKED_PORT

NOBODY = ("192.0.2.1", 9)
"""TEST-NET-1 and the discard port: dropped before it could leave."""
_WAIT_S = 0.2


def must_drop(sockets: Mapping[str, socket.socket]) -> str:
    """Send what the output chain has to drop; return what is wrong, "" if it was dropped.

    A host without a route to anywhere cannot tell (ENETUNREACH): that counts as nothing wrong.
    """
    captured = sockets.get("udp4")
    if captured is None:
        return ""
    try:
        captured.sendto(b"", socket.MSG_DONTWAIT, NOBODY)
    except PermissionError:
        return ""
    except OSError as error:
        if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}:
            return ""
        return f"the probe of the output chain failed: {error.strerror}"
    return "a packet that the output chain has to drop was not dropped"


def must_pass(passed: Callable[[], int]) -> str:
    """Send ourselves a packet; return what is wrong, "" if it came and the ruleset counted it.

    ``passed`` reads the kernel's counter of packets that the policy table let through.
    """
    before = passed()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ours:
        ours.settimeout(_WAIT_S)
        try:
            ours.bind(("127.0.0.1", 0))
            ours.sendto(b"nameward", ours.getsockname())
            ours.recv(16)
        except OSError as error:
            return f"a packet that had to pass did not: {error}"
    return "" if passed() > before else "packets pass without meeting the policy table"


_TRANSPARENT = {4: (socket.SOL_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}
_LINGER_NOT = struct.pack("ii", 1, 0)
_CONTROL_PORT = 7
"""Echo: nothing is made of what is asked there, so that the answer comes to the node itself."""


class Questions:
    """How pods are asked (``enforcer.proving.Asking``)."""

    def ask(self, pod: bytes, *, by: Literal["tcp", "udp"]) -> None:
        """Have a pod send a packet to the outside: its answer to the witness, as a rule that nobody listens.

        ``tcp``: a SYN as the node, whose address becomes the witness's after all other output chains
        (``witness.asking_chain``), so that conntrack does not know the answer. ``udp``: a datagram as the
        witness, whose answer is known, but which others' output chains may drop. ``OSError``: they did, or
        the node cannot ask.
        """
        if by == "tcp":
            with _stream(pod) as ours:
                _connect(ours, pod, ASKED_PORT)
            return
        version, family = (4, socket.AF_INET) if len(pod) == 4 else (6, socket.AF_INET6)
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ours:
            ours.setsockopt(*_TRANSPARENT[version], 1)
            ours.bind((ADDRESS[version], 0))
            # Not connected, and no TCP: what a socket of ours would take is not forwarded (early demux).
            ours.sendto(b"", socket.MSG_DONTWAIT, (socket.inet_ntop(family, pod), ASKED_PORT))

    def control(self, pod: bytes) -> Control:
        """Ask as the node, for the node to hear the answer; ``OSError`` if it cannot."""
        return Control(pod)


class Control:
    """A TCP connection that the node itself asks a pod for, and whose answer it hears."""

    def __init__(self, pod: bytes) -> None:
        """``OSError`` if the node cannot ask."""
        self._socket = _stream(pod)
        try:
            _connect(self._socket, pod, _CONTROL_PORT)
        except OSError:
            self._socket.close()
            raise

    def is_answered(self) -> bool:
        """Say whether the pod answered by now, yes or no."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if not poll.poll(0):
            return False
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in {0, errno.ECONNREFUSED}

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()


def _stream(pod: bytes) -> socket.socket:
    family = socket.AF_INET if len(pod) == 4 else socket.AF_INET6
    ours = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    return ours


def _connect(ours: socket.socket, pod: bytes, port: int) -> None:
    with suppress(BlockingIOError, ConnectionRefusedError):
        ours.connect((socket.inet_ntop(ours.family, pod), port))
