"""The UDP sockets of the questions under way: kept, and connected anew for each question.

Owns the sockets and the one epoll set they are read by. Knows nothing of DNS but who asked. Invariants: a
socket has one question at a time, and each question a port that the kernel drew for it alone; a
question that ends takes its port with it, and what still comes for it reaches no other question.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import classImplements

from resolver import transport
from resolver.upstreams import Attempt

MAX_DATAGRAM_BYTES = 4096
"""Well over what our OPT asks for; a datagram that fills it counts as truncated."""
ANSWERS_PER_TURN = 64
"""Then the other descriptors get their turn."""
MAX_KEPT = 256
"""Sockets without a question; a question for which none is left opens another."""


class _Kept:
    """A socket, and whose question it has."""

    __slots__ = ("attempt", "descriptor", "is_ipv6", "is_watched", "sock")

    def __init__(self, sock: transport.Socket, *, is_ipv6: bool) -> None:
        self.sock = sock
        self.descriptor = sock.fileno()
        self.is_ipv6 = is_ipv6
        self.is_watched = False
        self.attempt: Attempt | None = None


class QuestionSockets:
    """All of them as one reader of the reactor's: entering it and leaving it costs more than a socket does.

    A question's end disconnects its socket, which takes the port away: from then on nothing comes in.
    What came in before is found by the next look at the epoll set, so a socket *rests* until a look
    has found it empty, and is closed if it was not. Then it is free.
    """

    def __init__(self, received: Callable[[Attempt, bytes], None], failed: Callable[[Attempt], None]) -> None:
        self._received = received
        self._failed = failed
        self._epoll = select.epoll()
        self._open: dict[int, _Kept] = {}
        self._resting: dict[int, _Kept] = {}
        self._free: tuple[list[_Kept], list[_Kept]] = ([], [])

    def __len__(self) -> int:
        """How many questions have a socket."""
        return len(self._open)

    @property
    def kept_count(self) -> int:
        """How many sockets have no question."""
        return len(self._resting) + sum(len(free) for free in self._free)

    def send(self, attempt: Attempt) -> None:
        """Send the attempt's wire from a fresh port; OSError if there is none to be had."""
        upstream = attempt.upstream
        is_ipv6 = ":" in upstream.address
        free = self._free[is_ipv6]
        kept = free.pop() if free else _Kept(transport.question_socket(is_ipv6=is_ipv6), is_ipv6=is_ipv6)
        try:
            if not kept.is_watched:
                self._epoll.register(kept.descriptor, select.EPOLLIN)
                kept.is_watched = True
            kept.sock.connect(transport.question_address(upstream.address, upstream.port))
        except OSError:
            kept.sock.close()
            raise
        kept.attempt = attempt
        attempt.descriptor = kept.descriptor
        self._open[kept.descriptor] = kept
        kept.sock.send(attempt.wire)

    def close(self, attempt: Attempt) -> None:
        """Take the attempt's port away, if it has one."""
        kept = self._open.pop(attempt.descriptor, None)
        if kept is None:
            return
        attempt.descriptor = -1
        kept.attempt = None
        if self.kept_count < MAX_KEPT and transport.disconnect(kept.descriptor):
            self._resting[kept.descriptor] = kept
        else:
            kept.sock.close()

    def close_all(self) -> None:
        """Close every socket."""
        for kept in (*self._open.values(), *self._resting.values(), *self._free[0], *self._free[1]):
            if kept.attempt is not None:
                kept.attempt.descriptor = -1
            kept.sock.close()
        self._open, self._resting, self._free = {}, {}, ([], [])

    def fileno(self) -> int:
        """Twisted: the descriptor to watch."""
        return self._epoll.fileno()

    def doRead(self) -> None:
        """Twisted: datagrams came, or ICMP errors for what was sent."""
        resting, self._resting = self._resting, {}
        most = ANSWERS_PER_TURN + len(resting)
        ready = self._epoll.poll(0, most)
        for descriptor, _ in ready:
            if descriptor not in self._open:
                self._give_up(descriptor, resting)
        if len(ready) < most:
            for kept in resting.values():
                self._free[kept.is_ipv6].append(kept)
        else:
            self._resting = resting
        for descriptor, _ in ready[:ANSWERS_PER_TURN]:
            found = self._open.get(descriptor)
            if found is not None and found.attempt is not None:
                self._read(found, found.attempt)

    def _give_up(self, descriptor: int, resting: dict[int, _Kept]) -> None:
        """Close a socket that got something for a question that had ended."""
        late = resting.pop(descriptor, None)
        if late is None:  # it was on its way when the port was taken away, and the look came before it
            for free in self._free:
                late = next((kept for kept in free if kept.descriptor == descriptor), None)
                if late is not None:
                    free.remove(late)
                    break
        if late is not None:
            late.sock.close()

    def _read(self, kept: _Kept, attempt: Attempt) -> None:
        try:
            wire = kept.sock.recv(MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:
            del self._open[kept.descriptor]
            attempt.descriptor = -1
            kept.sock.close()
            self._failed(attempt)
            return
        self._received(attempt, wire)

    def connectionLost(self, _reason: Failure) -> None:
        """Twisted: the reactor gives the set up; what is open fails by its deadline."""

    def logPrefix(self) -> str:
        """Twisted: how this reader calls itself."""
        return "upstream"


classImplements(QuestionSockets, IReadDescriptor)
