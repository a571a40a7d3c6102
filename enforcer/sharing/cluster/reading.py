"""One reading of what other nodes say: its bounds, which nodes there are, and what is believed.

Runs in a thread of the door. Owns every bound (rows, octets, keys looked at, time) and the doubts. Changes
nothing in Redis. Small batches with a wait for Redis between them, so that the loop gets its turn.
Invariant: no row of a record without a right seal, or of a session that has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from enforcer.asked import Found, Request, Row, order
from enforcer.sharing.cluster.liveness import Liveness
from enforcer.sharing.records.formats import NodeRecord, node_from
from enforcer.sharing.records.keys import Keys, place_of
from enforcer.sharing.records.roll import seen_ms
from enforcer.sharing.records.seal import Keyring, NotBelieved, check
from enforcer.sharing.redis.entries import Entry

T = TypeVar("T")

MAX_ROWS = 10_000
MAX_FOUND_BYTES = 8 << 20
"""Octets of the records behind the rows of one answer."""
MAX_KEYS = 100_000
"""Keys that one answer looks at."""
MAX_NODES = 4096
MAX_ROLL_BYTES = 1 << 20
SORTED = 500
"""Rows sorted at a time: sorting lets nobody else run."""
BATCH = 16
"""Records of one wait for Redis: about a millisecond of work, during which the loop has to wait."""
_NARROW = "narrow with --node, --namespace or --pod"


class Reader(Protocol):
    """What a thread of the door can read; every call ends after a second at most."""

    def pages(self, pattern: bytes, /) -> Iterable[list[bytes]]:
        """Yield the keys that match, page by page; some may come twice."""

    def hashes(self, keys: Sequence[bytes], limit_bytes: int = ..., /) -> Sequence[Mapping[bytes, bytes]]:
        """Return the hashes of the keys; empty where there is none, something else, or far too much."""

    def pttls(self, keys: Sequence[bytes], /) -> Sequence[int]:
        """Return the milliseconds each key has left; negative where it has no end or is gone."""

    def range(self, stream: bytes, low: bytes, high: bytes, count: int, *, reverse: bool) -> Sequence[Entry]:
        """Return entries of a stream, oldest first unless ``reverse``."""

    def time_ms(self) -> int:
        """Return Redis's clock."""


class Task(NamedTuple):
    """What is to be read, for whom, and until when (``now``'s seconds)."""

    request: Request
    addresses: tuple[str, ...]
    """Of the pod that is asked for, as far as this node knows them."""
    keys: Keys
    keyring: Keyring
    liveness: Liveness
    now: Callable[[], float]
    until: float
    stopped: Callable[[], bool]


class Read(NamedTuple):
    """What came of it. ``doubts`` counts records that are not believed, by why."""

    found: Found
    doubts: Counter[str]


class Node(NamedTuple):
    """Another node. Without a ``record`` it is lost, and ``problem`` says how that is known."""

    record: NodeRecord | None
    problem: str


