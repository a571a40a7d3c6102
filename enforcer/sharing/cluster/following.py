"""``nameward blocked --follow`` on all nodes: what is added to their streams, to whoever follows.

Owns one place in each stream, shared by all who follow; reads only while somebody does. Sans-I/O: what it
reads with is an argument. Invariants: the pause between two looks is as long as a look took, at least
``PAUSE_S``; an entry is shown once, and a copy of an old one never; a flood is cut and said.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from enforcer.asked import Request, Row
from enforcer.sharing.cluster.reading import Reader, names_of
from enforcer.sharing.cluster.rows import blocked_row
from enforcer.sharing.records.formats import BlockedRecord, blocked_from
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import Keyring, NotBelieved, check
from enforcer.sharing.redis.entries import after

PAUSE_S = 0.3
ROLL_EVERY_S = 10.0
A_NODE = 100
"""Entries of one node at one look."""
A_LOOK = 500
"""Entries shown of one look."""
_SESSIONS = 8

T = TypeVar("T")


class Asks(Protocol):
    """What it reads with (``enforcer.sharing.cluster.view``)."""

    def ask(self, work: Callable[[Reader, Keys, Keyring], T], done: Callable[[T | str], None]) -> None:
        """Read in a thread; ``done`` gets what ``work`` returned, or a sentence, on the loop."""

    def now(self) -> float:
        """Monotonic seconds."""


class _Follower(NamedTuple):
    request: Request
    take: Callable[[Row], None]
    warn: Callable[[str], None]


class _Place:
    """How far one node's stream was read, and the numbers that were seen there."""

    def __init__(self, entry_id: bytes) -> None:
        self.entry_id = entry_id
        self._session = ""
        self._seq = -1
        self._ended: deque[str] = deque(maxlen=_SESSIONS)

    def is_new(self, record: BlockedRecord) -> bool:
        """Say whether a record is not a copy of one that was there before."""
        if record.session != self._session:
            if record.session in self._ended:
                return False
            self._ended.append(self._session)
            self._session, self._seq = record.session, record.seq
            return True
        is_next, self._seq = record.seq > self._seq, max(record.seq, self._seq)
        return is_next


class Look(NamedTuple):
    """What one look at all streams found."""

    rows: list[Row]
    left_out: int
    doubts: Counter[str]
    redis_ms: int


class Following:
    """See the module."""

    def __init__(
        self, asks: Asks, later: Callable[[float, Callable[[], None]], object], doubts: Counter[str]
    ) -> None:
        self._asks = asks
        self._later = later
        self._followers: list[_Follower] = []
        self._places: dict[str, _Place] = {}
        self._since_ms: int | None = None
        self._roll_at = float("-inf")
        self._is_on = False
        self._is_lost = False
        self._doubts = doubts

    def follow(
        self, request: Request, take: Callable[[Row], None], warn: Callable[[str], None]
    ) -> Callable[[], None]:
        """Give ``take`` what comes from now on; the returned function ends that."""
        follower = _Follower(request, take, warn)
        self._followers.append(follower)
        self._is_lost = False
        if not self._is_on:
            self._is_on = True
            self._look()
        return lambda: self._followers.remove(follower)

    def _look(self) -> None:
        if not self._followers:
            self._places, self._since_ms, self._roll_at = {}, None, float("-inf")
            self._is_on = False
            return
        began_at = self._asks.now()
        with_roll = began_at - self._roll_at >= ROLL_EVERY_S
        if with_roll:
            self._roll_at = began_at
        places, since_ms = self._places, self._since_ms
        self._asks.ask(
            lambda reader, keys, keyring: look(reader, keys, keyring, places, since_ms, with_roll=with_roll),
            lambda said: self._looked(said, began_at, with_roll=with_roll),
        )

    def _looked(self, said: Look | str, began_at: float, *, with_roll: bool) -> None:
        self._later(max(PAUSE_S, self._asks.now() - began_at), self._look)
        if isinstance(said, str):
            self._roll_at = float("-inf")
            if not self._is_lost:
                self._is_lost = True
                self._warn(f"Redis is lost ({said}): only this node is followed until it is back")
            return
        if self._is_lost:
            self._is_lost = False
            self._warn("Redis is back: all nodes are followed again")
        if with_roll:
            self._since_ms = said.redis_ms
        self._doubts.update(said.doubts)
        for row in said.rows:
            for follower in tuple(self._followers):
                if _is_asked(follower.request, row):
                    follower.take(row)
        if said.left_out:
            self._warn(f"{said.left_out} refusals of other nodes came at once and are not shown")

    def _warn(self, text: str) -> None:
        for follower in tuple(self._followers):
            follower.warn(text)


def look(
    reader: Reader,
    keys: Keys,
    keyring: Keyring,
    places: dict[str, _Place],
    since_ms: int | None,
    *,
    with_roll: bool,
) -> Look:
    """Read on in every stream (in a thread: nobody else has ``places`` meanwhile).

    A node that is new begins at ``since_ms``, when the roll was read before; at the first look, now.
    """
    found, doubts = Look([], 0, Counter(), reader.time_ms()), Counter[str]()
    left_out = 0
    if with_roll:
        start = after((found.redis_ms if since_ms is None else since_ms) + 1)
        names = names_of(reader, keys, keyring, doubts)
        for name in [name for name in places if name not in names]:
            del places[name]
        for name in names:
            places.setdefault(name, _Place(start))
    for name, place in places.items():
        stream = keys.of(name).blocked
        until = b"%d" % found.redis_ms  # what is dated ahead would make us deaf for all before it
        entries = reader.range(stream, b"(" + place.entry_id, until, A_NODE, reverse=False)
        for entry in entries:
            place.entry_id = entry.id
            if len(found.rows) >= A_LOOK:
                left_out += 1
                continue
            try:
                check(keyring, stream, entry.fields)
                record = blocked_from(stream, entry.fields)
            except NotBelieved as doubt:
                doubts[doubt.reason] += 1
                continue
            if place.is_new(record):
                found.rows.append(blocked_row(record, max(entry.age_ms, 0) / 1000, lost=False))
            else:
                doubts["stale"] += 1
    found.rows.sort(key=lambda row: str(row["lastSeen"]))
    return found._replace(left_out=left_out, doubts=doubts)


def _is_asked(request: Request, row: Row) -> bool:
    return (
        request.node in {"", row["node"]}
        and request.namespace in {"", row["namespace"]}
        and request.pod in {"", row["pod"]}
    )
