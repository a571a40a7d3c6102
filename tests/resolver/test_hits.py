"""Prepared replies: the id, the case, the TTL, the rate, the counts, and when they end."""

from __future__ import annotations

from itertools import pairwise

import dns.message
import dns.rrset

from policy.authority import LookupRecord
from resolver.effects import Client
from resolver.hits import (
    ALWAYS,
    MAX_COUNTED,
    MAX_MADE_PER_SOURCE,
    MAX_PREPARED,
    MAX_QUERY_BYTES,
    MAX_REPLY_BYTES,
    MAX_RESOLVED_PER_SOURCE,
    STREAM,
    UNIT_BYTES,
    Hit,
    Hits,
)
from resolver.limits import Meter
from resolver.messages import parse_query
from resolver.replies import Body, write_reply

SOURCE = bytes((10, 0, 0, 2))
CLIENT = Client(SOURCE, 4000, bytes((9, 9, 9, 9)), "udp", 1)
RECORD = LookupRecord("blocked", "t", "a", "10.0.0.2", "www.example.com", "A", "", "", "no rule", 1, 0.0)
QUERY = dns.message.make_query("www.example.com", "A", id=1).to_wire()


def prepared(until=1000.0, expires_at=1000.0, left=100):
    """A table with one reply of two addresses behind a chain."""
    hits = Hits(60)
    meter = Meter()
    meter.left, meter.window_end = left, 1e9
    body = Body((b"\x03cdn\x00",), 1, (b"\x01\x01\x01\x01", b"\x02\x02\x02\x02"), ttl=60)
    written = write_reply(parse_query(QUERY), 0, body, (), 512)
    tally = [0]
    hit = Hit(written.wire, written.ttl_offsets, until, expires_at, tally)
    hits.prepare_resolved(QUERY, CLIENT, meter, hit)
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


def test_only_the_same_message_hits():
    """Another source, another bit, another option, TCP: the long way."""
    hits, _, _ = prepared()
    assert hits.hit(QUERY, bytes((10, 0, 0, 3)), 0.0) is None
    assert hits.hit(QUERY, SOURCE + STREAM, 0.0) is None
    assert hits.hit(QUERY + b"\x00", SOURCE, 0.0) is None
    for number in range(2, len(QUERY)):
        is_letter = chr(QUERY[number]).isalpha() and 12 <= number < len(QUERY) - 4
        for bit in range(8):
            if not (is_letter and bit == 5):
                other = QUERY[:number] + bytes((QUERY[number] ^ 1 << bit,)) + QUERY[number + 1 :]
                assert hits.hit(other, SOURCE, 0.0) is None, (number, bit)
    for size in range(len(QUERY)):
        assert hits.hit(QUERY[:size], SOURCE, 0.0) is None, size


def test_the_case_is_the_askers():
    """Who mixes the letters of a name (0x20) hits as others do, and is given its own letters back."""
    hits, _, tally = prepared()
    mixed = QUERY.replace(b"www", b"wWw").replace(b"com", b"COm")
    plain, other = hits.hit(QUERY, SOURCE, 0.0), hits.hit(mixed, SOURCE, 50.0)
    end = len(QUERY)
    assert other[:end] == mixed[:2] + plain[2:12] + mixed[12:]
    assert dns.message.from_wire(other).answer[0].name.to_text() == "wWw.example.COm."
    assert hits.hit(QUERY, SOURCE, 50.0)[end:] == other[end:]
    assert tally == [3]


def test_a_type_is_no_letter():
    """The type 65 (HTTPS) differs from 97 by the bit of the case only, as the header's octets may."""
    hits = Hits(60)
    meter = Meter()
    meter.left, meter.window_end = 10, 1e9
    https = dns.message.make_query("www.example.com", "TYPE65", id=1).to_wire()
    hits.prepare_made(https, CLIENT, meter, Hit(https, (), ALWAYS, ALWAYS, [0]))
    upper = https.replace(b"www", b"WWW")
    assert hits.hit(upper, SOURCE, 0.0) == upper
    other = dns.message.make_query("www.example.com", "TYPE97", id=1).to_wire()
    assert hits.hit(other, SOURCE, 0.0) is None
    assert hits.hit(other.replace(b"www", b"WWW"), SOURCE, 0.0) is None


def test_the_rate_counts_hits():
    """A pod's hits are queries of its second; the long way says no more."""
    hits, meter, tally = prepared(left=2)
    assert [hits.hit(QUERY, SOURCE, 0.0) is not None for _ in range(3)] == [True, True, False]
    assert meter.left == 0
    assert tally == [2]
    meter.left, meter.window_end = 5, 1.0
    assert hits.hit(QUERY, SOURCE, 1.0) is None


