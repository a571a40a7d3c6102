"""The core as its adapters see it: deadlines, counts, reloads. Its decisions are in tests/scenarios."""

from __future__ import annotations

import dns.message
import dns.rrset

from policy import gate
from policy.authority import GrantAnswered
from policy.snapshot import compile_snapshot
from resolver.core import AskGrants, AskUpstream, Client, Core, CoreSettings, Reply
from tests.scenarios.stage import Stage
from tests.scenarios.worlds import read_world

WORLD = read_world(["pod t/a 10.0.0.2", "permit t/p/r *.example.com"], 1)
SOURCE = bytes((10, 0, 0, 2))


def client(port=4000, transport="udp", via=1):
    return Client(SOURCE, port, bytes((9, 9, 9, 9)), transport, via)


def query(name, rtype="A", number=1):
    return dns.message.make_query(name, rtype, id=number).to_wire()


def answer(name, *addresses):
    response = dns.message.make_response(dns.message.make_query(name, "A"))
    response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "A", *addresses))
    return response.to_wire()


def a_stage(**changes):
    stage = Stage()
    stage.core = Core(CoreSettings(**changes))
    stage.publish(WORLD)
    return stage


def resolve(core, name, now=0.0):
    """From a query to its reply, everything realized at once."""
    (ask,) = core.query_received(query(name), client(), now)
    (grant,) = core.upstream_answered(ask.id, answer(name, "1.1.1.1"), now)
    (reply,) = core.grants_answered(GrantAnswered(grant.request.id, 1, ("realized",), 120.0), now)
    return reply


def test_nothing_is_due_when_nothing_waits():
    """Deadlines come with what waits and go with it: an idle core sets no timer for long."""
    core = a_stage().core
    assert core.next_deadline() is None
    core.query_received(query("www.example.com"), client(), 0.0)
    assert core.next_deadline() == 1.8
    assert core.deadline_passed(1.7) == []
    (reply,) = core.deadline_passed(1.8)
    assert isinstance(reply, Reply)
    assert core.next_deadline() is None
    assert core.in_flight == 0


def test_hold_is_bounded_by_the_deadline():
    """An answer that comes late leaves its grants the rest of the deadline, not a whole hold."""
    core = a_stage().core
    (ask,) = core.query_received(query("www.example.com"), client(), 0.0)
    core.upstream_answered(ask.id, answer("www.example.com", "1.1.1.1"), 1.7)
    core.deadline_passed(1.8)
    assert core.next_deadline() == 2.0


def test_unknown_ids_are_nothing():
    """Answers to questions that nobody asked, or that are over, have no effect."""
    core = a_stage().core
    assert core.upstream_answered(77, answer("www.example.com", "1.1.1.1"), 0.0) == []
    assert core.upstream_failed(77, 22, 0.0) == []
    assert core.grants_answered(GrantAnswered(77, 1, ("realized",), 60.0), 0.0) == []
    core.connection_closed(5, 0.0)


def test_counts():
    """Questions are counted by verdict, type and transport, hits too; a drained count begins anew."""
    core = a_stage().core
    resolve(core, "www.example.com")
    assert core.hit(query("www.example.com", number=9), SOURCE, 0.1) is not None
    core.query_received(query("attacker.test", "TXT"), client(transport="tcp"), 0.0)
    core.query_received(query("attacker.test", "TYPE65280"), client(), 0.0)
    core.query_received(b"\x00" * 12, client(), 0.0)
    report = core.drain()
    assert report.counters == {
        'nameward_dns_queries_total{verdict="permitted",qtype="A",transport="udp"}': 2.0,
        'nameward_dns_queries_total{verdict="blocked",qtype="TXT",transport="tcp"}': 1.0,
        'nameward_dns_queries_total{verdict="blocked",qtype="other",transport="udp"}': 1.0,
        'nameward_dns_queries_total{verdict="error",qtype="other",transport="udp"}': 1.0,
    }
    assert report.gauges == {"nameward_dns_cache_entries": 1.0}
    assert set(report.durations_s) == {
        'nameward_dns_request_seconds{path="miss"}',
        'nameward_dns_request_seconds{path="blocked"}',
        "nameward_hold_seconds",
    }
    assert core.drain().counters == {}


def test_a_reload_is_decided_again():
    """Other settings hold at once: for what waits, for what is prepared, and the cache stays."""
    core = a_stage().core
    resolve(core, "www.example.com")
    (ask,) = core.query_received(query("x.example.com", number=5), client(4001), 0.0)
    settings = CoreSettings(query_types=("AAAA",), max_ttl_s=10)
    (reply,) = core.settings_changed(settings, 0.5)
    assert not dns.message.from_wire(reply.wire).answer
    assert core.hit(query("www.example.com"), SOURCE, 0.5) is None
    (grant,) = core.settings_changed(CoreSettings(max_ttl_s=10), 0.5) or core.query_received(
        query("www.example.com"), client(), 0.5
    )
    assert isinstance(grant, AskGrants)
    assert grant.request.ttl_s == 10
    assert isinstance(ask, AskUpstream)


