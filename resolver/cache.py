"""What upstreams said, for everybody: bounded, and fair between the pods that asked.

Owns the entries and their eviction. Never holds what a pod may see, never asks anybody.
Invariant: the sum of costs stays within capacity, and a pod over its fair share loses its own
entries first.
"""

from __future__ import annotations

from typing import Final, cast

from resolver.answers import Answer

Key = bytes
"""Of ``Asked``: one string of octets, whose hash is made once."""

COST_BYTES: Final = 512
"""One unit of capacity: an answer of 65,535 octets costs as much as 128 small ones."""
STALE_S: Final = 3600.0
"""How long past its expiry a positive answer may still be given (RFC 8767)."""
STALE_TTL_S: Final = 30
FAILURE_S: Final = 5.0
"""How long a failure is remembered (RFC 9520)."""
MAX_AGE_S: Final = 86400
PREFETCH_TTL_S: Final = 10.0
PREFETCH_SHARE: Final = 0.1
"""A name that is asked again in the last tenth of its life is asked upstream before it expires."""


class Asked:
    """What is looked up: a name in lower-case wire form, a type, whether with signatures (DO)."""

    __slots__ = ("key", "name", "qtype", "signed")

    def __init__(self, name: bytes, qtype: int, qtype_wire: bytes, *, signed: bool) -> None:
        self.name = name
        self.qtype = qtype
        self.signed = signed
        self.key: Key = name + qtype_wire + b"+" if signed else name + qtype_wire


class Share:
    """What one owner has in the cache: a chain of its entries by when they were used last, and their cost."""

    __slots__ = ("cost", "newest", "oldest", "owner")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.oldest: Cached | None = None
        self.newest: Cached | None = None
        self.cost = 0

    def append(self, cached: Cached) -> None:
        """Take an entry as the one that was used last."""
        before = self.newest
        cached.older = before
        if before is None:
            self.oldest = cached
        else:
            before.newer = cached
        self.newest = cached

    def remove(self, cached: Cached) -> None:
        """Let go of one of its entries."""
        older, newer = cached.older, cached.newer
        if older is None:
            self.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.newest = older
        else:
            newer.older = older
        cached.older = cached.newer = None


class Cached:
    """One entry; ``answer`` is None while only a failure is known. Instants are monotonic seconds.

    ``key``, ``older`` and ``newer`` are its place in the cache, if it has one.
    """

    __slots__ = (
        "answer", "ede", "expires_at", "failed_until", "key", "newer", "older", "share", "stored_at", "uses",
    )  # fmt: skip

    def __init__(self, share: Share, key: Key = b"") -> None:
        self.share = share
        self.key = key
        self.older: Cached | None = None
        self.newer: Cached | None = None
        self.answer: Answer | None = None
        self.stored_at = 0.0
        self.expires_at = 0.0
        self.failed_until = 0.0
        self.ede = 0
        self.uses = 0

    @property
    def cost(self) -> int:
        """Units of capacity that it takes."""
        answer = self.answer
        return 1 if answer is None else 1 + answer.size_bytes // COST_BYTES

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
        left_s = int(self.expires_at - now)
        if left_s >= max_ttl_s:
            return max_ttl_s
        return left_s if left_s > 1 else 1

    def up_to(self, length: int) -> Cached:
        """Return the first ``length`` steps of the chain, as an entry of its own in no cache."""
        part = Cached(self.share)
        part.stored_at = self.stored_at
        part.expires_at = self.expires_at
        part.failed_until = self.failed_until
        part.ede = self.ede
        whole = self.answer
        if whole is not None:
            part.answer = Answer(
                whole.rcode, whole.chain[:length], whole.rtype, (), whole.soa,
                signatures=whole.signatures, ttl_s=whole.ttl_s, size_bytes=whole.size_bytes,
            )  # fmt: skip
        return part


def joined(led: Cached, outside: Cached, now: float) -> Cached:
    """Return the answer of a chain that began in ``led`` and was looked up further in ``outside``."""
    both = Cached(outside.share)
    first, last = led.answer, outside.answer
    if first is not None and last is not None:
        ttl_s = min(first.ttl_s, last.ttl_s)
        both.answer = Answer(
            last.rcode, first.chain + last.chain, last.rtype, last.records, last.soa,
            signatures=(), ttl_s=ttl_s, size_bytes=last.size_bytes,
        )  # fmt: skip
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
        self._shares: dict[str, Share] = {}

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
            share = cached.share
            if share.newest is not cached:
                share.remove(cached)
                share.append(cached)
        return cached

    def put(self, key: Key, answer: Answer, owner: str, now: float, max_negative_s: int) -> Cached:
        """Keep an answer; its TTL is bounded by a day, a negative one's by ``max_negative_s``."""
        share = self._replaced(key, owner, 1 + answer.size_bytes // COST_BYTES)
        cached = Cached(share, key)  # not the one that is there: replies on hold were drafted from it
        cached.answer = answer
        cached.stored_at = now
        ttl_s = MAX_AGE_S if answer.records else max_negative_s
        ttl_s = min(ttl_s, answer.ttl_s)
        cached.expires_at = now + (ttl_s if ttl_s > 1 else 1)
        self._keep(cached)
        return cached

    def put_failure(self, key: Key, ede: int, owner: str, now: float) -> Cached:
        """Remember that upstream failed; an answer that was there stays, for RFC 8767."""
        cached = self._entries.get(key)
        cost = cached.cost if cached is not None else 1
        share = self._replaced(key, owner, cost)
        if cached is None:
            cached = Cached(share, key)
        cached.share = share
        cached.failed_until = now + FAILURE_S
        cached.ede = ede
        self._keep(cached)
        return cached

    def _replaced(self, key: Key, owner: str, cost: int) -> Share:
        """Take out the key's entry, make room, and return whose the next one is: the first asker's."""
        cached = self._entries.get(key)
        if cached is not None:
            owner = cached.share.owner
            self._forget(cached)
        if self._used + cost > self._capacity:
            self._make_room(cost, owner)
        share = self._shares.get(owner)
        if share is None:
            share = self._shares[owner] = Share(owner)
        return share

    def _keep(self, cached: Cached) -> None:
        share, cost = cached.share, cached.cost
        self._entries[cached.key] = cached
        share.append(cached)
        share.cost += cost
        self._used += cost

    def _make_room(self, cost: int, owner: str) -> None:
        shares = self._shares
        while self._used + cost > self._capacity and self._entries:
            own = shares.get(owner)
            fair = self._capacity // len(shares)
            if own is None or own.cost + cost <= fair:
                own = max(shares.values(), key=_cost)
            self._forget(cast("Cached", own.oldest))  # who has a share has an entry

    def _forget(self, cached: Cached) -> None:
        share, cost = cached.share, cached.cost
        del self._entries[cached.key]
        share.remove(cached)
        self._used -= cost
        share.cost -= cost
        if share.oldest is None:
            del self._shares[share.owner]


def _cost(share: Share) -> int:
    return share.cost
