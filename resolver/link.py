"""The resolver's end of the authority socket.

Owns the connection to the enforcer: greeting, descriptors, snapshots and answers in; requests,
records and counters out. Decides nothing. Invariants: descriptors that came are always taken
over or closed; what waits for an enforcer that does not read is bounded (the connection is given up,
and the core asks again on the next one); what one read of the loop brings leaves after it, in one write.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, cast

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IFileDescriptorReceiver, IPullProducer
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.unix import Client
from twisted.python.failure import Failure
from zope.interface import implementer

from policy.authority import (
    PROTOCOL,
    GrantAnswered,
    Hello,
    PodsEnforced,
    SnapshotPublished,
    ToEnforcer,
    WorldChanged,
)
from policy.publication import NotHeld, held
from policy.runtime.clock import MonotonicReactor
from policy.runtime.framing import FramingError, encode, resolver_decoder
from policy.world import World

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IConnector

    from resolver.transport import Socket


FIRST_RETRY_S = 0.02
LONGEST_RETRY_S = 0.2
GREETING_S = 2.0
"""An enforcer that accepts and does not greet is not one."""
MAX_UNSENT_BYTES = 4 * 1024 * 1024
MAX_DESCRIPTORS = 64


class Authority(Protocol):
    """Who listens to the link: the resolver's service."""

    def greeted(self, hello: Hello, descriptors: list[int]) -> None:
        """Take over every descriptor, one for each name in ``hello.sockets``."""

    def world_published(self, world: World) -> None:
        """Take a snapshot's world."""

    def grants_answered(self, answer: GrantAnswered) -> None:
        """Take outcomes."""

    def pods_enforced(self, uids: tuple[str, ...]) -> None:
        """Take which pods policy is known to be enforced on."""

    def not_understood(self, reason: str) -> None:
        """Give every socket up: another release is here, whose own resolver answers from now on."""

    def link_lost(self, reason: str) -> None:
        """Note that the enforcer is away; called once for each ``greeted``, unless the link was stopped."""


class Link(ClientFactory):
    """Keeps one connection to ``path``, for ever, until ``stop``."""

    noisy = False

    def __init__(
        self, reactor: MonotonicReactor, path: str, version: str, authority: Authority, number: int = 0
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._hello = encode(Hello(version, number=number))
        self._authority = authority
        self._connection: _Connection | None = None
        self._retry_s = FIRST_RETRY_S
        self._retry: DelayedCall | None = None
        self._stopped = False
        reactor.leaving.append(self._leave)

    @property
    def is_up(self) -> bool:
        """Say whether an enforcer has greeted."""
        return self._connection is not None

    @property
    def is_behind(self) -> bool:
        """Say whether the enforcer reads more slowly than is written to it."""
        return self._connection is not None and self._connection.is_full

    def start(self) -> None:
        """Connect, and again whenever it is lost."""
        self._retry = None
        self._reactor.connectUNIX(self._path, self, timeout=GREETING_S)

    def stop(self) -> None:
        """Close the connection; do not come back."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._connection is not None:
            self._connection.close()

    def send(self, message: ToEnforcer) -> bool:
        """Send after what is being read, if there is an enforcer; False if not (the core asks again)."""
        return self._connection is not None and self._connection.send(encode(message))

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.flush()

    def buildProtocol(self, _addr: IAddress | None) -> TwistedProtocol:
        """Twisted: connected."""
        return _Connection(self, self._reactor, self._hello, self._authority)

    def up(self, connection: _Connection) -> None:
        """Note that this connection's enforcer has greeted."""
        self._connection = connection
        self._retry_s = FIRST_RETRY_S

    def ended(self, reason: str) -> None:
        """Note that the connection has ended."""
        was_up, self._connection = self.is_up, None
        if was_up and not self._stopped:
            self._authority.link_lost(reason)
        self._again()

    def clientConnectionFailed(self, _connector: IConnector, _reason: Failure) -> None:
        """Twisted: nobody listens yet."""
        self._again()

    def _again(self) -> None:
        if not self._stopped:
            self._retry = self._reactor.callLater(self._retry_s, self.start)
            self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)


