"""When what may be written: each policy seldom, all together at a bounded rate.

Pure. Owns the queue of policies of which something new may be to say. Never knows what. Invariants: a
policy is looked at again no sooner than its gap allows; never more than ``RATE`` requests a second go out in
the long run, whatever happens in the cluster.
"""

from __future__ import annotations

import heapq
from typing import Final

from enforcer.controller.verdicts import Key

SOON_S: Final = 0.5
"""Between two writes of a policy that was changed by its author."""
GAP_S: Final = 2.0
"""Between two writes of counters."""
REPAIR_S: Final = 60.0
"""Before the same is written again, because somebody else has changed it."""
RETRY_S: Final = (2.0, 120.0)
RATE: Final = 50.0
BURST: Final = 100.0


class Pace:
    """See the module; every ``now`` is monotonic."""

    def __init__(self, now: float) -> None:
        self._due: dict[Key, float] = {}
        self._queue: list[tuple[float, Key]] = []
        """A heap; what is not in ``_due`` with the same time counts no more."""
        self._written_at: dict[Key, float] = {}
        self._retry_s: dict[Key, float] = {}
        self._tokens = BURST
        self._filled_at = now
        self._held_until = now

    def mark(self, key: Key, now: float, gap_s: float = GAP_S) -> None:
        """Something may be to say of the policy, ``gap_s`` after the last time."""
        due = max(now, self._written_at.get(key, float("-inf")) + gap_s)
        waiting = self._due.get(key)
        if waiting is not None:
            due = max(due, waiting) if key in self._retry_s else min(due, waiting)
        self._enqueue(key, due)

    def _enqueue(self, key: Key, due: float) -> None:
        if self._due.get(key) != due:
            self._due[key] = due
            heapq.heappush(self._queue, (due, key))

    def forget(self, key: Key) -> None:
        """The policy has gone."""
        for each in (self._due, self._written_at, self._retry_s):
            each.pop(key, None)

    def take(self, now: float) -> Key | None:
        """Return the policy that has waited longest, if one is due and a request may go out."""
        if not self._due or not self.may_send(now):
            return None
        due, key = self._first()
        if due > now:
            return None
        del self._due[key]
        return key

    def _first(self) -> tuple[float, Key]:
        """Return what is due first; something must be."""
        while self._due.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0]

    def may_send(self, now: float) -> bool:
        """Say whether a request may go out."""
        self._fill(now)
        return now >= self._held_until and self._tokens >= 1

    def may_repair(self, key: Key, now: float) -> bool:
        """Say whether the same may be written again."""
        return now >= self._written_at.get(key, float("-inf")) + REPAIR_S

    def sent(self, now: float) -> None:
        """A request goes out."""
        self._fill(now)
        self._tokens -= 1

    def written(self, key: Key, now: float) -> None:
        """What was to say is said."""
        self._written_at[key] = now
        self._retry_s.pop(key, None)

    def failed(self, key: Key, now: float) -> None:
        """The API server did not take it: again later, and ever later."""
        pause_s = self._retry_s.get(key, RETRY_S[0])
        self._retry_s[key] = min(pause_s * 2, RETRY_S[1])
        self._enqueue(key, now + pause_s)

    def hold(self, until: float) -> None:
        """Nothing goes out until then: the API server does not answer, or asked for it."""
        self._held_until = max(self._held_until, until)

    def next_at(self, now: float) -> float:
        """Return when to look again; infinity if nothing waits."""
        if not self._due:
            return float("inf")
        self._fill(now)
        first = max(self._first()[0], self._held_until)
        return max(first, now + (1 - self._tokens) / RATE) if self._tokens < 1 else first

    def _fill(self, now: float) -> None:
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE)
        self._filled_at = now
