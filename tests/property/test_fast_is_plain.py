"""The fast path and the plain path are one: same bytes, same counts, whatever is asked and happens.

Two cores live through the same events. One answers from prepared replies where it can, as the sockets
ask it to; its twin always goes the long way. The world around them (upstreams, the enforcer, time) is a
function of the question and the instant, so that both see the same one.
"""

from __future__ import annotations

import random
from collections import Counter, deque

import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.addresses import to_packed
from policy.authority import GrantAnswered, GrantRequested
from policy.snapshot import compile_snapshot
from resolver.core import AskGrants, AskUpstream, Client, Core, CoreSettings, Record, Reply
from resolver.hits import STREAM
from tests.scenarios.worlds import read_world

AROUND = [
    "cluster 10.0.0.0/8 fd00::/8",
    "node 192.168.7.1",
    "pod t/b 10.0.0.3",
    "pod sys/x 10.0.0.9 ungoverned",
]
WORLDS = (
    [*AROUND, "pod t/a 10.0.0.2 fd00::2", "permit t/p/r *.example.com,api.example.org tcp/443"],
    [
        *AROUND,
        "pod t/a 10.0.0.2 fd00::2",
        "permit t/p/r *.example.com",
        "watch t/w/later *.example.com,*.test",
    ],
    [*AROUND, "pod t/a 10.0.0.2", "permit t/p/r api.example.org,*.test", "deny t/p/d - 1.1.1.0/24"],
    [*AROUND, "pod t/n 10.0.0.2 uid=other", "pod t/a 10.0.0.4", "permit t/p/r *.com"],
)
SETTINGS = (
    CoreSettings(cluster_dns=True, search_domains=("corp.test",)),
    CoreSettings(cluster_dns=True, search_domains=("corp.test",), blocked_reply="refused", max_ttl_s=4),
    CoreSettings(blocked_reply="nodata", queries_per_second=6, grace_s=3.0),
    CoreSettings(cluster_dns=True, distinct_names=3, query_types=("A", "TXT"), max_ttl_s=600),
)
NAMES = (
    "www.example.com", "cdn.example.com", "many.example.com", "gone.example.com", "silent.example.com",
    "api.example.org", "www.attacker.test", "attacker.net", "www.example.com.t.svc.cluster.local",
    "www.example.com.corp.test", "db.t.svc.cluster.local", "gone.t.svc.cluster.local",
    "leads.t.svc.cluster.local", "x.local", "2.0.0.10.in-addr.arpa", "gate.nameward.invalid", ".",
    "n1.example.com", "n2.example.com", "n3.example.com", "n4.example.com",
)  # fmt: skip
TYPES = ("A", "A", "A", "AAAA", "TXT", "HTTPS", "TYPE97", "ANY")
SOURCES = tuple(
    map(
        to_packed,
        ("10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.9", "10.0.0.77", "8.8.8.8", "fd00::2", "127.0.0.1"),
    )
)