def numbered(number):
    """A question of its own."""
    return QUERY + number.to_bytes(4, "big")


def test_a_flood_puts_out_its_own_kind():
    """Names that are not permitted leave the permitted ones' replies where they are, and the reverse."""
    hits, meter, _ = prepared(left=1 << 40)
    for number in range(MAX_MADE_PER_SOURCE * 3):
        hits.prepare_made(numbered(number), CLIENT, meter, Hit(QUERY, (), ALWAYS, ALWAYS, [0]))
    assert len(hits) == MAX_MADE_PER_SOURCE + 1
    assert hits.hit(QUERY, SOURCE, 0.0) is not None
    last = MAX_MADE_PER_SOURCE * 3 - 1
    assert hits.hit(numbered(last), SOURCE, 0.0) is not None
    assert hits.hit(numbered(last - MAX_MADE_PER_SOURCE), SOURCE, 0.0) is None
    for number in range(last + 1, last + 1 + MAX_RESOLVED_PER_SOURCE * 2):
        hits.prepare_resolved(numbered(number), CLIENT, meter, Hit(QUERY, (), 1000.0, 1000.0, [0]))
    assert len(hits) == MAX_MADE_PER_SOURCE + MAX_RESOLVED_PER_SOURCE
    assert hits.hit(numbered(last), SOURCE, 0.0) is not None
    assert hits.hit(QUERY, SOURCE, 0.0) is None


def test_prepared_anew_it_is_no_other_entry():
    """What ended and is prepared again takes one place."""
    hits, meter, _ = prepared()
    for until in range(1, 3 * MAX_RESOLVED_PER_SOURCE):
        hits.prepare_resolved(QUERY, CLIENT, meter, Hit(QUERY, (), float(until), 1e9, [0]))
    assert len(hits) == 1
    assert hits.hit(QUERY, SOURCE, 3.0 * MAX_RESOLVED_PER_SOURCE - 2) is not None


def test_all_sources_together_are_bounded():
    """The source with the most begins anew; the others keep theirs."""
    hits, meter, _ = prepared()
    hit = Hit(QUERY, (), ALWAYS, ALWAYS, [0])
    sources = MAX_PREPARED // MAX_RESOLVED_PER_SOURCE + 2
    for number in range(sources):
        flooding = Client(b"\x0b\x00" + number.to_bytes(2, "big"), 4000, CLIENT.aimed, "udp", 1)
        for each in range(MAX_RESOLVED_PER_SOURCE):
            hits.prepare_resolved(numbered(each), flooding, meter, hit)
        assert len(hits) <= MAX_PREPARED
    assert len(hits) > MAX_PREPARED - 2 * MAX_RESOLVED_PER_SOURCE
    assert hits.hit(QUERY, SOURCE, 0.0) is not None


