"""Replies that are ready: what a client gets that asks the same again.

Owns the table and the one way through it. Never decides: everything in it was decided and realized.
Invariant: a prepared reply is given only while its cache entry lives, its grant lasts TTL +
grace/2, and its pod is within its rate; a new snapshot empties the table.

Exempt from elegance (architecture.md, rule 8): ``hit`` runs for every packet, so it touches no
message object, calls nothing and writes no log.
"""

from __future__ import annotations

from struct import Struct

from resolver.limits import Meter

MAX_SOURCES = 65536
MAX_QUERY_BYTES = 320
"""Longer queries get no prepared reply: a pod could fill the memory with padding that nobody needs."""
MAX_PER_SOURCE = 2048
"""Prepared replies per source address; more empties that source's table."""

_TTL = Struct("!I")


class Hit:
    """One prepared reply: ``tail`` is the wire without its id, valid before ``until``."""

    __slots__ = ("expires_at", "offsets", "patch_at", "tail", "tally", "until")

    def __init__(
        self, wire: bytes, offsets: tuple[int, ...], until: float, expires_at: float, tally: list[int]
    ) -> None:
        self.tail = wire[2:]
        self.offsets = offsets
        self.until = until
        self.expires_at = expires_at
        self.patch_at = 0.0
        self.tally = tally

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
    __slots__ = ("entries", "meter")

    def __init__(self, meter: Meter) -> None:
        self.entries: dict[bytes, Hit] = {}
        self.meter = meter


class Hits:
    """The table of prepared replies."""

    def __init__(self, max_ttl_s: int) -> None:
        self.max_ttl_s = max_ttl_s
        self._sources: dict[bytes, _Source] = {}

    def hit(self, wire: bytes, source: bytes, now: float) -> bytes | None:
        """Return the reply to this very message from this source, or None: take the long way."""
        known = self._sources.get(source)
        if known is None:
            return None
        hit = known.entries.get(wire[2:])
        if hit is None or now >= hit.until:
            return None
        meter = known.meter
        if now >= meter.window_end or meter.left <= 0:
            return None
        meter.left -= 1
        hit.tally[0] += 1
        if now >= hit.patch_at:
            hit.patch(now, self.max_ttl_s)
        return wire[:2] + hit.tail

    def add(self, wire: bytes, source: bytes, meter: Meter, hit: Hit) -> None:
        """Prepare the reply to ``wire``."""
        known = self._sources.get(source)
        if known is None:
            if len(self._sources) >= MAX_SOURCES:
                self._sources.clear()
            known = self._sources[source] = _Source(meter)
        elif len(known.entries) >= MAX_PER_SOURCE:
            known.entries.clear()
        known.entries[wire[2:]] = hit

    def clear(self) -> None:
        """Forget everything: another snapshot or other settings hold."""
        self._sources.clear()
