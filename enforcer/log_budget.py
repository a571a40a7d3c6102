"""How many records of refusals are written: what pods cause to be logged has a bound.

Pure. Owns the bound, for the node and for each pod. Never writes. Invariant: what is not written is counted,
and said at most every ``SAID_EVERY_S``.
"""

from __future__ import annotations

BURST_S = 10.0
"""What was not used for so long may be used at once."""
POD_SHARE = 4
"""One pod gets this part of the node's budget."""
SAID_EVERY_S = 60.0
MAX_PODS = 4096


class _Bucket:
    __slots__ = ("at", "left", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.left = rate * BURST_S
        self.at = now

    def has(self, now: float) -> bool:
        self.left = min(self.left + (now - self.at) * self.rate, self.rate * BURST_S)
        self.at = now
        return self.left >= 1


class LogBudget:
    """``take`` says whether a record may be written; ``per_second`` of all pods together, in the long run."""

    def __init__(self, per_second: int) -> None:
        self._rate = float(per_second)
        self._node: _Bucket | None = None
        self._pods: dict[str, _Bucket] = {}
        self._said_at = float("-inf")
        self._unsaid = 0
        self.suppressed = 0
        """Records that were not written."""

    def take(self, pod: str, now: float) -> bool:
        """Use up one record of a pod ("" for nobody's), if there is one left."""
        if self._node is None:
            self._node = _Bucket(self._rate, now)
        bucket = self._pods.get(pod)
        if bucket is None:
            if len(self._pods) >= MAX_PODS:
                self._pods.clear()
            bucket = self._pods[pod] = _Bucket(self._rate / POD_SHARE, now)
        if not (bucket.has(now) and self._node.has(now)):
            self.suppressed += 1
            self._unsaid += 1
            return False
        bucket.left -= 1
        self._node.left -= 1
        return True

    def unsaid(self, now: float) -> int:
        """Return how many were not written since this was last said; 0 if it need not be said now."""
        if not self._unsaid or now < self._said_at + SAID_EVERY_S:
            return 0
        count, self._unsaid, self._said_at = self._unsaid, 0, now
        return count
