"""Prepared replies: the id, the TTL, the rate, and when they end."""

from __future__ import annotations

import dns.message
import dns.rrset

from resolver.hits import MAX_PER_SOURCE, Hit, Hits
from resolver.limits import Meter
from resolver.messages import parse_query
from resolver.replies import Body, write_reply

SOURCE = bytes((10, 0, 0, 2))
QUERY = dns.message.make_query("www.example.com", "A", id=1).to_wire()


def prepared(until=1000.0, expires_at=1000.0, left=100):
    """A table with one reply of two addresses behind a chain."""
    hits = Hits(60)
    meter = Meter()
    meter.left, meter.window_end = left, 1e9
    body = Body((b"\x03cdn\x00",), 1, (b"\x01\x01\x01\x01", b"\x02\x02\x02\x02"), ttl=60)
    written = write_reply(parse_query(QUERY), 0, body, (), 512)
    tally = [0]
    hits.add(QUERY, SOURCE, meter, Hit(written.wire, written.ttl_offsets, until, expires_at, tally))
    return hits, meter, tally


def test_the_id_is_the_askers():
    """The reply to the same message under another id carries that id."""
    hits, _, tally = prepared()
    wire = hits.hit(b"\xab\xcd" + QUERY[2:], SOURCE, 0.0)
    reply = dns.message.from_wire(wire)
    assert reply.id == 0xABCD
    assert {rrset.ttl for rrset in reply.answer} == {60}
    assert tally == [1]


def test_ttl_is_honest():
    """All TTLs go down with the entry's life, and never under 1."""
    hits, _, _ = prepared(until=1000.0, expires_at=1000.0)
    for now, ttl_s in (
        (0.0, 60),
        (939.9, 60),
        (940.1, 59),
        (940.2, 59),
        (941.0, 59),
        (941.1, 58),
        (998.5, 1),
    ):
        reply = dns.message.from_wire(hits.hit(QUERY, SOURCE, now))
        assert [rrset.ttl for rrset in reply.answer] == [ttl_s, ttl_s], now
    assert hits.hit(QUERY, SOURCE, 1000.0) is None


def test_only_the_very_same_message_hits():
    """Another source, another case, another bit: the long way."""
    hits, _, _ = prepared()
    assert hits.hit(QUERY, bytes((10, 0, 0, 3)), 0.0) is None
    assert hits.hit(QUERY.replace(b"www", b"wWw"), SOURCE, 0.0) is None
    assert hits.hit(QUERY + b"\x00", SOURCE, 0.0) is None
    assert hits.hit(b"", SOURCE, 0.0) is None


def test_the_rate_counts_hits():
    """A pod's hits are queries of its second; the long way says no more."""
    hits, meter, tally = prepared(left=2)
    assert [hits.hit(QUERY, SOURCE, 0.0) is not None for _ in range(3)] == [True, True, False]
    assert meter.left == 0
    assert tally == [2]
    meter.left, meter.window_end = 5, 1.0
    assert hits.hit(QUERY, SOURCE, 1.0) is None


def test_bounded_per_source():
    """A client that mixes the case of its questions fills its own table only, and that to a limit."""
    hits, meter, _ = prepared()
    for number in range(MAX_PER_SOURCE + 10):
        wire = QUERY + number.to_bytes(4, "big")
        hits.add(wire, SOURCE, meter, Hit(QUERY, (), 1000.0, 1000.0, [0]))
    assert hits.hit(QUERY, SOURCE, 0.0) is None
    assert hits.hit(QUERY + (MAX_PER_SOURCE + 9).to_bytes(4, "big"), SOURCE, 0.0) is not None


def test_cleared():
    """A new snapshot leaves nothing."""
    hits, _, _ = prepared()
    hits.clear()
    assert hits.hit(QUERY, SOURCE, 0.0) is None
