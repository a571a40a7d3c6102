"""Replies that are ready: what a client gets that asks the same again.

Owns the table, the one way through it, and the counts of lookups that are recorded. Never decides:
everything in it was decided and realized. Invariant: a prepared reply is given only while its cache
entry lives, its grant lasts TTL + grace/2, and its pod is within its rate; a new snapshot empties the
table; no recorded lookup is lost by it.

Exempt from elegance (architecture.md, rule 8): ``hit`` runs for every packet, so it touches no
message object, calls nothing of ours and writes no log.
"""

from __future__ import annotations

from collections import deque
from struct import Struct

import msgspec

from policy.authority import LookupRecord
from resolver.effects import Client
from resolver.limits import Meter

MAX_SOURCES = 65536
MAX_QUERY_BYTES = 320
"""Longer queries get no prepared reply: a pod could fill the memory with padding that nobody needs."""
MAX_REPLY_BYTES = 4096
"""Nor do longer replies, which TCP can have."""
MAX_RESOLVED_PER_SOURCE = 2048
MAX_MADE_PER_SOURCE = 1024
"""Prepared replies per source address, resolved ones and those made here apart: names that are not
permitted, however many, put out only others of their kind. The oldest goes."""
MAX_PREPARED = 131_072
"""Prepared replies of all sources, a long one counted as several; beyond, who has the most starts anew."""
ROOM = 1024
"""What that frees at least: else each reply more would look through all sources."""
UNIT_BYTES = 512
"""Of question and reply: so many more count as one reply more. All of them stay below some 150 MB."""
MAX_COUNTED = 8192
"""Prepared replies with lookups to record between two flushes; beyond, they take the long way."""
STREAM = b"tcp"
"""What follows the source of those who ask over TCP: their replies are never truncated."""
ALWAYS = float("inf")

_TTL = Struct("!I")


class Hit:
    """One prepared reply: ``tail`` is the wire without its id, valid before ``until``.

    ``offsets`` are those of the TTLs to be patched. ``records`` tell operators of one such lookup;
    ``count`` and ``seen_at`` are of those that are not told yet.
    """

    __slots__ = (
        "count", "expires_at", "offsets", "patch_at", "records", "seen_at", "tail", "tally", "until",
    )  # fmt: skip

    def __init__(
        self,
        wire: bytes,
        offsets: tuple[int, ...],
        until: float,
        expires_at: float,
        tally: list[int],
        *,
        records: tuple[LookupRecord, ...] = (),
    ) -> None:
        self.tail = folded(wire)
        self.offsets = offsets
        self.until = until
        self.expires_at = expires_at
        self.patch_at = 0.0 if offsets else ALWAYS
        self.tally = tally
        self.records = records
        self.count = 0
        self.seen_at = 0.0

    def patch(self, now: float, max_ttl_s: int) -> None:
        """Write the TTL that holds now; ``patch_at`` is when it will be one less."""
        ttl_s = max(1, min(int(self.expires_at - now), max_ttl_s))
        packed = _TTL.pack(ttl_s)
        tail = bytearray(self.tail)
        for offset in self.offsets:
            tail[offset - 2 : offset + 2] = packed
        self.tail = bytes(tail)
        self.patch_at = self.expires_at - ttl_s


class _Source:
    """What is prepared for one source; the queues hold the keys of each kind, oldest first."""

    __slots__ = ("entries", "made", "meter", "resolved", "size")

    def __init__(self, meter: Meter) -> None:
        self.entries: dict[bytes, Hit] = {}
        self.size = 0
        self.resolved: deque[bytes] = deque()
        self.made: deque[bytes] = deque()
        self.meter = meter


