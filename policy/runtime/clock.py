"""Time: the monotonic clock of both programs and the reactor that lives by it, turn by turn.

Owns the only reading of either clock, and when a turn of the loop is over. Expiry, deadlines and
timeouts use ``now`` (monotonic seconds, meaningless across hosts and restarts); wall time is for
records that people read. Never used by a core: they take ``now`` as an argument.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from twisted.internet.main import installReactor

from policy.runtime.plain_reactor import EPollReactor


def now() -> float:
    """Monotonic seconds; the same clock as ``MonotonicReactor.seconds``."""
    return time.monotonic()


def wall_seconds() -> float:
    """Seconds since 1970 by the host's wall clock, which may jump: for records only."""
    return datetime.now(UTC).timestamp()


def wall_now(before_s: float = 0.0) -> str:
    """Wall time as RFC 3339 with milliseconds in UTC, ``before_s`` seconds ago."""
    at = datetime.now(UTC) - timedelta(seconds=before_s)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class MonotonicReactor(EPollReactor):
    """Twisted's epoll reactor with a clock that never jumps (its own reads wall time).

    ``leaving`` are called, in order, when a turn's timers have run and again after each descriptor: what one
    read brought together leaves in one piece, and waits for no other's. ``turn_ends`` come after them, when
    the timers have run and when all descriptors have been served. Of several descriptors those in ``last``,
    which bring new work, come after those by which work ends.
    """

    def __init__(self) -> None:
        self.leaving: list[Callable[[], None]] = []
        self.turn_ends: list[Callable[[], None]] = []
        self.last: set[object] = set()
        super().__init__()  # type: ignore[no-untyped-call]

    def seconds(self) -> float:
        """Monotonic seconds; ``callLater`` and every timeout of Twisted count by it."""
        return time.monotonic()

    def doIteration(self, delay: float | None) -> None:  # noqa: N802 - Twisted's name
        """Twisted: the timers of this turn have run; wait for descriptors, and serve them."""
        self._leave()
        self._end_turn()
        if delay != 0:  # the turn's end may have set a nearer timer
            at_most = self.timeout()
            delay = at_most if delay is None else delay if at_most is None else min(delay, at_most)
        self.doPoll(delay)
        self._end_turn()

    def doPoll(self, timeout: float | None) -> None:  # noqa: N802 - Twisted's name
        """Twisted's own, without a logging context for each event: that costs as much as the read itself."""
        try:
            ready = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except InterruptedError:
            return
        if len(ready) > 1:
            ready.sort(key=self._is_last)
        for descriptor, event in ready:
            selectable = self._selectables.get(descriptor)
            if selectable is not None:  # removed by what came before it in this turn
                self._doReadOrWrite(selectable, descriptor, event)
                self._leave()

    def _is_last(self, ready: tuple[int, int]) -> bool:
        return self._selectables.get(ready[0]) in self.last

    def _leave(self) -> None:
        for leave in self.leaving:
            leave()

    def _end_turn(self) -> None:
        for end in self.turn_ends:
            end()


def install_reactor() -> MonotonicReactor:
    """Make and install the process's reactor.

    Call once, in the process that will run it (after a fork, before anything imports
    ``twisted.internet.reactor``); raises ``ReactorAlreadyInstalledError`` otherwise.
    """
    reactor = MonotonicReactor()
    installReactor(reactor)
    return reactor