class Surroundings:
    """What upstreams and the enforcer answer, by question and instant alone.

    ``is_long``: TTLs are long and end at instants that are the same whenever one asks, so that the
    twin's prefetches change nothing (prepared replies are no uses that make a name hot).
    """

    def __init__(self, *, is_long):
        self.is_long = is_long
        self._said: dict[tuple[object, ...], bytes | None] = {}

    def ttl_s(self, ask, now):
        if self.is_long:
            period_s = 20 + 40 * (len(ask.name) % 4)
            return period_s - int(now) % period_s
        return 1 + (len(ask.name) + int(now)) % 9

    def answer(self, ask, now):
        """The upstream's message; None: it is silent. Said once (dnspython shuffles the records)."""
        key = (ask.name, ask.qtype, now)
        if key not in self._said:
            self._said[key] = self.message(ask, now)
        return self._said[key]

    def message(self, ask, now):
        name = dns.name.from_wire(ask.name, 0)[0]
        text = name.to_text().lower()
        if text.startswith("silent") and int(now) % 4 < 2:
            return None
        rtype = dns.rdatatype.to_text(ask.qtype)
        query = dns.message.make_query(name, ask.qtype)
        response = dns.message.make_response(query)
        ttl_s = self.ttl_s(ask, now)
        if text.startswith(("gone", "api")) and (rtype != "A" or text.startswith("gone")):
            response.set_rcode(3 if text.startswith("gone") else 0)
            soa = f"ns.{text} h.{text} 1 2 3 4 {ttl_s}"
            response.authority.append(dns.rrset.from_text(name.parent(), ttl_s, "IN", "SOA", soa))
            return response.to_wire()
        if text.startswith("leads"):
            response.answer.append(dns.rrset.from_text(name, ttl_s, "IN", "CNAME", "www.example.com."))
            return response.to_wire()
        if text.startswith("cdn"):
            response.answer.append(dns.rrset.from_text(name, ttl_s, "IN", "CNAME", "far.cdn.example.net."))
            name = dns.name.from_text("far.cdn.example.net.")
        count = 40 if text.startswith("many") else 2
        rdatas = {
            "A": [f"{1 + each % 3}.1.{len(text)}.{each}" for each in range(count)],
            "AAAA": [f"2606:4700::{each + 1:x}" for each in range(count)],
            "TXT": ['"some" "text"'],
            "HTTPS": ["1 . alpn=h2 ipv4hint=1.1.1.1"],
            "PTR": ["www.example.com."],
        }.get(rtype)
        if rdatas:
            response.answer.append(dns.rrset.from_text(name, ttl_s, "IN", rtype, *rdatas))
        return response.to_wire(max_size=65535)

    def granted(self, request, now):
        """The enforcer's answer: a few addresses are refused, grants last long or not so long."""
        outcomes = tuple("limit" if address[-1] % 16 == 5 else "realized" for address in request.addresses)
        lasts_s = request.ttl_s + (1, 40, 90)[(len(request.name) + int(now) // 8) % 3]
        return GrantAnswered(request.id, request.generation, outcomes, float(lasts_s))


class One:
    """One of the two cores, and what it asked, told and counted."""

    def __init__(self):
        self.core = Core(SETTINGS[0])
        self.upstream: deque[AskUpstream] = deque()
        self.grants: deque[GrantRequested] = deque()
        self.told: Counter = Counter()
        self.counters: Counter = Counter()

    def note(self, record):
        fields = {name: getattr(record, name) for name in record.__struct_fields__}
        count = fields.pop("count")
        del fields["age_s"]
        self.told[tuple(fields.values())] += count

    def drain(self):
        """Everything counted since the beginning."""
        for record, _ in self.core.take_counted():
            self.note(record)
        self.counters.update(self.core.drain().counters)
        return self.told, self.counters


def _said(ask: AskUpstream):
    """A question to upstreams without its number."""
    return ask.name, ask.qtype, ask.do, ask.group, ask.deadline_at


class Twins:
    """Both of them, side by side."""

    def __init__(self, *, is_long):
        self.fast, self.plain = One(), One()
        self.around = Surroundings(is_long=is_long)
        self.is_long = is_long
        self.now = 1000.0
        self.generation = 0
        self.asked = 0
        self.hits: Counter = Counter()
        self.publish(0)

    def both(self, call):
        """Let the same happen to both; they reply alike."""
        replies = [self.take(one, call(one.core)) for one in (self.fast, self.plain)]
        assert replies[0] == replies[1]
        return replies[0]

    def take(self, one, effects):
        """Sort effects; who asks upstream for nobody (a prefetch) is answered at once."""
        replies = []
        begun = []
        for effect in effects:
            if isinstance(effect, Reply):
                replies.append((effect.client, effect.wire))
            elif isinstance(effect, AskUpstream):
                begun.append(effect)
            elif isinstance(effect, AskGrants):
                one.grants.append(effect.request)
            else:
                assert isinstance(effect, Record)
                one.note(effect.record)
        for ask in begun:
            if self.is_long and replies:
                answer = self.around.answer(ask, self.now)
                replies += self.take(one, one.core.upstream_answered(ask.id, answer, self.now))
            else:
                one.upstream.append(ask)
        return replies

    def publish(self, index):
        self.generation += 1
        snapshot = compile_snapshot(read_world(WORLDS[index], self.generation))
        self.both(lambda core: core.snapshot_published(snapshot, self.now))

    def configure(self, index):
        self.both(lambda core: core.settings_changed(SETTINGS[index], self.now))

    def link(self, is_up):
        self.both(lambda core: core.authority_back(self.now) if is_up else core.authority_lost(self.now))
        for one in (self.fast, self.plain):
            if not is_up:
                one.grants.clear()

    def ask(self, wire, source, transport):
        """A client's message: what the fast one has prepared is what the plain one says, at once."""
        self.asked += 1
        wire = self.asked.to_bytes(2, "big") + wire[2:] if len(wire) >= 2 else wire
        client = Client(source, 4000 + self.asked, bytes((9, 9, 9, 9)), transport, 1)
        key = source if transport == "udp" else source + STREAM
        prepared = self.fast.core.hit(wire, key, self.now)
        if prepared is None:
            self.both(lambda core: core.query_received(wire, client, self.now))
            return
        grants = len(self.plain.grants)
        replies = self.take(self.plain, self.plain.core.query_received(wire, client, self.now))
        assert replies == [(client, prepared)]
        assert len(self.plain.grants) == grants, "a prepared reply whose grants were to be renewed"
        self.hits["all"] += 1
        self.hits[transport] += 1
        self.hits["made" if prepared[3] & 15 or not prepared[7] else "resolved"] += 1
        self.hits["mixed"] += wire[12:] != wire[12:].lower() and wire[-1] == 1

    def settle(self):
        """Upstreams and the enforcer answer all that is asked of them."""
        while self.plain.upstream or self.plain.grants or self.fast.upstream:
            assert [*map(_said, self.fast.upstream)] == [*map(_said, self.plain.upstream)]
            assert list(self.fast.grants) == list(self.plain.grants)
            replies = []
            for one in (self.fast, self.plain):
                said = []
                if one.upstream:
                    ask = one.upstream.popleft()
                    answer = self.around.answer(ask, self.now)
                    said = (
                        one.core.upstream_failed(ask.id, 22, self.now)
                        if answer is None
                        else one.core.upstream_answered(ask.id, answer, self.now)
                    )
                elif one.grants:
                    request = one.grants.popleft()
                    said = one.core.grants_answered(self.around.granted(request, self.now), self.now)
                replies.append(self.take(one, said))
            assert replies[0] == replies[1]

    def let_pass(self, seconds):
        """Time goes on, to each deadline on the way."""
        until = self.now + (max(1.0, float(int(seconds))) if self.is_long else seconds)
        self.now = until
        self.both(lambda core: core.deadline_passed(until))
        for one in (self.fast, self.plain):
            one.upstream.clear()  # these never answer

    def check(self):
        """Every lookup was recorded and counted by both alike."""
        told, counters = self.fast.drain()
        told_too, counters_too = self.plain.drain()
        assert told == told_too
        assert counters == counters_too


def mixed(wire, bits):
    """The question's letters in other case."""
    end = wire.find(0, 12)
    name = bytes(
        octet ^ 0x20 if chr(octet).isalpha() and octet < 128 and bits >> at & 1 else octet
        for at, octet in enumerate(wire[12:end])
    )
    return wire[:12] + name + wire[end:]


@st.composite
def queries(draw):
    """A query of some client, as libraries write them or nearly."""
    edns = draw(st.sampled_from((-1, -1, 0, 0, 1)))
    message = dns.message.make_query(
        draw(st.sampled_from(NAMES)), draw(st.sampled_from(TYPES)), use_edns=edns,
        payload=draw(st.sampled_from((512, 1232))), want_dnssec=edns == 0 and draw(st.booleans()), id=0,
    )  # fmt: skip
    wire = message.to_wire()
    manner = draw(st.sampled_from(("plain",) * 6 + ("mixed",) * 3 + ("mangled", "cut", "longer", "noise")))
    if manner == "mixed":
        return mixed(wire, draw(st.integers(0, 255)))
    if manner == "mangled":
        at = draw(st.integers(2, len(wire) - 1))
        return wire[:at] + bytes((wire[at] ^ 1 << draw(st.integers(0, 7)),)) + wire[at + 1 :]
    if manner == "cut":
        return wire[: draw(st.integers(0, len(wire)))]
    if manner == "longer":
        return wire + draw(st.binary(min_size=1, max_size=4))
    return draw(st.binary(max_size=40)) if manner == "noise" else wire


@st.composite
def events(draw):
    """Something that happens; the questions come again and again."""
    question = st.tuples(queries(), st.sampled_from(SOURCES), st.sampled_from(("udp", "udp", "tcp")))
    asked = draw(st.lists(question, min_size=1, max_size=5))
    ask = st.tuples(
        st.just("ask"), st.sampled_from(asked), st.integers(0, 15), st.sampled_from((False, False, True))
    )
    seldom = st.one_of(
        st.tuples(st.just("publish"), st.integers(0, len(WORLDS) - 1)),
        st.tuples(st.just("configure"), st.integers(0, len(SETTINGS) - 1)),
        st.tuples(st.just("link"), st.booleans()),
        st.tuples(st.just("check")),
    )
    passing = st.tuples(st.just("let_pass"), st.sampled_from((0.2, 0.5, 1.0, 1.3, 4.0, 17.0, 61.0)))
    return draw(st.lists(st.one_of(ask, ask, ask, ask, ask, passing, seldom), min_size=5, max_size=60))


def live(twins, happened):
    """Let all of it happen."""
    for what, *how in happened:
        if what == "ask":
            (wire, source, transport), bits, is_late = how
            twins.ask(mixed(wire, bits) if bits > 7 else wire, source, transport)
            if not is_late:
                twins.settle()
        else:
            getattr(twins, what)(*how)
    twins.settle()
    twins.check()


@pytest.mark.parametrize("is_long", [False, True], ids=["short TTLs", "long TTLs"])
@settings(max_examples=100)
@given(happened=events())
def test_what_is_prepared_is_what_the_long_way_says(is_long, happened):
    """Replies byte for byte, records and counts; a prepared reply never where the plain path would wait."""
    live(Twins(is_long=is_long), happened)


def test_the_law_meets_prepared_replies_of_every_kind():
    """The law is about something: what a long life in small steps has prepared, by kind."""
    twins = Twins(is_long=False)
    draws = random.Random(6)
    for _ in range(4000):
        wire = dns.message.make_query(
            draws.choice(NAMES), draws.choice(TYPES), use_edns=draws.choice((-1, 0)), id=0
        ).to_wire()
        twins.ask(mixed(wire, draws.choice((0, 0, 21))), SOURCES[0], draws.choice(("udp", "tcp")))
        twins.settle()
        if not draws.randrange(40):
            twins.let_pass(draws.choice((0.2, 1.3)))
        if not draws.randrange(400):
            twins.publish(draws.randrange(2))
    twins.check()
    assert min(twins.hits[kind] for kind in ("made", "resolved", "mixed", "tcp", "udp")) > 100, twins.hits
