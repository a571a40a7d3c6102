"""The clock: monotonic for time-outs, RFC 3339 for records."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

from policy.runtime.clock import MonotonicReactor, now, wall_now, wall_seconds


def test_now_is_monotonic_time():
    """``now`` reads the monotonic clock, between two readings of it."""
    before = time.monotonic()
    assert before <= now() <= time.monotonic()


def test_the_reactor_counts_by_the_same_clock():
    """A reactor's seconds() is monotonic time, so that a wall clock's jump moves no deadline."""
    reactor = MonotonicReactor()
    try:
        before = now()
        assert before <= reactor.seconds() <= now()
        call = reactor.callLater(5, lambda: None)
        assert before + 5 <= call.getTime() <= now() + 5
    finally:
        for reader in reactor.removeAll():
            reader.connectionLost(None)
        reactor._poller.close()


def test_a_turn_ends_after_its_timers_and_after_its_descriptors():
    """What a timer brings is not left lying while the loop sleeps, and nothing ends before it began."""
    reactor = MonotonicReactor()
    try:
        said = []
        reactor.turn_ends.append(lambda: said.append("end"))
        reactor.callLater(0, said.append, "timer")
        reactor.callFromThread(said.append, "call")
        reactor.iterate(0)
        assert said == ["call", "timer", "end", "end"]
    finally:
        for reader in reactor.removeAll():
            reader.connectionLost(None)
        reactor._poller.close()


class _Reader:
    """A descriptor that is ready, and says when it is read."""

    def __init__(self, name, said):
        self.name, self.said = name, said
        self.ours, self.theirs = socket.socketpair()
        self.theirs.send(b"x")

    def fileno(self):
        return self.ours.fileno()

    def logPrefix(self):
        return self.name

    def doRead(self):
        self.ours.recv(1)
        self.said.append(self.name)

    def connectionLost(self, _reason):
        self.ours.close()
        self.theirs.close()


def test_what_a_descriptor_brought_leaves_before_the_next_is_read():
    """Nobody's answer waits for another's read; what brings new work is read last, whenever it came."""
    reactor = MonotonicReactor()
    try:
        said = []
        reactor.leaving.append(lambda: said.append("left"))
        reactor.turn_ends.append(lambda: said.append("end"))
        for name in ("questions", "answers", "grants"):
            reader = _Reader(name, said)
            reactor.addReader(reader)
            if name == "questions":
                reactor.last.add(reader)
        reactor.iterate(0)
        assert said == ["left", "end", "answers", "left", "grants", "left", "questions", "left", "end"]
    finally:
        for reader in reactor.removeAll():
            reader.connectionLost(None)
        reactor._poller.close()


def test_wall_time_is_rfc_3339_in_utc():
    """Records carry RFC 3339 with milliseconds and Z; ``before_s`` goes back in time."""
    text = wall_now(before_s=3600)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    age_s = wall_seconds() - datetime.fromisoformat(text).astimezone(UTC).timestamp()
    assert 3599 < age_s < 3610


def test_install_reactor_makes_it_the_process_reactor():
    """After install_reactor, Twisted's global reactor is the monotonic one, and it runs."""
    code = (
        "from policy.runtime.clock import install_reactor\n"
        "ours = install_reactor()\n"
        "from twisted.internet import reactor\n"
        "assert reactor is ours\n"
        "ours.callLater(0.01, ours.stop); ours.run(); print('ran')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert ran.stdout == "ran\n"
