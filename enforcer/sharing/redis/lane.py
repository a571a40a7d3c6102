"""A bounded way from the event loop to a thread.

Owns the waiting. Never blocks the side that puts. Invariant: what was put is taken once, in its
order, or dropped whole when the lane is closed.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, NamedTuple, TypeVar


class Work(NamedTuple):
    """Packed commands that travel together: ``commands`` replies belong to ``ticket``.

    ``key`` says to which slot of a Cluster; "" is this node's own.
    """

    ticket: int
    payload: bytes
    commands: int
    key: bytes = b""


T = TypeVar("T")


class Lane(Generic[T]):
    """What waits for one thread (or several)."""

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._is_closed = False
        self._sleepers = 0

    def put(self, item: T) -> None:
        """Add one; wakes a sleeping thread. Nothing is kept once the lane is closed."""
        with self._changed:
            if not self._is_closed:
                self._waiting.append(item)
                if self._sleepers:
                    self._changed.notify()

    def take(self, most: int, wait_s: float) -> list[T] | None:
        """Return up to ``most``, [] after ``wait_s`` without any, None once it is closed and empty."""
        with self._changed:
            if not self._waiting and not self._is_closed:
                self._sleepers += 1
                self._changed.wait(wait_s)
                self._sleepers -= 1
            if not self._waiting:
                return None if self._is_closed else []
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def close(self, *, keep: bool = False) -> None:
        """Take nothing more; ``keep``: what is in it is still taken."""
        with self._changed:
            self._is_closed = True
            if not keep:
                self._waiting.clear()
            self._changed.notify_all()
