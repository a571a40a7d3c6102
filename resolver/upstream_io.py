"""Moves bytes between ``resolver.upstreams`` and the upstream servers.

Owns the sockets of open questions (one fresh UDP socket each) and the streams. Holds no rule of
forwarding. Invariant: a socket lives no longer than its attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from policy.runtime.clock import MonotonicReactor
from policy.runtime.kinds import Upstream
from resolver import transport
from resolver.alarm import Alarm
from resolver.effects import AskUpstream
from resolver.upstream_streams import UpstreamStream
from resolver.upstreams import Answered, Attempt, Cancel, Forwarding, Send, Step

if TYPE_CHECKING:
    from twisted.internet import ssl


MAX_DATAGRAM_BYTES = 4096
"""Well over what our OPT asks for; a datagram that fills it counts as truncated."""


@implementer(IReadDescriptor)
class _QuestionSocket:
    """The socket of one attempt, in the reactor as a bare reader: no port object, no protocol."""

    __slots__ = ("_io", "attempt", "sock")

    def __init__(self, io: UpstreamIO, attempt: Attempt, sock: transport.Socket) -> None:
        self._io = io
        self.attempt = attempt
        self.sock = sock

    def fileno(self) -> int:
        """Twisted: the descriptor to watch."""
        return self.sock.fileno()

    def doRead(self) -> None:
        """Twisted: a datagram came, or an ICMP error for the one that was sent."""
        try:
            wire = self.sock.recv(MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._io.socket_failed(self.attempt)
            return
        self._io.datagram_received(self.attempt, wire)

    def connectionLost(self, _reason: Failure) -> None:
        """Twisted: the reactor gives the socket up."""
        self._io.socket_failed(self.attempt)

    def logPrefix(self) -> str:
        """Twisted: how this reader calls itself."""
        return "upstream"


class UpstreamIO:
    """Asks upstream servers; tells ``answered(id, wire, now)`` or ``failed(id, ede, now)``, once each."""

    def __init__(
        self,
        reactor: MonotonicReactor,
        forwarding: Forwarding,
        answered: Callable[[int, bytes, float], None],
        failed: Callable[[int, int, float], None],
        trust_root: ssl.Certificate | None = None,
    ) -> None:
        self._reactor = reactor
        self._forwarding = forwarding
        self._answered = answered
        self._failed = failed
        self._trust_root = trust_root
        self._sockets: dict[Attempt, _QuestionSocket] = {}
        self._streams: dict[Upstream, UpstreamStream] = {}
        self._alarm = Alarm(reactor, forwarding.next_deadline, self._deadline_passed)

    def ask(self, ask: AskUpstream, now: float) -> None:
        """Begin a question."""
        self._run(self._forwarding.ask(ask, now), now)

    def use(self, groups: Mapping[str, Sequence[Upstream]]) -> None:
        """Replace the upstreams; open questions end with those they were asked of."""
        self._forwarding.use(groups)
        known = {upstream for group in groups.values() for upstream in group}
        for upstream in self._streams.keys() - known:
            self._streams.pop(upstream).close()

    def stop(self) -> None:
        """Close everything; no question that is open now is ever answered."""
        self._alarm.stop()
        for reader in list(self._sockets.values()):
            self._close(reader.attempt)
        for stream in list(self._streams.values()):
            stream.close()

    def datagram_received(self, attempt: Attempt, wire: bytes) -> None:
        """Hand a datagram to the forwarding; one that fills the buffer gets the TC bit."""
        if len(wire) >= MAX_DATAGRAM_BYTES:
            wire = wire[:2] + bytes((wire[2] | 0x02,)) + wire[3:]
        now = self._reactor.seconds()
        self._run(self._forwarding.datagram_received(attempt, wire, now), now)

    def socket_failed(self, attempt: Attempt) -> None:
        """The attempt's socket is of no further use."""
        now = self._reactor.seconds()
        self._run(self._forwarding.attempt_failed(attempt, now), now)

    def _deadline_passed(self, now: float) -> None:
        self._run(self._forwarding.deadline_passed(now), now)

    def _run(self, steps: list[Step], now: float) -> None:
        for step in steps:
            if isinstance(step, Send):
                if step.attempt.stream:
                    self._send_on_stream(step.attempt, now)
                else:
                    self._send_datagram(step.attempt, now)
            elif isinstance(step, Cancel):
                self._close(step.attempt)
            elif isinstance(step, Answered):
                self._answered(step.id, step.wire, now)
            else:
                self._failed(step.id, step.ede, now)
        self._alarm.arm()

    def _send_datagram(self, attempt: Attempt, now: float) -> None:
        try:
            sock = transport.open_question_socket(attempt.upstream.address, attempt.upstream.port)
        except OSError:
            self._run(self._forwarding.attempt_failed(attempt, now, blame=False), now)
            return
        reader = _QuestionSocket(self, attempt, sock)
        self._sockets[attempt] = reader
        self._reactor.addReader(reader)
        try:
            sock.send(attempt.wire)
        except OSError:
            self._run(self._forwarding.attempt_failed(attempt, now), now)

    def _send_on_stream(self, attempt: Attempt, now: float) -> None:
        stream = self._streams.get(attempt.upstream)
        if stream is None:
            stream = self._streams[attempt.upstream] = UpstreamStream(
                self._reactor, attempt.upstream, self._stream_received, self._stream_lost, self._trust_root
            )
        if not stream.send(attempt):
            self._run(self._forwarding.attempt_failed(attempt, now, blame=False), now)

    def _stream_received(self, upstream: Upstream, wire: bytes) -> bool:
        now = self._reactor.seconds()
        steps = self._forwarding.stream_received(upstream, wire, now)
        if steps is None:
            return False
        self._run(steps, now)
        return True

    def _stream_lost(self, attempts: list[Attempt], has_served: bool) -> None:
        now = self._reactor.seconds()
        for attempt in attempts:
            lost = self._forwarding.stream_lost if has_served else self._forwarding.attempt_failed
            self._run(lost(attempt, now), now)

    def _close(self, attempt: Attempt) -> None:
        reader = self._sockets.pop(attempt, None)
        if reader is not None:
            self._reactor.removeReader(reader)
            reader.sock.close()
