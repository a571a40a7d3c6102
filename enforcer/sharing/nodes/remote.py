"""Pods of other nodes that are answered here, and pods of this node that are answered elsewhere.

Owns who reads which letter, and the counts of all of it. Decides nothing. Sans-I/O: door, clock and the
node's own state are arguments. Invariants: without Redis every request is answered at once, with a
failure; no octet of Redis raises here.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from enforcer.authority import MAX_NAME_CHARS, Decided
from enforcer.sharing.nodes.answering import Answering, Entry
from enforcer.sharing.nodes.asking import Asking, Done
from enforcer.sharing.nodes.budget import Budget
from enforcer.sharing.nodes.letters import Acked, letter_from, weight
from enforcer.sharing.nodes.ownership import Ownership
from enforcer.sharing.nodes.peers import Door, Ground, Identity, Peers, Streams, counted
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import Keyring, NotBelieved, check
from policy.authority import GrantAnswered, GrantRequested, Outcome
from policy.pods import Pod
from policy.snapshot import Snapshot

OUTCOMES = (
    "answered", "asked", "budget", "challenge", "claimed", "denied", "disputed", "failed", "flood", "forged",
    "late", "limit", "lost", "malformed", "misdirected", "outdated", "realized", "replayed", "stale",
    "timeout", "unknown", "unsent", "version", "yielded",
)  # fmt: skip
"""Every word by which ``Remote.counts`` counts."""
ACKS_PER_S = 4000.0
ACKS_BURST = 4000.0
"""Whatever is written into our stream costs no more than looking at so many a second."""
TICK_S = 0.1
"""How often ``Remote.tick`` is to be called."""
OWNERS_EVERY_S = 1.0


class Remote:
    """What is asked of other nodes and by them (``enforcer.hearing.Elsewhere``)."""

    def __init__(
        self,
        *,
        keys: Keys,
        session: str,
        keyring: Callable[[], Keyring],
        door: Door,
        challenges: Callable[[], Sequence[str]],
        snapshot: Callable[[], Snapshot | None],
        held: Callable[[], Mapping[bytes, str]],
        look_again: Callable[[], None],
        hold_timeout_s: Callable[[], float],
        now: Callable[[], float],
        came: Callable[[], None],
    ) -> None:
        """Join the parts.

        ``challenges`` are those of this node's last heartbeats, ``snapshot`` what is in force, ``held``
        the uid by packed address of the pods that are admitted here, ``look_again`` reads manifests and
        interfaces anew, ``came`` is called when ``take`` has something to give.
        """
        self._keys = keys
        self._keyring = keyring
        self._snapshot = snapshot
        self._now = now
        self._came = came
        self._session = session
        self._counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._owners_at = float("-inf")
        self._acks = Budget(ACKS_PER_S, ACKS_BURST, now())
        me = Identity(keys.node, session, itertools.count(1).__next__)
        self._peers = Peers(keys=keys, keyring=keyring, door=door, now=now, counts=self._counts)
        ground = Ground(me, keys, keyring, door, self._peers, Streams(door), now, self._counts)
        self._asking = Asking(ground, hold_timeout_s)
        self._ownership = Ownership(ground=ground, held=held, look_again=look_again)
        self._answering = Answering(
            ground=ground,
            challenges=challenges,
            snapshot=snapshot,
            claimed=self._ownership.claimed,
            disputed=self._ownership.disputed,
            hold_timeout_s=hold_timeout_s,
        )

    # --- for the authority socket (enforcer.hearing.Elsewhere) ---------------------------------------

    def is_elsewhere(self, pod: Pod) -> bool:
        """Say whether another node has the pod."""
        return pod.node not in {"", self._keys.node}

    def ask(self, request: GrantRequested, pod: Pod, done: Done) -> None:
        """Ask the pod's node; ``done`` hears once what became of it, at once where that is clear.

        What this node's own policy does not permit is not sent; what is, the other node decides.
        """
        snapshot = self._snapshot()
        generation = snapshot.generation if snapshot is not None else 0
        reason = ""
        if snapshot is not None and len(request.name) <= MAX_NAME_CHARS:
            access = snapshot.access(pod, request.name)
            reason = "" if access.resolvable else access.reason or "not permitted"
        if reason:
            self._counts["denied"] += 1
            outcomes: list[Outcome] = ["denied"] * len(request.addresses)
            done(GrantAnswered(request.id, generation, tuple(outcomes), 0.0, reason, lasting=False))
        else:
            self._asking.ask(request, pod.node, generation, done)

    @property
    def waiting(self) -> int:
        """How many requests of other nodes wait for a turn."""
        return self._answering.waiting

    @property
    def is_owing(self) -> bool:
        """Say whether more was opened for other nodes than they may have."""
        return self._answering.is_owing

    @property
    def pending(self) -> int:
        """How many requests to other nodes are not answered yet."""
        return len(self._asking)

    def take(self, most: int, addresses: int) -> list[GrantRequested]:
        """Return requests of other nodes, at most so many, of about so many addresses."""
        return self._answering.take(most, addresses)

    def answered(self, decided: Sequence[Decided]) -> None:
        """Acknowledge requests that ``take`` gave: journal and kernel have them."""
        self._answering.answered(decided)

    # --- for the wiring ----------------------------------------------------------------------------

    def entries_came(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """Take what the door read of this node's streams."""
        if stream == self._keys.acks:
            for entry in entries:
                self._acked(stream, entry)
        elif stream == self._keys.requests:
            self._answering.came(stream, entries)
            if self._answering.waiting:
                self._came()

    def redis_up(self) -> None:
        """Redis answers (again, or after it was emptied): make every claim anew."""
        self._ownership.up()

    def reseal(self) -> None:
        """The keys have changed: seal anew what stands in Redis."""
        self._ownership.reseal()

    def redis_lost(self) -> None:
        """Redis is away: fail what is under way."""
        self._peers.lost()
        self._asking.lost()
        self._answering.lost()

    def pods_changed(self) -> None:
        """Note that pods were admitted or have gone: addresses are claimed without waiting for a tick."""
        self._ownership.changed()

    def tick(self) -> None:
        """Do what is due; every ``TICK_S``."""
        self._asking.expire()
        if self._answering.waiting:
            self._came()
        now = self._now()
        if now - self._owners_at >= OWNERS_EVERY_S:
            self._owners_at = now
            self._ownership.tick()

    @property
    def problems(self) -> tuple[str, ...]:
        """What ``status`` should say."""
        return self._ownership.problems

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened so often, by the words of ``OUTCOMES``."""
        return {word: self._counts[word] for word in OUTCOMES}

    def _acked(self, stream: bytes, entry: Entry) -> None:
        if not self._acks.take(self._now(), weight(entry.fields)):
            self._counts["flood"] += 1
            return
        try:
            check(self._keyring(), stream, entry.fields)
            letter = letter_from(entry.fields)
            if not isinstance(letter, Acked):
                raise NotBelieved("malformed")
        except NotBelieved as doubt:
            self._counts[counted(doubt)] += 1
            return
        if letter.to != self._keys.node or letter.session != self._session:
            self._counts["misdirected"] += 1
        else:
            self._asking.acked(letter)