def test_upstream_questions_are_built_afresh():
    """What goes upstream is name, type and DO: no option, flag or class of the client's."""
    core = a_stage().core
    asked = dns.message.make_query("WWW.Example.com", "A", want_dnssec=True)
    asked.flags |= dns.flags.CD
    asked.use_edns(0, dns.flags.DO, 4096, options=[dns.edns.ECSOption("1.2.3.4")])
    (ask,) = core.query_received(asked.to_wire(), client(), 0.0)
    assert (ask.id, ask.name, ask.qtype, ask.do) == (1, b"\x03www\x07example\x03com\x00", 1, True)
    assert (ask.group, ask.deadline_at) == ("outside", 1.8)


def test_a_pods_flood_leaves_others_alone():
    """A pod that asks without end has its limit of questions in flight; another pod is answered."""
    stage = a_stage(queries_in_flight=10, queries_per_second=1_000_000, distinct_names=1_000_000)
    stage.publish(read_world(["pod t/a 10.0.0.2", "pod t/b 10.0.0.3", "permit t/p/r *.example.com"], 2))
    core = stage.core
    for number in range(5000):
        core.query_received(query(f"x{number}.example.com"), client(), 0.0)
    assert core.in_flight == 10
    other = Client(bytes((10, 0, 0, 3)), 4000, bytes((9, 9, 9, 9)), "udp", 1)
    (ask,) = core.query_received(query("www.example.com"), other, 0.0)
    assert isinstance(ask, AskUpstream)


def said_of_itself(stage, asker=SOURCE, rtype="TXT"):
    """What the node tells who asks for the gate; None without an answer record."""
    at = Client(asker, 4000, bytes((9, 9, 9, 9)), "udp", 1)
    (reply,) = stage.core.query_received(query(gate.NAME, rtype), at, 0.0)
    answered = dns.message.from_wire(reply.wire)
    texts = [text.decode() for rrset in answered.answer for rdata in rrset for text in rdata.strings]
    return answered.rcode(), gate.read_texts(texts) if texts else None


def test_a_pod_is_told_of_itself_whether_it_is_enforced():
    """Itself alone, whatever its policy permits; only while the enforcer says so, and is there."""
    stage = a_stage()
    pod = stage.core._decisions.snapshot.pod_at(SOURCE)
    assert said_of_itself(stage) == (0, gate.Said("t/a", pod.uid, 1, is_governed=True))
    stage.core.pods_enforced((pod.uid, "another"))
    assert said_of_itself(stage)[1].is_enforced
    stage.core.pods_enforced(("another",))
    assert not said_of_itself(stage)[1].is_enforced
    stage.core.pods_enforced((pod.uid,))
    stage.core.authority_lost(0.0)
    assert not said_of_itself(stage)[1].is_enforced


def test_the_gate_has_no_other_type_and_no_name_below():
    """NODATA of other types; what is under it is special, as all of ``invalid``."""
    stage = a_stage()
    assert said_of_itself(stage, rtype="A") == (0, None)
    (reply,) = stage.core.query_received(query(f"x.{gate.NAME}", "TXT"), client(), 0.0)
    assert dns.message.from_wire(reply.wire).rcode() == 3


def test_who_is_no_pod_yet_waits_at_the_gate():
    """Its question is answered when its pod comes."""
    stage = a_stage()
    newcomer = Client(bytes((10, 0, 0, 9)), 4000, bytes((9, 9, 9, 9)), "udp", 1)
    assert stage.core.query_received(query(gate.NAME, "TXT"), newcomer, 0.0) == []
    world = read_world(["pod t/a 10.0.0.2", "pod t/b 10.0.0.9"], 2)
    (reply,) = stage.core.snapshot_published(compile_snapshot(world), 0.5)
    answered = dns.message.from_wire(reply.wire)
    assert b"pod=t/b" in answered.answer[0][0].strings


def test_who_asked_before_it_was_known_has_prepared_replies_as_any_pod():
    """They are given within the rate that it has as a pod, not within that of the stranger it was."""
    core = Core(CoreSettings())
    assert core.query_received(query("www.blocked.org"), client(), 0.0) == []
    core.snapshot_published(compile_snapshot(WORLD), 0.5)
    again = query("www.blocked.org", number=2)
    assert core.hit(again, SOURCE, 5.0) is None  # a second begins the long way
    assert core.query_received(again, client(), 5.0)
    assert core.hit(again, SOURCE, 5.1) is not None
