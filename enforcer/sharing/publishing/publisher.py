"""The publisher: what this node shares, kept equal to what it holds, without anybody waiting for it.

Pure; loop, door and clocks are arguments. Owns when things are written: grants soon after they change, the
heartbeat, pods and refusals at their pace, everything again after each return of Redis. Nothing read
back is believed: a reply that is not as expected leads to writing again. Invariants: a turn of the loop does
at most ``PIECE`` grants; while Redis is lost nothing piles up but what has to be taken away there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from enforcer.blocked import BlockedRecords
from enforcer.sharing.publishing.composing import Composer
from enforcer.sharing.publishing.grants import GrantFeed, Piece
from enforcer.sharing.publishing.ledger import RedisLedger
from enforcer.sharing.publishing.pods import COMMANDS, PodFacts, PodFeed
from enforcer.sharing.publishing.refused import LENGTH, ROOM, RefusedFeed
from enforcer.sharing.publishing.tidying import Finder, Tidying
from enforcer.sharing.records.formats import NodeFacts, NodeRecord
from enforcer.sharing.records.keys import Keys, Place
from enforcer.sharing.records.resp import hset, packed, pexpire, unlink
from enforcer.sharing.records.roll import seen_octets
from enforcer.sharing.records.seal import VERSION, Keyring, seal
from enforcer.sharing.redis.entries import instant_of

FLUSH_S = 0.1
"""How long changes are gathered: each transaction costs as much as some thirty grants, whatever is in it."""
PIECE_S = 0.001
"""The pause between pieces while there are more."""
PIECE = 256
PODS_PIECE = 24
REFUSED_S = 0.2
AHEAD_MS = 10_000
"""An entry of our stream with such an id was preceded by one that a stranger dated ahead."""
BEAT_S = 1.0
HEARTBEAT_MS = 10_000
ROLL_BEATS = 10
"""The roll of nodes is signed at every so many beats."""
FORGET_BEATS = 3600
LONGEST_PAUSE_S = 4.0
"""Between two writings of everything, if something is always refused or gone again."""
CALM_S = 30.0
MOST_UNANSWERED = 16_384
"""Commands that wait for Redis; beyond it, changes gather here, one mark for each grant."""
CHALLENGES = 8
"""Heartbeats whose challenge is still good."""

Replies = Sequence[object] | None


STANDING = frozenset({"node", "blocked", "requests", "acks"})
"""Kinds of which a node has one key, whoever writes it."""


class Door(Finder, Protocol):
    """What the publisher asks of the door to Redis (``enforcer.sharing.redis.door``)."""

    @property
    def is_up(self) -> bool: ...
    @property
    def backlog(self) -> int: ...
    def write(self, commands: Sequence[bytes], done: Callable[[Replies], None] | None = None) -> None: ...
    def send(
        self, key: bytes, command: Sequence[bytes], done: Callable[[object], None] | None = None
    ) -> None: ...
    def redis_ms(self) -> int | None: ...


class Publisher:
    """See the module. ``ago`` turns seconds ago into wall-clock text, for people only."""

    def __init__(
        self,
        *,
        door: Door,
        keys: Keys,
        keyring: Callable[[], Keyring],
        ledger: RedisLedger,
        facts: Callable[[], NodeFacts],
        pods: Callable[[], Iterable[PodFacts]],
        blocked: BlockedRecords,
        session: str,
        generation: Callable[[], int],
        now: Callable[[], float],
        ago: Callable[[float], str],
        later: Callable[[float, Callable[[], None]], object],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._door = door
        self._keys = keys
        self._keyring = keyring
        self._streams = (keys.blocked, keys.requests, keys.acks)
        self._ledger = ledger
        self._facts = facts
        self._blocked = blocked
        self._session = session
        self._now = now
        self._ago = ago
        self._later = later
        self._randomness = randomness
        self._outbox = ledger.outbox
        composer = Composer(keys, session, generation, ago)
        self._grants = GrantFeed(ledger, self._outbox, composer, keyring, now)
        self._pods = PodFeed(keys, session, pods, now)
        self._refused = RefusedFeed(keys, session, now, ago)
        self._tidying = Tidying(keys, door, self._is_ours, later)
        self.challenges: deque[str] = deque(maxlen=CHALLENGES)
        """Of the latest heartbeats; the newest is last."""
        self.beat = 0
        self.rejected = 0
        """Batches of which Redis refused a part."""
        self.resyncs = 0
        self._others = 0
        self._is_running = self._is_armed = self._is_sure = False
        self._added = 0
        """Entries of refusals since their stream was begun."""
        self._is_spoiled = False
        """Our stream of refusals takes no entries, or none of now: it is begun anew with the next beat."""
        self._pause_s = 0.0
        self._doubted_at = float("-inf")
        self._end_listening: Callable[[], None] = _nothing

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; Redis may be there or not."""
        self._is_running = True
        self._outbox.wake = self._arm
        self._end_listening = self._blocked.listen(self._refused.take)
        self._later(BEAT_S, self._beat_on)
        self._later(REFUSED_S, self._refused_on)

    def stop(self) -> None:
        """End; what stands in Redis expires by itself."""
        self._is_running = False
        self._end_listening()
        self._outbox.close()

    def redis_up(self) -> None:
        """Write everything: nobody knows what this Redis holds."""
        self._everything()

    def redis_lost(self) -> None:
        """Stop writing; marks are not needed, for everything follows when it is back."""
        self._is_sure = False
        self._outbox.close()
        self._grants.end()

    def reseal(self) -> None:
        """The keys have changed: seal everything anew."""
        if self._door.is_up:
            self._everything()

    @property
    def published(self) -> int:
        """Records written, prolonged or removed, as acknowledged."""
        return self._grants.published + self._refused.published + self._others

    @property
    def dropped(self) -> int:
        """Records that were let go because a bound was reached."""
        return self._outbox.dropped + self._refused.dropped

    @property
    def is_settled(self) -> bool:
        """Say whether nothing waits to be written or answered."""
        return self._is_sure and not self._grants.has_more and not self._door.backlog

    # --- everything ------------------------------------------------------------------------------

    def _everything(self) -> None:
        self._is_sure = True
        self.resyncs += 1
        self._outbox.open()
        self._grants.begin()
        self._pods.begin()
        self._beat(is_first=True)
        self._arm()

    def _doubt(self) -> None:
        """Something was refused, or is gone: write everything again, after a pause that grows."""
        if not self._is_sure:
            return
        now = self._now()
        calm = now - self._doubted_at > CALM_S
        self._pause_s = FLUSH_S if calm else min(max(2 * self._pause_s, BEAT_S), LONGEST_PAUSE_S)
        self._doubted_at = now
        self._is_sure = False
        self._later(self._pause_s, self._again)

    def _again(self) -> None:
        if self._is_running and self._door.is_up and not self._is_sure:
            self._everything()

    def _streams_told(self, lengths: Sequence[object]) -> None:
        """A stream of ours that is something else is removed; refusals that are missing are told anew."""
        wrong = {stream for stream, said in zip(self._streams, lengths, strict=True) if type(said) is not int}
        length = lengths[0] if type(lengths[0]) is int else 0
        if length < max(min(self._added, LENGTH), 1) or self._is_spoiled:
            self._is_spoiled = False
            if self._refused.retell(self._blocked.latest(ROOM)):
                wrong.add(self._keys.blocked)
        if wrong:
            is_begun = self._keys.blocked in wrong
            self._door.write([unlink(stream) for stream in sorted(wrong)], self._begun if is_begun else None)

    def _begun(self, _replies: Replies) -> None:
        self._added = 0

    def _is_ours(self, name: bytes, place: Place) -> bool:
        """Say whether a key that was found under this node's prefix should be there."""
        if place.kind == "grant":
            return self._grants.is_held(self._keys, name, place)
        return self._pods.has(name) if place.kind == "pod" else place.kind in STANDING

    # --- grants and pods -------------------------------------------------------------------------

    def _arm(self, after_s: float = FLUSH_S) -> None:
        if not self._is_armed and self._is_running:
            self._is_armed = True
            self._later(after_s, self._flush)

    def _flush(self) -> None:
        self._is_armed = False
        if not self._is_running or not self._is_sure or not self._door.is_up:
            return
        if self._door.backlog > MOST_UNANSWERED:
            self._arm()
            return
        if self._pods.has_more:
            commands = self._pods.piece(PODS_PIECE, self._keyring())
            self._door.write(commands, self._pods_told)
        else:
            piece = self._grants.piece(PIECE)
            if piece.commands:
                self._door.write(piece.commands, lambda replies: self._grants_told(replies, piece))
        if self._grants.has_more or self._pods.has_more:
            self._arm(PIECE_S)

    def _grants_told(self, replies: Replies, piece: Piece) -> None:
        if replies is not None and not self._grants.answered(piece, replies):
            self.rejected += 1
            self._doubt()

    def _pods_told(self, replies: Replies) -> None:
        if replies is None:
            return
        if self._pods.answered(replies):
            self._others += len(replies) // COMMANDS
        else:
            self.rejected += 1
            self._doubt()

    # --- at their pace ---------------------------------------------------------------------------

    def _beat_on(self) -> None:
        if not self._is_running:
            return
        self._later(BEAT_S, self._beat_on)
        self._outbox.sweep()
        if not self._door.is_up or not self._is_sure:
            return
        self._beat(is_first=False)
        if self._grants.is_walking or self._door.backlog > MOST_UNANSWERED:
            return
        if self._outbox.wants_resync:
            self._doubt()
        elif self._outbox.wants_scan:
            self._outbox.wants_scan = False
            self._tidying.begin(2 * len(self._ledger.accounts) + self._ledger.count, self._tidied)

    def _tidied(self, is_done: bool) -> None:
        self._outbox.wants_scan = self._outbox.wants_scan or not is_done

    def _beat(self, *, is_first: bool) -> None:
        """Write the heartbeat, and look at our streams; one that has vanished means that everything has."""
        keyring, key = self._keyring(), self._keys.heartbeat
        self.beat += 1
        self.challenges.append(self._randomness(8).hex())
        heartbeat_at, challenge = self._ago(0.0), self.challenges[-1]
        record = NodeRecord(self._keys.node, self._session, self.beat, challenge, heartbeat_at, self._facts())
        fields = {**record.fields(), b"v": VERSION}
        fields[b"mac"] = seal(keyring, key, fields)

        def done(replies: Replies) -> None:
            if replies is None:
                return
            self._streams_told(replies[len(commands) :])
            if not all(isinstance(reply, int) for reply in replies[: len(commands)]):
                self.rejected += 1
                self._doubt()
            elif replies[0] == 0 and not is_first:
                self._doubt()
            else:
                self._others += 1

        commands = [unlink(key), hset(key, fields), pexpire(key, HEARTBEAT_MS)]
        self._door.write([*commands, *(packed(b"XLEN", stream) for stream in self._streams)], done)
        self._pods.look()
        if self._pods.has_more:
            self._arm()
        if is_first or self.beat % ROLL_BEATS == 0:
            self._sign_roll(keyring)

    def _sign_roll(self, keyring: Keyring) -> None:
        redis_ms, nodes, node = self._door.redis_ms(), self._keys.nodes, self._keys.node.encode()
        if redis_ms is None:
            return
        entry = seen_octets(keyring, nodes, node, redis_ms)

        def done(reply: object) -> None:
            if reply is not None and not isinstance(reply, int):
                self.rejected += 1
                self._door.send(nodes, (b"UNLINK", nodes))

        self._door.send(nodes, (b"HSET", nodes, node, entry), done)
        if self.beat % FORGET_BEATS == 0:
            self._tidying.forget_nodes(keyring, redis_ms)

    def _refused_on(self) -> None:
        if not self._is_running:
            return
        self._later(REFUSED_S, self._refused_on)
        if not self._is_sure or not self._door.is_up or self._door.backlog > MOST_UNANSWERED:
            return
        entries, commands = self._refused.piece(self._keyring(), self._door.redis_ms())
        if not commands:
            return

        def done(replies: Replies) -> None:
            if replies is None:
                self._refused.put_back(entries)
                return
            added = sum(isinstance(reply, bytes) for reply in replies)
            self._refused.published += added
            self._added += added
            if not all(map(self._is_of_now, replies[: len(entries)])):
                self.rejected += 1
                self._is_spoiled = True

        self._door.write(commands, done)

    def _is_of_now(self, entry_id: object) -> bool:
        """Say whether an entry of ours was added, and not far ahead of the clock, where nobody looks."""
        redis_ms = self._door.redis_ms()
        if not isinstance(entry_id, bytes):
            return False
        return redis_ms is None or instant_of(entry_id) <= redis_ms + AHEAD_MS


def _nothing() -> None:
    """Nothing to end."""
