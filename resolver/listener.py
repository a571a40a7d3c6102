"""Queries and replies over UDP: the loop that every hit goes through.

Owns one adopted socket of the node. Decides nothing: ``hit`` answers from ready wire or passes,
``received`` takes everything else. Invariant: a reply goes from the address the query was aimed
at to the address and port it came from, and one turn of the reactor takes a bounded number.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import classImplements

from policy.runtime.clock import MonotonicReactor
from resolver import transport
from resolver.batches import MOST, Batch, batch_of
from resolver.effects import Client
from resolver.messages import MAX_QUERY_BYTES
from resolver.muting import loudest
from resolver.queues import Owner

READ_BYTES = MAX_QUERY_BYTES + 1
"""One octet more than a query may have, so that a longer one is seen to be one (FORMERR)."""
DATAGRAMS_PER_TURN = 1024
"""Then the other sockets get their turn; epoll tells again what is left. Many more than are begun in a turn
(``intake``): what is left to the kernel's buffer is lost to everybody alike when that overflows."""
_CLOCK_EVERY = 64
MAX_KNOWN = 8192
"""Addresses remembered in their packed form; a client can aim at as many as it likes."""

Hit = Callable[[bytes, bytes, float], bytes | None]
Received = Callable[[bytes, Client, float], None]


