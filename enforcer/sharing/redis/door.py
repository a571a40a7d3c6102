"""The door to Redis: what the event loop may ask of it, and what it hears.

Owns the thread that finds Redis again and again, with pauses, and everything that waits for a reply. Never
blocks the loop, never sends anything twice. Invariants: every callback comes on the loop; ``done`` of
everything that was lost is called with None before ``redis_lost``; what waits is bounded.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.python.failure import Failure

from enforcer.sharing.records.resp import packed
from enforcer.sharing.redis.askers import Askers
from enforcer.sharing.redis.credentials import Credentials
from enforcer.sharing.redis.entries import Entry
from enforcer.sharing.redis.lane import Work
from enforcer.sharing.redis.line import Reply
from enforcer.sharing.redis.reader import Reader
from enforcer.sharing.redis.session import Session
from enforcer.sharing.redis.troubles import Lost, RedisSaid, Trouble
from policy.runtime.redis_url import RedisPlace

__all__ = ["Door", "Entry", "Events", "Reader", "RedisSaid", "Reply", "Trouble"]

MOST_WAITING = 200_000
"""Commands that may wait for a reply; more, and this Redis does not keep up: it is lost."""
MOST_WAITING_BYTES = 64 << 20
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
SWITCH_S = 0.0005
"""How long a thread may hold the interpreter while the loop wants it: 5 ms by default (docs/adr/0011)."""
STEADY_S = 5.0
"""A session that lived for so long was a good one: the pauses start from the shortest again."""
_STARTING = Trouble("Redis has not been asked yet", "starting")
_KEEPS_UP_NOT = Trouble(
    f"Redis does not keep up: {MOST_WAITING} commands wait; look at its load and the way to it", "busy"
)

T = TypeVar("T")
Done = Callable[[list[Reply] | None], None]


class Events(Protocol):
    """Who the door tells, on the loop."""

    def redis_up(self) -> None:
        """Connected, authenticated and tested: everything must be published again."""

    def redis_lost(self, trouble: Trouble) -> None:
        """One sentence: what is wrong and what to do. Comes again, while lost, with another trouble."""

    def entries_came(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """Entries were added to a stream since ``redis_up``."""

    def keys_changed(self) -> None:
        """``credentials.keys`` are others: everything must be sealed again."""


class Loop(Protocol):
    """What the door needs of a reactor."""

    def callFromThread(self, call: Callable[..., Any], /, *args: object) -> object:  # noqa: N802
        """Call on the loop."""


def pause_s(attempt: int, longest_s: float, chance: float) -> float:
    """Return how long to wait after so many failures, in seconds; ``chance`` is from 0 to 1.

    Half of it is chance, so that the nodes of a cluster do not come back at one instant.
    """
    return min(SHORTEST_PAUSE_S * 2.0 ** min(attempt, 10), longest_s) * (0.5 + chance / 2)


class _Waiting(NamedTuple):
    done: Done | None
    commands: int
    size_bytes: int


class Door:
    """Redis, for the loop. All methods are for the loop; ``failed`` hears of a bug in a thread."""

    def __init__(
        self,
        *,
        place: RedisPlace,
        credentials: Credentials,
        home: bytes,
        streams: Sequence[bytes],
        events: Events,
        reactor: Loop,
        failed: Callable[[Failure], None],
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._place, self._credentials = place, credentials
        self._home, self._streams = home, tuple(streams)
        self._events, self._loop, self._failed = events, reactor, failed
        self._longest_pause_s = longest_pause_s
        self._askers = Askers(self._on_loop, self._started)
        self._stopping = threading.Event()
        self._live: Session | None = None
        self._newest: Session | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._ticket = 0
        self.is_up = False
        self.trouble: Trouble | str = _STARTING
        self._told = ""
        self.backlog = 0
        self.oversized = 0
        """How often entries were left out because they are too large to be Nameward's."""
        self._backlog_bytes = 0

    def start(self) -> None:
        """Begin to look for Redis; returns at once.

        From now on this process's threads give way to each other sooner than Python has them do.
        """
        sys.setswitchinterval(SWITCH_S)
        self._started(self._conduct, "conductor")

    def stop(self, grace_s: float = 0.25) -> None:
        """Let go of Redis; what waits is still written if that takes no longer than ``grace_s``.

        No callback comes after it. It waits for no thread, so that a frozen Redis holds up nothing.
        """
        self._stopping.set()
        if self._live is not None:
            self._live.outbox.close(keep=True)
            self._live.flushed.wait(grace_s)
        if self._newest is not None:
            self._newest.end(Trouble("Redis was let go", "stopped"))
        self._askers.stop()
        self._waiting.clear()
        self.is_up, self._live, self.backlog, self._backlog_bytes = False, None, 0, 0

    # --- what the loop asks ----------------------------------------------------------------------

    def write(self, commands: Sequence[bytes], done: Done | None = None) -> None:
        """Write packed commands for keys of this node's slot, in one transaction, after those before.

        ``done`` gets their replies, or None if it is not known that they were done.
        """
        self._put("outbox", b"", b"".join(commands), len(commands), done)

    def send(self, key: bytes, command: Sequence[bytes], done: Callable[[Reply], None] | None = None) -> None:
        """Send one command for a key of any slot, past everything that waits in ``write``.

        ``done`` gets its reply, or None if it is not known that it was done.
        """
        answered: Done | None = None
        if done is not None:
            told = done

            def answered(replies: list[Reply] | None) -> None:
                told(replies[0] if replies else None)

        self._put("express", key, packed(*command), 1, answered)

    def ask(
        self, work: Callable[[Reader], T], done: Callable[[T | Trouble], None], deadline_s: float = 3.0
    ) -> None:
        """Run ``work`` in a thread with a ``Reader``; ``done`` gets what it returns, or the trouble.

        After ``deadline_s`` seconds (or when Redis is lost) the Reader raises, and the trouble says so.
        """
        if self._live is None:
            self._on_loop(done, self._as_trouble())
        else:
            self._askers.ask(self._live, work, done, deadline_s)

    def redis_ms(self) -> int | None:
        """Return Redis's clock now, in milliseconds since 1970; None while it is lost.

        Never ahead of it by more than our clock's drift; behind by the way's delay.
        """
        if self._live is None:
            return None
        redis_ms, at = self._live.clock
        return redis_ms + int((time.monotonic() - at) * 1000)

    def _put(self, lane: str, key: bytes, payload: bytes, count: int, done: Done | None) -> None:
        session = self._live
        if session is None or count == 0:
            if done is not None:
                self._on_loop(done, None if session is None else [])
            return
        if self.backlog + count > MOST_WAITING or self._backlog_bytes + len(payload) > MOST_WAITING_BYTES:
            session.end(_KEEPS_UP_NOT)
            if done is not None:
                self._on_loop(done, None)
            return
        self._ticket += 1
        self._waiting[self._ticket] = _Waiting(done, count, len(payload))
        self.backlog += count
        self._backlog_bytes += len(payload)
        (session.outbox if lane == "outbox" else session.express).put(Work(self._ticket, payload, count, key))

    def _as_trouble(self) -> Trouble:
        return self.trouble if isinstance(self.trouble, Trouble) else _STARTING

    # --- what the loop hears ---------------------------------------------------------------------

    def _answered(self, answers: Sequence[tuple[int, list[Reply]]]) -> None:
        for ticket, replies in answers:
            waiting = self._waiting.pop(ticket, None)
            if waiting is None:
                continue
            self.backlog -= waiting.commands
            self._backlog_bytes -= waiting.size_bytes
            if waiting.done is not None:
                waiting.done(replies)

    def _came_up(self, session: Session) -> None:
        if self._stopping.is_set():
            return
        self._live, self.is_up, self.trouble, self._told = session, True, "", ""
        self._events.redis_up()

    def _went(self, trouble: Trouble) -> None:
        if self._stopping.is_set():
            return
        is_news = trouble.reason != self._told
        self._told = trouble.reason
        self._live, self.is_up, self.trouble = None, False, trouble
        waiting, self._waiting = list(self._waiting.values()), {}
        self.backlog = self._backlog_bytes = 0
        for one in waiting:
            if one.done is not None:
                one.done(None)
        if is_news:
            self._events.redis_lost(trouble)

    def _entries_came(
        self, session: Session, stream: bytes, entries: Sequence[Entry], taken: Callable[[], None]
    ) -> None:
        taken()
        if session is self._live:
            self._events.entries_came(stream, entries)

    def _oversized(self) -> None:
        self.oversized += 1

    def _session_ended(self, session: Session, trouble: Trouble) -> None:
        if session is self._live:
            self._went(trouble)

    def _keys_changed(self) -> None:
        if not self._stopping.is_set():
            self._events.keys_changed()

    # --- threads ---------------------------------------------------------------------------------

    def _on_loop(self, call: Callable[..., object], *args: object) -> None:
        if not self._stopping.is_set():
            self._loop.callFromThread(call, *args)

    def _started(self, work: Callable[[], None], name: str) -> threading.Thread:
        def watched() -> None:
            try:
                work()
            except BaseException:
                self._on_loop(self._failed, Failure())
                raise

        thread = threading.Thread(target=watched, name=f"redis {name}", daemon=True)
        thread.start()
        return thread

    def _conduct(self) -> None:
        """Find Redis, live with it until it is lost, pause, and again."""
        attempt = 0
        while not self._stopping.is_set():
            began_at = time.monotonic()
            trouble = self._one_session()
            attempt = 0 if time.monotonic() - began_at >= STEADY_S else attempt + 1
            if self._stopping.is_set():
                return
            self._on_loop(self._went, trouble)
            self._stopping.wait(pause_s(attempt, self._longest_pause_s, secrets.randbelow(1000) / 1000))

    def _one_session(self) -> Trouble:
        had_keys = self._credentials.keys is not None
        if self._credentials.refresh() and had_keys:
            self._on_loop(self._keys_changed)
        if self._credentials.keys is None:
            return Trouble(self._credentials.problem, "credentials")
        told = _Telling(self)
        session = Session(self._place, self._credentials, self._home, self._streams, told)
        told.session = self._newest = session
        try:
            session.open()
            self._on_loop(self._came_up, session)
            return session.run(self._started)
        except Lost as lost:
            return session.trouble or lost.trouble
        finally:
            session.end(Trouble("Redis was let go", "stopped"))
            session.close()


class _Telling:
    """What a session's threads say, brought to the loop."""

    session: Session

    def __init__(self, door: Door) -> None:
        self._door = door

    def answered(self, answers: Sequence[tuple[int, list[Reply]]]) -> None:
        self._door._on_loop(self._door._answered, answers)

    def entries_came(self, stream: bytes, entries: Sequence[Entry], taken: Callable[[], None]) -> None:
        self._door._on_loop(self._door._entries_came, self.session, stream, entries, taken)

    def keys_changed(self) -> None:
        self._door._on_loop(self._door._keys_changed)

    def oversized(self) -> None:
        self._door._on_loop(self._door._oversized)

    def ended(self, trouble: Trouble) -> None:
        self._door._on_loop(self._door._session_ended, self.session, trouble)
