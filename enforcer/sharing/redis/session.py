"""One life of the connections to Redis: from being found, tested and connected until the first trouble.

Owns the threads that write, send and listen, each with a connection of its own. Never reconnects (the
door makes a new session), never calls anything on the event loop itself. Invariants: the first trouble
ends all of it; commands of ``write`` reach Redis in their order, or not at all once one was lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from enforcer.sharing.records.resp import packed
from enforcer.sharing.redis.credentials import CredentialError, Credentials
from enforcer.sharing.redis.entries import Entry, Malformed, after, instant_of, streams_of, time_of
from enforcer.sharing.redis.finding import PROBE_REPLIES, Sentinels, writable_home, write_probe
from enforcer.sharing.redis.fleet import Fleet
from enforcer.sharing.redis.lane import Lane, Work
from enforcer.sharing.redis.line import TIMEOUT_S, Line, Login, Reply, TooLarge
from enforcer.sharing.redis.troubles import Lost, RedisSaid, Trouble, printable, worst
from policy.runtime.redis_url import Address, Kind, RedisPlace

PROBE_S = 0.5
"""A connection that is idle for so long is asked whether it still writes."""
WATCH_S = 1.0
BLOCK_MS = 1000
_EXPRESS_PROBE_S = 5.0
_PACE_S = 0.04
"""After few commands what comes meanwhile travels together: a transaction costs as much as 100 commands."""
_FEW_COMMANDS = 256
_MOST_COMMANDS = 128
_MOST_WORKS = 64
_MOST_ENTRIES = 64
_BREATH_S = 0.01
"""After a full batch of entries: whoever floods our streams gets no more of the loop than this leaves."""
_PAUSE_S = 0.1
"""After entries that are too large: whoever writes such costs ten connections a second."""
_LARGEST_ENTRIES_BYTES = 1 << 20
_FUTURE_MS = 2000
_BATCHES_AHEAD = 4
_MULTI, _EXEC, _TIME = packed(b"MULTI"), packed(b"EXEC"), packed(b"TIME")


class Clock(NamedTuple):
    """Redis's clock at an instant of ours."""

    redis_ms: int
    at: float


class Told(Protocol):
    """Who hears of a session; called in its threads."""

    def answered(self, answers: Sequence[tuple[int, list[Reply]]]) -> None:
        """Replies of tickets, in the order of the tickets."""

    def entries_came(self, stream: bytes, entries: Sequence[Entry], taken: Callable[[], None]) -> None:
        """Entries; ``taken`` is called when the loop has had them."""

    def keys_changed(self) -> None:
        """The HMAC keys are others."""

    def oversized(self) -> None:
        """Entries were left out because they are too large to be Nameward's."""

    def ended(self, trouble: Trouble) -> None:
        """It is over; called once."""


