"""The clock: monotonic for time-outs, RFC 3339 for records."""

from __future__ import annotations

import re
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
