"""The authority socket: frames of the untrusted resolver in, snapshots and outcomes out.

Owns the connections of ``<runtimeDir>/authority.sock`` and their budgets. Decides nothing
(``enforcer.authority``). Invariants: only the resolver's uid is served; a connection costs bounded
memory and a bounded part of each loop turn; one that breaks the framing is closed; no answer of
a generation leaves before its snapshot has left on the same connection.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.unix import Server
from twisted.python.failure import Failure

from enforcer.authority import Authority, Decided
from enforcer.greeting import Greeting
from enforcer.hearing import Elsewhere, Reports
from enforcer.records import Records
from policy.authority import (
    CountersReported,
    GrantAnswered,
    GrantRequested,
    LookupsRecorded,
    PodsEnforced,
    ToEnforcer,
)
from policy.publication import Publication
from policy.runtime.clock import MonotonicReactor
from policy.runtime.framing import MAX_TO_RESOLVER_BYTES, FramingError, encode, enforcer_decoder
from policy.world import World

SOCKET = "authority.sock"
MAX_CONNECTIONS = 16
MAX_QUEUED = 2048
"""Messages of one connection that wait for a turn; beyond it nothing is read from it."""
REQUESTS_A_TURN = 256
MAX_ADDRESSES_A_TURN = 8192
MAX_ADDRESSES_ELSEWHERE = 1024
"""Of other nodes' requests in one turn: about a hundredth of a second, for which a lookup here may wait."""
MAX_REPORTS_A_TURN = 32
MAX_WAITING = 256
MAX_WAITING_ELSEWHERE = 64
"""Of these, requests of other nodes."""
WAIT_S = 0.9
"""How long a request may wait for its pod to be admitted: less than a reply is held."""
RETRY_S = 0.05
_CREDENTIALS = struct.Struct("3i")


class _Waiting(NamedTuple):
    until: float
    link: Link | None
    """None: another node asks."""
    request: GrantRequested


