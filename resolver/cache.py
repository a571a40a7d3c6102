"""What upstreams said, for everybody: bounded, and fair between the pods that asked.

Owns the entries and their eviction. Never holds what a pod may see, never asks anybody.
Invariant: the sum of costs stays within capacity, and a pod over its fair share loses its own
entries first.
"""

from __future__ import annotations

from collections import OrderedDict

from resolver.answers import Answer

Key = tuple[bytes, int, bool]
"""Name in lower-case wire form, type, and whether the answer has signatures (DO)."""

COST_BYTES = 512
"""One unit of capacity: an answer of 65,535 octets costs as much as 128 small ones."""
STALE_S = 3600.0
"""How long past its expiry a positive answer may still be given (RFC 8767)."""
STALE_TTL_S = 30
FAILURE_S = 5.0
"""How long a failure is remembered (RFC 9520)."""
MAX_AGE_S = 86400
PREFETCH_TTL_S = 10.0
PREFETCH_SHARE = 0.1
"""A name that is asked again in the last tenth of its life is asked upstream before it expires."""


class Cached:
    """One entry; ``answer`` is None while only a failure is known. Instants are monotonic seconds."""

    __slots__ = ("answer", "cost", "ede", "expires_at", "failed_until", "owner", "stored_at", "uses")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.answer: Answer | None = None
        self.cost = 1
        self.stored_at = 0.0
        self.expires_at = 0.0
        self.failed_until = 0.0
        self.ede = 0
        self.uses = 0

    def is_fresh(self, now: float) -> bool:
        """Say whether the answer may be given as it is."""
        return self.answer is not None and now < self.expires_at

    def is_usable_stale(self, now: float) -> bool:
        """Say whether the answer may stand in for a failing upstream: positive, not too old."""
        return self.answer is not None and bool(self.answer.records) and now < self.expires_at + STALE_S

    def prefetch_at(self) -> float:
        """The instant from which a further question makes the name worth asking again."""
        return self.expires_at - (self.expires_at - self.stored_at) * PREFETCH_SHARE

    def ttl_s(self, now: float, max_ttl_s: int) -> int:
        """TTL for a client: what remains, at least 1, at most ``max_ttl_s``; RFC 8767's if stale."""
        if now >= self.expires_at:
            return min(STALE_TTL_S, max_ttl_s)
        return max(1, min(int(self.expires_at - now), max_ttl_s))


def joined(led: Cached, outside: Cached, now: float) -> Cached:
    """Return the answer of a chain that began in ``led`` and was looked up further in ``outside``."""
    both = Cached(outside.owner)
    first, last = led.answer, outside.answer
    if first is not None and last is not None:
        ttl_s = min(first.ttl_s, last.ttl_s)
        both.answer = last._replace(chain=first.chain + last.chain, signatures=(), ttl_s=ttl_s)
    both.stored_at = outside.stored_at
    both.expires_at = outside.expires_at
    if outside.is_fresh(now):  # the beginning was fresh when the question for the rest was asked
        both.expires_at = min(both.expires_at, max(led.expires_at, now + 1))
    return both


class Cache:
    """Entries by key; ``capacity`` in units of ``COST_BYTES``."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._entries: dict[Key, Cached] = {}
        self._owned: dict[str, OrderedDict[Key, Cached]] = {}
        self._cost: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used(self) -> int:
        """Units of capacity in use."""
        return self._used

    def get(self, key: Key) -> Cached | None:
        """Return the entry, fresh or not, and count the use."""
        cached = self._entries.get(key)
        if cached is not None:
            cached.uses += 1
            self._owned[cached.owner].move_to_end(key)
        return cached

    def put(self, key: Key, answer: Answer, owner: str, now: float, max_negative_s: int) -> Cached:
        """Keep an answer; its TTL is bounded by a day, a negative one's by ``max_negative_s``."""
        cached = self._prepare(key, owner, 1 + answer.size_bytes // COST_BYTES, anew=True)
        cached.answer = answer
        cached.stored_at = now
        cached.expires_at = now + max(1, min(answer.ttl_s, MAX_AGE_S if answer.records else max_negative_s))
        return cached

    def put_failure(self, key: Key, ede: int, owner: str, now: float) -> Cached:
        """Remember that upstream failed; an answer that was there stays, for RFC 8767."""
        known = self._entries.get(key)
        cached = self._prepare(key, owner, known.cost if known else 1)
        cached.failed_until = now + FAILURE_S
        cached.ede = ede
        return cached

    def _prepare(self, key: Key, owner: str, cost: int, *, anew: bool = False) -> Cached:
        """Return the key's entry, its cost booked; make room first.

        ``anew``: another in its place, because replies on hold were drafted from the one that is there.
        """
        cached = self._entries.get(key)
        if cached is None:
            cached = Cached(owner)
        else:
            self._forget(key, cached)
            cached = Cached(cached.owner) if anew else cached
        self._make_room(cost, cached.owner)
        cached.cost = cost
        self._entries[key] = cached
        self._owned.setdefault(cached.owner, OrderedDict())[key] = cached
        self._cost[cached.owner] = self._cost.get(cached.owner, 0) + cost
        self._used += cost
        return cached

    def _make_room(self, cost: int, owner: str) -> None:
        while self._used + cost > self._capacity and self._entries:
            share = self._capacity // len(self._owned)
            loser = owner if self._cost.get(owner, 0) + cost > share else ""
            if not loser or loser not in self._owned:
                loser = max(self._cost, key=self._cost.__getitem__)
            key = next(iter(self._owned[loser]))
            self._forget(key, self._entries[key])

    def _forget(self, key: Key, cached: Cached) -> None:
        owned = self._owned[cached.owner]
        del self._entries[key], owned[key]
        self._used -= cached.cost
        self._cost[cached.owner] -= cached.cost
        if not owned:
            del self._owned[cached.owner], self._cost[cached.owner]
