"""Real questions to real servers on loopback, honest and lying."""

from __future__ import annotations

import random

import dns.flags
import dns.message
import pytest

from policy.runtime.kinds import Upstream
from resolver.effects import AskUpstream
from resolver.upstream_io import SENT_TOGETHER, KernelBits, UpstreamIO
from resolver.upstreams import Forwarding


class Asking:
    """Asks as the core does and keeps what came back."""

    def __init__(self, reactor, upstreams, trust_root=None):
        self.reactor = reactor
        self.answers, self.failures = {}, {}
        self.forwarding = Forwarding({"outside": upstreams, "cluster": ()}, random.SystemRandom())
        self.io = UpstreamIO(
            reactor,
            self.forwarding,
            lambda number, wire, now: self.answers.__setitem__(number, dns.message.from_wire(wire)),
            lambda number, ede, now: self.failures.__setitem__(number, ede),
            trust_root,
        )

    def ask(self, number=1, name="api.example.com", deadline_s=2.0):
        wire = dns.name.from_text(name).to_wire()
        now = self.reactor.seconds()
        self.io.ask(
            AskUpstream(number, wire, 1, do=False, group="outside", deadline_at=now + deadline_s), now
        )

    def asked(self, *numbers):
        self.reactor.spin(lambda: all(one in self.answers or one in self.failures for one in numbers))
        assert not self.io._sockets


def plain(server):
    """Return the server as an upstream."""
    return Upstream(server.address, server.port, tls=False, name="")


def address_of(message):
    """Return the only address of an answer."""
    return message.answer[0][0].address


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_question_is_answered(reactor, server, address):
    """A fresh socket and port each, over IPv4 and IPv6; every socket is closed afterwards."""
    asking = Asking(reactor, [plain(truthful := server(address))])
    for number in range(20):
        asking.ask(number)
    asking.asked(*range(20))
    assert {address_of(answer) for answer in asking.answers.values()} == {"192.0.2.80"}
    assert len(set(truthful.ports)) == 20
    assert len({wire[:2] for wire in truthful.datagrams}) > 15
    assert truthful.messages == []
    assert asking.forwarding.states()[0].latency_ms > 0


def flipped_id(wire):
    """Return the message with another id."""
    return bytes((wire[0], wire[1] ^ 0xFF)) + wire[2:]


@pytest.mark.parametrize(
    "lie",
    [
        flipped_id,
        lambda wire: wire[:12] + wire[12:28].swapcase() + wire[28:],
        lambda wire: wire[:40].replace(b"\0\1\0\1", b"\0\x1c\0\1") + wire[40:],
        lambda wire: wire[:2] + b"\x01" + wire[3:],
        lambda wire: b"",
        lambda wire: b"\xff" * 3,
        lambda wire: wire[:2] + bytes((wire[2] | 2,)) + wire[3:],
        lambda wire: wire + bytes(4096),
    ],
    ids=["id", "case", "type", "not-a-response", "empty", "garbage", "truncated", "too-long"],
)
def test_lies_and_truncation_are_settled_over_tcp(reactor, server, true_reply, lie):
    """Whatever arrives by UDP and does not match: the truth is fetched by TCP."""
    lying = server()
    lying.by_udp = lambda wire: [lie(true_reply(wire, address="203.0.113.66"))]
    asking = Asking(reactor, [plain(lying)])
    asking.ask()
    asking.asked(1)
    assert address_of(asking.answers[1]) == "192.0.2.80"
    assert len(lying.messages) == 1


def test_a_second_forged_datagram_changes_nothing(reactor, server, true_reply):
    """A guesser's datagram before the true one ends UDP: the true one is fetched by TCP."""
    raced = server()
    raced.by_udp = lambda wire: [flipped_id(true_reply(wire, address="203.0.113.66")), true_reply(wire)]
    asking = Asking(reactor, [plain(raced)])
    asking.ask()
    asking.asked(1)
    assert address_of(asking.answers[1]) == "192.0.2.80"


