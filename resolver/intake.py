"""How many questions are begun in one turn of the loop, and whose: the way from the sockets to the core.

Theory of operation: in the calm a question goes straight on. Once a turn has begun ``BEGUN_PER_TURN``,
the rest waits in queues, one for each pod, and is begun in the following turns, pod by pod; between two
of them the loop reads what upstreams and the enforcer say, so that what is under way is finished before
more is begun, and reads the sockets empty, so that not the kernel's buffer decides whose question is
lost. Who floods fills its own queue and loses its own questions; while that is long, the kernel drops
what it sends more (``muting``), for reading it would cost what serving needs. What is let go is let go in
silence: clients ask again after 2.5 s (musl) or 5 s (glibc), while REFUSED ends a glibc lookup as a
failure and leaves musl waiting all the same.

Owns that order. Decides nothing about a message. Invariant: with nothing waiting a question costs a
comparison, and no clock is read for it.
"""

from __future__ import annotations

from collections.abc import Callable

from policy.runtime.clock import MonotonicReactor
from resolver.effects import Client
from resolver.muting import Muting
from resolver.queues import Owner, Queues

BEGUN_PER_TURN = 64
"""As many as upstreams' answers that are read in a turn: what is begun does not outgrow what is finished."""
TURN_S = 0.01
"""Then the descriptors get their turn, whatever is left of that number."""
MAX_WAITING = 4096
MAX_WAIT_S = 1.0
"""An upstream that takes its time, too, still answers before musl asks again (2.5 s)."""
MAX_HELD = 256
"""Replies that wait for the enforcer, as many as it answers in a turn. With more of them under way only who
has nothing under way is served: it would be asked for what times out."""
_LOOK_AGAIN_S = 0.001
_CLOCK_EVERY = 8

Begin = Callable[[bytes, Client, float], None]
Mute = Callable[[frozenset[bytes]], None]
"""Drop, from now on, what comes from these source addresses, and nothing else."""


class Intake:
    """``received`` takes every question of any socket; ``begin`` gets them, in their turn.

    ``owner`` says whose a packed source address is: a pod's uid, or the address itself of who is none.
    ``held`` is how many replies wait for an enforcer that is there, ``is_idle`` whether nothing of an owner
    is under way.
    """

    def __init__(
        self,
        reactor: MonotonicReactor,
        begin: Begin,
        owner: Callable[[bytes], Owner],
        held: Callable[[], int],
        is_idle: Callable[[Owner], bool],
    ) -> None:
        self._reactor = reactor
        self._begin = begin
        self._owner = owner
        self._held = held
        self._is_idle = is_idle
        self.mute: Mute = _nobody
        self._queues = Queues(MAX_WAITING, MAX_WAIT_S)
        self._muting = Muting()
        self._room = BEGUN_PER_TURN
        reactor.turn_ends.append(self._turn_ended)

    def __len__(self) -> int:
        """Questions that wait."""
        return len(self._queues)

    def received(self, wire: bytes, client: Client, now: float) -> None:
        """Begin with a question, or let it wait."""
        if self._room > 0:
            self._room -= 1
            self._begin(wire, client, now)
        else:
            self._wait(wire, client, now)

    def take_shed(self) -> tuple[int, int]:
        """Return, and forget, how many questions were let go: too many waited, or they waited too long."""
        shed = self._queues.shed_full, self._queues.shed_late
        self._queues.shed_full = self._queues.shed_late = 0
        return shed

    def _wait(self, wire: bytes, client: Client, now: float) -> None:
        """Strangers share one queue: who can write any source address must not have as many turns."""
        owner = self._owner(client.source)
        if not self._queues:
            self._reactor.callLater(0, self._serve)
        self._queues.put(owner if isinstance(owner, str) else b"", (wire, client, now))

    def _turn_ended(self) -> None:
        if self._room != BEGUN_PER_TURN:
            self._room = 0 if self._queues or self._held() >= MAX_HELD else BEGUN_PER_TURN

    def _serve(self) -> None:
        """Begin with what waits, as far as this turn allows."""
        queues, begin, seconds = self._queues, self._begin, self._reactor.seconds
        now = seconds()
        until = now + TURN_S
        may = self._is_idle if self._held() >= MAX_HELD else None
        for number in range(BEGUN_PER_TURN):
            if number % _CLOCK_EVERY == _CLOCK_EVERY - 1:
                now = seconds()
                if now >= until:
                    break
            question = queues.take(now, may)
            if question is None:
                break
            begin(question[0], question[1], now)
        if self._muting.look(queues):
            self.mute(self._muting.sources)
        if queues:
            self._reactor.callLater(_LOOK_AGAIN_S if may else 0, self._serve)


def _nobody(_sources: frozenset[bytes]) -> None:
    """There is no socket yet."""