def test_room_is_made_for_many_at_once():
    """Where each of very many sources has little, one that is dropped makes no room worth the search."""
    hits, meter = Hits(60), Meter()
    hit = Hit(QUERY, (), ALWAYS, ALWAYS, [0])
    sizes = []
    for number in range(MAX_PREPARED // 4 + 100):
        few = Client(b"\x0b" + number.to_bytes(3, "big"), 4000, CLIENT.aimed, "udp", 1)
        for each in range(4):
            hits.prepare_resolved(numbered(each), few, meter, hit)
        sizes.append(len(hits))
    assert max(sizes) <= MAX_PREPARED
    assert sum(after < before for before, after in pairwise(sizes)) == 1


def test_long_replies_count_as_several():
    """However long they are, all of them hold a bounded number of octets; what is replaced counts no more."""
    hits, meter = Hits(60), Meter()
    meter.left, meter.window_end = 1 << 40, 1e9
    long = Hit(QUERY.ljust(MAX_REPLY_BYTES, b"\x00"), (), ALWAYS, ALWAYS, [0])
    short = Hit(QUERY, (), ALWAYS, ALWAYS, [0])
    streams = [Client(b"\x0b\x00\x00" + bytes((n,)), 4000, CLIENT.aimed, "tcp", 1) for n in range(10)]
    for stream in streams:
        for each in range(MAX_RESOLVED_PER_SOURCE):
            hits.prepare_resolved(numbered(each), stream, meter, long)
        assert len(hits) <= MAX_PREPARED
    found = [
        hits.hit(numbered(each), stream.source + STREAM, 0.0) is not None
        for stream in streams
        for each in range(MAX_RESOLVED_PER_SOURCE)
    ]
    assert found.count(True) * MAX_REPLY_BYTES <= MAX_PREPARED * UNIT_BYTES
    for stream in streams:
        for each in range(2 * MAX_RESOLVED_PER_SOURCE):
            hits.prepare_resolved(numbered(each), stream, meter, short)
    assert len(hits) == len(streams) * MAX_RESOLVED_PER_SOURCE


def test_what_is_long_is_not_kept():
    """Padded queries and whole streams of records take the long way."""
    hits, meter, _ = prepared()
    padded = QUERY.ljust(MAX_QUERY_BYTES + 1, b"\x00")
    hits.prepare_made(padded, CLIENT, meter, Hit(QUERY, (), ALWAYS, ALWAYS, [0]))
    long = Hit(QUERY.ljust(MAX_REPLY_BYTES + 3, b"\x00"), (), ALWAYS, ALWAYS, [0])
    hits.prepare_resolved(numbered(1), CLIENT, meter, long)
    assert len(hits) == 1


def test_the_transports_are_apart():
    """A truncated reply over UDP is not given over TCP."""
    hits, meter, _ = prepared()
    stream = Client(SOURCE, 4000, CLIENT.aimed, "tcp", 1)
    hits.prepare_resolved(QUERY, stream, meter, Hit(QUERY + b"tcp", (), ALWAYS, ALWAYS, [0]))
    assert hits.hit(QUERY, SOURCE + STREAM, 0.0) == QUERY + b"tcp"
    assert hits.hit(QUERY, SOURCE, 0.0) != QUERY + b"tcp"


def recorded():
    """A table with one reply whose lookups are recorded."""
    hits, meter = Hits(60), Meter()
    meter.left, meter.window_end = 1 << 40, 1e9
    hits.prepare_made(QUERY, CLIENT, meter, Hit(QUERY, (), ALWAYS, ALWAYS, [0], records=(RECORD,)))
    return hits, meter


def test_each_recorded_lookup_is_counted_once():
    """The record says how often and when last; what was taken is not told again."""
    hits, _ = recorded()
    for now in (1.0, 2.0, 5.0):
        assert hits.hit(QUERY, SOURCE, now) == QUERY
    ((record, seen_at),) = hits.take_counted()
    assert (record.name, record.count, seen_at) == (RECORD.name, 3, 5.0)
    assert hits.take_counted() == []
    hits.hit(QUERY, SOURCE, 6.0)
    assert [(record.count, seen_at) for record, seen_at in hits.take_counted()] == [(1, 6.0)]


def test_no_count_is_lost_with_its_reply():
    """Cleared by another snapshot, put out by others, prepared anew: what was counted is told."""
    hits, meter = recorded()
    hits.hit(QUERY, SOURCE, 1.0)
    hits.clear()
    hits.prepare_made(QUERY, CLIENT, meter, Hit(QUERY, (), ALWAYS, ALWAYS, [0], records=(RECORD,)))
    hits.hit(QUERY, SOURCE, 2.0)
    for number in range(MAX_MADE_PER_SOURCE):
        hits.prepare_made(
            numbered(number), CLIENT, meter, Hit(QUERY, (), ALWAYS, ALWAYS, [0], records=(RECORD,))
        )
    assert hits.hit(QUERY, SOURCE, 3.0) is None
    assert [seen_at for _, seen_at in hits.take_counted()] == [1.0, 2.0]


def test_what_is_counted_is_bounded():
    """While nobody takes the counts, further names take the long way, which records them itself."""
    hits, meter = recorded()
    for number in range(MAX_COUNTED + 5):
        hits.prepare_made(
            numbered(number), CLIENT, meter, Hit(QUERY, (), ALWAYS, ALWAYS, [0], records=(RECORD,))
        )
        assert (hits.hit(numbered(number), SOURCE, 0.0) is None) == (number >= MAX_COUNTED)
    assert meter.left == (1 << 40) - MAX_COUNTED
    assert len(hits.take_counted()) == MAX_COUNTED
    assert hits.hit(numbered(MAX_COUNTED + 4), SOURCE, 0.0) is not None


def test_cleared():
    """A new snapshot leaves nothing."""
    hits, _, _ = prepared()
    hits.clear()
    assert len(hits) == 0
    assert hits.hit(QUERY, SOURCE, 0.0) is None
