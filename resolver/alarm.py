"""One timer for a core that names its next deadline.

Owns a single ``callLater``. Invariant: it rings at or before the deadline the core names; ringing
too early is harmless, so an earlier deadline re-arms it and a later one does not.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.base import DelayedCall

from policy.runtime.clock import MonotonicReactor


class Alarm:
    """Calls ``ring(now)`` when ``next_deadline()`` has come."""

    def __init__(
        self,
        reactor: MonotonicReactor,
        next_deadline: Callable[[], float | None],
        ring: Callable[[float], None],
    ) -> None:
        self._reactor = reactor
        self._next_deadline = next_deadline
        self._ring = ring
        self._call: DelayedCall | None = None
        self._at = float("inf")

    def arm(self) -> None:
        """Look at the next deadline; call at the end of each turn that may have brought a nearer one."""
        at = self._next_deadline()
        if at is None or at >= self._at:
            return
        if self._call is not None:
            self._call.cancel()
        self._at = at
        self._call = self._reactor.callLater(max(0.0, at - self._reactor.seconds()), self._rang)

    def stop(self) -> None:
        """Never ring again (unless armed again)."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
            self._at = float("inf")

    def _rang(self) -> None:
        self._call = None
        self._at = float("inf")
        self._ring(self._reactor.seconds())
        self.arm()
