"""Any bytes from a client: a reply or silence. Any bytes from an upstream: effects. Never an exception."""

from __future__ import annotations

import random

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.authority import GrantAnswered
from resolver.core import AskGrants, AskUpstream, Client, Reply
from tests.resolver.corpus import read_samples
from tests.scenarios.stage import Stage, check_reply
from tests.scenarios.worlds import read_world

WORLD = [
    "cluster 10.0.0.0/8 fd00::/8",
    "pod t/a 10.0.0.2 fd00::2",
    "pod sys/x 10.0.0.9 ungoverned",
    "permit t/p/r *.example.com,www.example.org tcp/443",
    "permit t/p/s 93.184.0.0/16",
]
GOVERNED, PLAIN = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 9))
QUERIES = [sample.wire for sample in read_samples("queries.txt")]
ANSWERS = [sample.wire for sample in read_samples("answers.txt")]
RDATAS = {
    "A": ("1.1.1.1", "10.0.0.1"),
    "AAAA": ("2606:4700::1", "::ffff:10.0.0.1"),
    "CNAME": ("cdn.example.net.",),
    "HTTPS": ("1 . alpn=h2 ipv4hint=1.1.1.1", "2 www.example.org. port=443"),
    "SVCB": ("1 www.example.org. mandatory=port port=8443",),
    "SRV": ("0 0 443 db.example.com.",),
    "MX": ("10 mail.example.com.",),
    "TXT": ('"some" "text"',),
    "NS": ("ns.example.com.",),
    "SOA": ("ns.example.com. root.example.com. 1 2 3 4 5",),
    "CAA": ('0 issue "ca.example"',),
    "NAPTR": ('1 1 "u" "E2U+sip" "!^.*$!sip:x@example.com!" .',),
}


def begin():
    """A core that knows a governed and an ungoverned pod."""
    stage = Stage()
    stage.settings = stage.settings.__class__(queries_per_second=1_000_000, distinct_names=1_000_000)
    stage.core = stage.core.__class__(stage.settings)
    stage.publish(read_world(WORLD, 1))
    return stage


def converse(stage, wire, source, transport="udp", answer=None):
    """Put a message in, answer what it asks for, hold every reply to the laws."""
    client = Client(source, 4000, bytes((9, 9, 9, 9)), transport, 1)
    pending = list(stage.core.query_received(wire, client, stage.now))
    replies = 0
    while pending:
        effect = pending.pop(0)
        if isinstance(effect, Reply):
            replies += 1
            check_reply(wire, effect.wire, transport)
            stage.check_open(client, effect.wire)
        elif isinstance(effect, AskUpstream):
            if answer is None:
                pending += stage.core.upstream_failed(effect.id, 23, stage.now)
            else:
                pending += stage.core.upstream_answered(effect.id, answer, stage.now)
        elif isinstance(effect, AskGrants):
            request = effect.request
            for address in request.addresses:
                stage.open[(request.source, address)] = stage.now + request.ttl_s + 60
            outcomes = ("realized",) * len(request.addresses)
            told = GrantAnswered(request.id, 1, outcomes, request.ttl_s + 60.0)
            pending += stage.core.grants_answered(told, stage.now)
    assert replies <= 1
    assert stage.core.in_flight == 0
    stage.now += 10.0
    return replies


def mutated(rng, wire):
    """The message with a few octets changed, cut, doubled or mixed with noise."""
    octets = bytearray(wire)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randint(0, 4)
        at = rng.randrange(len(octets) + 1)
        if kind == 0 and octets:
            octets[at % len(octets)] = rng.choice(
                (0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF, rng.randrange(256))
            )
        elif kind == 1 and octets:
            octets[at % len(octets)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del octets[at : at + rng.randint(1, 12)]
        elif kind == 3:
            octets[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 12)))
        else:
            octets[at:at] = octets[rng.randrange(len(octets) + 1) :][: rng.randint(1, 40)]
    return bytes(octets)


