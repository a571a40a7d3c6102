"""Another host that calls itself as this one does: each would overwrite what the other writes.

Pure; door and clock are arguments. Owns the sentence that says so. Invariant: a heartbeat that only stands
there, an earlier run's or one that somebody wrote again, is no host's: it has to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from enforcer.sharing.records.formats import NodeRecord, node_from
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import Keyring, NotBelieved, check

LOOK_EVERY_S = 1.7
"""Not a heartbeat's rhythm: each of the two is met as often as the other."""
SAID_FOR_S = 30.0


class Reader(Protocol):
    """What a thread of the door can read."""

    def hashes(self, keys: Sequence[bytes], /) -> Sequence[dict[bytes, bytes]]: ...


class Door(Protocol):
    """What is asked of the door to Redis."""

    @property
    def is_up(self) -> bool: ...
    def ask(
        self,
        work: Callable[[Reader], Sequence[dict[bytes, bytes]]],
        done: Callable[[Sequence[dict[bytes, bytes]] | str], None],
        /,
    ) -> None: ...


class Namesake:
    """Reads this node's own heartbeat back now and then."""

    def __init__(
        self, door: Door, keys: Keys, keyring: Callable[[], Keyring], session: str, now: Callable[[], float]
    ) -> None:
        self._door = door
        self._keys = keys
        self._keyring = keyring
        self._session = session
        self._now = now
        self._looked_at = float("-inf")
        self._met_at = float("-inf")
        self._stranger: tuple[str, int] | None = None

    @property
    def problem(self) -> str:
        """What ``status`` should say; "" while this node is the only one of its name."""
        if self._now() - self._met_at > SAID_FOR_S:
            return ""
        return f"another host calls itself {self._keys.node} too: give each its own name (the key node)"

    def look(self) -> None:
        """Read, if it is time."""
        if self._door.is_up and self._now() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = self._now()
            key = self._keys.heartbeat
            self._door.ask(lambda reader: reader.hashes([key]), self._was_read)

    def _was_read(self, read: Sequence[dict[bytes, bytes]] | str) -> None:
        record = None if isinstance(read, str) or not read[0] else self._believed(read[0])
        if record is None or record.session == self._session:
            return
        met = record.session, record.beat
        before, self._stranger = self._stranger, met
        if before is not None and before[0] == met[0] and before[1] < met[1]:
            self._met_at = self._now()

    def _believed(self, fields: dict[bytes, bytes]) -> NodeRecord | None:
        try:
            check(self._keyring(), self._keys.heartbeat, fields)
            return node_from(self._keys.heartbeat, fields)
        except NotBelieved:
            return None
