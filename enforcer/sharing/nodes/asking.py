"""The asker's side: a lookup here of a pod that another node has, until that node's kernel has its grants.

Owns the requests under way. Decides nothing: the pod's node does. Sans-I/O; instants are monotonic
seconds. Invariants: every request is answered exactly once; ``realized`` only by an acknowledgement of
the node that was asked, for this very request of this session; what it promises is counted from
before the request was sent.
"""

from __future__ import annotations

from collections.abc import Callable

from enforcer.sharing.nodes.budget import Budget
from enforcer.sharing.nodes.letters import MAX_ADDRESSES, MAX_NAME_CHARS, MAX_UID_CHARS, Acked, Asked, written
from enforcer.sharing.nodes.peers import Ground
from policy.authority import GrantAnswered, GrantRequested, Outcome

MAX_OUTSTANDING = 2048
REQUESTS_PER_S = 2000.0
BURST = 1000.0
WAIT_SHARE = 0.9
"""Of ``dns.holdTimeout``: who asked is told before it gives up by itself."""
LEAST_S = 1.0
"""No answer has a shorter TTL, so what ends sooner is not realized."""

Done = Callable[[GrantAnswered], None]


class _Outstanding:
    __slots__ = ("challenge", "done", "due_at", "generation", "node", "request", "sent_at", "tries")

    def __init__(
        self, request: GrantRequested, node: str, generation: int, due_at: float, done: Done
    ) -> None:
        self.request = request
        self.node = node
        self.generation = generation
        self.due_at = due_at
        self.done = done
        self.sent_at = 0.0
        self.tries = 0
        self.challenge = ""

    @property
    def addresses(self) -> tuple[bytes, ...]:
        """What the other node is asked for."""
        return self.request.addresses[:MAX_ADDRESSES]


class Asking:
    """Requests to other nodes."""

    def __init__(self, ground: Ground, hold_timeout_s: Callable[[], float]) -> None:
        self._me, _, self._keyring, self._door = ground[:4]
        self._peers, self._streams, self._now, self._counts = ground[4:]
        self._hold_timeout_s = hold_timeout_s
        self._budget = Budget(REQUESTS_PER_S, BURST, self._now())
        self._outstanding: dict[int, _Outstanding] = {}
        self._last_id = 0

    def __len__(self) -> int:
        """How many requests are under way."""
        return len(self._outstanding)

    def ask(self, request: GrantRequested, node: str, generation: int, done: Done) -> None:
        """Ask a node; ``done`` hears of it once, at once if that is hopeless.

        ``generation`` is this node's snapshot by which it was asked.
        """
        now = self._now()
        due_at = now + WAIT_SHARE * self._hold_timeout_s()
        each = _Outstanding(request, node, generation, due_at, done)
        if not self._door.is_up:
            self._fail(each, "lost", "Redis is lost, and another node has the pod")
        elif not _is_sendable(request):
            self._fail(each, "unsent", "no resolver sends such a request")
        elif len(self._outstanding) >= MAX_OUTSTANDING or not self._budget.take(now):
            self._fail(each, "budget", "too many requests for pods of other nodes")
        else:
            self._last_id += 1
            self._outstanding[self._last_id] = each
            self._knock(self._last_id, each)

    def acked(self, ack: Acked) -> None:
        """Take an acknowledgement whose seal, address and session were checked."""
        each = self._outstanding.get(ack.id)
        if each is None or not each.tries:
            self._counts["late"] += 1
            return
        if ack.node != each.node:
            self._counts["misdirected"] += 1
            return
        if not ack.outcomes:
            self._challenged(ack.id, each)
            return
        if len(ack.outcomes) != len(each.addresses):
            self._counts["malformed"] += 1
            return
        del self._outstanding[ack.id]
        left_s = each.sent_at + ack.remaining_s - self._now()
        outcomes: list[Outcome] = list(ack.outcomes)
        if left_s < LEAST_S:
            outcomes = ["failed" if outcome == "realized" else outcome for outcome in outcomes]
        outcomes += ["limit"] * (len(each.request.addresses) - len(outcomes))
        reason = ack.reason or ("" if left_s >= LEAST_S else "the grant is about to end")
        for outcome in set(outcomes):
            self._counts[outcome] += 1
        each.done(
            GrantAnswered(
                each.request.id, each.generation, tuple(outcomes), max(left_s, 0.0), reason, lasting=False
            )
        )

    def lost(self) -> None:
        """Redis is away: whatever is under way has failed."""
        for number in list(self._outstanding):
            self._give_up(number, "lost", "Redis is lost, and another node has the pod")

    def expire(self) -> None:
        """Give up what was not answered in time."""
        now = self._now()
        for number, each in list(self._outstanding.items()):
            if each.due_at <= now:
                self._give_up(number, "timeout", f"{each.node} did not answer in time")

    def _knock(self, number: int, each: _Outstanding) -> None:
        def knocked(challenge: str, why: str) -> None:
            if self._outstanding.get(number) is not each:
                return
            if challenge:
                self._send(number, each, challenge)
            else:
                self._give_up(number, "unknown", why)

        self._peers.knock(each.node, knocked)

    def _send(self, number: int, each: _Outstanding, challenge: str) -> None:
        request, me = each.request, self._me
        each.tries += 1
        each.challenge = challenge
        each.sent_at = self._now()
        letter = Asked(
            number,
            me.node,
            me.session,
            me.next_seq(),
            each.node,
            challenge,
            request.source,
            request.pod_uid,
            request.name,
            each.addresses,
            request.ttl_s,
        )
        stream = self._peers.keys(each.node).requests

        def sent(reply: object) -> None:
            if not isinstance(reply, bytes) and self._outstanding.get(number) is each:
                self._give_up(number, "lost", "Redis did not take the request")

        self._counts["asked"] += 1
        self._streams.add(stream, written(self._keyring(), stream, letter), each.sent_at, sent)

    def _challenged(self, number: int, each: _Outstanding) -> None:
        """Its node does not know the challenge (it restarted, or Redis kept an old one): once more."""
        self._peers.doubt(each.node, each.challenge)
        if each.tries > 1:
            self._give_up(number, "unknown", f"{each.node} does not know its own challenge")
        else:
            self._knock(number, each)

    def _give_up(self, number: int, why: str, reason: str) -> None:
        self._fail(self._outstanding.pop(number), why, reason)

    def _fail(self, each: _Outstanding, why: str, reason: str) -> None:
        self._counts[why] += 1
        request = each.request
        outcomes: list[Outcome] = ["failed"] * len(request.addresses)
        each.done(GrantAnswered(request.id, each.generation, tuple(outcomes), 0.0, reason, lasting=False))


def _is_sendable(request: GrantRequested) -> bool:
    """Say whether another node could read it; a hijacked resolver may have written anything."""
    return (
        len(request.addresses) > 0
        and all(len(address) in (4, 16) for address in request.addresses)
        and len(request.name) <= MAX_NAME_CHARS
        and len(request.pod_uid) <= MAX_UID_CHARS
        and 1 <= request.ttl_s <= 86400
    )
