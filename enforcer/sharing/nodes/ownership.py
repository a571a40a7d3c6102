"""Whose an address is: this node's claims to the addresses of its pods, and what others claim.

Owns claims and disputes. Sans-I/O; instants are monotonic seconds. Invariants: nothing that Redis holds
takes a grant away here; a claim makes this node look again at its own source and its own interfaces, and
they alone decide. While they and another live node both have an address, both refuse what other nodes
ask for it, and say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from enforcer.sharing.nodes.budget import Budget
from enforcer.sharing.nodes.letters import LARGEST, OWNER_FIELDS, Claimed, Owner, owner_from, written
from enforcer.sharing.nodes.peers import Ground, Hash, Reader, counted
from enforcer.sharing.records.formats import node_from, pod_from
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import NotBelieved, check
from policy.addresses import from_packed

OWNER_LIFE_MS = 600_000
LOOK_AFTER_S = 5.0
"""So long after a claim was written it is read again: another may have been written at that instant."""
LOOK_EVERY_S = 240.0
RECHECK_S = 5.0
"""So often a dispute is looked at, and no earlier after its beginning."""
PIECE = 100
"""Addresses of one reading."""
NODE = re.compile(rb"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
PROBLEMS = 16
LOOKS_PER_S = 1.0
"""Strangers' claims make us look at interfaces and manifests no more often."""


class _Claim:
    """An address that is ours. ``generation`` 0: not written yet."""

    __slots__ = ("generation", "look_at", "uid")

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.generation = 0
        self.look_at = float("-inf")


class _Dispute(NamedTuple):
    node: str
    recheck_at: float


