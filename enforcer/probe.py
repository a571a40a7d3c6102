"""Is it enforced? What can be proved on this node without touching anybody's traffic.

Owns the packets that prove it: one that the output hook must drop (from a captured DNS socket to an
address that is no pod's; RFC 5737), and one to ourselves that both tables' input hooks must let
through. Invariant: no packet of the probe leaves the node.

It proves that the kernel runs our rules in the output and input hooks now. That the forward hook runs
them is not proved by a packet (no packet can be forwarded without interfaces of our own): there the
structure's fingerprint stands for it, and the pods' own refused packets, which are recorded.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping

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