class Hits:
    """The table of prepared replies."""

    def __init__(self, max_ttl_s: int) -> None:
        self.max_ttl_s = max_ttl_s
        self._sources: dict[bytes, _Source] = {}
        self._size = 0
        self._counted: list[Hit] = []

    def __len__(self) -> int:
        """How many are prepared, as ``MAX_PREPARED`` counts them."""
        return self._size

    def hit(self, wire: bytes, source: bytes, now: float) -> bytes | None:
        """Return the reply to this very message from this source, or None: take the long way.

        ``source`` is the packed address, followed by ``STREAM`` over TCP. The letters' case of the
        name is the client's; the table knows small ones.
        """
        known = self._sources.get(source)
        if known is None:
            return None
        hit = known.entries.get(wire[2:])
        end = 0
        if hit is None:
            end = wire.find(0, 12)
            if end < 0:
                return None
            name = wire[12:end]
            small = name.lower()
            if small == name:
                return None
            hit = known.entries.get(wire[2:12] + small + wire[end:])
            if hit is None:
                return None
        meter = known.meter
        if now >= hit.until or now >= meter.window_end or meter.left <= 0:
            return None
        if hit.records:
            if not hit.count:
                if len(self._counted) >= MAX_COUNTED:
                    return None
                self._counted.append(hit)
            hit.count += 1
            hit.seen_at = now
        meter.left -= 1
        hit.tally[0] += 1
        if now >= hit.patch_at:
            hit.patch(now, self.max_ttl_s)
        if end:
            tail = hit.tail
            return wire[:2] + tail[:10] + wire[12:end] + tail[end - 2 :]
        return wire[:2] + hit.tail

    def prepare_resolved(self, wire: bytes, client: Client, meter: Meter, hit: Hit) -> None:
        """Prepare the reply to ``wire`` that was made from an upstream's answer."""
        known = self._source(wire, client, meter, hit)
        if known is not None:
            self._put(known, known.resolved, MAX_RESOLVED_PER_SOURCE, folded(wire), hit)

    def prepare_made(self, wire: bytes, client: Client, meter: Meter, hit: Hit) -> None:
        """Prepare the reply to ``wire`` that was made here, from the question alone."""
        known = self._source(wire, client, meter, hit)
        if known is not None:
            self._put(known, known.made, MAX_MADE_PER_SOURCE, folded(wire), hit)

    def take_counted(self) -> list[tuple[LookupRecord, float]]:
        """Return the records of the hits since the last call, counted, and when each was last seen."""
        counted, self._counted = self._counted, []
        found: list[tuple[LookupRecord, float]] = []
        for hit in counted:
            count, seen_at = hit.count, hit.seen_at
            found += [(msgspec.structs.replace(record, count=count), seen_at) for record in hit.records]
            hit.count = 0
        return found

    def clear(self) -> None:
        """Forget every reply: another snapshot or other settings hold. What was counted stays."""
        self._sources.clear()
        self._size = 0

    def _source(self, wire: bytes, client: Client, meter: Meter, hit: Hit) -> _Source | None:
        """Return the table that a reply belongs into; None: it is not worth its memory."""
        if len(wire) > MAX_QUERY_BYTES or len(hit.tail) > MAX_REPLY_BYTES:
            return None
        source = client.source if client.transport == "udp" else client.source + STREAM
        known = self._sources.get(source)
        if known is None:
            if len(self._sources) >= MAX_SOURCES:
                self.clear()
            known = self._sources[source] = _Source(meter)
        known.meter = meter  # another than before for who asked before it was known to be a pod
        return known

    def _put(self, known: _Source, queue: deque[bytes], most: int, key: bytes, hit: Hit) -> None:
        before = known.entries.get(key)
        if before is not None:
            self._resize(known, -_cost(key, before))
        else:
            if len(queue) >= most:
                oldest = queue.popleft()
                self._resize(known, -_cost(oldest, known.entries.pop(oldest)))
            queue.append(key)
        known.entries[key] = hit
        self._resize(known, _cost(key, hit))
        if self._size > MAX_PREPARED:
            self._make_room()

    def _resize(self, known: _Source, growth: int) -> None:
        known.size += growth
        self._size += growth

    def _make_room(self) -> None:
        for largest in sorted(self._sources.values(), key=_size, reverse=True):
            if self._size <= MAX_PREPARED - ROOM:
                break
            self._resize(largest, -largest.size)
            largest.entries.clear()
            largest.resolved.clear()
            largest.made.clear()


def folded(message: bytes) -> bytes:
    """Return a message without its id, the letters of the question's name small.

    Up to the name's first zero octet, which is the root's label or stands in a label: what differs in
    case only becomes one, and nothing else does (no length of a label is a letter).
    """
    end = message.find(0, 12)
    return message[2:12] + message[12:end].lower() + message[end:]


def _cost(key: bytes, hit: Hit) -> int:
    return 1 + (len(key) + len(hit.tail)) // UNIT_BYTES


def _size(source: _Source) -> int:
    return source.size
