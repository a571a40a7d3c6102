"""The bytes of a reply: compression, truncation, extended errors."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rdatatype
import pytest

from resolver.messages import parse_query
from resolver.replies import Body, Ede, negative, write_error, write_reply

ADDRESSES = tuple(bytes((1, 2, number >> 8, number & 255)) for number in range(200))


def query(name="www.example.com", rtype="A", **options):
    return parse_query(dns.message.make_query(name, rtype, **options).to_wire())


def wire_name(text):
    return dns.name.from_text(text).to_wire()


def test_chains_are_compressed():
    """Owners and targets point to what was written before (RFC 1035, 4.1.4)."""
    chain = tuple(wire_name(name) for name in ("a.example.com", "b.example.net", "c.example.net"))
    written = write_reply(query(), 0, Body(chain, 1, ADDRESSES[:2], ttl=30), (), 512)
    message = dns.message.from_wire(written.wire)
    names = [rrset.name.to_text() for rrset in message.answer]
    assert names == ["www.example.com.", "a.example.com.", "b.example.net.", "c.example.net."]
    assert len(written.wire) == 12 + 21 + (12 + 4) + (12 + 15) + (12 + 4) + 2 * 16
    for offset in written.ttl_offsets:
        assert written.wire[offset : offset + 4] == b"\x00\x00\x00\x1e"
    assert len(written.ttl_offsets) == 5


@pytest.mark.parametrize("limit", [512, 600, 1232])
@pytest.mark.parametrize("edns", [-1, 0])
def test_truncation_keeps_whole_addresses(limit, edns):
    """A truncated reply has TC, the chain and as many whole addresses as fit."""
    body = Body((wire_name("cdn.example.net"),), 1, ADDRESSES, ttl=30)
    written = write_reply(query(use_edns=edns), 0, body, (), limit)
    message = dns.message.from_wire(written.wire)
    assert message.flags & dns.flags.TC
    assert limit - 16 < len(written.wire) <= limit
    assert len(message.answer[-1]) == written.kept


def test_other_types_are_truncated_whole():
    """Of a set that does not fit nothing is given: half a set of TXT is a wrong answer."""
    records = tuple(bytes((100,)) + bytes(100) for _ in range(20))
    message = dns.message.from_wire(
        write_reply(query(rtype="TXT"), 0, Body((), 16, records, ttl=1), (), 512).wire
    )
    assert message.flags & dns.flags.TC
    assert not message.answer


def test_a_chain_that_does_not_fit():
    """A chain longer than the message leaves the question alone."""
    chain = tuple(wire_name(f"{letter * 60}.{letter * 50}.test") for letter in "abcdef")
    written = write_reply(query(), 0, Body(chain, 1, ADDRESSES[:1], ttl=1), (), 512)
    message = dns.message.from_wire(written.wire)
    assert message.flags & dns.flags.TC
    assert not message.answer
    assert written.kept == 0


def test_a_soa_that_does_not_fit():
    """A negative answer whose SOA does not fit keeps its chain and says TC."""
    chain = tuple(wire_name(f"{letter * 60}.test") for letter in "abcdef")
    soa = (wire_name("test"), wire_name("x" * 60 + ".test") + wire_name("y" * 60 + ".test") + bytes(20))
    message = dns.message.from_wire(write_reply(query(), 3, Body(chain, soa=soa, ttl=1), (), 512).wire)
    assert message.flags & dns.flags.TC
    assert len(message.answer) == 6
    assert not message.authority


def test_beyond_the_reach_of_pointers():
    """In a message of 64 kB a name past 16,383 octets is written whole."""
    chain = tuple(wire_name(".".join([f"{number:060d}"] * 4)) for number in range(80))
    written = write_reply(query(), 0, Body(chain, 1, ADDRESSES[:100], ttl=1), (), 65535)
    message = dns.message.from_wire(written.wire)
    assert len(written.wire) > 0x4000
    assert len(message.answer[-1]) == 100


@pytest.mark.parametrize("length", [1, 40, 57, 60, 61])
def test_the_longest_names_and_reasons_fit(length):
    """Question, SOA, OPT and reason fit 512 octets, for the longest names too: the reason goes first."""
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * length])
    reasons = (Ede(3, "x" * 500), Ede(15, "y" * 500))
    asked = query(name, use_edns=0)
    message = dns.message.from_wire(write_reply(asked, 3, negative(asked.name), reasons, 512).wire)
    assert not message.flags & dns.flags.TC
    assert len(message.authority) == 1


def test_reasons_are_harmless():
    """Text of an EDE is ASCII and bounded, whatever a rule is called."""
    message = dns.message.from_wire(write_error(query(use_edns=0), 5, Ede(15, "règle\x1b" + "x" * 1000)))
    (option,) = message.options
    assert option.code == 15
    assert option.text.startswith("r\\xe8gle")
    assert len(option.text) <= 120


def test_no_opt_unasked():
    """RFC 6891, 6.1.1: no OPT in the reply to a query without one."""
    message = dns.message.from_wire(write_error(query(use_edns=-1), 2, Ede(14)))
    assert message.edns == -1
