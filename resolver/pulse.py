"""Tells the supervisor, when it asks, whether this resolver serves.

Owns the socket that it inherited. Decides nothing. Invariant: a question is answered by the loop that
answers lookups, or not at all, so that a stuck loop is found out.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

MAX_SAID_BYTES = 500


@implementer(IReadDescriptor)
class Pulse:
    """Register with ``addReader``. ``why_not`` says what is missing, "" if nothing is."""

    def __init__(self, asked: socket.socket, why_not: Callable[[], str]) -> None:
        self._asked = asked
        self._asked.settimeout(0)
        self._why_not = why_not

    def fileno(self) -> int:
        """Twisted: what to wait for."""
        return self._asked.fileno()

    def logPrefix(self) -> str:
        """Twisted: a name for it."""
        return "pulse"

    def doRead(self) -> None:
        """Twisted: the supervisor asks."""
        with suppress(OSError):  # it is gone: the life line tells us, too
            self._asked.recv(16)
            why = self._why_not()
            self._asked.send((b"-" if why else b"+") + why.encode()[:MAX_SAID_BYTES])

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """Twisted: it is over."""
        self._asked.close()
