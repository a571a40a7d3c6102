"""Pods on their way to Redis: where each is, and what selects it there.

Pure. Owns what was published of pods. Level-triggered: ``look`` compares the wanted records with the
written ones at every beat, ``piece`` writes what differs. Invariant: a record whose pod has gone is taken
away again after each return of Redis, until it would have expired by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from enforcer.sharing.records.formats import PodRecord
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.resp import hset, pexpire, unlink
from enforcer.sharing.records.seal import VERSION, Keyring, seal
from policy.addresses import from_packed

LIFE_S = 600.0
MAX_ENDED = 10_000
COMMANDS = 3
"""Of one record."""


class PodFacts(NamedTuple):
    """A pod of this node; addresses are packed."""

    namespace: str
    pod: str
    uid: str
    addresses: tuple[bytes, ...]
    smart_groups: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()


class PodFeed:
    """Makes the commands that bring the pods' records up to date."""

    def __init__(
        self, keys: Keys, session: str, pods: Callable[[], Iterable[PodFacts]], now: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._session = session
        self._pods = pods
        self._now = now
        self._wanted: dict[bytes, PodRecord] = {}
        self._written: dict[bytes, tuple[PodRecord, float]] = {}
        self._ended: dict[bytes, float] = {}
        self._waiting: dict[bytes, None] = {}

    def has(self, key: bytes) -> bool:
        """Say whether a key is that of a pod that is here."""
        return key in self._wanted

    @property
    def has_more(self) -> bool:
        """Say whether the next piece would have something."""
        return bool(self._waiting)

    def begin(self) -> None:
        """Write all of them anew, and take away again what may have come back with an old copy."""
        self._written = {}
        self._waiting = dict.fromkeys(self._ended)

    def look(self) -> None:
        """Compare what is with what was written."""
        now = self._now()
        self._ended = {key: until for key, until in self._ended.items() if until > now}
        before, self._wanted = self._wanted, dict(self._records())
        for key in before:
            if key not in self._wanted:
                self._written.pop(key, None)
                self._ended[key] = now + LIFE_S
                self._waiting[key] = None
                if len(self._ended) > MAX_ENDED:
                    del self._ended[next(iter(self._ended))]
        for key, record in self._wanted.items():
            written = self._written.get(key)
            if written is None or written[0] != record or written[1] <= now - LIFE_S / 2:
                self._waiting[key] = None

    def piece(self, count: int, keyring: Keyring) -> list[bytes]:
        """Return the commands for up to so many pods; after it, they count as written."""
        now = self._now()
        commands: list[bytes] = []
        for key in list(self._waiting)[:count]:
            del self._waiting[key]
            record = self._wanted.get(key)
            commands.append(unlink(key))
            if record is not None:
                fields = {**record.fields(), b"v": VERSION}
                fields[b"mac"] = seal(keyring, key, fields)
                commands += (hset(key, fields), pexpire(key, int(LIFE_S * 1000)))
                self._written[key] = (record, now)
        return commands

    def answered(self, replies: Sequence[object]) -> bool:
        """Take the replies to a piece; False: Redis refused something."""
        return all(isinstance(reply, int) for reply in replies)

    def _records(self) -> Iterable[tuple[bytes, PodRecord]]:
        for facts in self._pods():
            for source in facts.addresses:
                yield (
                    self._keys.pod(source),
                    PodRecord(
                        from_packed(source),
                        facts.namespace,
                        facts.pod,
                        facts.uid,
                        self._keys.node,
                        facts.smart_groups,
                        facts.policies,
                        self._session,
                    ),
                )
