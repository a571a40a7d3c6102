"""Queries and replies over TCP: pipelined, out of order, bounded (RFC 7766).

Owns the adopted listening sockets' connections and their number, per client and in all. Decides
nothing about messages. Invariants: a connection that does not complete a message or take a reply
for ``IDLE_S`` is cut, whatever trickles in; nobody's connections keep another client's out; a
client that sends nothing more (FIN) still gets its answers; the replies of one turn leave a connection
in one write.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from policy.runtime.clock import MonotonicReactor
from resolver import transport
from resolver.effects import Client
from resolver.hits import STREAM
from resolver.messages import MAX_QUERY_BYTES

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, IReadDescriptor, ITCPTransport

    class Transport(ITCPTransport, IConsumer, IPushProducer, IReadDescriptor):
        """What Twisted gives a TCP connection."""


IDLE_S = 10.0
MAX_CONNECTIONS = 4096
MESSAGES_PER_TURN = 32
MAX_UNREAD_BYTES = 256 * 1024
"""Replies waiting for a client that reads no more; beyond them it is cut."""
_PREFIX_BYTES = 2
_ENDED = Failure(ConnectionDone())

Hit = Callable[[bytes, bytes, float], bytes | None]


def _no_hit(_wire: bytes, _source: bytes, _now: float) -> bytes | None:
    return None


class StreamListener(ServerFactory):
    """All TCP connections of clients. ``received(wire, client, now)`` takes every message.

    Except those that ``hit(wire, source + STREAM, now)`` has a reply for.
    ``closed(via, now)`` tells that a connection has ended; replies to it go nowhere from then on.
    ``owner`` says whose a packed source address is: a pod's addresses are one client.
    """

    noisy = False

    def __init__(
        self,
        reactor: MonotonicReactor,
        received: Callable[[bytes, Client, float], None],
        closed: Callable[[int, float], None],
        max_per_client: int,
        owner: Callable[[bytes], Hashable] = bytes,
        *,
        hit: Hit = _no_hit,
    ) -> None:
        self.reactor = reactor
        self.hit = hit
        self.received = received
        self.max_per_client = max_per_client
        self.max_connections = MAX_CONNECTIONS
        self.idle_s = IDLE_S
        self.refused = 0
        """Connections that were over their client's number; the reporter drains it."""
        self._closed = closed
        self._owner = owner
        self._connections: OrderedDict[int, _Connection] = OrderedDict()  # least recently active first
        self._per_client: dict[Hashable, int] = {}
        self._last_via = 0
        self._sweep: IDelayedCall | None = None
        self.unsent: list[_Connection] = []
        """Connections with replies that leave at this turn's end."""
        reactor.turn_ends.append(self._turn_ended)

    @property
    def open_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def buildProtocol(self, _addr: IAddress | None) -> Protocol:
        """Twisted: a connection was accepted."""
        return _Connection(self)

    def admit(self, connection: _Connection) -> bool:
        """Take a connection in, unless its client has its number; the idlest makes room for it."""
        connection.owner = self._owner(connection.source)
        if self._per_client.get(connection.owner, 0) >= self.max_per_client:
            self.refused += 1
            return False
        if len(self._connections) >= self.max_connections:
            idlest = next(iter(self._connections.values()))
            idlest.cut()
        self._last_via += 1
        connection.via = self._last_via
        self._per_client[connection.owner] = self._per_client.get(connection.owner, 0) + 1
        self._connections[connection.via] = connection
        if self._sweep is None:
            self._sweep = self.reactor.callLater(1.0, self._cut_idle)
        return True

    def active(self, via: int) -> None:
        """Note that a connection completed a message or took a reply."""
        self._connections.move_to_end(via)

    def gone(self, connection: _Connection) -> None:
        """Forget a connection."""
        if self._connections.pop(connection.via, None) is None:
            return
        left = self._per_client.pop(connection.owner) - 1
        if left:
            self._per_client[connection.owner] = left
        self._closed(connection.via, self.reactor.seconds())

    def reply(self, wire: bytes, client: Client) -> None:
        """Send a reply to a client that was given to ``received``, if it is still there."""
        connection = self._connections.get(client.via)
        if connection is not None:
            connection.reply(wire)

    def _turn_ended(self) -> None:
        if self.unsent:
            unsent, self.unsent = self.unsent, []
            for connection in unsent:
                connection.flush()

    def stop_reading(self) -> None:
        """Take no further query from anybody; replies can still be sent."""
        for connection in self._connections.values():
            connection.stop_reading()

    def close(self) -> None:
        """Cut every connection."""
        if self._turn_ended in self.reactor.turn_ends:
            self.reactor.turn_ends.remove(self._turn_ended)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._connections.values()):
            connection.cut()

    def _cut_idle(self) -> None:
        self._sweep = None
        idle_since = self.reactor.seconds() - self.idle_s
        for connection in list(self._connections.values()):
            if connection.active_at > idle_since:
                break
            connection.cut()
        if self._connections:
            self._sweep = self.reactor.callLater(1.0, self._cut_idle)


