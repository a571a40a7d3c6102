"""What counts losses sees them: the load, the slow wire, before anything is concluded from a zero."""

from __future__ import annotations

import socket
import time

import pytest

from enforcer.demo import places
from enforcer.demo.delay import Delay
from enforcer.demo.flood import Counts, Flood, Plan
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Stage

pytestmark = pytest.mark.kernel

NAMES = places.BULK_NAMES[:20]


def flooded(stage: Stage, server: str, lookups: int = 100, port: int = places.SINK_PORT) -> Counts:
    """The counts of so many lookups, or a few more."""
    flood = Flood(stage.bulk.space, Plan(server, NAMES, rate=1000, port=port))
    try:
        assert wait_until(lambda: flood.counts().asked >= lookups, LONG_S)
    finally:
        counts = flood.stop()
    return counts


def test_what_is_answered_is_reached(open_stage: Stage) -> None:
    """Where nothing is in the way every lookup is answered and every address reached, over both families."""
    counts = flooded(open_stage, places.UPSTREAM4)
    assert counts.answered == counts.reached == counts.asked >= 100
    assert counts.lost == counts.unreached == 0
    assert 0 < counts.p50_ms <= counts.p99_ms <= counts.max_ms


def test_lookups_that_nobody_answers_are_lost(open_stage: Stage) -> None:
    """A server that is not there: each is repeated four times, then lost."""
    counts = flooded(open_stage, places.SITE_OF[places.CRM][0], lookups=20)
    assert counts.lost == counts.asked
    assert counts.repeated == 4 * counts.asked
    assert counts.failures == {"TIMEOUT": counts.lost}


def test_addresses_that_refuse_are_not_reached(open_stage: Stage) -> None:
    """A port on which nobody listens: answered, but not reached."""
    counts = flooded(open_stage, places.UPSTREAM4, port=9)
    assert counts.unreached == counts.answered == counts.asked
    assert counts.reached == 0


def test_a_slow_wire_takes_its_time_and_loses_nothing(open_stage: Stage) -> None:
    """200 ms each way, in order, until it is fast again."""
    world = open_stage.lab.world.space
    there = (places.SITE_OF[places.CRM][0], 443)
    wire = Delay(world, (places.WORLD4, 6380), there)
    wire.start()
    try:
        for wire.each_way_s in (0.2, 0.0):
            with world.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
                opened.settimeout(LONG_S)
                opened.connect((places.WORLD4, 6380))
                asked_at = time.monotonic()
                opened.sendall(b"GET / HTTP/1.0\r\n\r\n")
                with opened.makefile("rb") as stream:
                    assert b"port 443 answers" in stream.read()
                assert time.monotonic() - asked_at >= 2 * wire.each_way_s
    finally:
        wire.stop()