class Link(TwistedProtocol):
    """One connection of a resolver."""

    def __init__(self, hub: LinkHub) -> None:
        self._hub = hub
        self._decoder = enforcer_decoder()
        self.queue: deque[ToEnforcer] = deque()
        self._reading = True
        self._is_greeted = False
        self.writable = False
        """Nothing waits in Twisted's buffer, so that what is sent now goes into the socket itself."""
        self._told: World | None = None
        """The world of the snapshot that was sent last."""

    def connectionMade(self) -> None:
        """Check who it is; greet with version, sockets and the present snapshot."""
        self.connection = cast(Server, self.transport)
        peer: socket.socket = self.connection.getHandle()
        _, uid, _ = _CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid not in self._hub.uids or len(self._hub.links) >= MAX_CONNECTIONS:
            self.close(f"connection of uid {uid} refused")
            return
        self._hub.links.append(self)
        self.connection.registerProducer(self, streaming=False)
        self.writable = False
        self._is_greeted = self._hub.greeting.give(self.connection)
        if self._hub.enforced:
            self.answer(encode(PodsEnforced(self._hub.enforced)))

    def publish(self) -> None:
        """Send the present snapshot, or what changed; once what was sent before has left."""
        if self.writable and self._is_greeted:
            frame = self._hub.publication.frame(self._told)
            self._told = self._hub.publication.world
            if frame:
                self.answer(frame)

    def answer(self, data: bytes) -> None:
        """Send now, as far as the socket takes it: a loop turn later costs as much as the rest."""
        if self.writable:
            sock: socket.socket = self.connection.getHandle()
            with suppress(OSError):  # full, or gone: Twisted finds out which
                data = data[sock.send(data) :]
        if data:
            self.writable = False
            self.connection.write(data)

    def dataReceived(self, data: bytes) -> None:
        """Queue what came; it is looked at in this loop turn's batch."""
        try:
            messages = self._decoder.feed(data)
        except FramingError as error:
            self.close(str(error))
            return
        if messages and not self._is_greeted:
            self.writable = False
            self._is_greeted = self._hub.greeting.give(self.connection, messages[0])
        self.queue.extend(messages)
        if len(self.queue) > MAX_QUEUED:
            self._read(on=False)
        self._hub.came()

    def took(self) -> None:
        """Read on once the queue is short again."""
        if not self._reading and len(self.queue) < MAX_QUEUED // 2:
            self._read(on=True)

    def _read(self, *, on: bool) -> None:
        self._reading = on
        if on:
            self.connection.resumeProducing()
        else:
            self.connection.pauseProducing()

    def resumeProducing(self) -> None:
        """Twisted: all that it was given is written. Until then, requests wait."""
        self.writable = True
        self.publish()
        self._hub.wake()

    def stopProducing(self) -> None:
        """Twisted: it is gone."""
        self.writable = False

    def close(self, reason: str) -> None:
        """End this connection, and this one only."""
        self.queue.clear()
        self._hub.records.tell("resolver.refused", "warning", reason=reason)
        self.connection.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Forget it."""
        self.writable = False
        self.queue.clear()
        if self in self._hub.links:
            self._hub.links.remove(self)


class LinkHub(Factory):
    """All connections: one batch of their requests a loop turn."""

    noisy = False

    def __init__(
        self,
        *,
        reactor: MonotonicReactor,
        authority: Authority,
        reports: Reports,
        records: Records,
        uids: frozenset[int],
        sockets: Mapping[str, socket.socket],
        version: str,
        granted: Callable[[], None],
        turn_done: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._authority = authority
        self._reports = reports
        self.records = records
        self.uids = uids
        self.greeting = Greeting(version, sockets)
        self.publication = Publication(encode, MAX_TO_RESOLVER_BYTES)
        self.enforced: tuple[str, ...] = ()
        self.links: list[Link] = []
        self._granted = granted
        self._turn_done = turn_done
        self.elsewhere: Elsewhere | None = None
        """Without it, who asks for a pod of another node waits for it to be admitted here, in vain."""
        self._woken = False
        self._waiting: list[_Waiting] = []
        self._reported: list[LookupsRecorded | CountersReported] = []
        """What this turn's resolvers told beside their requests, which are answered first."""
        self._retry: DelayedCall | None = None

    def buildProtocol(self, addr: object) -> Link:  # noqa: ARG002
        """Make the protocol of one connection."""
        return Link(self)

    @property
    def pending(self) -> int:
        """Requests that are not answered yet."""
        others = self.elsewhere.waiting + self.elsewhere.pending if self.elsewhere is not None else 0
        return len(self._waiting) + sum(len(link.queue) for link in self.links) + others

    def publish(self, world: World) -> str:
        """Send a snapshot to every resolver, before any answer that it decided.

        Returns "", or why it cannot be sent: they go on with the one before, and new names wait.
        """
        said = ""
        try:
            self.publication.publish(world)
        except FramingError as error:
            said = f"pods' lookups are decided by an earlier policy: {error}; remove policies or pods' labels"
        else:
            for link in self.links:
                link.publish()
        self.wake()
        return said

    def tell_enforced(self, uids: frozenset[str]) -> None:
        """Say to every resolver which pods policy is known to be enforced on, if it is not what was said."""
        said = tuple(sorted(uids))
        if said != self.enforced:
            self.enforced = said
            for link in self.links:
                link.answer(encode(PodsEnforced(said)))

    def wake(self) -> None:
        """Have a turn after everything that this loop turn reads."""
        if not self._woken:
            self._woken = True
            self._reactor.callLater(0, self._turn)

    def came(self) -> None:
        """Answer what one read brought at once, unless a turn is coming anyway."""
        if not self._woken:
            self._turn()

    def admitted(self) -> None:
        """A pod was admitted: try again what waits for one."""
        if self._waiting:
            self.wake()

    def _turn(self) -> None:
        """Answer a part of what is queued; should that fail, reports are heard and the next turn comes."""
        self._woken = False
        try:
            self._answer_a_part()
        finally:
            self._hear()
            self._turn_done()
            self._turn_again()

    def _answer_a_part(self) -> None:
        """Answer a bounded part of what is queued, each connection its share, in one transaction."""
        now = self._reactor.seconds()
        waited, paid = self._waiting, self.elsewhere is None or not self.elsewhere.is_owing
        heard = [each for each in waited if each.until > now and self._is_heard(each)]
        batch = [each for each in heard if paid or each.link is not None]
        self._waiting = [each for each in heard if not paid and each.link is None]
        batch += [_Waiting(now + WAIT_S, link, request) for link, request in self._take()]
        asked = {id(each.request): each for each in batch}
        ours, theirs = ([e.request for e in batch if (e.link is None) is far] for far in (False, True))
        decided, waiting = self._authority.answer(ours, now, theirs)
        late = [each.request for each in waited if each.until <= now]
        others = len(self._waiting)
        for request in waiting:
            is_ours = asked[id(request)].link is not None
            others += not is_ours
            if len(self._waiting) < MAX_WAITING and (is_ours or others <= MAX_WAITING_ELSEWHERE):
                self._waiting.append(asked[id(request)])
            else:
                late.append(request)
        decided += [self._authority.refuse(request, "no pod yet, or too much is asked") for request in late]
        self._granted()
        asked.update((id(each.request), each) for each in waited)
        self._answer([(asked[id(done.request)].link, done) for done in decided])

    def _hear(self) -> None:
        """Hand on what was reported: nobody waits for it."""
        reported, self._reported = self._reported, []
        for message in reported:
            if isinstance(message, LookupsRecorded):
                self._reports.lookups_recorded(message)
            else:
                self._reports.counters_reported(message)

    def _answer(self, decided: list[tuple[Link | None, Decided]]) -> None:
        """Tell everybody who asked, resolvers first: each link gets all of its answers at once."""
        out: dict[Link, list[bytes]] = {}
        for link, done in decided:
            if link is not None:
                out.setdefault(link, []).append(encode(done.answer))
        for link, frames in out.items():
            link.answer(b"".join(frames))
        others = [done for link, done in decided if link is None]
        if others and self.elsewhere is not None:
            self.elsewhere.answered(others)

    def _is_heard(self, waiting: _Waiting) -> bool:
        return waiting.link is None or waiting.link in self.links

    def _turn_again(self) -> None:
        if self._authority.snapshot is None:
            return
        others = self.elsewhere is not None and self.elsewhere.waiting > 0
        if others or any(link.queue and link.writable for link in self.links):
            self.wake()
        if self._waiting and (self._retry is None or not self._retry.active()):
            self._retry = self._reactor.callLater(RETRY_S, self.wake)

    def _take(self) -> list[tuple[Link | None, GrantRequested]]:
        """Return a share of what each resolver asks, and as much of what all other nodes ask.

        Until something is in force nobody is answered: who asks waits as long as its client does.
        """
        if self._authority.snapshot is None:
            return []
        batch: list[tuple[Link | None, GrantRequested]] = []
        others = self.elsewhere is not None and self.elsewhere.waiting > 0
        sharers = max(1, len(self.links) + others)
        share, most = max(1, REQUESTS_A_TURN // sharers), MAX_ADDRESSES_A_TURN // sharers
        for link in list(self.links):
            taken = addresses = reports = 0
            while link.queue and link.writable and taken < share:
                if addresses > most or reports > MAX_REPORTS_A_TURN:
                    break
                message = link.queue.popleft()
                if isinstance(message, GrantRequested):
                    if not self._is_asked_elsewhere(link, message):
                        batch.append((link, message))
                    addresses += len(message.addresses)
                    taken += 1
                elif isinstance(message, LookupsRecorded | CountersReported):
                    self._reported.append(message)
                    reports += 1
            link.took()
        if self.elsewhere is not None and others:
            batch += [(None, request) for request in self.elsewhere.take(share, MAX_ADDRESSES_ELSEWHERE)]
        return batch

    def _is_asked_elsewhere(self, link: Link, request: GrantRequested) -> bool:
        """Send a request for another node's pod there; whatever is wrong with it is refused here."""
        elsewhere, snapshot = self.elsewhere, self._authority.snapshot
        if elsewhere is None or snapshot is None:
            return False
        pod = snapshot.pod_at(request.source)
        if pod is None or pod.uid != request.pod_uid or not pod.governed or not elsewhere.is_elsewhere(pod):
            return False

        def done(answer: GrantAnswered) -> None:
            if link in self.links:
                link.answer(encode(answer))

        elsewhere.ask(request, pod, done)
        return True

    def stop(self) -> None:
        """Close every connection; no turn follows."""
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._woken = True
        for link in list(self.links):
            link.connection.unregisterProducer()
            link.connection.loseConnection()


def listen(reactor: MonotonicReactor, runtime_dir: Path, hub: LinkHub, uid: int) -> IListeningPort:
    """Listen for the resolver, in place of a socket that a dead enforcer left; only ``uid`` may connect."""
    path = runtime_dir / SOCKET
    path.unlink(missing_ok=True)
    port: IListeningPort = reactor.listenUNIX(os.fspath(path), hub, mode=0o600, backlog=MAX_CONNECTIONS)
    os.chown(path, uid, -1)
    return port