@implementer(IPullProducer, IHalfCloseableProtocol)
class _Connection(Protocol):
    """One client's connection."""

    transport: Transport

    def __init__(self, listener: StreamListener) -> None:
        self._listener = listener
        self.via = 0
        self.source = b""
        self.owner: Hashable = b""
        self.active_at = 0.0
        self._hits_of = b""
        self._client: Client | None = None
        self._pending = b""
        self._replies: list[bytes] = []
        self._unread_bytes = 0
        self._is_reading = True
        self._is_full = False
        self._is_stopped = False
        self._has_ended = False
        self._owed = 0
        self._turn: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Twisted: accepted; the address the client aimed at is our end's."""
        self._sock: transport.Socket = self.transport.getHandle()  # type: ignore[attr-defined]
        peer, own = self.transport.getPeer(), self._sock.getsockname()
        self.source = transport.packed(peer.host)
        self._hits_of = self.source + STREAM
        self.active_at = self._listener.reactor.seconds()
        if not self._listener.admit(self):
            self.transport.abortConnection()
            return
        self._client = Client(self.source, peer.port, transport.packed(own[0]), "tcp", self.via)
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, False)  # noqa: FBT003 - Twisted's signature
        self.transport.doRead()  # the question is mostly here already; what else it finds, epoll says again

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes came."""
        self._pending = self._pending + data if self._pending else data
        if self._turn is None and self._client is not None:
            self._take_messages(self._client)

    def _take_messages(self, client: Client) -> None:
        """Take whole messages, a bounded number a turn; what is no possible query ends it."""
        self._turn = None
        self._owed += 1  # this turn's end
        listener, pending = self._listener, self._pending
        hit, source, now = listener.hit, self._hits_of, listener.reactor.seconds()
        at, size = 0, len(pending)
        for _ in range(MESSAGES_PER_TURN):
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
            reply = hit(wire, source, now)
            if reply is not None:
                self.reply(reply)
                continue
            listener.received(wire, client, now)
            if self._client is None:
                return  # cut meanwhile
        else:
            self._turn = listener.reactor.callLater(0, self._next_turn)
        if at:
            self._pending = pending[at:]
            self._touch(now)
        self._flow()
        self._owed -= 1
        self._finish()

    def _next_turn(self) -> None:
        if self._client is not None:
            self._take_messages(self._client)

    def reply(self, wire: bytes) -> None:
        """Send a reply with this turn's end; length and message in one segment (RFC 7766, 8)."""
        if not self._replies:
            self._listener.unsent.append(self)
        self._replies.append(len(wire).to_bytes(_PREFIX_BYTES, "big"))
        self._replies.append(wire)
        self._owed -= 1

    def flush(self) -> None:
        """Write this turn's replies: into the socket, and what that does not take through Twisted."""
        data = b"".join(self._replies)
        self._replies.clear()
        if self._client is None:
            return
        if self._is_full:
            self._unread_bytes += len(data)
            if self._unread_bytes > MAX_UNREAD_BYTES:
                self.cut()
                return
        else:
            self._touch(self._listener.reactor.seconds())
            with suppress(OSError):  # full, or gone: Twisted finds out which
                data = data[self._sock.send(data) :]
        if data:
            self._is_full = True
            self.transport.write(data)
            self._flow()
        self._finish()

    def _touch(self, now: float) -> None:
        self.active_at = now
        self._listener.active(self.via)

    def _flow(self) -> None:
        """Read only while replies are taken, and while not more than a turn's messages wait."""
        wants_more = not (self._is_full or self._is_stopped or self._has_ended or self._turn is not None)
        if wants_more == self._is_reading:
            return
        self._is_reading = wants_more
        if wants_more:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Twisted: it has written all that it was given."""
        self._is_full = False
        self._unread_bytes = 0
        if self._client is not None:
            self._flow()

    def stopProducing(self) -> None:
        """Twisted: the connection is going; ``connectionLost`` follows."""

    def stop_reading(self) -> None:
        """Take no further query."""
        self._is_stopped = True
        self._flow()

    def readConnectionLost(self) -> None:
        """Twisted: the client sends nothing more (FIN); what it asked is answered (RFC 7766, 6.2.4)."""
        self._has_ended = True
        self._is_reading = False
        self._finish()

    def writeConnectionLost(self) -> None:
        """Twisted: our own end of the connection is closed, which we never do alone."""

    def _finish(self) -> None:
        """Close after the last answer to a client that asks nothing more; silence is the sweep's."""
        if not self._has_ended or self._owed > 0 or self._replies:
            return
        if self._turn is None and self._client is not None:
            if not self._is_full:
                self.transport.connectionLost(_ENDED)  # as loseConnection, a turn later, would
                return
            self.transport.unregisterProducer()  # one that is waited for would keep the connection for ever
            self.transport.loseConnection()

    def cut(self) -> None:
        """End it at once, unread replies and all."""
        self._end()
        self.transport.abortConnection()

    def _end(self) -> None:
        self._client = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._listener.gone(self)

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        """Twisted: the connection has ended."""
        self._end()
