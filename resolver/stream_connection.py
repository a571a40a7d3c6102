"""One client's TCP connection: messages taken whole, replies in any order, both bounded (RFC 7766).

Owns what has come on it and what has not left. Decides nothing about messages; whether it may stay is its
listener's to say (``stream_listener``). Invariants: a client that sends nothing more (FIN) still gets its
answers; the replies of one turn leave in one write; of who takes no replies no questions are taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll
from typing import Protocol

from policy.runtime.clock import MonotonicReactor
from resolver import transport
from resolver.effects import Client
from resolver.hits import STREAM
from resolver.messages import MAX_QUERY_BYTES
from resolver.stream_turns import StreamTurns

MESSAGES_PER_TURN = 32
"""Of one connection, of those that all may take (``stream_turns``)."""
READ_BYTES = 16 * 1024
MAX_UNREAD_BYTES = 256 * 1024
"""Replies waiting for a client that reads no more: no question of it is taken, and late answers cut it."""
_PREFIX_BYTES = 2


class Keeper(Protocol):
    """Who keeps the connections: the listener, as far as one of them knows it."""

    reactor: MonotonicReactor
    poller: epoll
    turns: StreamTurns
    hit: Callable[[bytes, bytes, float], bytes | None]
    received: Callable[[bytes, Client, float], None]
    is_stopped: bool
    unsent: list[Connection]

    def active(self, via: int) -> None:
        """Note that it completed a message or took a reply."""

    def gone(self, connection: Connection) -> None:
        """Forget it."""


class Connection:
    """One client's connection."""

    __slots__ = (
        "_client", "_has_ended", "_is_open", "_late_bytes", "_listener", "_owed", "_peer", "_pending",
        "_replies", "_rest", "_waits", "_wanted", "active_at", "descriptor", "owner", "via",
    )  # fmt: skip

    def __init__(
        self, listener: Keeper, descriptor: int, peer: transport.Peer, owner: Hashable, via: int
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
        self._waits = False  # for its turn

    def ready(self, event: int) -> None:
        """Read or write, as epoll says."""
        if event & (EPOLLHUP | EPOLLERR):
            self._end()
        elif event & EPOLLOUT:
            self._write_rest()
        elif self._waits:
            return  # epoll tells again
        elif self._listener.turns.may(self.owner):
            self._read()
        else:
            self._wait(self._read)

    def _wait(self, go_on: Callable[[], None]) -> None:
        self._waits = True
        self._listener.turns.wait(self.owner, self.via, go_on)

    def _read(self) -> None:
        self._waits = False
        if self._listener.is_stopped:
            return
        self._listener.turns.left -= 1
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            self.settle()
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
        self._waits = False
        if self._rest:  # it asks on without reading: not before that has left
            return
        self._owed += 1  # this turn's end
        listener, pending = self._listener, self._pending
        hit, source, now = listener.hit, self._peer[0] + STREAM, listener.reactor.seconds()
        turns = listener.turns
        at, size, least = 0, len(pending), max(0, turns.left - MESSAGES_PER_TURN)
        while turns.left > least and len(self._replies) < MAX_UNREAD_BYTES:
            turns.left -= 1
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
            self._wait(self._take_messages)
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
            if self._wanted == EPOLLOUT and self._pending and not self._waits:
                self._wait(self._take_messages)
        self.settle()

    def _touch(self, now: float) -> None:
        self.active_at = now
        self._listener.active(self.via)

    def settle(self) -> None:
        """Close after the last answer to a client that asks nothing more; silence is the sweep's.

        Else read only while replies are taken, and while not more than a turn's messages wait.
        """
        waits = self._owed > 0 or self._replies or self._rest or self._waits
        if self._has_ended and not waits:
            self._end()
            return
        is_deaf = self._has_ended or self._waits or self._listener.is_stopped
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
        self._listener.turns.forget(self.owner, self.via)
        self._listener.gone(self)
