"""Queries and replies over TCP: whose connections are there, and how many (RFC 7766).

Owns the connections that come through the adopted listening sockets, and their number, per client and in
all; what is said on one is its own (``stream_connection``). An epoll of their own watches them, and the
reactor sees nothing else of them: one with a single question costs little but its system calls. Decides
nothing about messages. Invariants: a connection that does not complete a message or take a reply for
``IDLE_S`` is cut, whatever trickles in; nobody's connections keep another client's out; all of them together
take a bounded part of a turn (``stream_turns``).
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Hashable
from select import EPOLLIN, epoll

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from policy.runtime.clock import MonotonicReactor
from resolver import transport
from resolver.effects import Client
from resolver.listener import Hit
from resolver.stream_connection import Connection
from resolver.stream_turns import StreamTurns

IDLE_S = 10.0
MAX_CONNECTIONS = 4096
CONNECTIONS_PER_TURN = 64
EVENTS_PER_TURN = 256
PAUSE_S = 0.1  # in which nobody is accepted, for want of what no connection's end brings
_NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


@implementer(IReadDescriptor)
class StreamListener:
    """All TCP connections of clients. ``received(wire, client, now)`` takes every message.

    Except those that ``hit(wire, source + STREAM, now)`` has a reply for.
    ``closed(via, now)`` tells that a connection has ended; replies to it go nowhere from then on.
    ``owner`` says whose a packed source address is: a pod's addresses are one client. ``broken`` hears of an
    exception that ended the reading.
    """

    def __init__(
        self,
        reactor: MonotonicReactor,
        received: Callable[[bytes, Client, float], None],
        closed: Callable[[int, float], None],
        max_per_client: int,
        owner: Callable[[bytes], Hashable] = bytes,
        *,
        hit: Hit = lambda *_: None,
        broken: Callable[[Failure], None] = Failure.raiseException,
    ) -> None:
        self.reactor = reactor
        self.hit = hit
        self.received = received
        self.max_per_client = max_per_client
        self.max_connections = MAX_CONNECTIONS
        self.idle_s = IDLE_S
        self.refused = 0
        """Connections that were over their client's number; the reporter drains it."""
        self.is_stopped = False
        self.poller = epoll()
        self.turns = StreamTurns(reactor)
        self._doors: dict[int, transport.Socket] = {}
        self._watched: dict[int, Connection] = {}  # as the doors, by what epoll calls them
        self._closed = closed
        self._owner = owner
        self._broken = broken
        self._connections: OrderedDict[int, Connection] = OrderedDict()  # least recently active first
        self._per_client: dict[Hashable, int] = {}
        self._last_via = 0
        self._sweep: IDelayedCall | None = None
        self._pause: IDelayedCall | None = None
        self._was_cut = False  # one was, for want of room, and nobody was accepted since
        self.unsent: list[Connection] = []
        """Connections with replies that leave at this turn's end."""
        reactor.turn_ends.append(self.flush)

    @property
    def open_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def listen(self, sock: transport.Socket) -> None:
        """Take the connections that come to a listening socket, until it is left."""
        transport.send_at_once(sock)
        self._doors[sock.fileno()] = sock
        self.poller.register(sock, EPOLLIN)
        self.reactor.addReader(self)

    def leave(self, sock: transport.Socket) -> None:
        """Take no further connection of a socket: they wait for whoever has it too."""
        del self._doors[sock.fileno()]
        self.poller.unregister(sock)

    def fileno(self) -> int:
        """Twisted: the descriptor to watch."""
        return self.poller.fileno()

    def logPrefix(self) -> str:
        """Twisted: how this reader calls itself."""
        return "tcp"

    def connectionLost(self, reason: Failure) -> None:
        """Twisted: ``doRead`` raised, which only a bug of ours does."""
        self._broken(reason)

    def doRead(self) -> None:
        """Twisted: something has come. First for who is here: who has gone makes room for another."""
        ready = self.poller.poll(0, EVENTS_PER_TURN)
        for descriptor, event in ready:
            if (connection := self._watched.get(descriptor)) is not None:
                connection.ready(event)
        for descriptor, _ in ready:
            if descriptor in self._doors:
                self._accept(self._doors[descriptor])

    def _accept(self, sock: transport.Socket) -> None:
        for number in range(CONNECTIONS_PER_TURN):
            try:
                descriptor, peer = transport.accept(sock)
            except BlockingIOError:
                return
            except OSError as failure:
                if failure.errno not in _NO_ROOM:
                    continue  # it befell a connection before it was accepted (accept(2))
                if number == 0:  # else nobody may be waiting
                    self._make_room()
                return
            self._was_cut = False
            owner = self._owner(peer[0])
            if self._per_client.get(owner, 0) < self.max_per_client:
                self._take_in(descriptor, peer, owner)
            else:
                self.refused += 1
                transport.reset(descriptor)

    def _take_in(self, descriptor: int, peer: transport.Peer, owner: Hashable) -> None:
        if len(self._connections) >= self.max_connections:
            self._cut_idlest()
        self._last_via += 1
        connection = Connection(self, descriptor, peer, owner, self._last_via)
        self._connections[self._last_via] = self._watched[descriptor] = connection
        self._per_client[owner] = self._per_client.get(owner, 0) + 1
        if self._sweep is None:
            self._sweep = self.reactor.callLater(1.0, self._cut_idle)
        self.poller.register(descriptor, EPOLLIN)
        connection.ready(EPOLLIN)  # its question is mostly here already

    def _make_room(self) -> None:
        """Cut the idlest; if there is none or the last one's end was of no use, let them wait a while."""
        if self._connections and not self._was_cut:
            self._was_cut = True
            self._cut_idlest()
        elif self._pause is None:
            self._pause = self.reactor.callLater(PAUSE_S, self._accept_again)
            for descriptor in self._doors:
                self.poller.modify(descriptor, 0)

    def _accept_again(self) -> None:
        self._pause, self._was_cut = None, False
        for descriptor in self._doors:
            self.poller.modify(descriptor, EPOLLIN)

    def _cut_idlest(self) -> None:
        next(iter(self._connections.values())).cut()

    def active(self, via: int) -> None:
        """Note that a connection completed a message or took a reply."""
        self._connections.move_to_end(via)

    def gone(self, connection: Connection) -> None:
        """Forget a connection; its descriptor is closed next, and epoll forgets it too."""
        del self._watched[connection.descriptor]
        del self._connections[connection.via]
        left = self._per_client.pop(connection.owner) - 1
        if left:
            self._per_client[connection.owner] = left
        self._closed(connection.via, self.reactor.seconds())

    def reply(self, wire: bytes, client: Client) -> None:
        """Send a reply to a client that was given to ``received``, if it is still there."""
        if (connection := self._connections.get(client.via)) is not None:
            connection.reply(wire)

    def flush(self) -> None:
        """Write the replies of this turn."""
        unsent, self.unsent = self.unsent, []
        for connection in unsent:
            connection.flush()

    def stop_reading(self) -> None:
        """Take no further query from anybody; replies can still be sent."""
        self.is_stopped = True
        for connection in list(self._connections.values()):
            connection.settle()

    def close(self) -> None:
        """Cut every connection."""
        if self.flush in self.reactor.turn_ends:
            self.reactor.turn_ends.remove(self.flush)
        self.turns.stop()
        for timer in (self._sweep, self._pause):
            if timer is not None:
                timer.cancel()
        self._sweep = self._pause = None
        for connection in list(self._connections.values()):
            connection.cut()
        if not self.poller.closed:
            self.reactor.removeReader(self)
            self.poller.close()

    def _cut_idle(self) -> None:
        self._sweep = None
        idle_since = self.reactor.seconds() - self.idle_s
        while self._connections and next(iter(self._connections.values())).active_at <= idle_since:
            self._cut_idlest()
        if self._connections:
            self._sweep = self.reactor.callLater(1.0, self._cut_idle)
