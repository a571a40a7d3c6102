"""The owner's side: what other nodes ask for pods that are here, until it is decided and acknowledged.

Owns the queue of requests and what was seen of each asker. Decides nothing: ``enforcer.authority``
does, as for the resolver of this node. Sans-I/O; instants are monotonic seconds. Invariants: nothing
is believed of a letter but "this pod's lookup gave these addresses"; no letter counts twice, none of
an earlier run, none for another node; every table is bounded, and no asker fills another's part.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from enforcer.authority import Decided
from enforcer.sharing.nodes.budget import Budget
from enforcer.sharing.nodes.letters import Acked, Asked, Claimed, letter_from, weight, written
from enforcer.sharing.nodes.peers import Ground, Hash, counted
from enforcer.sharing.records.seal import NotBelieved, check
from policy.addresses import from_packed
from policy.authority import GrantRequested, Outcome
from policy.snapshot import Snapshot

LETTERS_PER_S = 2000.0
LETTERS_BURST = 2000.0
"""Whatever is written into our stream costs no more than looking at so many a second."""
ASKER_PER_S = 1000.0
ASKER_BURST = 500.0
ADDRESSES_A_LETTER = 32
"""So many addresses of a request cost its asker one letter more."""
ELEMENTS_A_LETTER = 16
"""So many elements that were opened or prolonged for it, likewise."""
OPENED_PER_S = 20_000.0
OPENED_BURST = 20_000.0
"""Elements that other nodes have us look at, all together: at most a third of a processor."""
MAX_ASKERS = 1024
MAX_SEEN = 64
"""Remembered of one asker: its sessions (restarts) with our challenges, eight of which are valid."""
MAX_QUEUED = 1024
MAX_QUEUED_OF_ONE = 256
MAX_TAKEN = 2048
"""Requests that the authority has not decided yet."""


class Entry(Protocol):
    """An entry of a stream as the door gives it; ``age_ms`` by Redis's own clock."""

    @property
    def age_ms(self) -> int: ...
    @property
    def fields(self) -> Hash: ...


class _Asker:
    """What is known of one node that writes to us."""

    __slots__ = ("budget", "queue", "seen")

    def __init__(self, now: float) -> None:
        self.budget = Budget(ASKER_PER_S, ASKER_BURST, now)
        self.seen: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.queue: deque[Asked] = deque()

    def is_new(self, letter: Asked | Claimed) -> bool:
        """Say whether the letter is newer than all of its session and challenge, and remember it.

        With the challenge, so that a number somebody else made up ends with it.
        """
        key = letter.session, letter.challenge
        if letter.seq <= self.seen.get(key, -1):
            return False
        self.seen[key] = letter.seq
        self.seen.move_to_end(key)
        if len(self.seen) > MAX_SEEN:
            self.seen.popitem(last=False)
        return True


