"""The cluster as one node sees it: other nodes' records for ``nameward status``, ``grants`` and the others.

Owns who may make Redis work for an answer, how often, and how long. Lives on the loop; the reading happens
in a thread of the door (``listings``). Sans-I/O: door, clock and timers are arguments.
Invariants: one reading at a time, with a pause as long as it took; what is held for askers that do not
read is bounded; nobody waits longer than ``ANSWER_WITHIN_S``, whatever Redis does.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from enforcer.asked import Found, Request, Row
from enforcer.sharing.cluster.following import Following
from enforcer.sharing.cluster.listings import read
from enforcer.sharing.cluster.liveness import Liveness
from enforcer.sharing.cluster.reading import Read, Reader, Task
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import Keyring

READ_FOR_S = 3.0
ANSWER_WITHIN_S = 6.0
"""From the request on, its wait for its turn included."""
LONGEST_PAUSE_S = 0.5
STATUS_KEPT_S = 1.0
MAX_HELD = 4
"""Askers whose other nodes' rows are searched, or lie here until they are read."""
BUSY = "too many ask for the whole cluster at once (ask again in a moment)"
SLOW = "Redis did not answer in time"
_OF_A_NODE = frozenset({"grants", "blocked", "status"})
"""What only that node's records can say; of its pods this node's own source knows something too."""

T = TypeVar("T")
Later = Callable[[float, Callable[[], None]], object]


class Door(Protocol):
    """What of ``enforcer.sharing.redis.door`` is used here; ``done`` comes on the loop."""

    @property
    def is_up(self) -> bool:
        """Say whether Redis answers."""

    @property
    def trouble(self) -> str:
        """Say what is wrong with it."""

    def ask(
        self, work: Callable[[Reader], T], done: Callable[[T | str], None], deadline_s: float = ..., /
    ) -> None:
        """Read in a thread; ``done`` gets what ``work`` returned, or a sentence (``Trouble``)."""


class _Kept(NamedTuple):
    node: str
    found: Found
    at: float


class View:
    """See ``enforcer.asked.Elsewhere``."""

    def __init__(
        self,
        door: Door,
        keys: Keys,
        keyring: Callable[[], Keyring],
        *,
        now: Callable[[], float],
        later: Later,
    ) -> None:
        self._door = door
        self._keys = keys
        self._keyring = keyring
        self._now = now
        self._later = later
        self._liveness = Liveness()
        self._waiting: deque[_Search] = deque()
        self._held: set[_Search] = set()
        self._is_reading = False
        self._status: _Kept | None = None
        self.doubts: Counter[str] = Counter()
        """Records that were read and not believed: ``mac``, ``version``, ``malformed``, ``stale``."""
        self._following = Following(self, later, self.doubts)

    def find(
        self, request: Request, addresses: Sequence[str], done: Callable[[Found], None]
    ) -> Callable[[], None]:
        """See ``enforcer.asked.Elsewhere``."""
        search = _Search(request, tuple(addresses), done)
        kept = self._status
        if not self._door.is_up:
            search.fail(f"Redis is lost ({self._door.trouble})")
        elif request.command == "status" and kept and kept.node == request.node and self._is_fresh(kept):
            search.answer(kept.found)
        elif len(self._held) >= MAX_HELD:
            search.fail(BUSY)
        else:
            self._held.add(search)
            self._waiting.append(search)
            self._later(ANSWER_WITHIN_S, lambda: search.fail(SLOW))
            self._go_on()
        return lambda: self._end(search)

    def follow(
        self, request: Request, take: Callable[[Row], None], warn: Callable[[str], None]
    ) -> Callable[[], None]:
        """See ``enforcer.asked.Elsewhere``."""
        return self._following.follow(request, take, warn)

    def ask(self, work: Callable[[Reader, Keys, Keyring], T], done: Callable[[T | str], None]) -> None:
        """Read something by the keys of now (for ``enforcer.sharing.cluster.following``)."""
        keyring = self._keyring()
        self._door.ask(lambda reader: work(reader, self._keys, keyring), done)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now()

    def _is_fresh(self, kept: _Kept) -> bool:
        return self._now() - kept.at < STATUS_KEPT_S

    def _end(self, search: _Search) -> None:
        """Nobody waits for it, or holds its rows, any more."""
        search.is_done = True
        self._held.discard(search)
        if search in self._waiting:
            self._waiting.remove(search)

    def _go_on(self) -> None:
        """Read for the next one that still waits."""
        while self._waiting and not self._is_reading:
            search = self._waiting.popleft()
            if not search.is_done:
                self._read_for(search)

    def _read_for(self, search: _Search) -> None:
        self._is_reading = True
        began_at = self._now()
        task = Task(
            request=search.request,
            addresses=search.addresses,
            keys=self._keys,
            keyring=self._keyring(),
            liveness=self._liveness,
            now=self._now,
            until=began_at + READ_FOR_S,
            stopped=lambda: search.is_done,
        )
        self._door.ask(
            lambda reader: read(reader, task),
            lambda said: self._was_read(search, said, began_at),
            READ_FOR_S + 1.0,  # what it has read by ``until`` is worth more than a time-out
        )

    def _was_read(self, search: _Search, said: Read | str, began_at: float) -> None:
        took_s = self._now() - began_at
        self._later(min(took_s, LONGEST_PAUSE_S), self._pause_over)
        if isinstance(said, str):
            search.fail(str(said))
            return
        self.doubts.update(said.doubts)
        if search.request.command == "status" and not search.is_done:
            self._status = _Kept(search.request.node, said.found, self._now())
        search.answer(said.found)

    def _pause_over(self) -> None:
        self._is_reading = False
        self._go_on()


class _Search:
    """One request on its way: answered once, unless nobody waits for it any more."""

    def __init__(self, request: Request, addresses: tuple[str, ...], done: Callable[[Found], None]) -> None:
        self.request = request
        self.addresses = addresses
        self._done = done
        self.is_done = False
        """It was answered, or nobody waits for it any more. Read in the thread too."""

    def fail(self, why: str) -> None:
        """Say why nothing was read: beside this node's rows, or in place of those of the node asked for."""
        if self.request.node and self.request.command in _OF_A_NODE:
            self.answer(Found(refusal=f"{why}: nothing can be said of {self.request.node}"))
        else:
            self.answer(Found(warnings=(f"{why}: only this node is shown",)))

    def answer(self, found: Found) -> None:
        """Answer it, if somebody still waits."""
        if not self.is_done:
            self.is_done = True
            self._done(found)
