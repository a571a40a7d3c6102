"""How much one neighbour may cost: so many a second, and so many at once.

Pure. Owns the counting alone. Invariant: within any time of t seconds at most ``burst + rate * t``
are allowed, whatever instants are passed in.
"""

from __future__ import annotations


class Budget:
    """A bucket that fills with ``rate`` a second up to ``burst``; instants are monotonic seconds."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` if there is so much; say whether there was."""
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
        if self._left < cost:
            return False
        self._left -= cost
        return True

    def owe(self, cost: float) -> None:
        """Take ``cost``, though there may not be so much: nothing is left until that is made up."""
        self._left -= cost

    def is_owing(self, now: float) -> bool:
        """Say whether more was taken than there was."""
        return not self.take(now, 0.0)

    def is_full(self, now: float) -> bool:
        """Say whether nothing of it is in use: it may be forgotten."""
        return self._left + (now - self._at) * self._rate >= self._burst
