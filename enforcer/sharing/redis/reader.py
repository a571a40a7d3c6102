"""Questions to Redis that may take a while: keys, hashes, streams of all nodes.

Owns paging, pipelining and what is done with a value that somebody made too large: it is skipped, and
counted. Used in a thread. Invariant: one question holds at most ``LARGEST_ANSWER_BYTES`` of replies and
ends at its deadline.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from enforcer.sharing.records.resp import packed
from enforcer.sharing.redis.entries import Entry, Malformed, entries_of, hash_of, time_of
from enforcer.sharing.redis.fleet import Fleet
from enforcer.sharing.redis.line import Reply, TooLarge
from enforcer.sharing.redis.troubles import Lost, RedisSaid, worst
from policy.runtime.redis_url import Address

LARGEST_HASH_BYTES = 32 << 10
LARGEST_ANSWER_BYTES = 64 << 20
_PAGE = 256
_SCAN_COUNT = b"1000"
_MOST_SKIPPED = 32


class Reader:
    """One question's access; not to be kept."""

    def __init__(self, fleet: Fleet, until: float) -> None:
        self._fleet = fleet
        self._until = until
        self.skipped = 0
        """Values that were left out because they are too large to be Nameward's."""

    def time_ms(self) -> int:
        """Return Redis's clock in milliseconds since 1970."""
        return time_of(self._ask(self._any_master(), b"TIME"))

    def scan(self, pattern: bytes, limit: int, limit_bytes: int = LARGEST_ANSWER_BYTES) -> list[bytes]:
        """Return at most ``limit`` keys that match, each once, of all servers; of about ``limit_bytes``."""
        found: dict[bytes, None] = {}
        size = 0
        for page in self.pages(pattern):
            found.update(dict.fromkeys(page))
            size += sum(map(len, page))
            if len(found) >= limit or size >= limit_bytes:
                break
        return list(found)[:limit]

    def pages(self, pattern: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that match, of all servers, page by page; a key may come twice."""
        for master in self._fleet.masters():
            cursor = b""
            while cursor != b"0":
                asked = (b"SCAN", cursor or b"0", b"MATCH", pattern, b"COUNT", _SCAN_COUNT)
                match self._ask(master, *asked):
                    case [bytes() as cursor, list() as keys]:
                        yield [key for key in keys if isinstance(key, bytes)]
                    case _:
                        raise Malformed("the reply to SCAN")

    def hashes(
        self, keys: Sequence[bytes], limit_bytes: int = LARGEST_HASH_BYTES
    ) -> list[dict[bytes, bytes]]:
        """Return the fields of each key, in their order; {} for a key that is not there, or is no hash.

        One larger than ``limit_bytes`` is taken for none.
        """
        found: list[dict[bytes, bytes]] = []
        left = LARGEST_ANSWER_BYTES
        while len(found) < len(keys):
            page = keys[len(found) : len(found) + _PAGE]
            for reply in self._page(page, b"HGETALL", limit_bytes):
                fields = {} if isinstance(reply, RedisSaid | None) else hash_of(reply)
                left -= sum(len(name) + len(value) + 100 for name, value in fields.items())
                found.append(fields)
            if left < 0:
                raise Lost(
                    f"the answer is beyond {LARGEST_ANSWER_BYTES} octets: narrow the question", "answer"
                )
        return found

    def pttls(self, keys: Sequence[bytes]) -> list[int]:
        """Return how long each key still lives in ms; -1 for ever, -2 for one that is not there."""
        found: list[int] = []
        for start in range(0, len(keys), _PAGE):
            replies = self._page(keys[start : start + _PAGE], b"PTTL", LARGEST_HASH_BYTES)
            found += [reply if isinstance(reply, int) else -2 for reply in replies]
        return found

    def range(
        self,
        stream: bytes,
        low: bytes = b"-",
        high: bytes = b"+",
        count: int = 1000,
        reverse: bool = False,
    ) -> list[Entry]:
        """Return at most ``count`` entries from id ``low`` to ``high``; ``reverse``: the newest first."""
        command = (b"XREVRANGE", stream, high, low) if reverse else (b"XRANGE", stream, low, high)
        asked = [(stream, packed(*command, b"COUNT", b"%d" % count)), (stream, packed(b"TIME"))]
        reply, clock = self._checked(self._fleet.replies(asked, timeout_s=self._left_s()))
        return [] if isinstance(reply, RedisSaid) else entries_of(reply, time_of(clock))

    # --- one page --------------------------------------------------------------------------------

    def _page(self, keys: Sequence[bytes], command: bytes, limit_bytes: int) -> list[Reply]:
        """Ask the same of each key; a value that is too large costs a connection, and is skipped."""
        found: list[Reply] = []
        while len(found) < len(keys):
            rest = keys[len(found) :]
            asked = [(key, packed(command, key)) for key in rest]
            try:
                found += self._checked(self._fleet.replies(asked, limit_bytes, self._left_s()))
            except TooLarge:
                found += self._one_by_one(rest, command, limit_bytes)
        return found

    def _one_by_one(self, keys: Sequence[bytes], command: bytes, limit_bytes: int) -> list[Reply]:
        found: list[Reply] = []
        for key in keys:
            self._fleet.drop_broken()
            try:
                asked = [(key, packed(command, key))]
                found += self._checked(self._fleet.replies(asked, limit_bytes, self._left_s()))
            except TooLarge:
                self.skipped += 1
                if self.skipped > _MOST_SKIPPED:
                    raise
                found.append(None)
        return found

    def _checked(self, replies: list[Reply]) -> list[Reply]:
        trouble = worst(replies, "the place asked")
        if trouble is not None:
            raise Lost(trouble, trouble.reason)
        return replies

    def _any_master(self) -> Address:
        return self._fleet.line_for(b"").address

    def _ask(self, address: Address, *command: bytes) -> Reply:
        left_s = self._left_s()
        line = self._fleet.line(address)
        line.send(packed(*command))
        return self._checked(line.replies(1, timeout_s=left_s))[0]

    def _left_s(self) -> float:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise Lost("the question took longer than its time: narrow it, or ask again", "timeout")
        return min(left_s, 1.0)
