"""When what is under way must be over.

Owns the order of the instants. Never ends anything. Invariant: what waits until an instant is taken
once, at that instant or later, unless it waits for another one by then.

A queue for each kind instead of a heap: what begins later is due later, nearly always.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

NEVER: Final = float("inf")
QUESTIONS: Final = 0
EXCHANGES: Final = 1
HOLDS: Final = 2


class Waiting:
    """Something that must be over at ``due_at``; ``NEVER``: its end is not awaited."""

    __slots__ = ("due_at",)

    def __init__(self) -> None:
        self.due_at = NEVER


class Deadlines:
    """Everything that waits. An entry whose instant is no longer its item's is void."""

    def __init__(self) -> None:
        self._queues: list[deque[tuple[float, Waiting]]] = [deque(), deque(), deque()]
        self._others: list[tuple[float, int, Waiting]] = []
        self._order = 0

    def add(self, kind: int, item: Waiting, at: float) -> None:
        """Let an item wait until an instant, and for no other."""
        if item.due_at == at:
            return
        item.due_at = at
        if at == NEVER:
            return
        queue = self._queues[kind]
        while queue and queue[0][1].due_at != queue[0][0]:
            queue.popleft()
        if not queue or queue[-1][0] <= at:
            queue.append((at, item))
        else:
            self._order += 1
            heapq.heappush(self._others, (at, self._order, item))

    def next_at(self) -> float:
        """The earliest instant at which something is due, or ``NEVER``."""
        least = NEVER
        for queue in self._queues:
            while queue:
                at, item = queue[0]
                if item.due_at == at:
                    least = min(least, at)
                    break
                queue.popleft()
        others = self._others
        while others:
            at, _, item = others[0]
            if item.due_at == at:
                return at if at < least else least
            heapq.heappop(others)
        return least

    def take(self, now: float) -> Waiting | None:
        """Take one item whose time is up, the earliest first; None: nothing is due."""
        least = self.next_at()
        if least > now or least == NEVER:
            return None
        for queue in self._queues:
            if queue and queue[0][0] == least:
                return _taken(queue.popleft()[1])
        return _taken(heapq.heappop(self._others)[2])


def _taken(item: Waiting) -> Waiting:
    item.due_at = NEVER
    return item
