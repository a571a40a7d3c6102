"""Queries and replies over TCP: pipelined, out of order, bounded (RFC 7766).

Owns the connections that come through the adopted listening sockets, and their number, per client and in
all. An epoll of their own watches them, and the reactor sees nothing else of them: one with a single question
costs little but its system calls. Decides nothing about messages. Invariants: a connection that does not
complete a message or take a reply for ``IDLE_S`` is cut, whatever trickles in; nobody's connections keep
another client's out; a client that sends nothing more (FIN) still gets its answers; the replies of one turn
leave a connection in one write.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from policy.runtime.clock import MonotonicReactor
from resolver import transport
from resolver.effects import Client
from resolver.hits import STREAM
from resolver.listener import Hit
from resolver.messages import MAX_QUERY_BYTES

IDLE_S = 10.0
MAX_CONNECTIONS = 4096
CONNECTIONS_PER_TURN = 64
EVENTS_PER_TURN = 256
MESSAGES_PER_TURN = 32
READ_BYTES = 16 * 1024
PAUSE_S = 0.1  # in which nobody is accepted, for want of what no connection's end brings
MAX_UNREAD_BYTES = 256 * 1024
"""Replies waiting for a client that reads no more: no question of it is taken, and late answers cut it."""
_PREFIX_BYTES = 2
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
        self._doors: dict[int, transport.Socket] = {}
        self._watched: dict[int, _Connection] = {}  # as the doors, by what epoll calls them
        self._closed = closed
        self._owner = owner
        self._broken = broken
        self._connections: OrderedDict[int, _Connection] = OrderedDict()  # least recently active first
        self._per_client: dict[Hashable, int] = {}
        self._last_via = 0
        self._sweep: IDelayedCall | None = None
        self._pause: IDelayedCall | None = None
        self._was_cut = False  # one was, for want of room, and nobody was accepted since
        self.unsent: list[_Connection] = []
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
        connection = _Connection(self, descriptor, peer, owner, self._last_via)
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

    def gone(self, connection: _Connection) -> None:
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


class _Connection:
    """One client's connection."""

    __slots__ = (
        "_client", "_has_ended", "_is_open", "_late_bytes", "_listener", "_owed", "_peer", "_pending",
        "_replies", "_rest", "_turn", "_wanted", "active_at", "descriptor", "owner", "via",
    )  # fmt: skip

    def __init__(
        self, listener: StreamListener, descriptor: int, peer: transport.Peer, owner: Hashable, via: int
    ) -> None:
        self._listener = listener
        self.descriptor = descriptor
        self._peer = peer
        self.owner = owner
        self.via = via
        self.active_at = listener.reactor.seconds()
        self._client: Client | None = None
        self._pending = b""
        self._replies = bytearray()
        self._rest = b""  # what the socket has not taken of replies
        self._late_bytes = 0  # of that, what came while it was full
        self._wanted = EPOLLIN
        self._is_open = True
        self._has_ended = False
        self._owed = 0
        self._turn: IDelayedCall | None = None

    def ready(self, event: int) -> None:
        """Read or write, as epoll says."""
        if event & (EPOLLHUP | EPOLLERR):
            self._end()
        elif event & EPOLLOUT:
            self._write_rest()
        else:
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        if data:
            self._pending += data
            self._take_messages()
        else:  # the client sends nothing more (FIN); what it asked is answered (RFC 7766, 6.2.4)
            self._has_ended = True
            self.settle()

    def _take_messages(self) -> None:
        """Take whole messages, a bounded number a turn; what is no possible query ends it."""
        self._turn = None
        if self._rest:  # it asks on without reading: not before that has left
            return
        self._owed += 1  # this turn's end
        listener, pending = self._listener, self._pending
        hit, source, now = listener.hit, self._peer[0] + STREAM, listener.reactor.seconds()
        at, size, left = 0, len(pending), MESSAGES_PER_TURN
        while left and len(self._replies) < MAX_UNREAD_BYTES:
            left -= 1
            begin = at + _PREFIX_BYTES
            if size < begin:
                break
            length = pending[at] << 8 | pending[at + 1]
            if not 0 < length <= MAX_QUERY_BYTES:
                self.cut()
                return
            end = begin + length
            if size < end:
                break
            at = end
            wire = pending[begin:end]
            self._owed += 1
            if (reply := hit(wire, source, now)) is not None:
                self.reply(reply)
                continue
            listener.received(wire, self._client or self._introduced(), now)
            if not self._is_open:
                return  # cut meanwhile
        else:
            self._turn = listener.reactor.callLater(0, self._take_messages)
        if at:
            self._pending = pending[at:]
            self._touch(now)
        self._owed -= 1
        self.settle()

    def _introduced(self) -> Client:
        """Say who it is; the address that the client aimed at is our end's."""
        aimed = transport.own_address(self.descriptor)
        self._client = Client(*self._peer, aimed, "tcp", self.via)
        return self._client

    def reply(self, wire: bytes) -> None:
        """Send a reply with this turn's end; length and message in one segment (RFC 7766, 8)."""
        if not self._replies:
            self._listener.unsent.append(self)
        self._replies += len(wire).to_bytes(_PREFIX_BYTES, "big")
        self._replies += wire
        self._owed -= 1

    def flush(self) -> None:
        """Write this turn's replies, behind what the socket has not taken yet."""
        if not self._is_open:
            return
        data = bytes(self._replies)
        self._replies.clear()
        if self._rest:
            self._late_bytes += len(data)
            if self._late_bytes > MAX_UNREAD_BYTES:
                self.cut()
                return
            self._rest += data
            return
        self._touch(self._listener.reactor.seconds())
        self._rest = data
        self._write_rest()

    def _write_rest(self) -> None:
        try:
            self._rest = self._rest[os.write(self.descriptor, self._rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self._end()
            return
        if not self._rest:
            self._late_bytes = 0
            if self._wanted == EPOLLOUT and self._pending and self._turn is None:
                self._turn = self._listener.reactor.callLater(0, self._take_messages)
        self.settle()

    def _touch(self, now: float) -> None:
        self.active_at = now
        self._listener.active(self.via)

    def settle(self) -> None:
        """Close after the last answer to a client that asks nothing more; silence is the sweep's.

        Else read only while replies are taken, and while not more than a turn's messages wait.
        """
        waits = self._owed > 0 or self._replies or self._rest or self._turn is not None
        if self._has_ended and not waits:
            self._end()
            return
        is_deaf = self._has_ended or self._turn is not None or self._listener.is_stopped
        wanted = EPOLLOUT if self._rest else 0 if is_deaf else EPOLLIN
        if wanted != self._wanted:
            self._wanted = wanted
            self._listener.poller.modify(self.descriptor, wanted)

    def cut(self) -> None:
        """End it at once, unread replies and all."""
        self._leave()
        transport.reset(self.descriptor)

    def _end(self) -> None:
        self._leave()
        os.close(self.descriptor)

    def _leave(self) -> None:
        self._is_open = False
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._listener.gone(self)
