"""The authority socket from the resolver's side: greeting, descriptors, loss and return."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import msgspec
import pytest
from twisted.internet.protocol import Factory, Protocol

from policy.authority import PROTOCOL, GrantAnswered, GrantRequested, Hello, SnapshotPublished
from policy.pods import Pod
from policy.publication import change_of
from policy.runtime.framing import encode, enforcer_decoder
from policy.world import World
from resolver.link import MAX_UNSENT_BYTES, Link

REQUEST = GrantRequested(1, 1, "u", b"\x0a\0\0\1", "a.example", (b"\1\1\1\1",), 60)


class Service:
    """What the link tells, in order."""

    def __init__(self):
        self.told = []
        self.worlds = []
        self.descriptors = []

    def greeted(self, hello, descriptors):
        self.told.append(("greeted", hello.sockets))
        self.descriptors += descriptors

    def world_published(self, world):
        self.told.append(("world", world.generation))
        self.worlds.append(world)

    def grants_answered(self, answer):
        self.told.append(("answer", answer.id))

    def pods_enforced(self, uids):
        self.told.append(("enforced", uids))

    def not_understood(self, reason):
        self.told.append(("not understood", reason))

    def link_lost(self, reason):
        self.told.append(("lost", reason))


class Enforcer(Factory):
    """A real UNIX listener whose connections are scripted by the test."""

    noisy = False

    def __init__(self, reactor, path, greet):
        self.greet = greet
        self.connections = []
        self.received = []
        self.port = reactor.listenUNIX(path, self)

    def buildProtocol(self, _addr):
        return _End(self)


class _End(Protocol):
    def __init__(self, enforcer):
        self.enforcer = enforcer
        self.decoder = enforcer_decoder()

    def connectionMade(self):
        self.enforcer.connections.append(self)
        self.enforcer.greet(self.transport)

    def dataReceived(self, data):
        self.enforcer.received += self.decoder.feed(data)


@pytest.fixture
def linked(reactor, tmp_path):
    """Start a link and an enforcer; return both and what the link tells."""
    started = []

    def make(greet):
        path = str(tmp_path / "authority.sock")
        service = Service()
        link = Link(reactor, path, "1", service)
        link.start()
        enforcer = Enforcer(reactor, path, greet)
        started.append((link, service))
        return link, enforcer, service

    yield make
    for link, service in started:
        link.stop()
        for descriptor in service.descriptors:
            os.close(descriptor)


def hello_with(*socks, first="hello"):
    """Return a greeting with these sockets' descriptors, before or after the frame."""

    def greet(transport):
        frame = encode(Hello("1", tuple(f"udp{number}" for number in range(len(socks)))))
        if first == "hello":
            transport.write(frame)
        for sock in socks:
            transport.sendFileDescriptor(sock.fileno())
        if first != "hello":
            transport.write(frame)
        transport.write(encode(SnapshotPublished(World(generation=7))))

    return greet


class _Read:
    """A descriptor that is ready now, and does something when it is read."""

    def __init__(self, does):
        self.does = does
        self.ours, self.theirs = socket.socketpair()
        self.theirs.send(b"x")

    def fileno(self):
        return self.ours.fileno()

    def logPrefix(self):
        return "read"

    def doRead(self):
        self.ours.recv(1)
        self.does()

    def connectionLost(self, _reason):
        self.ours.close()
        self.theirs.close()


def test_a_request_leaves_before_anything_else_is_read(reactor, linked):
    """The enforcer begins with it while the rest of the turn is read: each read's requests are one write."""
    link, enforcer, _ = linked(hello_with())
    reactor.spin(lambda: link.is_up)
    reactor.spin_for(0.02)  # Twisted has written the greeting
    sent, waiting = [], []

    def ask():
        sent.append(link.send(REQUEST))
        sent.append(link.send(REQUEST))
        waiting.append(len(link._connection._frames))

    last = _Read(lambda: waiting.append(len(link._connection._frames)))
    reactor.last.add(last)
    reactor.addReader(last)
    reactor.addReader(_Read(ask))
    reactor.spin(lambda: enforcer.received.count(REQUEST) == 2)
    assert sent == [True, True]
    assert waiting == [2, 0]


@pytest.mark.parametrize("first", ["hello", "descriptors"])
def test_the_greeting_brings_sockets_and_then_the_world(reactor, linked, first):
    """Descriptors are handed over with their names before anything else is, whatever comes first."""
    with socket.socket() as one, socket.socket() as two:
        link, enforcer, service = linked(hello_with(one, two, first=first))
        reactor.spin(lambda: len(service.told) == 2)
        assert service.told == [("greeted", ("udp0", "udp1")), ("world", 7)]
        assert [os.fstat(kept).st_ino for kept in service.descriptors] == [
            os.fstat(sock.fileno()).st_ino for sock in (one, two)
        ]
    assert link.is_up
    reactor.spin(lambda: enforcer.received == [Hello("1")])


def test_a_change_is_made_to_the_world_that_is_held(reactor, linked):
    """The world that follows is handed on whole; what did not change is the same object as before."""
    _, enforcer, service = linked(hello_with())
    reactor.spin(lambda: len(service.told) == 2)
    pod = Pod(namespace="ns", name="p", uid="u", addresses=("10.0.0.1",))
    one = World(generation=8, pods=(pod,))
    two = msgspec.structs.replace(one, generation=9, cluster_domain="other.local")
    for old, new in ((World(generation=7), one), (one, two)):
        enforcer.connections[0].transport.write(encode(change_of(old, new)))
    reactor.spin(lambda: ("world", 9) in service.told)
    assert service.worlds == [World(generation=7), one, two]
    assert service.worlds[1].pods[0] is service.worlds[2].pods[0]