class Ownership:
    """The addresses of this node's pods, as the cluster is told of them."""

    def __init__(
        self,
        *,
        ground: Ground,
        held: Callable[[], Mapping[bytes, str]],
        look_again: Callable[[], None],
    ) -> None:
        """Take what says which addresses are here (packed, with the pod's uid), and what looks again."""
        self._me, self._keys, self._keyring, self._door = ground[:4]
        self._peers, self._streams, self._now, self._counts = ground[4:]
        self._held = held
        self._look_again = look_again
        self._looks = Budget(LOOKS_PER_S, 2.0, self._now())
        self._claims: dict[bytes, _Claim] = {}
        self._disputes: dict[bytes, _Dispute] = {}
        self._is_reading = False
        self._is_checking = False

    def disputed(self, source: bytes) -> str:
        """Return the node that has the address too, "" if none does."""
        dispute = self._disputes.get(source)
        return dispute.node if dispute is not None else ""

    @property
    def problems(self) -> tuple[str, ...]:
        """Say which addresses are disputed, the first ones by name."""
        said = [
            f"{from_packed(source)} is claimed by {each.node} too: what other nodes ask for it is refused; "
            "see which of the two has the pod, and free the address on the other"
            for source, each in list(self._disputes.items())[:PROBLEMS]
        ]
        more = len(self._disputes) - len(said)
        return (*said, f"{more} more addresses are claimed by other nodes too") if more else tuple(said)

    def changed(self) -> None:
        """Look at which addresses are here now."""
        held = self._held()
        for source in [each for each in self._claims if each not in held]:
            del self._claims[source]
            self._disputes.pop(source, None)
        for source, uid in held.items():
            claim = self._claims.get(source)
            if claim is None or claim.uid != uid:
                self._claims[source] = _Claim(uid)
        self._read()

    def up(self) -> None:
        """Redis is back: every claim is read, and made again where it is missing."""
        self._is_reading = self._is_checking = False
        for claim in self._claims.values():
            claim.look_at = float("-inf")
        self.changed()

    def reseal(self) -> None:
        """The keys have changed: write our claims under the present one, while the old is still believed."""
        for source, claim in self._claims.items():
            if claim.generation:
                self._write(source, claim)

    def tick(self) -> None:
        """Read what is due."""
        if self._door.is_up:
            self.changed()
            self._recheck()

    def claimed(self, letter: Claimed) -> None:
        """Take another node's claim, whose seal and freshness were checked."""
        source = letter.source
        mine = self._claims.get(source)
        if mine is None or source not in self._held():
            return
        if mine.generation and letter.generation < mine.generation:
            self._counts["outdated"] += 1
            return
        dispute = self._disputes.get(source)
        if dispute is not None and dispute.node == letter.node:
            return
        if self._looks.take(self._now()):
            self._look_again()
            if source not in self._held():
                self._counts["yielded"] += 1
                self.changed()
                return
        self._dispute(source, mine, letter.node, letter.generation)

    # --- our claims ------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read the owners of addresses that are due, a piece at a time."""
        now = self._now()
        due = [source for source, claim in self._claims.items() if claim.look_at <= now][:PIECE]
        if not due or self._is_reading or not self._door.is_up:
            return
        self._is_reading = True
        cluster = self._keys
        keys = [cluster.owner(source) for source in due]

        def work(reader: Reader) -> list[tuple[Hash, Hash]]:
            owners = reader.hashes(keys)
            hearts = [_heartbeat(cluster, owner) for owner in owners]
            wanted = sorted({key for key in hearts if key})
            beats = dict(zip(wanted, reader.hashes(wanted), strict=True)) if wanted else {}
            return [(owner, beats.get(key, {})) for owner, key in zip(owners, hearts, strict=True)]

        def done(read: list[tuple[Hash, Hash]] | str) -> None:
            self._is_reading = False
            if isinstance(read, str):
                return  # the next tick tries again
            for source, (owner, beat) in zip(due, read, strict=True):
                claim = self._claims.get(source)
                if claim is not None:
                    self._was_read(source, claim, owner, beat)
            self._read()

        self._door.ask(work, done)

    def _was_read(self, source: bytes, claim: _Claim, found: Hash, beat: Hash) -> None:
        key = self._keys.owner(source)
        owner = self._owner(key, found)
        if owner is not None and owner.node == self._me.node and owner.uid == claim.uid:
            is_mine = owner.generation == claim.generation
            if is_mine and owner.disputed == (source in self._disputes):
                claim.look_at = self._now() + LOOK_EVERY_S
                self._door.send(key, (b"PEXPIRE", key, b"%d" % OWNER_LIFE_MS), None)
                return
        other = ""
        if owner is not None and owner.node != self._me.node and self._session(owner.node, beat):
            other = owner.node
        claim.generation = _next(max(claim.generation, owner.generation if owner is not None else 0))
        self._write(source, claim, is_clean=OWNER_FIELDS.issuperset(found))
        if other:
            self._tell(source, claim, other)

    def _write(self, source: bytes, claim: _Claim, *, is_clean: bool = True) -> None:
        key = self._keys.owner(source)
        owner = Owner(self._me.node, claim.uid, claim.generation, source in self._disputes)
        if not is_clean:
            self._door.send(key, (b"UNLINK", key), None)
        fields = written(self._keyring(), key, owner)
        self._door.send(key, (b"HSET", key, *(part for pair in fields.items() for part in pair)), None)
        self._door.send(key, (b"PEXPIRE", key, b"%d" % OWNER_LIFE_MS), None)
        claim.look_at = self._now() + LOOK_AFTER_S

    def _tell(self, source: bytes, claim: _Claim, node: str) -> None:
        """Send our claim to the other node."""

        def knocked(challenge: str, _why: str) -> None:
            if challenge and self._claims.get(source) is claim:
                me, stream = self._me, self._peers.keys(node).requests
                letter = Claimed(
                    me.node, me.session, me.next_seq(), node, challenge, source, claim.uid, claim.generation
                )
                self._counts["claimed"] += 1
                self._streams.add(stream, written(self._keyring(), stream, letter), self._now(), None)

        self._peers.knock(node, knocked)

    # --- disputes --------------------------------------------------------------------------------

    def _dispute(self, source: bytes, mine: _Claim, node: str, generation: int) -> None:
        self._disputes[source] = _Dispute(node, self._now() + RECHECK_S)
        mine.generation = _next(max(mine.generation, generation))
        self._write(source, mine)
        self._tell(source, mine, node)

    def _recheck(self) -> None:
        """See whether the others still have what is disputed: their own record of the pod says so."""
        now = self._now()
        due = [(s, each) for s, each in self._disputes.items() if each.recheck_at <= now][:PIECE]
        if not due or self._is_checking:
            return
        self._is_checking = True
        keys = []
        for source, each in due:
            theirs = self._peers.keys(each.node)
            keys += [theirs.heartbeat, theirs.pod(source)]

        def done(read: Sequence[Hash] | str) -> None:
            self._is_checking = False
            if isinstance(read, str):
                return
            for (source, each), beat, pod in zip(due, read[::2], read[1::2], strict=True):
                if self._disputes.get(source) is each:
                    self._rechecked(source, each, beat, pod)

        self._door.ask(lambda reader: reader.hashes(keys), done)

    def _rechecked(self, source: bytes, dispute: _Dispute, beat: Hash, pod: Hash) -> None:
        claim = self._claims.get(source)
        session = self._session(dispute.node, beat)
        if claim is not None and session and self._pod_session(dispute.node, source, pod) == session:
            self._disputes[source] = dispute._replace(recheck_at=self._now() + RECHECK_S)
            return
        del self._disputes[source]
        if claim is not None:
            claim.generation = _next(claim.generation)
            self._write(source, claim)

    # --- what is believed of what was read -------------------------------------------------------

    def _owner(self, key: bytes, found: Hash) -> Owner | None:
        try:
            if found:
                check(self._keyring(), key, found)
                return owner_from(found)
        except NotBelieved as doubt:
            self._counts[counted(doubt)] += 1
        return None

    def _session(self, node: str, beat: Hash) -> str:
        """Return the session of a node that lives; "" if it does not."""
        key = self._peers.keys(node).heartbeat
        try:
            if beat:
                check(self._keyring(), key, beat)
                return node_from(key, beat).session
        except NotBelieved as doubt:
            self._counts[counted(doubt)] += 1
        return ""

    def _pod_session(self, node: str, source: bytes, pod: Hash) -> str:
        key = self._peers.keys(node).pod(source)
        try:
            if pod:
                check(self._keyring(), key, pod)
                return pod_from(key, pod).session
        except NotBelieved as doubt:
            self._counts[counted(doubt)] += 1
        return ""


def _heartbeat(keys: Keys, owner: Hash) -> bytes:
    """Return the key of the heartbeat of whoever a record names, believed or not; b"" if it names none."""
    node = owner.get(b"node", b"")
    return keys.of(node.decode()).heartbeat if NODE.fullmatch(node) else b""


def _next(generation: int) -> int:
    """Return the number of a newer claim; a neighbour may have written any."""
    return generation + 1 if generation < LARGEST // 2 else 1
