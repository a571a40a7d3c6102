"""Streams to upstream servers: TCP and DNS over TLS, persistent and pipelined (RFC 7766, 7858).

Owns one connection per upstream while there is something to ask, and a while longer. Decides
nothing about questions: ``resolver.upstreams`` does. Invariant: what was written to a stream that
ends is reported, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import ssl
from twisted.internet.interfaces import IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from policy.runtime.clock import MonotonicReactor
from policy.runtime.kinds import Upstream
from resolver.upstreams import MAX_QUESTIONS, STREAM_WAIT_S, Attempt

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, ITCPTransport


IDLE_S = 10.0
"""How long a stream without questions stays: the usual patience of servers (RFC 7766, 6.2.3)."""
HUNG_S = 2 * STREAM_WAIT_S
"""A stream on which nothing came back for this long, while something was asked, is given up."""
MAX_OUTSTANDING = MAX_QUESTIONS
"""Attempts that wait on one stream: as many as there are questions, so that no few pods fill it."""
_FEW_WAITING = 64


class UpstreamStream(ClientFactory):
    """The stream to one upstream: connected when first used, given up after ``IDLE_S``."""

    noisy = False

    def __init__(
        self,
        reactor: MonotonicReactor,
        upstream: Upstream,
        received: Callable[[Upstream, bytes], bool],
        lost: Callable[[list[Attempt], bool], None],
        trust_root: ssl.Certificate | None = None,
    ) -> None:
        self._reactor = reactor
        self._upstream = upstream
        self._received = received
        self._lost = lost
        self._trust_root = trust_root
        self._connector: IConnector | None = None
        self._protocol: _Messages | None = None
        self._waiting: list[Attempt] = []
        self._look_through_at = _FEW_WAITING
        self._has_served = False
        self._idle: IDelayedCall | None = None
        self._silent_since = float("inf")

    def send(self, attempt: Attempt) -> bool:
        """Send now or when connected; False if too many wait already."""
        if len(self._waiting) >= self._look_through_at:
            self._waiting = [waiting for waiting in self._waiting if waiting.is_open]
            if len(self._waiting) >= MAX_OUTSTANDING:
                return False
            self._look_through_at = min(MAX_OUTSTANDING, max(_FEW_WAITING, 2 * len(self._waiting)))
        self._waiting.append(attempt)
        now = self._reactor.seconds()
        self._silent_since = min(self._silent_since, now)
        if self._protocol is not None and now - self._silent_since > HUNG_S:
            self._protocol.transport.abortConnection()  # what waits is reported lost and goes on a new one
            return True
        if self._protocol is not None:
            self._protocol.write_message(attempt.wire)
        elif self._connector is None:
            self._connect()
        self._postpone_idle()
        return True

    def close(self) -> None:
        """End the stream; attempts that still wait are reported as lost."""
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        if self._connector is not None:
            self._connector.disconnect()

    def _connect(self) -> None:
        host, port = self._upstream.address, self._upstream.port
        factory: Any = self  # Twisted's TLS factory wraps any, and is a ClientFactory in all but name
        if self._upstream.tls:
            options = ssl.optionsForClientTLS(self._upstream.name or host, trustRoot=self._trust_root)
            factory = TLSMemoryBIOFactory(options, isClient=True, wrappedFactory=self, clock=self._reactor)
        self._connector = self._reactor.connectTCP(host, port, factory, timeout=STREAM_WAIT_S)

    def _postpone_idle(self) -> None:
        if self._idle is not None and self._idle.active():
            self._idle.reset(IDLE_S)
        else:
            self._idle = self._reactor.callLater(IDLE_S, self.close)

    def buildProtocol(self, _addr: IAddress | None) -> Protocol:
        """Twisted: connected (TLS: not yet shaken hands, what is written waits for it)."""
        return _Messages(self)

    def connected(self, protocol: _Messages) -> None:
        """Send what waited for the connection."""
        self._protocol = protocol
        self._has_served = False
        for attempt in self._waiting:
            if attempt.is_open:
                protocol.write_message(attempt.wire)

    def message_received(self, wire: bytes) -> bool:
        """Hand a message on; False if the stream is to be given up."""
        self._has_served = True
        self._silent_since = float("inf")
        return self._received(self._upstream, wire)

    def clientConnectionFailed(self, _connector: IConnector, _reason: Failure) -> None:
        """Twisted: no connection could be made."""
        self._ended(has_served=False)

    def clientConnectionLost(self, _connector: IConnector, _reason: Failure) -> None:
        """Twisted: the connection ended, by whoever."""
        self._ended(has_served=self._has_served)

    def _ended(self, *, has_served: bool) -> None:
        waiting = [attempt for attempt in self._waiting if attempt.is_open]
        self._waiting, self._protocol, self._connector = [], None, None
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._silent_since = float("inf")
        self._lost(waiting, has_served)


class _Messages(Protocol):
    """Length-prefixed messages (RFC 1035, 4.2.2), split and joined as they come."""

    transport: ITCPTransport

    def __init__(self, stream: UpstreamStream) -> None:
        self._stream = stream
        self._pending = b""

    def connectionMade(self) -> None:
        """Twisted: ready to write."""
        self.transport.setTcpNoDelay(True)
        self._stream.connected(self)

    def write_message(self, wire: bytes) -> None:
        """Send one message; length and message in one segment (RFC 7766, 8)."""
        self.transport.write(len(wire).to_bytes(2, "big") + wire)

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes came."""
        pending = self._pending + data
        at = 0
        while len(pending) - at >= 2:
            end = at + 2 + int.from_bytes(pending[at : at + 2], "big")
            if len(pending) < end:
                break
            if not self._stream.message_received(pending[at + 2 : end]):
                self.transport.abortConnection()
                return
            at = end
        self._pending = pending[at:]
