"""What of the shared grants may differ from the ledger, by the keys of elements alone.

Pure. Owns no contents: the ledger is the truth, and what is written is read from it when it is written.
So whatever happened to a key meanwhile, one mark stands for all of it. Bounded: beyond ``limit`` what waits
is let go, counted, and everything is compared again later.

Invariant: a record that was published and whose grant is over is here until it has expired in Redis by
itself, whatever Redis acknowledged: a server that comes back from an old copy has it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from enforcer.ledger import ElementKey, Holding

SWEPT = 1000
"""Ended records looked at in one sweep."""


class Outbox:
    """Marks; ``wake`` is called when there is something to write and nobody was told yet."""

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self._limit = limit
        self._now = now
        self.wake: Callable[[], None] = _nobody
        self._touched: dict[ElementKey, None] = {}
        self.ended: dict[ElementKey, float] = {}
        """Records that may still be there and that nobody stands for, with their ends; read by the feed."""
        self._is_open = False
        self.dropped = 0
        """Marks that were let go."""
        self.wants_resync = False
        """Marks of what lives were let go: only everything is enough."""
        self.wants_scan = True
        """There may be records that nobody here knows of: an earlier enforcer's, or marks let go."""

    def __len__(self) -> int:
        return len(self._touched)

    def open(self) -> None:
        """Redis is there: write what changes, and take away again what may have come back."""
        self._is_open = True
        self._touched = dict.fromkeys(self.ended)
        self.wants_resync = False
        if self._touched:
            self.wake()

    def close(self) -> None:
        """Redis is lost: whatever changes is compared as a whole when it is back."""
        self._is_open = False
        self._touched = {}

    def touch(self, keys: Iterable[ElementKey]) -> None:
        """Note that the ledger has changed these."""
        if not self._is_open:
            return
        touched = self._touched
        if not touched:
            self.wake()
        for key in keys:
            touched[key] = None
        if len(touched) > self._limit:
            self.dropped += len(touched)
            self._touched = {}
            self.wants_resync = True

    def end(self, holding: Holding) -> None:
        """Note that the holding's record, if there is one, is to go; before its ``until`` changes."""
        if holding.shared is None:
            return
        holding.shared = None
        if holding.until > self._now():
            self.bury(holding.key, holding.until)
            self.touch((holding.key,))

    def bury(self, key: ElementKey, until: float) -> None:
        """Remember until when a copy of a record as it was may live."""
        self.ended[key] = max(until, self.ended.get(key, until))
        if len(self.ended) > self._limit:
            self.dropped += len(self.ended)
            self.ended = {}
            self.wants_scan = True

    def take(self) -> list[ElementKey]:
        """Return everything that waits, oldest first; it waits no more."""
        touched, self._touched = self._touched, {}
        return list(touched)

    def sweep(self) -> None:
        """Forget records that have expired; looks at a bounded number of them, in turn."""
        now = self._now()
        for key, until in list(islice(self.ended.items(), SWEPT)):
            del self.ended[key]
            if until > now:
                self.ended[key] = until


def _nobody() -> None:
    """Nobody is told."""
