"""Which sockets a resolver is given: those of its number.

Owns the words and descriptors with which a connection begins. Never reads what comes. Invariant: each
set of sockets has one number, so that a pod that is led to a set is answered by one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from enforcer.sockets import of_process, processes_of
from policy.authority import Hello, ToEnforcer
from policy.runtime.framing import encode


class Numbered(Protocol):
    """What has a descriptor: a socket."""

    def fileno(self) -> int:
        """Return it."""


class Transport(Protocol):
    """The end of a connection, which passes descriptors on (of a unix listener, Twisted's ``Server``)."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def sendFileDescriptor(self, fileno: int) -> None:  # noqa: N802 - Twisted's name
        """Send a descriptor with the bytes."""


class Greeting:
    """What every resolver is told first, and given."""

    def __init__(self, version: str, sockets: Mapping[str, Numbered]) -> None:
        self._processes = processes_of(sockets)
        sets = [of_process(sockets, number) for number in range(self._processes)]
        self._sets = [(encode(Hello(version, tuple(each))), list(each.values())) for each in sets]

    def give(self, transport: Transport, first: ToEnforcer | None = None) -> bool:
        """Greet, unless it must be known first which resolver it is: ``first`` is what it said."""
        if first is None and self._processes > 1:
            return False
        number = first.number if isinstance(first, Hello) else 0
        hello, sockets = self._sets[number % self._processes]
        transport.write(hello)
        for each in sockets:
            transport.sendFileDescriptor(each.fileno())
        return True