class Reading:
    """One request's reading."""

    def __init__(self, reader: Reader, task: Task) -> None:
        self.reader = reader
        self.task = task
        self._order = order(task.request.command)
        self._sorted: list[list[Row]] = []
        self._latest: list[Row] = []
        self._count = 0
        self._bytes = self._weight_bytes = 0
        self._keys = 0
        self._nodes: dict[str, Node] = {}
        self._warnings: dict[str, None] = {}
        self.doubts: Counter[str] = Counter()

    # --- what it comes to --------------------------------------------------------------------------

    def warn(self, text: str) -> None:
        """Say something to the one who asks, once."""
        self._warnings[text] = None

    def take(self, row: Row) -> None:
        """Keep a row."""
        self._count += 1
        self._bytes += self._weight_bytes
        self._weight_bytes = 0
        self._latest.append(row)
        if len(self._latest) >= SORTED:
            self._sort()

    def _sort(self) -> None:
        """Put the latest rows into order."""
        if self._latest:
            self._sorted.append(sorted(self._latest, key=self._order))
            self._latest = []

    def result(self, refusal: str = "") -> Read:
        """Return everything; ``refusal`` says why there can be nothing."""
        self._sort()
        lost = frozenset(name for name, node in self._nodes.items() if node.record is None)
        doubted = sum(self.doubts[reason] for reason in ("mac", "version", "malformed"))
        if doubted:
            why = ", ".join(f"{word} {count}" for word, count in sorted(self.doubts.items()) if count)
            self.warn(f"{doubted} records of other nodes are not believed ({why}); see docs/redis.md")
        return Read(Found(tuple(self._sorted), tuple(self._warnings), lost, refusal), self.doubts)

    def may_go_on(self) -> bool:
        """Say whether another batch may be read."""
        if self._count >= MAX_ROWS or self._bytes >= MAX_FOUND_BYTES:
            self.warn(f"only {self._count} rows of other nodes are shown; {_NARROW}")
            return False
        if self._keys >= MAX_KEYS:
            self.warn(f"only {self._keys} records of other nodes were looked at; {_NARROW}")
            return False
        if self.task.now() >= self.task.until:
            self.warn(f"time is up before all of Redis was read: rows are missing; {_NARROW}")
            return False
        return not self.task.stopped()

    def batches(self, pattern: bytes) -> Iterator[list[bytes]]:
        """Yield keys that match, so many that their records are one wait for Redis, while there is time."""
        waiting: list[bytes] = []
        for page in self.reader.pages(pattern):
            waiting += page
            while len(waiting) >= BATCH and self.may_go_on():
                batch, waiting = waiting[:BATCH], waiting[BATCH:]
                self._keys += BATCH
                yield batch
            if not self.may_go_on():
                break
        if waiting and self._count < MAX_ROWS and not self.task.stopped():
            yield waiting[:BATCH]

    def believed(
        self, key: bytes, fields: Mapping[bytes, bytes], read: Callable[[bytes, Mapping[bytes, bytes]], T]
    ) -> T | None:
        """Return what a record says, None (and count why) if it is not believed."""
        try:
            check(self.task.keyring, key, fields)
            found = read(key, fields)
        except NotBelieved as doubt:
            self.doubts[doubt.reason] += 1
            return None
        self._weight_bytes = sum(map(len, fields.values()))
        return found

    # --- nodes ---------------------------------------------------------------------------------------

    def nodes(self) -> dict[str, Node]:
        """Return the other nodes, those without a heartbeat included."""
        keys, found = self.task.keys, self._nodes
        names = names_of(self.reader, keys, self.task.keyring, self.doubts)
        now_ms = self.reader.time_ms() if names else 0
        for batch in _chunks(sorted(names)):
            beats = [keys.of(name).heartbeat for name in batch]
            for name, key, fields in zip(batch, beats, self.reader.hashes(beats), strict=True):
                found[name] = self._node(key, fields, now_ms - names[name])
        return found

    def _node(self, key: bytes, fields: Mapping[bytes, bytes], silent_ms: int) -> Node:
        if not fields:
            return Node(
                None,
                f"no heartbeat for {max(silent_ms, 0) // 1000} s: the node is down, or cut off from Redis",
            )
        try:
            check(self.task.keyring, key, fields)
            record = node_from(key, fields)
        except NotBelieved as doubt:
            self.doubts[doubt.reason] += 1
            why = {"version": "is of another version", "mac": "has a wrong seal"}.get(
                doubt.reason, "cannot be read"
            )
            return Node(None, f"its heartbeat {why}, so it does not count; see docs/redis.md")
        if not self.task.liveness.is_alive(record, self.task.now()):
            self.doubts["stale"] += 1
            return Node(
                None, "its heartbeat does not go on: the node is down, or somebody wrote an old one again"
            )
        return Node(record, "")

    def is_current(self, node: Node | None, session: str) -> bool:
        """Say whether a record is of the session that its node is in now (or of a node that is lost)."""
        if node is None or node.record is None or node.record.session == session:
            return True
        self.doubts["stale"] += 1
        return False


def names_of(reader: Reader, keys: Keys, keyring: Keyring, doubts: Counter[str]) -> dict[str, int]:
    """Return the other nodes that were ever here, and when each was seen last (Redis's clock)."""
    names: dict[str, int] = {}
    listed = reader.hashes([keys.nodes], MAX_ROLL_BYTES)[0]
    for node, entry in listed.items():
        if len(names) >= MAX_NODES:
            break
        try:
            at_ms = seen_ms(keyring, keys.nodes, node, entry)
            names[place_of(keys.of(node.decode("ascii")).heartbeat).node] = at_ms
        except NotBelieved as doubt:
            doubts[doubt.reason] += 1
        except ValueError:
            doubts["malformed"] += 1
    names.pop(keys.node, None)
    return names


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH]
