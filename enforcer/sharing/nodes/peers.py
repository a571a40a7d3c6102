"""The way to other nodes: their challenges, which a letter must carry to be no old one, and their streams.

Owns what was read of other nodes' heartbeats, who waits for it, and how streams are written. Never
waits itself. Sans-I/O: the door and the clock are arguments. Invariants: a challenge is used for at
most ``FRESH_S`` after it was read; whatever a heartbeat says, it costs one reading a node and ``SILENT_S``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from enforcer.sharing.nodes.letters import is_challenge
from enforcer.sharing.records.formats import node_from
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.resp import xadd_parts
from enforcer.sharing.records.seal import Keyring, NotBelieved, check

FRESH_S = 5.0
"""A node believes what it said in its last eight heartbeats, one a second."""
REFRESH_S = 2.5
SILENT_S = 1.0
"""A node without a heartbeat is not looked for again before."""
STREAM_ENTRIES = 1000
STREAM_LIFE_MS = 60_000
EXPIRE_EVERY_S = 10.0
MAX_PEERS = 4096
MAX_STREAMS = 4096
MAX_WAITING = 1024
"""What waits for one node's challenge."""

T = TypeVar("T")
Hash = Mapping[bytes, bytes]
Knocking = Callable[[str, str], None]
"""Called with the challenge, or with "" and why there is none."""


def counted(doubt: NotBelieved) -> str:
    """Return the word by which a doubt is counted."""
    return "forged" if doubt.reason == "mac" else doubt.reason


class Reader(Protocol):
    """What a thread of the door can read."""

    def hashes(self, keys: Sequence[bytes], /) -> Sequence[Hash]:
        """Return the hashes of the keys, empty where there is none."""


class Door(Protocol):
    """What of ``enforcer.sharing.redis.door`` is used here; every callback comes on the loop."""

    @property
    def is_up(self) -> bool:
        """Say whether Redis answers."""

    def send(
        self, key: bytes, command: Sequence[bytes], done: Callable[[object], None] | None = None, /
    ) -> None:
        """Send one command; ``done`` gets the reply (an error is a ``RedisSaid``), None if it was lost."""

    def ask(self, work: Callable[[Reader], T], done: Callable[[T | str], None], /) -> None:
        """Read in a thread; ``done`` gets what ``work`` returned, or a sentence (``Trouble``)."""


class _Peer:
    __slots__ = ("challenge", "is_reading", "keys", "read_at", "silent_until", "waiting", "why")

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.challenge = ""
        self.read_at = float("-inf")
        self.is_reading = False
        self.silent_until = float("-inf")
        self.why = ""
        self.waiting: list[Knocking] = []


class Peers:
    """What is known of each other node that something was sent to."""

    def __init__(
        self,
        *,
        keys: Keys,
        keyring: Callable[[], Keyring],
        door: Door,
        now: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        self._keys = keys
        self._keyring = keyring
        self._door = door
        self._now = now
        self._counts = counts
        self._peers: dict[str, _Peer] = {}

    def keys(self, node: str) -> Keys:
        """Return the keys of a node."""
        return self._of(node).keys

    def knock(self, node: str, take: Knocking) -> None:
        """Give ``take`` the challenge of a node: now if it is known, else when it was read."""
        peer, now = self._of(node), self._now()
        if now - peer.read_at < FRESH_S:
            if now - peer.read_at > REFRESH_S:
                self._read(node, peer)
            take(peer.challenge, "")
        elif now < peer.silent_until:
            take("", peer.why)
        elif len(peer.waiting) >= MAX_WAITING:
            take("", f"too much waits for {node}")
        else:
            peer.waiting.append(take)
            self._read(node, peer)

    def doubt(self, node: str, challenge: str) -> None:
        """Note that a node does not know this challenge any more: it is read again before the next use."""
        peer = self._of(node)
        if peer.challenge == challenge:
            peer.read_at = float("-inf")

    def lost(self) -> None:
        """Forget everything: Redis is away. Who waits is told."""
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            _tell(peer, "", "Redis is lost")

    def _of(self, node: str) -> _Peer:
        peer = self._peers.get(node)
        if peer is None:
            if len(self._peers) >= MAX_PEERS:
                self._forget_one()
            peer = self._peers[node] = _Peer(self._keys.of(node))
        return peer

    def _forget_one(self) -> None:
        idle = (node for node, peer in self._peers.items() if not peer.waiting and not peer.is_reading)
        node = next(idle, None)
        if node is not None:
            del self._peers[node]

    def _read(self, node: str, peer: _Peer) -> None:
        if peer.is_reading:
            return
        peer.is_reading = True
        key = peer.keys.heartbeat

        def done(read: Sequence[Hash] | str) -> None:
            if self._peers.get(node) is peer:
                peer.is_reading = False
                self._was_read(node, peer, read)

        self._door.ask(lambda reader: reader.hashes([key]), done)

    def _was_read(self, node: str, peer: _Peer, read: Sequence[Hash] | str) -> None:
        now = self._now()
        try:
            peer.why = "" if not isinstance(read, str) else "Redis did not answer"
            if not peer.why and not read[0]:
                peer.why = f"{node} has no heartbeat"
            if not peer.why and not isinstance(read, str):
                check(self._keyring(), peer.keys.heartbeat, read[0])
                challenge = node_from(peer.keys.heartbeat, read[0]).challenge
                if not is_challenge(challenge):
                    raise NotBelieved("malformed")  # every letter to it would be as long as it likes
                peer.challenge = challenge
                peer.read_at = now
        except NotBelieved as doubt:
            self._counts[counted(doubt)] += 1
            peer.why = f"the heartbeat of {node} is not believed"
        if peer.why:
            peer.silent_until = now + SILENT_S
        _tell(peer, "" if peer.why else peer.challenge, peer.why)


def _tell(peer: _Peer, challenge: str, why: str) -> None:
    waiting, peer.waiting = peer.waiting, []
    for take in waiting:
        take(challenge, why)


class Identity(NamedTuple):
    """This node, as its letters say it."""

    node: str
    session: str
    next_seq: Callable[[], int]


class Streams:
    """Writes to other nodes' streams, and lets each live on while it is written to."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._expired_at: dict[bytes, float] = {}

    def add(
        self, stream: bytes, fields: dict[bytes, bytes], now: float, done: Callable[[object], None] | None
    ) -> None:
        """Add an entry; a stream that takes none (whoever did that to it) is removed for the next."""

        def added(reply: object) -> None:
            if isinstance(reply, str):
                self._door.send(stream, (b"UNLINK", stream), None)
            if done is not None:
                done(reply)

        self._door.send(stream, xadd_parts(stream, fields, STREAM_ENTRIES), added)
        if now - self._expired_at.get(stream, float("-inf")) >= EXPIRE_EVERY_S:
            if len(self._expired_at) >= MAX_STREAMS:
                self._expired_at.clear()
            self._expired_at[stream] = now
            self._door.send(stream, (b"PEXPIRE", stream, b"%d" % STREAM_LIFE_MS), None)


class Ground(NamedTuple):
    """What every part of this stands on."""

    me: Identity
    keys: Keys
    keyring: Callable[[], Keyring]
    door: Door
    peers: Peers
    streams: Streams
    now: Callable[[], float]
    counts: Counter[str]