@implementer(IFileDescriptorReceiver, IPullProducer)
class _Connection(TwistedProtocol):
    """One connection, from its greeting to its end."""

    def __init__(self, link: Link, reactor: MonotonicReactor, hello: bytes, authority: Authority) -> None:
        self._link = link
        self._reactor = reactor
        self._hello = hello
        self._authority = authority
        self._decoder = resolver_decoder()
        self._descriptors: list[int] = []
        self._expected: Hello | None = None
        self._early: list[SnapshotPublished | WorldChanged | GrantAnswered | PodsEnforced] = []
        self._world: World | None = None
        self._greeting: DelayedCall | None = None
        self._is_up = False
        self._reason = "closed by the enforcer"
        self._frames: list[bytes] = []
        self._unsent_bytes = 0
        self.is_full = False

    def connectionMade(self) -> None:
        """Twisted: connected; greet, and wait to be greeted."""
        self._client = cast(Client, self.transport)
        self._client.registerProducer(self, False)  # noqa: FBT003 - Twisted's signature
        self.is_full = True
        self._greeting = self._reactor.callLater(GREETING_S, self._cut, "no greeting")
        self._client.write(self._hello)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Twisted: a descriptor came."""
        if self._is_up or len(self._descriptors) >= MAX_DESCRIPTORS:
            os.close(descriptor)
            self._cut("more descriptors than were announced")
            return
        self._descriptors.append(descriptor)
        self._greet()

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes came."""
        try:
            messages = self._decoder.feed(data)
        except FramingError as error:
            self._not_understood(str(error))
            return
        for message in messages:
            if isinstance(message, Hello):
                if message.protocol != PROTOCOL:
                    self._not_understood(f"it speaks protocol {message.protocol}, this resolver {PROTOCOL}")
                    return
                self._expected = message
                self._greet()
            elif self._is_up:
                self._hand_on(message)
            else:
                self._early.append(message)

    def _greet(self) -> None:
        """The greeting is whole when every descriptor it names is here."""
        hello = self._expected
        if hello is None or self._is_up or len(self._descriptors) < len(hello.sockets):
            return
        if len(self._descriptors) > len(hello.sockets):
            self._cut("more descriptors than were announced")
            return
        if self._greeting is not None:
            self._greeting.cancel()
            self._greeting = None
        descriptors, self._descriptors = self._descriptors, []
        self._is_up = True
        self._link.up(self)
        self._authority.greeted(hello, descriptors)
        early, self._early = self._early, []
        for message in early:
            self._hand_on(message)

    def _hand_on(self, message: SnapshotPublished | WorldChanged | GrantAnswered | PodsEnforced) -> None:
        if isinstance(message, SnapshotPublished | WorldChanged):
            try:
                self._world = held(self._world, message)
            except NotHeld as doubt:
                self._cut(str(doubt))
                return
            self._authority.world_published(self._world)
        elif isinstance(message, PodsEnforced):
            self._authority.pods_enforced(message.uids)
        else:
            self._authority.grants_answered(message)

    def send(self, frame: bytes) -> bool:
        """Take a frame, to leave after what is being read; give the connection up if too much waits."""
        self._frames.append(frame)
        if self.is_full:
            self._unsent_bytes += len(frame)
            if self._unsent_bytes > MAX_UNSENT_BYTES:
                self._cut("the enforcer does not read")
                return False
        return True

    def flush(self) -> None:
        """Write what was sent so far: into the socket, and what that does not take through Twisted."""
        if not self._frames:
            return
        data = b"".join(self._frames)
        self._frames.clear()
        if not self.is_full:
            sock: Socket = self._client.getHandle()
            with suppress(OSError):  # full, or gone: Twisted finds out which
                data = data[sock.send(data) :]
        if data:
            self.is_full = True
            self._client.write(data)

    def close(self) -> None:
        """Write what is left, then close."""
        self.flush()
        self._client.unregisterProducer()
        self._client.loseConnection()

    def resumeProducing(self) -> None:
        """Twisted: it has written all that it was given."""
        self.is_full = False
        self._unsent_bytes = 0

    def stopProducing(self) -> None:
        """Twisted: the connection is going; ``connectionLost`` follows."""

    def _not_understood(self, reason: str) -> None:
        """Two releases side by side: who reads shared sockets without understanding loses what it reads."""
        self._authority.not_understood(reason)
        self._cut(reason)

    def _cut(self, reason: str) -> None:
        self._greeting = None
        self._reason = reason
        self._client.abortConnection()

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        """Twisted: the connection has ended."""
        if self._greeting is not None:
            self._greeting.cancel()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self._link.ended(self._reason)
