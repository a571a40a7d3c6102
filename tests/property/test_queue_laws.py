"""Laws of the queues before a saturated resolver: bounds, fairness, no loss but the flooder's."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resolver.effects import Client
from resolver.queues import Queues

MOST = 24
WAIT_S = 0.5
CLIENT = Client(b"\x0a\x00\x00\x05", 4053, b"\x0a\x60\x00\x0a", "udp", 1)
OWNERS = st.sampled_from(["a", "b", "c", "d", b""])


class Waiting(RuleBasedStateMachine):
    """The queues beside a plain model of them: lists by owner, and whose turn it is."""

    def __init__(self):
        super().__init__()
        self.queues = Queues(MOST, WAIT_S)
        self.model = {}
        self.turns = []
        self.now = 0.0
        self.number = 0
        self.full = self.late = 0

    @rule(owner=OWNERS, many=st.integers(1, 12))
    def ask(self, owner, many):
        """A client asks: what gives way is the oldest of one of the longest queues."""
        for _ in range(many):
            before = {one: list(waiting) for one, waiting in self.model.items()}
            is_full = sum(map(len, before.values())) >= MOST
            self.number += 1
            question = (b"%d" % self.number, CLIENT, self.now)
            self.queues.put(owner, question)
            if is_full:
                gone = self._gave_way()
                assert len(before[gone]) == max(map(len, before.values()))
                self.full += 1
            if owner not in self.turns:
                self.turns.append(owner)
            self.model.setdefault(owner, []).append(question)

    def _gave_way(self):
        """Whose queue lost its oldest question, by the module's own count of it."""
        (gone,) = [
            one
            for one, kept in self.model.items()
            if kept and kept[0] not in self.queues._queues.get(one, ())
        ]
        self.model[gone].pop(0)
        if not self.model[gone]:
            del self.model[gone]
            self.turns.remove(gone)
        return gone

    @rule(many=st.integers(1, 12))
    def serve(self, many):
        """Each in turn has its oldest question served; what waited too long is let go."""
        for _ in range(many):
            expected = None
            while self.turns and expected is None:
                owner = self.turns.pop(0)
                kept = self.model[owner]
                while kept and expected is None:
                    question = kept.pop(0)
                    if self.now - question[2] <= WAIT_S:
                        expected = question
                    else:
                        self.late += 1
                if kept:
                    self.turns.append(owner)
                else:
                    del self.model[owner]
            assert self.queues.take(self.now) == expected

    @rule(seconds=st.floats(0.0, 0.4))
    def wait(self, seconds):
        """Time passes."""
        self.now += seconds

    @invariant()
    def counts(self):
        """The number that waits is bounded, and what was let go is counted."""
        assert len(self.queues) == sum(map(len, self.model.values())) <= MOST
        assert (self.queues.shed_full, self.queues.shed_late) == (self.full, self.late)


TestWaiting = Waiting.TestCase


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), min_size=1), st.integers(1, 200))
def test_while_they_wait_all_are_served_alike(waiting, served):
    """Of those whose queue does not run empty, nobody is served more than once more often than another."""
    queues = Queues(10_000, WAIT_S)
    for owner, many in waiting.items():
        for _ in range(many):
            queues.put(owner, (owner.encode(), CLIENT, 0.0))
    taken = Counter()
    for _ in range(served):
        question = queues.take(0.0)
        if question is not None:
            taken[question[0].decode()] += 1
    backlogged = [taken[owner] for owner, many in waiting.items() if taken[owner] < many]
    assert not backlogged or max(backlogged) - min(backlogged) <= 1
    assert all(taken[owner] >= min(backlogged, default=many) for owner, many in waiting.items() if many > 40)
    assert sum(taken.values()) == min(served, sum(waiting.values()))


@given(st.integers(MOST, 10 * MOST), st.lists(st.sampled_from("bcd"), max_size=MOST // 6))
def test_a_quiet_client_loses_nothing_beside_a_flood(flood, quiet):
    """Whatever one client asks, those who ask less than their share of the room are all served."""
    queues = Queues(MOST, WAIT_S)
    asked = iter(quiet)
    for number in range(flood):
        queues.put("a", (b"flood", CLIENT, 0.0))
        if number % 5 == 0 and (owner := next(asked, None)) is not None:
            queues.put(owner, (owner.encode(), CLIENT, 0.0))
    rest = list(asked)
    for owner in rest:
        queues.put(owner, (owner.encode(), CLIENT, 0.0))
    served = Counter()
    while (question := queues.take(0.0)) is not None:
        served[question[0]] += 1
    assert {owner: served[owner.encode()] for owner in quiet} == dict(Counter(quiet))
    assert queues.shed_full == flood + len(quiet) - sum(served.values())
