"""Refusals on their way to this node's stream: grouped, at a bounded rate, in a bounded room.

Pure. Owns what waits for the stream. Invariants: equal refusals wait as one with a count; each pod has its
turn, and where there is no room the one with the most groups loses its oldest, counted; entries keep
their number within the session, so that a reader knows a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from enforcer.blocked import Group, GroupKey, Refused, group_key
from enforcer.sharing.records.formats import BlockedRecord
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.resp import packed, pexpire
from enforcer.sharing.records.seal import VERSION, Keyring, seal

ROOM = 1000
"""Groups that wait."""
A_SECOND = 200.0
"""Entries; the rest waits, and grows as counts or goes."""
HISTORY_PIECE = 20
LENGTH = 10_000
LIFE_MS = 24 * 3600 * 1000


class Waiting(NamedTuple):
    """The latest of equal refusals, and how many they are."""

    refused: Refused
    times: int


class RefusedFeed:
    """Makes entries of the node's stream; ``ago`` turns seconds ago into wall-clock text."""

    def __init__(
        self, keys: Keys, session: str, now: Callable[[], float], ago: Callable[[float], str]
    ) -> None:
        self._keys = keys
        self._session = session
        self._now = now
        self._ago = ago
        self._pods: dict[str, dict[GroupKey, Waiting]] = {}
        self._count = 0
        self._allowance = A_SECOND
        self._seen_at = now()
        self._seq = 0
        self._last_ms, self._last_id = 1, 0
        self._history: list[Waiting] = []
        self.dropped = 0
        self.published = 0

    def __len__(self) -> int:
        return self._count + len(self._history)

    def take(self, refused: Refused) -> None:
        """Let a refusal wait."""
        self._put(Waiting(refused, refused.times))

    def put_back(self, entries: Iterable[Waiting]) -> None:
        """Let entries wait again that did not arrive."""
        for each in entries:
            self._put(each)

    def next(self) -> list[Waiting]:
        """Return what may be written now: a pod's oldest, in turns."""
        now = self._now()
        self._allowance = min(A_SECOND, self._allowance + (now - self._seen_at) * A_SECOND)
        self._seen_at = now
        entries: list[Waiting] = []
        while self._pods and self._allowance >= 1.0:
            for pod in list(self._pods):
                if self._allowance < 1.0:
                    break
                entries.append(self._oldest(pod))
                self._allowance -= 1.0
        return entries

    def piece(self, keyring: Keyring, redis_ms: int | None) -> tuple[list[Waiting], list[bytes]]:
        """Return what may be written now, with its commands; what was known before goes first."""
        if self._history:
            entries = [self._history.pop() for _ in range(min(HISTORY_PIECE, len(self._history)))]
        else:
            entries, redis_ms = self.next(), None
        if not entries:
            return [], []
        commands = [self._xadd(each, keyring, self._id(each, redis_ms)) for each in entries]
        return entries, [*commands, pexpire(self._keys.blocked, LIFE_MS)]

    def retell(self, groups: Iterable[Group]) -> bool:
        """Fill a stream that is to be empty with what is known, each at its time; False if nothing is."""
        oldest_at = self._now() - LIFE_MS / 1000
        latest = sorted(
            (group for group in groups if group.last.at > oldest_at),
            key=lambda group: group.last.at,
            reverse=True,
        )[:ROOM]
        self._history = [Waiting(group.last, group.count) for group in latest]
        self._pods, self._count = {}, 0
        self._last_ms, self._last_id = 1, 0
        return bool(latest)

    def _id(self, waiting: Waiting, redis_ms: int | None) -> bytes:
        """Return the id of an entry; one of the past has its own instant by Redis's clock, in order."""
        if redis_ms is None:
            return b"*"
        at_ms = redis_ms - int((self._now() - waiting.refused.at) * 1000)
        self._last_ms = max(at_ms, self._last_ms)
        self._last_id += 1
        return b"%d-%d" % (self._last_ms, self._last_id)

    def _put(self, waiting: Waiting) -> None:
        refused = waiting.refused
        pod = f"{refused.namespace}/{refused.pod}"
        key = group_key(refused)
        groups = self._pods.setdefault(pod, {})
        before = groups.get(key)
        if before is not None:
            last = max(before.refused, refused, key=lambda each: each.at)
            groups[key] = Waiting(last, before.times + waiting.times)
            return
        groups[key] = waiting
        self._count += 1
        if self._count > ROOM:
            noisiest = max(self._pods, key=lambda each: len(self._pods[each]))
            self.dropped += self._oldest(noisiest).times

    def _oldest(self, pod: str) -> Waiting:
        groups = self._pods[pod]
        oldest = groups.pop(next(iter(groups)))
        self._count -= 1
        if not groups:
            del self._pods[pod]
        return oldest

    def _xadd(self, waiting: Waiting, keyring: Keyring, at: bytes) -> bytes:
        self._seq += 1
        refused = waiting.refused
        record = BlockedRecord(
            kind=refused.kind,
            node=self._keys.node,
            namespace=refused.namespace,
            pod=refused.pod,
            pod_ip=refused.pod_ip,
            name=refused.name,
            qtype=refused.qtype,
            address=refused.address,
            port=refused.port,
            protocol=refused.protocol,
            reason=refused.reason,
            policy=refused.policy,
            rule=refused.rule,
            at=self._ago(max(self._now() - refused.at, 0.0)),
            times=waiting.times,
            session=self._session,
            seq=self._seq,
        )
        stream = self._keys.blocked
        fields = {**record.fields(), b"v": VERSION}
        fields[b"mac"] = seal(keyring, stream, fields)
        pairs = (part for pair in fields.items() for part in pair)
        return packed(b"XADD", stream, b"MAXLEN", b"~", b"%d" % LENGTH, at, *pairs)
