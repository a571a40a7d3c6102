"""Sockets that are kept: each question its own port, nothing of the former one's."""

from __future__ import annotations

import random
import resource
import socket
from itertools import pairwise

import pytest

from policy.runtime.kinds import Upstream
from resolver.effects import AskUpstream
from resolver.question_sockets import ANSWERS_PER_TURN, MAX_KEPT, QuestionSockets
from resolver.upstreams import Forwarding


class Peer:
    """An upstream that says what it is told to, when it is told to."""

    def __init__(self, address="127.0.0.1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind((address, 0))
        self.sock.settimeout(2)
        self.upstream = Upstream(address, self.sock.getsockname()[1], tls=False, name="")

    def asked(self):
        """Return the next question and where it came from."""
        return self.sock.recvfrom(4096)


class Asking:
    """Sockets, and what came in by them."""

    def __init__(self, peer):
        self.forwarding = Forwarding({"outside": [peer.upstream]}, random.SystemRandom())
        self.received, self.failed = [], []
        self.sockets = QuestionSockets(self._came, self.failed.append)
        self.count = 0

    def _came(self, attempt, wire):
        self.received.append((attempt, wire))
        self.sockets.close(attempt)

    def send(self):
        """Ask a question; return its attempt."""
        self.count += 1
        ask = AskUpstream(self.count, b"\x01a\x00", 1, do=False, group="outside", deadline_at=9e9)
        attempt = self.forwarding.ask(ask, 0.0)[0].attempt
        self.sockets.send(attempt)
        return attempt


@pytest.fixture(params=["127.0.0.1", "::1"])
def peer(request):
    """An upstream on loopback."""
    made = Peer(request.param)
    yield made
    made.sock.close()


@pytest.fixture
def asking(peer):
    """Sockets that ask the peer."""
    made = Asking(peer)
    yield made
    made.sockets.close_all()
    made.sockets._epoll.close()


def answered(asking, peer, said=b"answer"):
    """Ask and answer one question; return its port and its descriptor."""
    descriptor = asking.send().descriptor
    _, where = peer.asked()
    peer.sock.sendto(said, where)
    asking.sockets.doRead()
    return where[1], descriptor


def test_a_kept_socket_has_another_port_for_each_question(asking, peer):
    """Few sockets, many questions, all ports of the local range: none is told by the one before it."""
    asked = [answered(asking, peer) for _ in range(600)]
    ports = [port for port, _ in asked]
    assert len({descriptor for _, descriptor in asked}) <= 3
    assert len(set(ports)) > 550
    assert sum(abs(one - other) <= 16 for one, other in pairwise(ports)) < 20
    assert max(ports) - min(ports) > 20_000
    assert len(asking.received) == 600
    assert not asking.failed


def test_what_comes_late_reaches_no_other_question(asking, peer):
    """Duplicates that wait in the socket, and such as come after the answer, are nobody's."""
    for turn in range(50):
        before = asking.send()
        _, where = peer.asked()
        for said in (b"answer", b"late", b"later"):
            peer.sock.sendto(said, where)
        asking.sockets.doRead()
        peer.sock.sendto(b"after", where)
        assert [wire for _, wire in asking.received[turn:]] == [b"answer"]
        assert asking.received[turn][0] is before
    asking.sockets.doRead()
    assert len(asking.received) == 50


def test_a_socket_is_free_only_once_a_look_found_it_empty(asking, peer):
    """It rests until the next look; one that has got something is closed instead."""
    first = asking.send()
    _, where = peer.asked()
    peer.sock.sendto(b"duplicate", where)
    descriptor = first.descriptor
    asking.sockets.close(first)
    second = asking.send()
    assert second.descriptor != descriptor
    asking.sockets.doRead()
    assert asking.received == []
    assert asking.sockets.kept_count == 0
    asking.sockets.close(second)
    assert asking.sockets.kept_count == 1
    asking.sockets.doRead()
    third = asking.send()
    assert asking.sockets.kept_count == 0
    assert third.descriptor >= 0


def test_a_free_socket_that_gets_something_is_closed(asking, peer):
    """A datagram that was under way when the port went: no loop spins about it."""
    answered(asking, peer)
    asking.sockets.doRead()
    (kept,) = (kept for free in asking.sockets._free for kept in free)
    kept.sock.bind((peer.upstream.address, 0))
    peer.sock.sendto(b"under way", kept.sock.getsockname())
    asking.sockets.doRead()
    assert asking.sockets.kept_count == 0
    assert asking.sockets._epoll.poll(0, 8) == []
    answered(asking, peer)
    assert len(asking.received) == 2


def test_a_refused_question_takes_its_socket_with_it(asking, peer):
    """ICMP's error is that question's, and no later one inherits it."""
    answered(asking, peer)
    asking.sockets.doRead()
    peer.sock.close()
    attempt = asking.send()
    asking.sockets.doRead()
    assert asking.failed == [attempt]
    assert asking.sockets.kept_count == 0
    assert len(asking.sockets) == 0


def test_an_error_of_a_question_that_ended_is_nobodys(asking, peer):
    """It ended before its error was read: its socket is closed, not kept."""
    peer.sock.close()
    asking.sockets.close(asking.send())
    asking.sockets.doRead()
    assert asking.failed == []
    assert asking.sockets.kept_count == 0


def test_the_kept_ones_are_bounded(asking):
    """Beyond the bound a socket is closed with its question."""
    attempts = [asking.send() for _ in range(MAX_KEPT + 20)]
    for attempt in attempts:
        asking.sockets.close(attempt)
    assert asking.sockets.kept_count == MAX_KEPT
    asking.sockets.doRead()
    assert asking.sockets.kept_count == MAX_KEPT


def test_more_than_a_turn_takes_are_all_taken_in_the_end(asking, peer):
    """Many answers and many duplicates at once: each question gets its own, in a few turns."""
    attempts = [asking.send() for _ in range(3 * ANSWERS_PER_TURN)]
    for _ in attempts:
        wire, where = peer.asked()
        peer.sock.sendto(wire, where)
        peer.sock.sendto(b"duplicate", where)
    for _ in range(8):
        asking.sockets.doRead()
    assert {attempt for attempt, _ in asking.received} == set(attempts)
    assert all(wire == attempt.wire for attempt, wire in asking.received)


def test_without_descriptors_a_question_fails_and_leaves_nothing(peer):
    """The process has no descriptor left: OSError to who asked, and nothing half open."""
    asking = Asking(peer)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (asking.sockets.fileno() + 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            asking.send()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(asking.sockets) == asking.sockets.kept_count == 0
    asking.sockets._epoll.close()
