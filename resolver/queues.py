"""Questions that wait their turn while more come than can be served: a queue for each client.

Owns who is next and who gives way. Never reads a clock, never answers. Invariants: each client in turn has
one question served; beyond ``most`` questions the oldest of the longest queue is let go, whoever it
was that came; nobody's question is let go below that bound, but one whose asker has given it up.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from resolver.effects import Client

Owner = str | bytes
Question = tuple[bytes, Client, float]
"""The message, who asked, and when it came."""


class Queues:
    """First come first served within a client, round robin between clients."""

    def __init__(self, most: int, longest_wait_s: float) -> None:
        self.most = most
        self._longest_wait_s = longest_wait_s
        self._queues: OrderedDict[Owner, deque[Question]] = OrderedDict()  # whose turn is next comes first
        self._of_length: list[dict[Owner, None]] = [{}]
        self._longest = 0
        self._size = 0
        self.shed_full = 0
        """Questions that gave way because too many waited; the reporter drains it."""
        self.shed_late = 0
        """Questions that waited longer than their asker does; the reporter drains it."""

    def __len__(self) -> int:
        return self._size

    @property
    def clients(self) -> int:
        """How many have a question that waits."""
        return len(self._queues)

    def length(self, owner: Owner) -> int:
        """How many of a client's questions wait."""
        return len(self._queues.get(owner, ()))

    def at_least(self, length: int) -> list[Owner]:
        """Return whose queues are so long or longer, the longest first."""
        return [owner for at in range(self._longest, length - 1, -1) for owner in self._of_length[at]]

    def sources(self, owner: Owner) -> frozenset[bytes]:
        """Return the addresses from which the questions of a client that wait were asked."""
        return frozenset(question[1].source for question in self._queues.get(owner, ()))

    def put(self, owner: Owner, question: Question) -> None:
        """Let a question wait."""
        if self._size >= self.most:
            self._shed_of_longest()
        queue = self._queues.get(owner)
        if queue is None:
            queue = self._queues[owner] = deque()
        queue.append(question)
        self._size += 1
        self._note_length(owner, len(queue) - 1, len(queue))

    def take(self, now: float, may: Callable[[Owner], bool] | None = None) -> Question | None:
        """Return the next question to serve, of those who ``may`` be served; None if none waits."""
        for _ in range(len(self._queues)):
            owner, queue = self._queues.popitem(last=False)
            if may is not None and not may(owner):
                self._queues[owner] = queue
                continue
            before = len(queue)
            found: Question | None = None
            while queue and found is None:
                question = queue.popleft()
                if now - question[2] <= self._longest_wait_s:
                    found = question
                else:
                    self.shed_late += 1
            if queue:
                self._queues[owner] = queue
            self._size -= before - len(queue)
            self._note_length(owner, before, len(queue))
            if found is not None:
                return found
        return None

    def _shed_of_longest(self) -> None:
        owner = next(iter(self._of_length[self._longest]))
        queue = self._queues[owner]
        queue.popleft()
        if not queue:
            del self._queues[owner]
        self._size -= 1
        self.shed_full += 1
        self._note_length(owner, len(queue) + 1, len(queue))

    def _note_length(self, owner: Owner, before: int, after: int) -> None:
        """Keep the owners by the length of their queues, so that the longest is found without a search."""
        of_length = self._of_length
        if before:
            del of_length[before][owner]
        if after:
            if after == len(of_length):
                of_length.append({})
            of_length[after][owner] = None
            self._longest = max(self._longest, after)
        while self._longest and not of_length[self._longest]:
            self._longest -= 1
