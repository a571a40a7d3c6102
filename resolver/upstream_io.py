"""Moves bytes between ``resolver.upstreams`` and the upstream servers.

Owns the streams, and who has which socket. Holds no rule of forwarding. Invariant: what ends is closed at
once, a question leaves after the read that brought it, and at the turn's end the alarm knows the next
deadline.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from policy.runtime.clock import MonotonicReactor
from policy.runtime.kinds import Upstream
from resolver.alarm import Alarm
from resolver.effects import AskUpstream
from resolver.question_sockets import MAX_DATAGRAM_BYTES, QuestionSockets
from resolver.upstream_streams import UpstreamStream
from resolver.upstreams import Answered, Attempt, Cancel, Forwarding, Send, Step

if TYPE_CHECKING:
    from twisted.internet import ssl


SENT_TOGETHER = 16
"""Questions that leave one right behind the other: whom the first one wakes is awake for the rest."""
_POOL_BYTES = 4096


class KernelBits:
    """Random bits of the kernel's generator, many at a time: a system call for each question is felt."""

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def getrandbits(self, k: int, /) -> int:
        """Return ``k`` random bits, of which none was or will be returned again."""
        size = (k + 7) // 8
        if self._at + size > len(self._pool):
            self._pool, self._at = os.urandom(max(_POOL_BYTES, size)), 0
        self._at += size
        return int.from_bytes(self._pool[self._at - size : self._at], "big") >> (8 * size - k)


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
        self._sockets = QuestionSockets(self.datagram_received, self.socket_failed)
        reactor.addReader(self._sockets)
        self._streams: dict[Upstream, UpstreamStream] = {}
        self._due: list[Attempt] = []
        """Datagrams' attempts that are not sent yet."""
        self._alarm = Alarm(reactor, forwarding.next_deadline, self._deadline_passed)
        reactor.leaving.append(self._leave)
        reactor.turn_ends.append(self._alarm.arm)

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
        if self._leave in self._reactor.leaving:
            self._reactor.leaving.remove(self._leave)
            self._reactor.turn_ends.remove(self._alarm.arm)
        self._alarm.stop()
        self._due.clear()
        self._reactor.removeReader(self._sockets)
        self._sockets.close_all()
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

    def _leave(self) -> None:
        while self._due:  # one that cannot be sent may have another upstream
            self._send_due()

    def _send_due(self) -> None:
        """Send what was brought so far, but for what has ended meanwhile."""
        due, self._due = self._due, []
        now = self._reactor.seconds()
        for attempt in due:
            if attempt.is_open:
                self._send_datagram(attempt, now)

    def _run(self, steps: list[Step], now: float) -> None:
        for step in steps:
            if isinstance(step, Send):
                if step.attempt.stream:
                    self._send_on_stream(step.attempt, now)
                else:
                    self._due.append(step.attempt)
                    if len(self._due) >= SENT_TOGETHER:
                        self._send_due()
            elif isinstance(step, Cancel):
                self._sockets.close(step.attempt)
            elif isinstance(step, Answered):
                self._answered(step.id, step.wire, now)
            else:
                self._failed(step.id, step.ede, now)

    def _send_datagram(self, attempt: Attempt, now: float) -> None:
        try:
            self._sockets.send(attempt)
        except OSError:
            was_sent = attempt.descriptor >= 0
            self._run(self._forwarding.attempt_failed(attempt, now, blame=was_sent), now)

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