class Session:
    """One life. ``open`` and ``run`` belong to one thread; ``end`` is for any."""

    def __init__(
        self, place: RedisPlace, credentials: Credentials, home: bytes, streams: Sequence[bytes], told: Told
    ) -> None:
        self.outbox: Lane[Work] = Lane()
        self.express: Lane[Work] = Lane()
        self.clock = Clock(0, 0.0)
        self.flushed = threading.Event()
        self._place, self._credentials = place, credentials
        self._home, self._streams, self._told = home, tuple(streams), told
        self._lock = threading.Lock()
        self._lines: set[Line] = set()
        self._ended = threading.Event()
        self._trouble = Trouble("Redis was let go", "stopped")
        self._sentinels: Sentinels | None = None
        self._ahead = threading.Semaphore(_BATCHES_AHEAD)

    @property
    def trouble(self) -> Trouble | None:
        """Why it ended, None while it lives."""
        return self._trouble if self._ended.is_set() else None

    def end(self, trouble: Trouble) -> None:
        """End it: the first trouble counts; every thread of it is woken and comes to its end."""
        with self._lock:
            if self._ended.is_set():
                return
            self._trouble = trouble
            self._ended.set()
            lines = list(self._lines)
        for line in lines:
            line.cut()
        self.outbox.close()
        self.express.close()
        self._told.ended(trouble)

    # --- becoming --------------------------------------------------------------------------------

    def open(self) -> None:
        """Find the server, log in, test what will be done, connect the rest. Raises ``Lost``."""
        try:
            self._login = self._login_from(self._credentials.password(), self._place.user, self._place.db)
            theirs = self._login_from(self._credentials.sentinel_password(), "", 0)
        except CredentialError as error:
            raise Lost(str(error), "credentials") from None
        if self._place.kind is Kind.SENTINEL:
            self._sentinels = Sentinels(self._place, lambda address: self._opened(address, theirs))
        self._writer, redis_ms = writable_home(self._place, self.opened, self._sentinels, self._home)
        self.clock = Clock(redis_ms, time.monotonic())
        self._since_ms = redis_ms
        self._listener = self.opened(self._writer.address)
        self._sender = self.fleet()
        self._sender.line_for(self._home)

    def opened(self, address: Address) -> Line:
        """Return a new connection that ends with this session. Raises ``Lost``."""
        return self._opened(address, self._login)

    def fleet(self) -> Fleet:
        """Return connections for one thread, opened as they are needed."""
        return Fleet(self._writer.address, self.opened, is_cluster=self._place.kind is Kind.CLUSTER)

    def _login_from(self, password: str, user: str, db: int) -> Login:
        return Login(user, password, db, self._credentials.tls if self._place.tls else None)

    def _opened(self, address: Address, login: Login) -> Line:
        line = Line(address, login)
        with self._lock:
            self._lines = {known for known in self._lines if known.is_open} | {line}
        line.open()
        if self._ended.is_set():
            line.close()
            raise Lost(self._trouble, self._trouble.reason)
        return line

    # --- living ----------------------------------------------------------------------------------

    def run(self, started: Callable[[Callable[[], None], str], threading.Thread]) -> Trouble:
        """Live until the first trouble, and return it. ``started`` starts a named thread."""
        works = {"writer": self._write, "sender": self._send}
        if self._streams:
            works["listener"] = self._listen
        threads = [started(partial(self._until_lost, work), name) for name, work in works.items()]
        while not self._ended.wait(WATCH_S):
            self._watch()
        for thread in threads:
            thread.join(2 * TIMEOUT_S)
        return self._trouble

    def close(self) -> None:
        """Let go of what was opened; after ``run``, or after ``open`` failed."""
        with self._lock:
            lines, self._lines = list(self._lines), set()
        for line in lines:
            line.cut()
            line.close()

    def _watch(self) -> None:
        if self._credentials.refresh():
            self._told.keys_changed()
        if self._sentinels is not None:
            other = self._sentinels.has_another(self._writer.address)
            if other is not None:
                self.end(Trouble(f"Sentinel has made {other} the master: going there", "readonly"))

    def _until_lost(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Lost as lost:
            self.end(lost.trouble)
        except Malformed as error:
            self.end(
                Trouble(
                    f"Redis at {self._writer.address} does not answer as Redis does ({error})", "protocol"
                )
            )

    def _write(self) -> None:
        probe = write_probe(self._home)
        while (works := self.outbox.take(_MOST_WORKS, PROBE_S)) is not None:
            if not works:
                self._writer.send(probe)
                replies = self._writer.replies(PROBE_REPLIES)
                self._end_by(self._writer, replies)
                self._note(replies[0])
            for batch in _batches(works):
                self._transact(batch, sum(work.commands for work in batch))
            if works and sum(work.commands for work in works) < _FEW_COMMANDS:
                self._ended.wait(_PACE_S)
        self.flushed.set()

    def _transact(self, works: list[Work], count: int) -> None:
        self._writer.send(b"".join((_TIME, _MULTI, *(work.payload for work in works), _EXEC)))
        queued = self._writer.replies(count + 2)
        if queued.count(b"QUEUED") != count:
            self._end_by(self._writer, queued)
        self._note(queued[0])
        [done] = self._writer.replies(1)
        if not isinstance(done, list) or RedisSaid in map(type, done):
            self._end_by(self._writer, (done,))
        if not isinstance(done, list) or len(done) != count:
            said = next(
                (reply for reply in (*queued, done) if isinstance(reply, RedisSaid)), RedisSaid("nothing")
            )
            raise Lost(f"Redis at {self._writer.address} refuses a transaction ({printable(said)})", "answer")
        answers, start = [], 0
        for work in works:
            answers.append((work.ticket, done[start : start + work.commands]))
            start += work.commands
        self._told.answered(answers)

    def _note(self, clock: Reply) -> None:
        self.clock = Clock(time_of(clock), time.monotonic())

    def _end_by(self, line: Line, replies: Sequence[Reply]) -> None:
        trouble = worst(replies, str(line.address))
        if trouble is not None:
            raise Lost(trouble, trouble.reason)

    def _send(self) -> None:
        while (works := self.express.take(_MOST_WORKS, _EXPRESS_PROBE_S)) is not None:
            asked = [(work.key, work.payload) for work in works] or [(self._home, _TIME)]
            replies = self._sender.replies(asked)
            self._end_by(self._writer, replies)
            if works:
                self._told.answered(
                    [(work.ticket, [reply]) for work, reply in zip(works, replies, strict=True)]
                )

    # --- listening -------------------------------------------------------------------------------

    def _listen(self) -> None:
        cursors = dict.fromkeys(self._streams, after(self._since_ms))
        head = (b"XREAD", b"COUNT", b"%d" % _MOST_ENTRIES, b"BLOCK", b"%d" % BLOCK_MS, b"STREAMS")
        while not self._ended.is_set():
            listener = self._listener
            listener.send(packed(*head, *cursors, *cursors.values()) + _TIME)
            try:
                came, clock = listener.replies(2, _LARGEST_ENTRIES_BYTES, BLOCK_MS / 1000 + TIMEOUT_S)
            except TooLarge:
                self._told.oversized()
                self._skip(cursors)
                continue
            now_ms = time_of(clock)
            if isinstance(came, RedisSaid):
                self._end_by(listener, (came,))
                self._renew(listener, cursors, tuple(cursors), now_ms)
                continue
            self._take(streams_of(came, now_ms), cursors, now_ms)

    def _take(self, came: list[tuple[bytes, list[Entry]]], cursors: dict[bytes, bytes], now_ms: int) -> None:
        for stream, entries in came:
            if stream not in cursors or not entries:
                raise Malformed("a stream that was not asked for")
            cursors[stream] = entries[-1].id
            self._hand_over(stream, entries)
            if instant_of(entries[-1].id) > now_ms + _FUTURE_MS:
                self._renew(self._listener, cursors, (stream,), now_ms)
            if len(entries) == _MOST_ENTRIES:
                self._ended.wait(_BREATH_S)

    def _skip(self, cursors: dict[bytes, bytes]) -> None:
        """Go on after what is too large, on a new connection; it goes: its id may be ahead of the clock."""
        self._ended.wait(_PAUSE_S)
        self._listener = self.opened(self._writer.address)
        now_ms = time_of(self._listener.ask(b"TIME"))
        self._renew(self._listener, cursors, tuple(cursors), now_ms)

    def _renew(self, line: Line, cursors: dict[bytes, bytes], streams: Sequence[bytes], now_ms: int) -> None:
        """Remove streams of ours that are none, or whose ids are ahead of the clock."""
        line.send(packed(b"DEL", *streams))
        self._end_by(line, line.replies(1))
        for stream in streams:
            cursors[stream] = after(now_ms)

    def _hand_over(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """Give entries to the loop; waits while it has not taken the ones before."""
        while not self._ahead.acquire(timeout=PROBE_S):
            if self._ended.is_set():
                return
        self._told.entries_came(stream, entries, self._ahead.release)


def _batches(works: list[Work]) -> Iterator[list[Work]]:
    """Cut into transactions of at most ``_MOST_COMMANDS`` commands, or one piece of work."""
    batch: list[Work] = []
    count = 0
    for work in works:
        if batch and count + work.commands > _MOST_COMMANDS:
            yield batch
            batch, count = [], 0
        batch.append(work)
        count += work.commands
    if batch:
        yield batch
