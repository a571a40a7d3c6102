"""A descriptor of the kernel's as a reader of the loop.

Owns nothing but the shape that Twisted wants. Never closes the descriptor.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
class Readable:
    """Calls ``ready`` whenever the descriptor has something to read."""

    def __init__(self, descriptor: int, ready: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._ready = ready

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def doRead(self) -> None:
        """Something is there."""
        self._ready()

    def connectionLost(self, reason: Failure) -> None:
        """The loop ends; the descriptor is its owner's."""

    def logPrefix(self) -> str:
        """Name it in Twisted's log."""
        return "kernel"