def test_a_change_of_another_world_is_asked_for_as_a_whole(reactor, linked):
    """Nothing is made of it: the connection is given up, and the next one brings everything."""
    link, enforcer, service = linked(hello_with())
    reactor.spin(lambda: len(service.told) == 2)
    change = change_of(World(generation=8), World(generation=9))
    enforcer.connections[0].transport.write(encode(change))
    reactor.spin(lambda: len(enforcer.connections) == 2 and link.is_up, 2)
    reactor.spin(lambda: service.told.count(("world", 7)) == 2)
    assert ("world", 9) not in service.told


def test_requests_go_up_and_answers_come_down(reactor, linked):
    """Nothing is sent before the greeting; afterwards both directions flow."""
    link, enforcer, service = linked(hello_with())
    assert not link.send(REQUEST)
    reactor.spin(lambda: link.is_up)
    assert link.send(REQUEST)
    reactor.spin(lambda: REQUEST in enforcer.received)
    enforcer.connections[0].transport.write(encode(GrantAnswered(1, 1, ("realized",), 9.0)))
    reactor.spin(lambda: ("answer", 1) in service.told)


def test_what_one_turn_sends_arrives_in_one_piece(reactor, linked):
    """Requests of one turn of the loop are one write, which the enforcer can answer in one transaction."""
    link, enforcer, _ = linked(hello_with())
    reactor.spin(lambda: link.is_up and enforcer.received)
    reads = []
    end = enforcer.connections[0]
    take = end.decoder.feed
    end.decoder = SimpleNamespace(feed=lambda data: reads.append(data) or take(data))
    for _ in range(20):
        assert link.send(REQUEST)
    reactor.spin(lambda: enforcer.received.count(REQUEST) == 20)
    assert reads == [encode(REQUEST) * 20]


def test_a_lost_enforcer_is_told_once_and_found_again(reactor, linked):
    """Loss is told with its reason; the link comes back within its backoff."""
    link, enforcer, service = linked(hello_with())
    for number in range(3):
        reactor.spin(lambda: link.is_up)
        enforcer.connections[number].transport.abortConnection()
        reactor.spin(lambda: not link.is_up, 2)
    reactor.spin(lambda: link.is_up, 2)
    kinds = [told[0] for told in service.told if told[0] != "world"]
    assert kinds == ["greeted", "lost"] * 3 + ["greeted"]


@pytest.mark.parametrize(
    "greeting",
    [b"\xff\xff\xff\xff", encode(REQUEST), b"\0\0\0\x01\xc1"],
    ids=["length", "direction", "garbage"],
)
def test_an_enforcer_that_talks_nonsense_is_left(reactor, linked, greeting):
    """A frame that is none ends the connection before a greeting; the link tries again."""
    link, enforcer, service = linked(lambda transport: transport.write(greeting))
    reactor.spin(lambda: len(enforcer.connections) >= 2)
    assert {told[0] for told in service.told} == {"not understood"}
    enforcer.greet = hello_with()
    reactor.spin(lambda: link.is_up)


@pytest.mark.parametrize(
    "said", [encode(Hello("2", (), PROTOCOL + 1)), encode(REQUEST)], ids=["greeting", "later"]
)
def test_another_releases_enforcer_gets_the_sockets_back(reactor, linked, said):
    """A resolver that does not understand reads nothing meant for one that does, until it does again."""
    link, enforcer, service = linked(hello_with())
    reactor.spin(lambda: link.is_up)
    enforcer.greet = lambda transport: transport.write(said)
    enforcer.connections[0].transport.write(said)
    reactor.spin(lambda: "not understood" in [told[0] for told in service.told])
    reactor.spin(lambda: not link.is_up)
    enforcer.greet = hello_with()
    reactor.spin(lambda: link.is_up)


def test_descriptors_that_nobody_announced_are_closed(reactor, linked):
    """More descriptors than names: the connection is cut and nothing leaks."""
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket() as one:

        def greet(transport):
            transport.write(encode(Hello("1", ())))
            transport.sendFileDescriptor(one.fileno())

        link, enforcer, service = linked(greet)
        reactor.spin(lambda: len(enforcer.connections) >= 3)
        link.stop()
        enforcer.port.stopListening()
        reactor.spin(lambda: len(os.listdir("/proc/self/fd")) <= before + 3)
    assert service.descriptors == []


def test_an_enforcer_that_never_greets_is_left(reactor, linked):
    """A silent listener is not an enforcer."""
    link, enforcer, _ = linked(lambda transport: None)
    reactor.spin(lambda: len(enforcer.connections) == 2, 6)
    assert not link.is_up


def test_an_enforcer_that_does_not_read_costs_bounded_memory(reactor, linked):
    """Past the bound the connection is given up; the core asks again on the next one."""
    link, enforcer, service = linked(hello_with())
    reactor.spin(lambda: link.is_up)
    enforcer.connections[0].transport.pauseProducing()
    many = GrantRequested(1, 1, "u", b"\x0a\0\0\1", "a.example", (b"\1\1\1\1",) * 4096, 60)
    sent = 0
    while link.send(many):
        sent += len(encode(many))
        reactor.iterate(0)
        assert sent < MAX_UNSENT_BYTES + 2_000_000
    reactor.spin(lambda: any(told == ("lost", "the enforcer does not read") for told in service.told))
    reactor.spin(lambda: link.is_up)
    enforcer.connections[0].transport.abortConnection()
