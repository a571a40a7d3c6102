"""How long a run may take: when no other bench is begun, and when the one that runs is ended.

Owns the clock of a run. Invariant: ``OutOfTime`` is raised only while a bench measures, once, so that its
contexts can take down what they stood up.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(Exception):
    """The run's time is over; what was being measured is not finished."""


class Clock:
    """The time of one run, from now on; without bounds it takes as long as it takes. Main thread only."""

    def __init__(self, *, begun_before_s: float = math.inf, over_after_s: float = math.inf) -> None:
        self._began_at = time.monotonic()
        self._begun_before_s, self._over_after_s = begun_before_s, over_after_s

    def gone_s(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._began_at

    def is_left(self) -> bool:
        """May another bench begin?"""
        return self.gone_s() < self._begun_before_s

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Raise ``OutOfTime`` in what is done here, when it is."""
        if math.isinf(self._over_after_s):
            yield
            return
        previous = signal.signal(signal.SIGALRM, _over)
        signal.setitimer(signal.ITIMER_REAL, max(self._over_after_s - self.gone_s(), 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def _over(_number: int, _frame: object) -> None:
    raise OutOfTime