class UdpListener:
    """Reads one UDP socket; ``index`` is the ``via`` of its clients.

    ``hit(wire, packed source, now)`` returns the reply or None; ``received(wire, client, now)``
    takes what is no hit; ``owner`` says whose a source is, as for ``Intake``. ``broken`` hears of an
    exception that ended the reading.
    """

    def __init__(
        self,
        reactor: MonotonicReactor,
        sock: transport.Socket,
        index: int,
        *,
        hit: Hit,
        received: Received,
        owner: Callable[[bytes], Owner],
        broken: Callable[[Failure], None],
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._index = index
        self._hit = hit
        self._received = received
        self._owner = owner
        self._broken = broken
        self._sources: dict[str, bytes] = {}
        self._aims: dict[bytes, transport.Aim] = {}
        self.datagrams_per_turn = DATAGRAMS_PER_TURN
        self._unsent = 0
        self._is_wildcard = transport.is_wildcard(sock)
        if self._is_wildcard:
            transport.report_aims(sock)
        self._muted: frozenset[bytes] = frozenset()
        self._loud: frozenset[bytes] = frozenset()
        self._heard: dict[bytes, int] | None = None
        """How often each source was, in this turn; counted only while more comes than is read."""
        self._batch = batch_of(sock, READ_BYTES) if self._is_wildcard else None
        self.mute(frozenset())  # whom another before us muted is heard
        self._drops = transport.drops(sock)

    def start(self) -> None:
        """Begin to read."""
        self._reactor.addReader(self)
        self._reactor.last.add(self)

    def stop(self) -> None:
        """Read no more; replies can still be sent. Who reads the socket after us mutes whom it will."""
        self._reactor.removeReader(self)
        self._reactor.last.discard(self)
        self.flush()
        self._loud = frozenset()
        self.mute(frozenset())

    def mute(self, sources: frozenset[bytes]) -> None:
        """Have the kernel drop what these addresses send, and who is loud here."""
        self._muted = sources
        with suppress(OSError):  # then it is read and let go here, at more expense
            transport.mute(self._sock, sources | self._loud)

    @property
    def unsent(self) -> int:
        """Replies the kernel did not take (its buffer was full, or the client is gone)."""
        return self._unsent + (self._batch.unsent if self._batch is not None else 0)

    def take_drops(self) -> int:
        """Return, and forget, how many datagrams the kernel has dropped."""
        before, self._drops = self._drops, transport.drops(self._sock)
        return (self._drops - before) & 0xFFFFFFFF

    def close(self) -> None:
        """Give the socket up."""
        self.stop()
        self._sock.close()

    @property
    def sock(self) -> transport.Socket:
        """The adopted socket."""
        return self._sock

    def fileno(self) -> int:
        """Twisted: the descriptor to watch."""
        return self._sock.fileno()

    def logPrefix(self) -> str:
        """Twisted: how this reader calls itself."""
        return "udp"

    def connectionLost(self, reason: Failure) -> None:
        """Twisted: ``doRead`` raised, which only a bug of ours does."""
        self._broken(reason)

    def doRead(self) -> None:
        """Twisted: datagrams are waiting.

        The hot path: few system calls and ``hit``, no object of ours per packet, nothing logged.
        """
        if self._batch is None:
            self._read_singly()
        else:
            self._read_batches(self._batch)

    def _read_batches(self, batch: Batch) -> None:
        hit, missed, heard = self._hit, self._missed, self._heard
        for _ in range(0, self.datagrams_per_turn, MOST):
            count = batch.serve(hit, missed, self._reactor.seconds(), heard)
            if 0 <= count < MOST:
                if heard is not None:
                    self._caught_up()
                return
        self._fell_behind()

    def _missed(self, wire: bytes, source: bytes, port: int, aimed: bytes) -> None:
        now = self._reactor.seconds()
        self._received(wire, Client(source, port, aimed, "udp", self._index), now)

    def _read_singly(self) -> None:
        """One datagram a call: for sockets of one address, and where there is no other way."""
        receive, send, hit = self._sock.recvmsg, self._sock.sendmsg, self._hit
        sources, aims, heard = self._sources, self._aims, self._heard
        for number in range(self.datagrams_per_turn):
            if number % _CLOCK_EVERY == 0:
                now = self._reactor.seconds()
            try:
                wire, control, _, sender = receive(READ_BYTES, transport.CONTROL_BYTES)
            except BlockingIOError:
                if heard is not None:
                    self._caught_up()
                return
            except OSError:
                continue  # an ICMP error for an earlier reply
            source = sources.get(sender[0]) or self._source(sender[0])
            if heard is not None:
                heard[source] = heard.get(source, 0) + 1
            aim = aims.get(control[0][2] if control else b"") or self._aim(control)
            reply = hit(wire, source, now)
            if reply is not None:
                try:
                    send((reply,), aim.reply, 0, sender)
                except OSError:
                    self._unsent += 1
            else:
                self._received(wire, Client(source, sender[1], aim.address, "udp", self._index), now)

        self._fell_behind()

    def _fell_behind(self) -> None:
        """A turn was not enough: from the second in a row on, the kernel drops what the loudest send."""
        heard, self._heard = self._heard, {}
        if heard is not None:
            self._loud |= loudest(heard, self._owner)
            self.mute(self._muted)

    def _caught_up(self) -> None:
        """The socket is empty: everybody is heard."""
        self._heard = None
        if self._loud:
            self._loud = frozenset()
            self.mute(self._muted)

    def reply(self, wire: bytes, client: Client) -> None:
        """Send a reply to a client that was given to ``received``: with the next ``flush``, if not before."""
        if self._batch is not None and self._batch.put(wire, client.source, client.port, client.aimed):
            return
        control = transport.reply_from(client.aimed) if self._is_wildcard else []
        try:
            self._sock.sendmsg((wire,), control, 0, transport.sockaddr(client.source, client.port))
        except OSError:
            self._unsent += 1

    def flush(self) -> None:
        """Send the replies of this turn."""
        if self._batch is not None:
            self._batch.flush()

    def _source(self, text: str) -> bytes:
        if len(self._sources) >= MAX_KNOWN:
            self._sources.clear()
        source = self._sources[text] = transport.packed(text)
        return source

    def _aim(self, control: transport.Control) -> transport.Aim:
        if len(self._aims) >= MAX_KNOWN:
            self._aims.clear()
        aim = self._aims[control[0][2] if control else b""] = transport.aim(control, self._sock)
        return aim


classImplements(UdpListener, IReadDescriptor)
