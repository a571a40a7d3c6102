"""Does the controller's loop still turn: told over a socket, for probes by exec (``nameward health PATH``).

Owns the thread that answers. Invariant: it answers from what the loop last said, and so also when that hangs.
"""

from __future__ import annotations

import selectors
import threading
from typing import Final

from enforcer.health import HealthSocket, Told
from policy.runtime.clock import now

STUCK_S: Final = 60.0
"""A turn waits for a second and for requests of five; this long it takes only if something hangs."""


class Vital:
    """Begins with ``start``; ``OSError`` if there can be no socket at ``path``."""

    def __init__(self, path: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._socket = HealthSocket(path, self._selector, self.look)
        self._turned_at = now()
        self._said = "starting"
        self._is_ready = False

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self._serve, name="health", daemon=True).start()

    def turned(self, said: str, *, is_ready: bool) -> None:
        """The loop turns, and says in a sentence how it is."""
        self._turned_at, self._said, self._is_ready = now(), said, is_ready

    def look(self, at: float) -> Told:
        """Return what is to be told at that moment."""
        silent_s = at - self._turned_at
        if silent_s >= STUCK_S:
            return Told(live=False, ready=False, said=f"the controller's loop has hung for {silent_s:.0f} s")
        return Told(live=True, ready=self._is_ready, said=self._said)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data(now())