def answer_of(rtype, chain):
    """A proper answer of each kind, to be broken."""
    response = dns.message.make_response(dns.message.make_query("www.example.com", rtype))
    owner = "www.example.com."
    if chain:
        response.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", "cdn.example.net."))
        owner = "cdn.example.net."
    response.answer.append(dns.rrset.from_text(owner, 60, "IN", rtype, *RDATAS[rtype]))
    response.authority.append(dns.rrset.from_text("example.com.", 60, "IN", "SOA", *RDATAS["SOA"]))
    return response.to_wire()


@settings(max_examples=300, deadline=None)
@given(wire=st.binary(max_size=600), tcp=st.booleans())
def test_any_bytes_of_a_client(wire, tcp):
    """Noise gets a reply that parses and echoes the question, or silence."""
    converse(begin(), wire, GOVERNED, "tcp" if tcp else "udp")


@settings(max_examples=200, deadline=None)
@given(wire=st.binary(max_size=600), rtype=st.sampled_from(sorted(RDATAS)))
def test_any_bytes_of_an_upstream(wire, rtype):
    """Noise from an upstream becomes a reply, for a governed pod and for a plain one."""
    query = dns.message.make_query("www.example.com", rtype, use_edns=0).to_wire()
    for source in GOVERNED, PLAIN:
        assert converse(begin(), query, source, answer=wire) == 1


@pytest.mark.parametrize("seed", range(2))
def test_mutated_queries(seed):
    """Queries of the corpus, broken in thousands of ways."""
    rng = random.Random(seed)
    stage = begin()
    for _ in range(600):
        wire = mutated(rng, rng.choice(QUERIES))
        converse(stage, wire, rng.choice((GOVERNED, PLAIN)), rng.choice(("udp", "tcp")))


@pytest.mark.parametrize("rtype", sorted(RDATAS))
def test_mutated_answers(rtype):
    """Answers of every type, broken in many ways, and those of the corpus."""
    rng = random.Random(rtype)
    stage = begin()
    seeds = [answer_of(rtype, chain=False), answer_of(rtype, chain=rtype != "CNAME")]
    query = dns.message.make_query("www.example.com", rtype, want_dnssec=rng.random() < 0.5).to_wire()
    for _ in range(200):
        wire = mutated(rng, rng.choice(seeds) if rng.random() < 0.8 else rng.choice(ANSWERS))
        stage.now += 200_000.0  # nothing of the last answer is left, not even stale
        assert converse(stage, query, rng.choice((GOVERNED, PLAIN)), answer=wire) == 1


@settings(max_examples=100, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(("realized", "denied", "limit", "failed")), max_size=5),
    remaining_s=st.floats(min_value=-5, max_value=200, allow_nan=False),
    generation=st.integers(min_value=0, max_value=1),
)
def test_any_answer_of_the_authority(outcomes, remaining_s, generation):
    """Whatever the outcomes, only realized addresses are in the reply, and there is one reply."""
    stage = begin()
    query = dns.message.make_query("www.example.com", "A").to_wire()
    client = Client(GOVERNED, 4000, bytes((9, 9, 9, 9)), "udp", 1)
    ask = stage.core.query_received(query, client, 0.0)[0]
    addresses = ("1.1.1.1", "1.1.1.2", "1.1.1.3")
    response = dns.message.make_response(dns.message.from_wire(query))
    response.answer.append(dns.rrset.from_text("www.example.com.", 60, "IN", "A", *addresses))
    request = stage.core.upstream_answered(ask.id, response.to_wire(), 0.0)[0].request
    answered = GrantAnswered(request.id, generation, tuple(outcomes), remaining_s)
    replies = [effect for effect in stage.core.grants_answered(answered, 0.0) if isinstance(effect, Reply)]
    assert len(replies) == 1
    realized = {a for a, outcome in zip(request.addresses, outcomes, strict=False) if outcome == "realized"}
    message = check_reply(query, replies[0].wire, "udp")
    given_out = {bytes(map(int, rdata.address.split("."))) for rrset in message.answer for rdata in rrset}
    assert given_out == realized