class Answering:
    """Requests of other nodes."""

    def __init__(
        self,
        *,
        ground: Ground,
        challenges: Callable[[], Sequence[str]],
        snapshot: Callable[[], Snapshot | None],
        claimed: Callable[[Claimed], None],
        disputed: Callable[[bytes], str],
        hold_timeout_s: Callable[[], float],
    ) -> None:
        self._me, self._keys, self._keyring, _ = ground[:4]
        _, self._streams, self._now, self._counts = ground[4:]
        self._challenges = challenges
        self._snapshot = snapshot
        self._claimed = claimed
        self._disputed = disputed
        self._hold_timeout_s = hold_timeout_s
        self._letters = Budget(LETTERS_PER_S, LETTERS_BURST, self._now())
        self._opened = Budget(OPENED_PER_S, OPENED_BURST, self._now())
        self._askers: OrderedDict[str, _Asker] = OrderedDict()
        self._taken: dict[int, Asked] = {}
        self._last_number = 0
        self.queued = 0

    def came(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """Take entries of our stream of requests."""
        for entry in entries:
            if not self._letters.take(self._now(), weight(entry.fields)):
                self._counts["flood"] += 1
                continue
            try:
                check(self._keyring(), stream, entry.fields)
                letter = letter_from(entry.fields)
                if isinstance(letter, Acked):
                    raise NotBelieved("malformed")
            except NotBelieved as doubt:
                self._counts[counted(doubt)] += 1
                continue
            self._letter(letter, entry.age_ms)

    @property
    def is_owing(self) -> bool:
        """Say whether more was opened for other nodes than they may have by now."""
        return self._opened.is_owing(self._now())

    @property
    def waiting(self) -> int:
        """How many requests ``take`` would give; none while too much was opened for other nodes."""
        return 0 if self.is_owing else self.queued

    def take(self, most: int, addresses: int) -> list[GrantRequested]:
        """Return requests for the authority, from each asker in turn; ``addresses``: of about so many."""
        taken: list[GrantRequested] = []
        while self.waiting and len(self._taken) < MAX_TAKEN:
            for asker in list(self._askers.values()):
                if len(taken) >= most or addresses <= 0:
                    return taken
                if asker.queue:
                    self.queued -= 1
                    request = self._numbered(asker.queue.popleft())
                    addresses -= len(request.addresses)
                    taken.append(request)
        return taken

    def answered(self, decided: Sequence[Decided]) -> None:
        """Acknowledge what the kernel has acknowledged, and what was refused."""
        for request, answer, work in decided:
            asked = self._taken.pop(request.id, None)
            self._opened.owe(work)
            if asked is not None:
                asker = self._askers.get(asked.node)
                if asker is not None:
                    asker.budget.owe(work / ELEMENTS_A_LETTER)
                self._ack(asked, answer.outcomes, answer.remaining_s, answer.generation, answer.reason)

    def lost(self) -> None:
        """Redis is away: who asked has given up, and would not hear."""
        for asker in self._askers.values():
            asker.queue.clear()
        self.queued = 0
        self._taken.clear()

    def _letter(self, letter: Asked | Claimed, age_ms: int) -> None:
        counts, now = self._counts, self._now()
        if letter.to != self._me.node or letter.node == self._me.node:
            counts["misdirected"] += 1
            return
        asker = self._asker(letter.node, now)
        cost = 1 + len(letter.addresses) / ADDRESSES_A_LETTER if isinstance(letter, Asked) else 1
        if not asker.budget.take(now, cost):
            counts["budget"] += 1
        elif letter.challenge not in self._challenges():
            counts["challenge"] += 1
            if isinstance(letter, Asked):
                self._ack(letter, (), 0.0, 0, "the challenge is not known")
        elif not asker.is_new(letter):
            counts["replayed"] += 1
        elif age_ms > self._hold_timeout_s() * 1000:
            counts["stale"] += 1
        elif isinstance(letter, Claimed):
            self._claimed(letter)
        else:
            self._request(letter, asker)

    def _request(self, asked: Asked, asker: _Asker) -> None:
        trouble = self._trouble(asked)
        other = self._disputed(asked.source)
        if trouble:
            self._refuse(asked, "failed", trouble)
        elif other:
            where = from_packed(asked.source)
            self._counts["disputed"] += 1
            self._refuse(asked, "denied", f"{where} is claimed by {self._me.node} and {other}")
        elif self.queued >= MAX_QUEUED or len(asker.queue) >= MAX_QUEUED_OF_ONE:
            self._counts["budget"] += 1
        else:
            asker.queue.append(asked)
            self.queued += 1

    def _trouble(self, asked: Asked) -> str:
        """Say why a request cannot be for a pod here; its asker may know an older world, or a newer one."""
        snapshot, node = self._snapshot(), self._me.node
        pod = snapshot.pod_at(asked.source) if snapshot is not None else None
        if pod is None or pod.uid != asked.uid:
            return f"{node} knows no such pod at {from_packed(asked.source)}"
        if pod.node not in {"", node}:
            return f"for {node} the pod is on {pod.node}"
        return ""

    def _numbered(self, asked: Asked) -> GrantRequested:
        self._last_number += 1
        self._taken[self._last_number] = asked
        return GrantRequested(
            self._last_number, 0, asked.uid, asked.source, asked.name, asked.addresses, asked.ttl_s
        )

    def _refuse(self, asked: Asked, outcome: Outcome, reason: str) -> None:
        self._ack(asked, (outcome,) * len(asked.addresses), 0.0, 0, reason)

    def _ack(
        self, asked: Asked, outcomes: tuple[Outcome, ...], remaining_s: float, generation: int, reason: str
    ) -> None:
        stream = self._keys.of(asked.node).acks
        ack = Acked(
            asked.id, self._me.node, asked.node, asked.session, outcomes, remaining_s, generation, reason
        )
        self._counts["answered"] += 1
        self._streams.add(stream, written(self._keyring(), stream, ack), self._now(), None)

    def _asker(self, node: str, now: float) -> _Asker:
        asker = self._askers.get(node)
        if asker is None:
            if len(self._askers) >= MAX_ASKERS:
                idle = (name for name, known in self._askers.items() if not known.queue)
                forgotten = self._askers.pop(next(idle, next(iter(self._askers))))
                self.queued -= len(forgotten.queue)
            asker = self._askers[node] = _Asker(now)
        self._askers.move_to_end(node)
        return asker
