"""Whose questions the kernel shall drop at the socket, because reading them costs what others need.

Owns which clients are muted. Never attaches a filter (``transport``), never lets a question go (``queues``).
Invariants: for its queue only a pod is muted whose own is long, and it is heard again before that is
empty, so that it never has less than its turn; strangers, who can write any source address, are not.
For what a socket holds, who asks little is never muted, and nobody because strangers have many addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from resolver.queues import Owner, Queues

LONGEST, SHORTEST = 512, 16
"""The length at which a queue is long: half of the room, shared by those who wait, within these bounds."""
HEARD_AGAIN = 4
"""At this part of it the pod is heard again."""
MAX_MUTED = 256
"""Source addresses; a filter of them is gone through for each datagram."""
LEAST_LOUD = 3
"""Who asked less often in a turn is not loud, however little others asked: A and AAAA of a name are two."""


class Muting:
    """``sources`` is to be dropped from now on whenever ``look`` says so."""

    def __init__(self) -> None:
        self.sources: frozenset[bytes] = frozenset()
        self._muted: dict[Owner, frozenset[bytes]] = {}

    def look(self, queues: Queues) -> bool:
        """Look at the queues; say whether ``sources`` is another than before."""
        if not queues and not self._muted:
            return False
        long = min(LONGEST, max(SHORTEST, queues.most // (2 * max(1, queues.clients))))
        muted = {
            owner: sources
            for owner, sources in self._muted.items()
            if queues.length(owner) > long // HEARD_AGAIN
        }
        for owner in queues.at_least(long):
            if isinstance(owner, str):
                muted[owner] = muted.get(owner, frozenset()) | queues.sources(owner)
        self._muted = muted
        found = [source for sources in muted.values() for source in sources]
        before, self.sources = self.sources, frozenset(found[:MAX_MUTED])
        return self.sources != before


def loudest(heard: Mapping[bytes, int], owner: Callable[[bytes], Owner]) -> frozenset[bytes]:
    """Return the sources that asked as much as the mean client or more, of how often each was heard.

    Strangers are one client: a thousand addresses that one of them writes make no pod a loud one.
    """
    clients = {who if isinstance(who, str) else b"" for who in map(owner, heard)}
    mean = sum(heard.values()) / max(1, len(clients))
    loud = sorted(
        (source for source in heard if heard[source] >= max(LEAST_LOUD, mean)), key=heard.__getitem__
    )
    return frozenset(loud[-MAX_MUTED:])
