"""What the TCP connections of all clients may take of one turn of the loop, and whose is next.

Owns the turn's budget and the order of those that wait for another. Never reads a connection: it calls back.
Invariants: however many connections have come, a turn does a bounded number of things for them; one
connection of each client in turn goes on, so that a client has no more turns for having more of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from twisted.internet.interfaces import IDelayedCall

from policy.runtime.clock import MonotonicReactor

PER_TURN = 256
"""Reads and messages: a millisecond. Datagrams and upstreams' answers wait as long at most."""

_Waiting = OrderedDict[Hashable, dict[int, Callable[[], None]]]
"""By client, whose turn is next first, what to call for each of its connections."""


class StreamTurns:
    """``left`` is what this turn still allows; who does something takes it off."""

    def __init__(self, reactor: MonotonicReactor) -> None:
        self.left = PER_TURN
        self._reactor = reactor
        self._waiting: _Waiting = OrderedDict()
        self._served: _Waiting = OrderedDict()  # those of them whose turn this is
        self._call: IDelayedCall | None = None
        reactor.turn_ends.append(self._ended)

    def may(self, owner: Hashable) -> bool:
        """Say whether a client's connection may go on at once: there is room, and none of its own waits."""
        return self.left > 0 and owner not in self._waiting

    def wait(self, owner: Hashable, via: int, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` when it is this connection's turn."""
        self._waiting.setdefault(owner, {})[via] = go_on
        if self._call is None:
            self._call = self._reactor.callLater(0, self._serve)

    def forget(self, owner: Hashable, via: int) -> None:
        """Let a connection wait no more, if it does."""
        for clients in (self._waiting, self._served):
            connections = clients.get(owner, {})
            if connections.pop(via, None) is not None and not connections:
                del clients[owner]

    def stop(self) -> None:
        """Call nobody any more."""
        if self._ended in self._reactor.turn_ends:
            self._reactor.turn_ends.remove(self._ended)
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._waiting.clear()
        self._served.clear()

    def _ended(self) -> None:
        self.left = PER_TURN

    def _serve(self) -> None:
        self._call = None
        served, self._served, self._waiting = self._waiting, self._waiting, OrderedDict()
        while served and self.left > 0:
            owner, connections = served.popitem(last=False)
            via = next(iter(connections))
            go_on = connections.pop(via)
            if connections:
                served[owner] = connections
            go_on()
        for owner, connections in self._waiting.items():  # who has had a turn comes after who has not
            served.setdefault(owner, {}).update(connections)
        self._waiting, self._served = served, OrderedDict()
        if served and self._call is None:
            self._call = self._reactor.callLater(0, self._serve)
