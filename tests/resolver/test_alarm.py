"""One timer for many deadlines."""

from __future__ import annotations

from twisted.internet.task import Clock

from resolver.alarm import Alarm


def test_it_rings_at_the_nearest_deadline_and_goes_on():
    """A nearer deadline re-arms it, a farther one does not; after ringing it looks again."""
    clock, due, rang = Clock(), [5.0], []

    def ring(now):
        rang.append(now)
        due[:] = [at for at in due if at > now]

    alarm = Alarm(clock, lambda: min(due, default=None), ring)
    alarm.arm()
    due.append(2.0)
    alarm.arm()
    due.append(9.0)
    alarm.arm()
    assert len(clock.getDelayedCalls()) == 1
    for _ in range(10):
        clock.advance(1)
    assert rang == [2.0, 5.0, 9.0]
    assert clock.getDelayedCalls() == []


def test_a_deadline_that_has_passed_rings_in_the_next_turn():
    """Never within ``arm`` itself: the caller is in the middle of something."""
    clock, rang = Clock(), []
    clock.advance(10)
    alarm = Alarm(clock, lambda: None if rang else 3.0, rang.append)
    alarm.arm()
    assert rang == []
    clock.advance(0)
    assert rang == [10.0]


def test_stopped_it_is_silent():
    """Nothing rings after stop(); arming again works."""
    clock, rang = Clock(), []
    alarm = Alarm(clock, lambda: None if rang else 1.0, rang.append)
    alarm.arm()
    alarm.stop()
    clock.advance(5)
    assert rang == []
    alarm.arm()
    clock.advance(0)
    assert rang == [5.0]
