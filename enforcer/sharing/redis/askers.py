"""The threads that answer questions to Redis for the command line and the publisher.

Owns few threads that come with a question and go when there are none. Never touches the loop but by
``on_loop``. Invariant: at most ``MOST_WAITING`` questions wait; beyond it the answer is a trouble.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from enforcer.sharing.redis.entries import Malformed
from enforcer.sharing.redis.fleet import Fleet
from enforcer.sharing.redis.lane import Lane
from enforcer.sharing.redis.reader import Reader
from enforcer.sharing.redis.session import Session
from enforcer.sharing.redis.troubles import Lost, Trouble

THREADS = 8
MOST_WAITING = 32
IDLE_S = 10.0
_TOO_MANY = Trouble("too many questions to Redis at once: ask again", "busy")
T = TypeVar("T")


class _Question(NamedTuple):
    session: Session
    work: Callable[[Reader], Any]
    done: Callable[[Any], None]
    until: float


class Askers:
    """``on_loop`` calls something on the loop; ``started`` starts a named thread."""

    def __init__(
        self,
        on_loop: Callable[..., None],
        started: Callable[[Callable[[], None], str], threading.Thread],
        idle_s: float = IDLE_S,
    ) -> None:
        self._on_loop = on_loop
        self._started = started
        self._idle_s = idle_s
        self._lane: Lane[_Question] = Lane()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0

    def ask(
        self,
        session: Session,
        work: Callable[[Reader], T],
        done: Callable[[T | Trouble], None],
        deadline_s: float,
    ) -> None:
        """Have ``work`` done in a thread; on the loop ``done`` gets what it returned, or the trouble."""
        with self._lock:
            if self._busy >= MOST_WAITING:
                self._on_loop(done, _TOO_MANY)
                return
            self._busy += 1
            is_one_more = self._busy > self._threads and self._threads < THREADS
            self._threads += is_one_more
        self._lane.put(_Question(session, work, done, time.monotonic() + deadline_s))
        if is_one_more:
            self._started(self._answer_on, "asker")

    def stop(self) -> None:
        """Take no more; the threads end with their session."""
        self._lane.close()

    def _answer_on(self) -> None:
        fleet: Fleet | None = None
        session: Session | None = None
        while questions := self._next():
            [question] = questions
            if fleet is None or question.session is not session:
                if fleet is not None:
                    fleet.close()
                session, fleet = question.session, question.session.fleet()
            found = self._answer(question, fleet)
            if isinstance(found, Trouble):
                fleet.close()
            with self._lock:
                self._busy -= 1
            self._on_loop(question.done, found)
        if fleet is not None:
            fleet.close()

    def _next(self) -> list[_Question]:
        """Wait for a question; [] when this thread has to end."""
        while True:
            questions = self._lane.take(1, self._idle_s)
            if questions:
                return questions
            with self._lock:
                if questions is None or self._busy == 0:
                    self._threads -= 1
                    return []

    def _answer(self, question: _Question, fleet: Fleet) -> object:
        if question.session.trouble is not None:
            return question.session.trouble
        try:
            return question.work(Reader(fleet, question.until))
        except Lost as lost:
            return question.session.trouble or lost.trouble
        except Malformed as error:
            return Trouble(f"Redis does not answer as Redis does ({error})", "protocol")
