"""Forwarding to upstream servers as a sans-I/O state machine: whom to ask, how, how often.

Owns each open question and its tries. Never opens a socket (``resolver.upstream_io``), reads a
clock or looks into an answer beyond id, question, TC and RCODE. Invariants: every question ends
once, by its deadline, as ``Answered`` or ``Failed``; a datagram that does not match ends UDP for
its question (somebody guesses: RFC 5452, 9.2), which goes on over TCP.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from policy.authority import UpstreamState
from policy.runtime.kinds import Upstream
from resolver import upstream_wire
from resolver.effects import AskUpstream
from resolver.health import Health, by_health
from resolver.upstream_wire import Randomness

MAX_QUESTIONS = 4096
MAX_TRIES = 6
STREAM_WAIT_S = 0.8
"""Patience with a stream: it may have to be connected, with TLS even."""
UNREACHABLE, NETWORK_ERROR = 22, 23
"""Extended DNS errors (RFC 8914, 4.23 and 4.24): nobody answered; somebody could not be reached."""
_NEVER = float("inf")
_NO_GROUP: list[Health] = []
_SLOTS_A_SECOND = 64
"""The wheel's moments: all that is due within one of them shares an entry of its heap."""
_LONGER = tuple(1.5**tries for tries in range(MAX_TRIES))
"""How much longer than the first try the further ones are waited for."""
_FAIL_OVER = frozenset({1, 2, 4, 5})
"""FORMERR, SERVFAIL, NOTIMP, REFUSED: another upstream may know better."""


class Attempt:
    """One try of a question at one upstream, by datagram or stream. Identity is its equality.

    ``descriptor`` is its socket's, for whoever opened it; -1 while there is none. ``due_at`` is the end
    of the patience with it.
    """

    __slots__ = (
        "descriptor",
        "due_at",
        "health",
        "id",
        "is_open",
        "is_probe",
        "is_repeat",
        "open_question",
        "question",
        "sent_at",
        "stream",
        "wire",
    )

    def __init__(self, open_question: OpenQuestion, health: Health, message_id: int, *, stream: bool) -> None:
        self.open_question = open_question
        self.health = health
        self.id = message_id
        self.question = open_question.question
        self.wire = upstream_wire.query(message_id, self.question, dnssec=open_question.ask.do)
        self.stream = stream
        self.sent_at = 0.0
        self.due_at = _NEVER
        self.descriptor = -1
        self.is_open = True
        self.is_probe = False
        self.is_repeat = False

    @property
    def upstream(self) -> Upstream:
        """Where it goes."""
        return self.health.upstream


class OpenQuestion:
    """One question of the core until it is answered or failed."""

    __slots__ = (
        "ask",
        "attempts",
        "candidates",
        "is_open",
        "is_silent",
        "question",
        "refusal",
        "slot",
        "unusable",
        "wake_at",
    )

    def __init__(self, ask: AskUpstream, question: bytes, candidates: list[Health]) -> None:
        self.ask = ask
        self.question = question
        self.candidates = candidates
        self.attempts: list[Attempt] = []
        self.unusable: list[Upstream] = []
        self.refusal: bytes | None = None
        self.wake_at = _NEVER
        self.slot = -1
        self.is_open = True
        self.is_silent = False


class _Slot:
    """Questions that want something within the same moment of the wheel; ``at`` is the first one's."""

    __slots__ = ("at", "questions")

    def __init__(self, at: float) -> None:
        self.at = at
        self.questions: list[OpenQuestion] = []


class Send(NamedTuple):
    """Send this attempt's wire to its upstream, from a fresh port or by the upstream's stream."""

    attempt: Attempt


class Cancel(NamedTuple):
    """Nobody waits for this attempt any more."""

    attempt: Attempt


class Answered(NamedTuple):
    """The question's answer; its question section is in lower case."""

    id: int
    wire: bytes


class Failed(NamedTuple):
    """No upstream answered in time; ``ede`` is 22 or 23."""

    id: int
    ede: int


Step = Send | Cancel | Answered | Failed


