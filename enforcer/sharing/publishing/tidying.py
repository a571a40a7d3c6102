"""What lies in Redis under this node's name and should not: an earlier enforcer's, or a stranger's.

Pure. Owns the search (in the door's thread) and the removal, piece by piece. Invariant: a key is judged
at the moment of its removal by what the node holds then, not by what the search saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from enforcer.sharing.records.keys import Keys, Place, place_of
from enforcer.sharing.records.resp import unlink
from enforcer.sharing.records.roll import KEPT_MS, seen_ms
from enforcer.sharing.records.seal import Keyring, NotBelieved
from enforcer.sharing.redis.troubles import Trouble

PIECE = 100
PIECE_S = 0.002
STRANGERS = 100_000
MOST_KEYS_BYTES = 32 << 20
"""Keys that are not ours, and octets of all keys, found in one search; then another follows."""
DEADLINE_S = 60.0
MAX_ROLL_BYTES = 1 << 20
MOST_FORGOTTEN = 100
"""Nodes taken off the roll at once."""


class Search(Protocol):
    """What is asked of Redis in a thread (``enforcer.sharing.redis.reader``)."""

    def scan(self, pattern: bytes, limit: int, limit_bytes: int) -> list[bytes]: ...
    def hashes(self, keys: Sequence[bytes], limit_bytes: int) -> list[dict[bytes, bytes]]: ...


T = TypeVar("T")


class Finder(Protocol):
    """What the tidying asks of the door (``enforcer.sharing.redis.door``)."""

    def write(self, commands: Sequence[bytes]) -> None: ...
    def send(self, key: bytes, command: Sequence[bytes]) -> None: ...
    def ask(
        self, work: Callable[[Search], T], done: Callable[[T | Trouble], None], deadline_s: float
    ) -> None: ...


class Tidying:
    """Searches and removes; ``is_ours`` judges a key and what it names."""

    def __init__(
        self,
        keys: Keys,
        finder: Finder,
        is_ours: Callable[[bytes, Place], bool],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._keys = keys
        self._finder = finder
        self._is_ours = is_ours
        self._later = later
        self._is_running = False
        self.removed = 0

    def begin(self, known: int, done: Callable[[bool], None]) -> None:
        """Search unless that is going on; ``done`` hears whether all of it was looked at.

        ``known`` is how many keys may be there by right.
        """
        if self._is_running:
            return
        self._is_running = True
        limit = 2 * known + STRANGERS
        pattern = self._keys.own + b"*"

        def look(search: Search) -> tuple[list[bytes], bool]:
            keys = search.scan(pattern, limit, MOST_KEYS_BYTES)
            return keys, len(keys) < limit and sum(map(len, keys)) < MOST_KEYS_BYTES

        def found(looked: tuple[list[bytes], bool] | Trouble) -> None:
            if isinstance(looked, Trouble):
                self._ended(done, is_done=False)
            else:
                self._remove(looked[0], done, looked[1])

        self._finder.ask(look, found, DEADLINE_S)

    def forget_nodes(self, keyring: Keyring, redis_ms: int) -> None:
        """Take nodes off the roll that have long not been here; begin anew one that is too large to read."""
        nodes = self._keys.nodes

        def old(search: Search) -> list[bytes] | None:
            (entries,) = search.hashes([nodes], MAX_ROLL_BYTES)
            if not entries:
                return None  # with us in it, it is too large
            return [node for node, entry in entries.items() if _is_old(keyring, nodes, node, entry, redis_ms)]

        def found(gone: list[bytes] | Trouble | None) -> None:
            if gone is None:
                self._finder.send(nodes, (b"UNLINK", nodes))
            elif gone and not isinstance(gone, Trouble):
                self._finder.send(nodes, (b"HDEL", nodes, *gone[:MOST_FORGOTTEN]))

        self._finder.ask(old, found, DEADLINE_S)

    def _remove(self, keys: list[bytes], done: Callable[[bool], None], is_all: bool) -> None:
        piece = [keys.pop() for _ in range(min(PIECE, len(keys)))]
        strangers = [key for key in piece if not self._should_be(key)]
        if strangers:
            self.removed += len(strangers)
            self._finder.write([unlink(key) for key in strangers])
        if keys:
            self._later(PIECE_S, lambda: self._remove(keys, done, is_all))
        else:
            self._ended(done, is_done=is_all)

    def _should_be(self, key: bytes) -> bool:
        try:
            place = place_of(key)
        except ValueError:
            return False
        return self._is_ours(key, place)

    def _ended(self, done: Callable[[bool], None], *, is_done: bool) -> None:
        self._is_running = False
        done(is_done)


def _is_old(keyring: Keyring, nodes: bytes, node: bytes, entry: bytes, redis_ms: int) -> bool:
    try:
        return seen_ms(keyring, nodes, node, entry) < redis_ms - KEPT_MS
    except NotBelieved:
        return False
