"""Questions to upstreams: one for all who ask the same, and what is known already.

Owns the cache, the questions under way and who waits for them. Never knows a pod's policy.
Invariant: equal questions share one upstream question; every waiter is handed back exactly once.
"""

from __future__ import annotations

from typing import Final, Generic, Literal, TypeVar

from resolver.answers import UpstreamRefusal, read_answer
from resolver.cache import PREFETCH_TTL_S, Asked, Cache, Cached, Key
from resolver.core_settings import CoreSettings
from resolver.deadlines import NEVER, QUESTIONS, Deadlines, Waiting
from resolver.effects import AskUpstream, Group
from resolver.records import WireError

Waiter = TypeVar("Waiter")
State = Literal["fresh", "failed", "missing"]

NO_REACHABLE_AUTHORITY: Final = 22
NETWORK_ERROR: Final = 23
HOLD_SHARE: Final = 0.1
"""The part of the deadline that is kept for grants and the reply after the upstreams' time."""


class Pending(Waiting, Generic[Waiter]):
    """One question under way."""

    __slots__ = ("asked", "id", "owner", "waiters")

    def __init__(self, ident: int, asked: Asked, owner: str) -> None:
        super().__init__()
        self.id = ident
        self.asked = asked
        self.owner = owner
        self.waiters: list[Waiter] = []


class Lookups(Generic[Waiter]):
    """The shared part of all exchanges."""

    def __init__(self, settings: CoreSettings, deadlines: Deadlines) -> None:
        self.settings = settings
        self._deadlines = deadlines
        self._next_id = 1
        self._by_id: dict[int, Pending[Waiter]] = {}
        self._by_key: dict[Key, Pending[Waiter]] = {}
        self.cache = Cache(settings.cache_entries)

    def find(self, asked: Asked, now: float) -> tuple[State, Cached | None]:
        """Say what is known of a question; the entry of "missing" may still serve as stale."""
        cached = self.cache.get(asked.key)
        if cached is None:
            return "missing", None
        if cached.is_fresh(now):
            return "fresh", cached
        return ("failed" if now < cached.failed_until else "missing"), cached

    def ask(
        self, asked: Asked, group: Group, owner: str, waiter: Waiter | None, now: float
    ) -> AskUpstream | None:
        """Join the question under way or begin one; the effect, if it is begun."""
        pending = self._by_key.get(asked.key)
        begun = None
        if pending is None:
            deadline_at = now + self.settings.deadline_s * (1 - HOLD_SHARE)
            ident = self._next_id
            self._next_id += 1
            pending = Pending(ident, asked, owner)
            self._by_id[ident] = pending
            self._by_key[asked.key] = pending
            self._deadlines.add(QUESTIONS, pending, deadline_at)
            begun = AskUpstream(ident, asked.name, asked.qtype, asked.signed, group, deadline_at=deadline_at)
        if waiter is not None:
            pending.waiters.append(waiter)
        return begun

    def prefetch(
        self, asked: Asked, group: Group, owner: str, cached: Cached, now: float
    ) -> AskUpstream | None:
        """Ask again for a hot name that is about to expire."""
        hot = cached.uses > 1 and cached.expires_at - cached.stored_at >= PREFETCH_TTL_S
        if not hot or now < cached.prefetch_at() or now < cached.failed_until or asked.key in self._by_key:
            return None
        return self.ask(asked, group, owner, None, now)

    def answered(self, ident: int, wire: bytes, now: float) -> tuple[list[Waiter], Cached | None]:
        """Take an upstream's message: those who waited, and the entry; nobody for an unknown id."""
        pending = self._take(ident)
        if pending is None:
            return [], None
        asked = pending.asked
        try:
            answer = read_answer(wire, asked.name, asked.qtype, signed=asked.signed)
        except UpstreamRefusal:
            return _waiters(pending), self._fail(pending, NO_REACHABLE_AUTHORITY, now)
        except WireError:
            return _waiters(pending), self._fail(pending, NETWORK_ERROR, now)
        cached = self.cache.put(asked.key, answer, pending.owner, now, self.settings.max_ttl_s)
        return _waiters(pending), cached

    def failed(self, ident: int, ede: int, now: float) -> tuple[list[Waiter], Cached | None]:
        """Take the news that no upstream answered (22) or could be spoken to (23)."""
        pending = self._take(ident)
        if pending is None:
            return [], None
        return _waiters(pending), self._fail(pending, ede, now)

    def _fail(self, pending: Pending[Waiter], ede: int, now: float) -> Cached:
        return self.cache.put_failure(pending.asked.key, ede, pending.owner, now)

    def _take(self, ident: int) -> Pending[Waiter] | None:
        pending = self._by_id.pop(ident, None)
        if pending is not None:
            pending.due_at = NEVER
            del self._by_key[pending.asked.key]
        return pending


def _waiters(pending: Pending[Waiter]) -> list[Waiter]:
    """Take them out: what has ended may stay among the deadlines for as long as an earlier one waits."""
    waiters, pending.waiters = pending.waiters, []
    return waiters