class Forwarding:
    """All open questions and the health of all upstreams."""

    def __init__(self, groups: Mapping[str, Sequence[Upstream]], random: Randomness) -> None:
        self._random = random
        self._health: dict[Upstream, Health] = {}
        self._groups: dict[str, list[Health]] = {}
        self._questions: dict[int, OpenQuestion] = {}
        self._streamed: dict[tuple[Upstream, int], Attempt] = {}
        self._slots: dict[int, _Slot] = {}
        self._slot_numbers: list[int] = []
        self.use(groups)

    def use(self, groups: Mapping[str, Sequence[Upstream]]) -> None:
        """Replace the upstreams of each group; health of those that stay is kept."""
        known = {upstream for group in groups.values() for upstream in group}
        self._health = {upstream: self._health.get(upstream) or Health(upstream) for upstream in known}
        self._groups = {name: [self._health[one] for one in group] for name, group in groups.items()}

    def states(self) -> tuple[UpstreamState, ...]:
        """Return every upstream's health, in the order of the groups."""
        return tuple(dict.fromkeys(health.state() for group in self._groups.values() for health in group))

    def healths(self) -> tuple[Health, ...]:
        """Return what is known of each upstream, for the reporter to drain."""
        return tuple(self._health.values())

    @property
    def open_count(self) -> int:
        """Questions that are not answered yet."""
        return len(self._questions)

    def ask(self, ask: AskUpstream, now: float) -> list[Step]:
        """Begin a question; ``ask.name`` is in wire form, lower-case."""
        group = self._groups.get(ask.group, _NO_GROUP)
        candidates = by_health(group)
        if not candidates or len(self._questions) >= MAX_QUESTIONS:
            return [Failed(ask.id, UNREACHABLE)]
        section = upstream_wire.question_section(ask.name, ask.qtype, self._random)
        question = OpenQuestion(ask, section, candidates)
        self._questions[ask.id] = question
        steps: list[Step] = [self._try(question, candidates[0], now)]
        if candidates is not group:
            for health in candidates[1:]:
                if health.wants_probe(now):
                    probe = self._try(question, health, now)
                    probe.attempt.is_probe = True
                    steps.append(probe)
        return steps

    def datagram_received(self, attempt: Attempt, wire: bytes, now: float) -> list[Step]:
        """Judge what arrived on the attempt's own socket."""
        if not attempt.is_open:
            return []
        if not upstream_wire.answers(wire, attempt.id, attempt.question):
            return self._over_stream(attempt, now)
        if upstream_wire.is_truncated(wire):
            attempt.health.heard(now - attempt.sent_at, now)
            return self._over_stream(attempt, now)
        return self._heard(attempt, wire, now)

    def stream_received(self, upstream: Upstream, wire: bytes, now: float) -> list[Step] | None:
        """Judge a message of the upstream's stream; None: it makes no sense, give the stream up."""
        message_id = upstream_wire.message_id(wire)
        if message_id is None:
            return None
        attempt = self._streamed.get((upstream, message_id))
        if attempt is None:
            return []  # late: its question has ended
        if not upstream_wire.answers_in_any_case(wire, attempt.id, attempt.question):
            return None
        return self._heard(attempt, wire, now)

    def attempt_failed(self, attempt: Attempt, now: float, *, blame: bool = True) -> list[Step]:
        """Note that it cannot be answered: refused, lost, or (no blame) not even sent."""
        if not attempt.is_open:
            return []
        if blame:
            attempt.health.missed(now)
        return self._give_up(attempt, now)

    def stream_lost(self, attempt: Attempt, now: float) -> list[Step]:
        """Note that a stream ended that had served before: once more on a new one (RFC 7766, 6.2.4)."""
        if not attempt.is_open:
            return []
        if attempt.is_repeat:
            return self.attempt_failed(attempt, now)
        self._close(attempt)
        again = self._try(attempt.open_question, attempt.health, now, stream=True)
        again.attempt.is_repeat = True
        return [again]

    def next_deadline(self) -> float | None:
        """Return when ``deadline_passed`` wants to be called; what has ended meanwhile wants nothing."""
        while self._slot_numbers:
            number = self._slot_numbers[0]
            slot = self._slots[number]
            waiting = slot.questions
            while waiting and not (waiting[-1].is_open and waiting[-1].slot == number):
                waiting.pop()
            if waiting:
                return slot.at
            self._drop_slot()
        return None

    def deadline_passed(self, now: float) -> list[Step]:
        """Ask further upstreams about what was not answered in time; end what is over."""
        steps: list[Step] = []
        while self._slot_numbers:
            number = self._slot_numbers[0]
            slot = self._slots[number]
            if slot.at > now:
                break
            self._drop_slot()
            for question in slot.questions:
                if question.is_open and question.slot == number:
                    question.slot = -1
                    self._look(question, now, steps)
        return steps

    def _look(self, question: OpenQuestion, now: float, steps: list[Step]) -> None:
        """Its moment on the wheel has come: see what is over, and when the next thing will be."""
        if question.ask.deadline_at <= now:
            steps += self._end(question, None)
            return
        for attempt in list(question.attempts):
            if attempt.due_at <= now:
                attempt.due_at = _NEVER
                steps += self._waited(attempt, now)
        if question.is_open:
            at = question.ask.deadline_at
            for attempt in question.attempts:
                if attempt.is_open:
                    at = min(at, attempt.due_at)
            question.wake_at = _NEVER
            self._wake(question, at)

    def _wake(self, question: OpenQuestion, at: float) -> None:
        """Look at the question at this instant, unless that is to be sooner anyway."""
        if at >= question.wake_at:
            return
        question.wake_at = at
        number = int(at * _SLOTS_A_SECOND)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = _Slot(at)
            heapq.heappush(self._slot_numbers, number)
        elif at < slot.at:
            slot.at = at
        if question.slot != number:
            question.slot = number
            slot.questions.append(question)

    def _drop_slot(self) -> None:
        del self._slots[heapq.heappop(self._slot_numbers)]

    def _try(self, question: OpenQuestion, health: Health, now: float, *, stream: bool = False) -> Send:
        stream = stream or health.upstream.tls
        message_id = self._random.getrandbits(16)
        while stream and (health.upstream, message_id) in self._streamed:
            message_id = self._random.getrandbits(16)
        attempt = Attempt(question, health, message_id, stream=stream)
        attempt.sent_at = now
        if stream:
            self._streamed[health.upstream, message_id] = attempt
        question.attempts.append(attempt)
        tries = min(len(question.attempts), MAX_TRIES)
        wait_s = STREAM_WAIT_S if stream else health.wait_s() * _LONGER[tries - 1]
        attempt.due_at = now + wait_s
        self._wake(question, min(attempt.due_at, question.ask.deadline_at))
        return Send(attempt)

    def _close(self, attempt: Attempt) -> None:
        attempt.is_open = False
        if attempt.stream:
            self._streamed.pop((attempt.upstream, attempt.id), None)

    def _over_stream(self, attempt: Attempt, now: float) -> list[Step]:
        self._close(attempt)
        return [Cancel(attempt), self._try(attempt.open_question, attempt.health, now, stream=True)]

    def _heard(self, attempt: Attempt, wire: bytes, now: float) -> list[Step]:
        attempt.health.heard(now - attempt.sent_at, now)
        if upstream_wire.rcode(wire) not in _FAIL_OVER:
            return self._end(attempt.open_question, wire)
        attempt.open_question.refusal = wire
        return self._give_up(attempt, now)

    def _waited(self, attempt: Attempt, now: float) -> list[Step]:
        """Its wait is over. It stays open: a late answer is an answer."""
        if not attempt.is_open:
            return []
        attempt.health.missed(now)
        attempt.open_question.is_silent = True
        return [] if attempt.is_probe else self._next(attempt.open_question, now)

    def _give_up(self, attempt: Attempt, now: float) -> list[Step]:
        self._close(attempt)
        question = attempt.open_question
        question.unusable.append(attempt.upstream)
        steps: list[Step] = [Cancel(attempt)]
        if not attempt.is_probe:
            steps += self._next(question, now)
        if question.is_open and not any(one.is_open for one in question.attempts):
            steps += self._end(question, None)
        return steps

    def _next(self, question: OpenQuestion, now: float) -> list[Step]:
        usable = [health for health in question.candidates if health.upstream not in question.unusable]
        if not usable or len(question.attempts) >= MAX_TRIES:
            return []
        asked = [attempt.upstream for attempt in question.attempts]
        least_asked = min(usable, key=lambda health: asked.count(health.upstream))
        return [self._try(question, least_asked, now)]

    def _end(self, question: OpenQuestion, wire: bytes | None) -> list[Step]:
        del self._questions[question.ask.id]
        question.is_open = False
        steps: list[Step] = []
        attempts, question.attempts = question.attempts, []  # no cycle is left to the garbage collector
        for attempt in attempts:
            if attempt.is_open:
                self._close(attempt)
                steps.append(Cancel(attempt))
                question.is_silent = True
        wire = wire or question.refusal
        if wire is not None:
            steps.append(Answered(question.ask.id, upstream_wire.in_lower_case(wire, question.question)))
        else:
            steps.append(Failed(question.ask.id, UNREACHABLE if question.is_silent else NETWORK_ERROR))
        return steps
