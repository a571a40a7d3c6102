"""Queries from clients: what is read of them, and what malformed ones get."""

from __future__ import annotations

import dns.edns
import dns.message
import pytest

from resolver.core import Client, Core, CoreSettings, Reply
from resolver.messages import FORMERR, NOERROR, parse_query
from tests.resolver.corpus import read_samples
from tests.scenarios.stage import Stage, check_reply
from tests.scenarios.worlds import read_world

SAMPLES = read_samples("queries.txt")
WORLD = ["pod t/a 10.0.0.2", "permit t/p/r *.example.com"]
CLIENT = Client(bytes((10, 0, 0, 2)), 4000, bytes((9, 9, 9, 9)), "udp", 0)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.title)
def test_corpus(sample):
    """Each message of the corpus gets the RCODE beside it, or silence, and a well-formed reply."""
    stage = Stage()
    stage.publish(read_world(WORLD, 1))
    effects = stage.core.query_received(sample.wire, CLIENT, 0.0)
    asked = [effect for effect in effects if not isinstance(effect, Reply) and hasattr(effect, "group")]
    if asked:
        assert sample.expected == ("NOERROR",)
        effects = stage.core.upstream_failed(asked[0].id, 22, 0.0)
    replies = [effect.wire for effect in effects if isinstance(effect, Reply)]
    if sample.expected == ("SILENCE",):
        assert not effects
        return
    message = check_reply(sample.wire, replies[0], "udp")
    if not asked:
        assert dns.rcode.to_text(message.rcode()) == sample.expected[0]


def test_flags_are_copied():
    """RD and CD are copied, DO too (RFC 3225); AD is never set."""
    query = dns.message.make_query("www.attacker.test", "A", want_dnssec=True, flags=dns.flags.RD)
    query.flags |= dns.flags.CD | dns.flags.AD
    stage = Stage()
    stage.publish(read_world(WORLD, 1))
    reply = dns.message.from_wire(stage.core.query_received(query.to_wire(), CLIENT, 0.0)[-1].wire)
    assert reply.flags & dns.flags.RD
    assert reply.flags & dns.flags.CD
    assert not reply.flags & dns.flags.AD
    assert reply.ednsflags & dns.flags.DO
    assert reply.payload == 1232


def test_no_cookie_is_echoed():
    """COOKIE is ignored, since there is no server cookie to give."""
    query = dns.message.make_query("www.attacker.test", "A", use_edns=0)
    query.use_edns(0, options=[dns.edns.CookieOption(b"abcdefgh", b"")])
    core = Core(CoreSettings())
    stage = Stage()
    stage.core = core
    stage.publish(read_world(WORLD, 1))
    reply = dns.message.from_wire(core.query_received(query.to_wire(), CLIENT, 0.0)[-1].wire)
    assert [option.otype for option in reply.options] == [dns.edns.OptionType.EDE]


def test_a_query_over_four_kibibytes_is_a_format_error():
    """4,096 octets of padding are read, one more is FORMERR with the client's id and nothing else."""
    question = b"\x01a\x00\x00\x01\x00\x01"
    wire = b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01" + question

    def padded(octets):
        padding = octets - len(wire) - 11 - 4
        return (
            wire
            + b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00"
            + (padding + 4).to_bytes(2, "big")
            + b"\x00\x0c"
            + padding.to_bytes(2, "big")
            + bytes(padding)
        )

    longest, longer = parse_query(padded(4096)), parse_query(padded(4097))
    assert (longest.rcode, longest.opt) == (NOERROR, True)
    assert (longer.rcode, longer.id, longer.question) == (FORMERR, b"\xab\xcd", b"")


def test_question_is_kept_and_name_lowered():
    """The question is kept as it came; its name is lower-cased for everything else."""
    wire = dns.message.make_query("WwW.Example.COM", "AAAA").to_wire()
    query = parse_query(wire)
    assert query.question == wire[12:]
    assert query.name == b"\x03www\x07example\x03com\x00"
    assert query.qtype == 28