def test_silence_moves_on_to_the_next_upstream(reactor, server):
    """Within one deadline the second upstream answers what the first swallowed."""
    silent, truthful = server(), server()
    silent.by_udp = lambda wire: []
    asking = Asking(reactor, [plain(silent), plain(truthful)])
    asking.ask()
    asking.asked(1)
    assert (len(silent.datagrams), len(truthful.datagrams)) == (1, 1)


def test_silence_of_all_fails_at_the_deadline(reactor, server):
    """EDE 22, no sooner than the deadline, and never twice."""
    silent = server()
    silent.by_udp = lambda wire: []
    asking = Asking(reactor, [plain(silent)])
    began_at = reactor.seconds()
    asking.ask(deadline_s=0.9)
    asking.asked(1)
    assert asking.failures == {1: 22}
    assert reactor.seconds() - began_at >= 0.9
    assert len(silent.datagrams) == 2


def test_a_late_answer_is_taken(reactor, server, true_reply):
    """The first socket stays open while the next try is under way."""
    late = server()

    def by_udp(wire):
        if len(late.datagrams) == 2:
            late.send_datagram(true_reply(late.datagrams[0]), late.ports[0])
        return []

    late.by_udp = by_udp
    asking = Asking(reactor, [plain(late)])
    asking.ask()
    asking.asked(1)
    assert address_of(asking.answers[1]) == "192.0.2.80"
    assert late.messages == []


def test_questions_of_a_turn_leave_together(reactor, server):
    """At its end, or when there are many; one that nobody waits for any more does not leave at all."""
    silent = server()
    silent.by_udp = lambda wire: []
    asking = Asking(reactor, [plain(silent)])
    for number in range(SENT_TOGETHER - 1):
        asking.ask(number)
    assert not asking.io._sockets
    reactor.iterate(0)
    assert len(asking.io._sockets) == SENT_TOGETHER - 1
    for number in range(SENT_TOGETHER):
        asking.ask(100 + number)
    assert len(asking.io._sockets) == 2 * SENT_TOGETHER - 1
    asking.ask(200, deadline_s=0.0)
    asking.io._deadline_passed(reactor.seconds())
    reactor.spin(lambda: len(silent.datagrams) == 2 * SENT_TOGETHER - 1)
    reactor.spin_for(0.05)
    assert len(silent.datagrams) == 2 * SENT_TOGETHER - 1
    assert 200 in asking.failures


def test_a_closed_port_fails_at_once(reactor, server):
    """ICMP port unreachable is an error, not silence: EDE 23 without waiting."""
    closed = server()
    closed.end()
    asking = Asking(reactor, [plain(closed)])
    began_at = reactor.seconds()
    asking.ask()
    asking.asked(1)
    assert asking.failures == {1: 23}
    assert reactor.seconds() - began_at < 1.0


def test_an_upstream_without_a_route_fails_at_once(reactor):
    """An address that cannot be sent to is an error."""
    asking = Asking(reactor, [Upstream("255.255.255.255", 53, tls=False, name="")])
    asking.ask()
    asking.asked(1)
    assert asking.failures == {1: 23}


def truncating(server_):
    """Make a server answer by TCP only."""
    server_.by_udp = lambda wire: [wire[:2] + b"\x83\x80" + wire[4:12] + wire[12:]]
    return server_


def test_tcp_is_pipelined_on_one_connection_out_of_order(reactor, server, true_reply):
    """Many questions share a connection, and answers in any order find theirs (RFC 7766, 6.2)."""
    held = []
    pipelining = truncating(server())

    def by_tcp(wire):
        held.append(wire)
        return [true_reply(one) for one in reversed(held)] if len(held) == 8 else []

    pipelining.by_tcp = by_tcp
    asking = Asking(reactor, [plain(pipelining)])
    for number in range(8):
        asking.ask(number, f"n{number}.example.com")
    asking.asked(*range(8))
    assert len(asking.answers) == 8
    for number, answer in asking.answers.items():
        assert str(answer.question[0].name) == f"n{number}.example.com."
    assert len(pipelining.connections) == 1


