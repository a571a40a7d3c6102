"""A turn's share of new questions, on a real reactor: straight on, in turn, behind what is held, muted."""

from __future__ import annotations

from collections import Counter

import pytest

from resolver import intake
from resolver.effects import Client
from resolver.intake import BEGUN_PER_TURN, MAX_HELD, MAX_WAITING, Intake

QUIET, LOUD = b"\x0a\xf4\x00\x05", b"\x0a\xf4\x00\x06"
STRANGERS = (b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02")


class Core:
    """Counts what is begun; ``held`` is how many replies wait for the enforcer."""

    def __init__(self, reactor):
        self.begun = []
        self.held = 0
        self.busy = set()
        self.intake = Intake(
            reactor, self.begin, self.owner, lambda: self.held, lambda owner: owner not in self.busy
        )
        self.muted = []
        self.intake.mute = self.muted.append
        self.seconds = reactor.seconds

    def begin(self, wire, client, now):
        self.begun.append((client.source, wire, now))

    def owner(self, source):
        return source if source in STRANGERS else f"pod-{source[3]}"

    def ask(self, source, many=1):
        for number in range(many):
            client = Client(source, 4053, b"\x0a\x60\x00\x0a", "udp", 1)
            self.intake.received(b"%d" % number, client, self.seconds())

    @property
    def count(self):
        return Counter(source for source, _, _ in self.begun)


@pytest.fixture
def core(reactor):
    """An intake with a core that counts."""
    return Core(reactor)


def test_in_the_calm_a_question_goes_straight_on(reactor, core):
    """What fits into a turn is begun when it comes: nothing waits, nothing is scheduled."""
    for _ in range(5):
        core.ask(QUIET, BEGUN_PER_TURN)
        assert len(core.intake) == 0
        assert reactor.getDelayedCalls() == []
        reactor.iterate(0)
    assert len(core.begun) == 5 * BEGUN_PER_TURN


def test_the_rest_of_a_burst_is_begun_in_the_next_turns(reactor, core):
    """A burst of a few turns' size loses nothing, is begun in its order, each turn its part."""
    core.ask(QUIET, 3 * BEGUN_PER_TURN)
    assert len(core.begun) == BEGUN_PER_TURN
    seen = []
    while len(core.intake):
        before = len(core.begun)
        reactor.iterate(0)
        seen.append(len(core.begun) - before)
    assert max(seen) <= BEGUN_PER_TURN
    assert [wire for _, wire, _ in core.begun] == [b"%d" % number for number in range(3 * BEGUN_PER_TURN)]
    assert core.intake.take_shed() == (0, 0)
    reactor.iterate(0)
    core.ask(QUIET)
    assert len(core.begun) == 3 * BEGUN_PER_TURN + 1  # calm again


def test_a_flood_loses_its_own_and_a_quiet_pod_nothing(reactor, core):
    """Twice the room and more of one pod, beside a pod that asks a little: the latter is served at once."""
    core.ask(LOUD, 2 * MAX_WAITING)
    core.ask(QUIET, 20)
    core.ask(LOUD, 100)
    assert len(core.intake) == MAX_WAITING
    reactor.spin(lambda: core.count[QUIET] == 20)
    assert core.count[LOUD] <= BEGUN_PER_TURN + 2 * 20 + BEGUN_PER_TURN
    full, late = core.intake.take_shed()
    assert (full, late) == (2 * MAX_WAITING + 120 - BEGUN_PER_TURN - MAX_WAITING, 0)
    assert core.intake.take_shed() == (0, 0)


def test_strangers_have_one_queue_together(reactor, core):
    """Whoever writes any source address has one turn beside a pod's, not one for each address."""
    core.ask(LOUD, BEGUN_PER_TURN)
    for _ in range(100):
        for stranger in STRANGERS:
            core.ask(stranger)
    core.ask(QUIET, 30)
    reactor.spin(lambda: core.count[QUIET] == 30)
    assert sum(core.count[stranger] for stranger in STRANGERS) <= 30 + BEGUN_PER_TURN


def test_nothing_is_begun_while_too_much_waits_for_the_enforcer(reactor, core):
    """More than it can grant in time is not asked of it, but for who has nothing under way; when that is less
    again, what waits is begun."""
    core.ask(LOUD)
    core.held = MAX_HELD
    core.busy.add("pod-6")
    reactor.iterate(0)
    core.ask(LOUD, 10)
    core.ask(QUIET)
    reactor.spin_for(0.05)
    assert core.count == {LOUD: 1, QUIET: 1}
    core.held = MAX_HELD - 1
    reactor.spin(lambda: len(core.begun) == 12)
    assert core.intake.take_shed() == (0, 0)


def test_what_waited_longer_than_its_asker_does_is_not_begun(reactor, core):
    """The asker asks again, and that one is served."""
    core.ask(QUIET)
    core.held = MAX_HELD
    core.busy.add("pod-5")
    reactor.iterate(0)
    core.ask(QUIET, 10)
    reactor.spin_for(intake.MAX_WAIT_S + 0.1)
    core.held = 0
    reactor.spin(lambda: len(core.intake) == 0)
    assert core.intake.take_shed() == (0, 10)
    assert len(core.begun) == 1


def test_who_floods_is_muted_until_its_queue_is_short(reactor, core):
    """The kernel is told whom to drop, and told again before nothing of that pod is left to be served."""
    core.ask(LOUD, 2000)
    core.ask(QUIET, 10)
    for stranger in STRANGERS:
        core.ask(stranger, 1500)
    reactor.spin(lambda: core.muted)
    assert core.muted == [frozenset({LOUD})]
    reactor.spin(lambda: len(core.muted) == 2)
    assert core.muted[1] == frozenset()
    assert core.intake._queues.length("pod-6") > 0


def test_all_addresses_of_a_flooding_pod_are_muted(reactor, core):
    """A pod has an address of each family."""
    other = bytes(15) + LOUD[3:]
    core.owner = lambda source: f"pod-{source[-1]}"
    core.intake._owner = core.owner
    core.ask(LOUD, 600)
    core.ask(other, 600)
    reactor.spin(lambda: core.muted)
    assert core.muted[0] == frozenset({LOUD, other})


def test_a_crowd_is_muted_at_shorter_queues(reactor, core):
    """The more pods wait, the less each may have waiting before reading it costs too much."""
    core.ask(QUIET, BEGUN_PER_TURN)
    pods = [bytes((10, 244, 1, number)) for number in range(100)]
    core.owner = lambda source: source.hex()
    core.intake._owner = core.owner
    for pod in pods:
        core.ask(pod, 22)
    core.ask(QUIET, 15)
    reactor.spin(lambda: core.muted)
    assert core.muted[0] == frozenset(pods)