def test_questions_that_nobody_answers_leave_room_on_the_stream(reactor, server, true_reply):
    """More than two pods may have in flight, all silent, and still another question is answered at once."""
    slow = truncating(server())
    slow.by_tcp = lambda wire: [true_reply(wire)] if b"\x04good" in wire.lower() else []
    asking = Asking(reactor, [plain(slow)])
    for number in range(700):
        asking.ask(number, f"n{number}.slow.example.com", deadline_s=30.0)
    reactor.spin(lambda: len(slow.messages) >= 600 or asking.failures)
    asking.ask(1000, "good.example.com")
    reactor.spin(lambda: 1000 in asking.answers)
    assert not asking.failures
    asking.io.stop()


def test_a_stream_closed_while_idle_costs_no_question(reactor, server):
    """The server closes its connection as the next question is written: asked again on a new one."""
    closing = truncating(server())
    asking = Asking(reactor, [plain(closing)])
    asking.ask(1)
    asking.asked(1)
    closing.connections[0].transport.abortConnection()
    asking.ask(2)
    asking.asked(2)
    assert 2 in asking.answers
    assert len(closing.connections) == 2


def test_a_stream_that_talks_nonsense_is_given_up(reactor, server, true_reply):
    """An answer to another question on a stream: cut, the next upstream is asked."""
    lying, truthful = truncating(server()), server()
    lying.by_tcp = lambda wire: [true_reply(wire).replace(b"\0\1\0\1", b"\0\x10\0\1", 1)]
    asking = Asking(reactor, [plain(lying), plain(truthful)])
    asking.ask(1)
    asking.asked(1)
    assert 1 in asking.answers
    assert len(truthful.datagrams) == 1


def test_an_upstream_that_folds_case_still_serves_by_tcp(reactor, server, true_reply):
    """A server that answers in lower case is slow to use, not useless."""
    folding = server()
    folding.by_udp = lambda wire: [true_reply(wire[:12] + wire[12:].lower())]
    folding.by_tcp = folding.by_udp
    asking = Asking(reactor, [plain(folding)])
    asking.ask(1, "a-name-with-many-letters.example.com")
    asking.asked(1)
    assert 1 in asking.answers


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted's own doing
def test_dns_over_tls_with_its_name(reactor, server, certificate):
    """The certificate is verified against the configured name, then questions are pipelined."""
    secure = server(certificate=certificate)
    upstream = Upstream("127.0.0.1", secure.port, tls=True, name="dns.example")
    asking = Asking(reactor, [upstream], certificate)
    for number in range(5):
        asking.ask(number)
    asking.asked(*range(5))
    assert len(asking.answers) == 5
    assert len(secure.connections) == 1
    assert secure.datagrams == []


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted's own doing
@pytest.mark.parametrize("case", ["name", "trust"])
def test_a_certificate_that_proves_nothing_is_refused(reactor, server, certificate, case):
    """Another name, or nobody who vouches: not one question is sent."""
    secure = server(certificate=certificate)
    name = "other.example" if case == "name" else "dns.example"
    upstream = Upstream("127.0.0.1", secure.port, tls=True, name=name)
    asking = Asking(reactor, [upstream], certificate if case == "name" else None)
    asking.ask()
    asking.asked(1)
    assert asking.failures == {1: 23}
    assert secure.messages == []


def test_stop_closes_every_socket(reactor, server):
    """Nothing stays in the reactor after stop()."""
    silent = server()
    silent.by_udp = lambda wire: []
    asking = Asking(reactor, [plain(silent)])
    for number in range(10):
        asking.ask(number)
    reactor.iterate(0)
    assert len(asking.io._sockets) == 10
    asking.ask(10)
    asking.io.stop()
    reactor.iterate(0)
    assert not asking.io._sockets


def test_random_bits_are_as_many_as_asked_for_and_never_the_same_again():
    """Whatever sizes are drawn from it, the pool is refilled in time."""
    bits = KernelBits()
    assert all(bits.getrandbits(3) < 8 for _ in range(1000))
    assert bits.getrandbits(40_000).bit_length() > 39_000
    assert len({bits.getrandbits(128) for _ in range(2000)}) == 2000
