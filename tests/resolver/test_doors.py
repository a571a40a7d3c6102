"""Sockets that come again over the link: kept when they are the same, replaced when not."""

from __future__ import annotations

import os
import select
import socket
from contextlib import ExitStack

import pytest

from resolver import transport
from resolver.doors import Doors
from resolver.stream_listener import StreamListener


class Inside:
    """Stands for the core: keeps what was received."""

    def __init__(self, reactor):
        self.received = []
        streams = StreamListener(reactor, self.take, lambda via, now: None, 64)
        self.doors = Doors(
            reactor,
            streams,
            hit=lambda *_: None,
            received=self.take,
            owner=transport.text,
            broken=self.received.append,
        )

    def take(self, wire, client, now):
        self.received.append((wire, client))


@pytest.fixture
def inside(reactor):
    """Doors of a reactor, closed at the end."""
    one = Inside(reactor)
    reactor.turn_ends.append(one.doors.flush)
    yield one
    one.doors.close()


def sockets_open():
    """Count this process's sockets; Twisted keeps a descriptor of /dev/null in reserve for itself."""
    folder = "/proc/self/fd"
    links = [os.path.join(folder, name) for name in os.listdir(folder)]
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.islink(link))


def bound(kind, port=0):
    """Return a bound socket, listening if it is a stream's."""
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", port))
    if kind == socket.SOCK_STREAM:
        sock.listen(8)
    return sock


def duplicates(*socks):
    """Return fresh descriptors of these sockets, as SCM_RIGHTS brings them."""
    return [os.dup(sock.fileno()) for sock in socks]


def test_the_same_sockets_are_read_once(reactor, inside):
    """A second greeting with the same sockets neither closes them nor reads them twice."""
    before = sockets_open()
    with bound(socket.SOCK_DGRAM) as udp, bound(socket.SOCK_STREAM) as tcp:
        names = ("udp4", "tcp4")
        inside.doors.adopt(names, duplicates(udp, tcp))
        opened = sockets_open()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(udp.getsockname())
            client.send(b"one")
            reactor.spin(lambda: inside.received)
            inside.doors.adopt(names, duplicates(udp, tcp))
            assert sockets_open() == opened + 1
            inside.doors.reply(b"ONE", inside.received[0][1])
            assert client.recv(10) == b"ONE"
            client.send(b"two")
            reactor.spin(lambda: len(inside.received) == 2)
        with socket.create_connection(tcp.getsockname(), 5) as client:
            client.sendall(b"\0\5three")
            reactor.spin(lambda: len(inside.received) == 3)
            inside.doors.reply(b"THREE", inside.received[2][1])
            reactor.spin(lambda: select.select([client], [], [], 0)[0])
            assert client.recv(10) == b"\0\5THREE"
        assert inside.doors.names == names
        inside.doors.close()
    reactor.spin(lambda: sockets_open() <= before)


def test_other_sockets_replace_those_of_their_name(reactor, inside):
    """A new enforcer with sockets of its own: those are read, the old ones closed."""
    with bound(socket.SOCK_DGRAM) as old, bound(socket.SOCK_DGRAM) as new, bound(socket.SOCK_STREAM) as tcp:
        inside.doors.adopt(("udp4", "tcp4"), duplicates(old, tcp))
        with bound(socket.SOCK_STREAM) as other:
            inside.doors.adopt(("udp4", "tcp4"), duplicates(new, other))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"lost", old.getsockname())
            client.sendto(b"heard", new.getsockname())
            reactor.spin(lambda: inside.received)
        assert [wire for wire, _ in inside.received] == [b"heard"]


def test_what_came_through_a_replaced_socket_is_read_and_answered(reactor, inside):
    """An enforcer that was killed comes back with sockets of its own: no lookup in between is lost."""
    with bound(socket.SOCK_DGRAM) as old, bound(socket.SOCK_DGRAM) as new:
        inside.doors.adopt(("udp4",), duplicates(old))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"waits", old.getsockname())
            inside.doors.adopt(("udp4",), duplicates(new))
            assert [wire for wire, _ in inside.received] == [b"waits"]
            inside.doors.reply(b"HERE", inside.received[0][1])
            client.settimeout(10)
            assert client.recvfrom(10) == (b"HERE", new.getsockname())


def test_a_reply_goes_through_no_descriptor_that_another_has_now(reactor, inside):
    """Sockets replaced twice while a lookup is under way: its reply leaves through the newest."""
    with ExitStack() as opened:
        doors = [opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(3)]
        for udp in doors:
            udp.bind(("0.0.0.0", 0))
        client = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.settimeout(5)
        client.sendto(b"early", ("127.0.0.1", doors[0].getsockname()[1]))
        inside.doors.adopt(("udp4",), duplicates(doors[0]))
        reactor.spin(lambda: inside.received)
        for udp in doors[1:]:
            inside.doors.adopt(("udp4",), duplicates(udp))
        for _ in range(8):  # whoever opens something next has the descriptors that were closed
            opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        inside.doors.reply(b"EARLY", inside.received[0][1])
        reactor.iterate(0)
        assert client.recvfrom(10) == (b"EARLY", ("127.0.0.1", doors[2].getsockname()[1]))


def test_a_reply_that_waits_for_its_turn_s_end_outlives_its_socket(reactor, inside):
    """Whatever closes a socket sends first what was to be sent through it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("0.0.0.0", 0))
        inside.doors.adopt(("udp4",), duplicates(udp))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", udp.getsockname()[1]))
            client.settimeout(10)
            client.send(b"first")
            reactor.spin(lambda: inside.received)
            inside.doors.reply(b"FIRST", inside.received[0][1])
            inside.doors.stop_reading()
            assert client.recv(10) == b"FIRST"
            inside.doors.reply(b"SECOND", inside.received[0][1])
            inside.doors.give_up()
            assert client.recv(10) == b"SECOND"


def test_replies_leave_before_what_takes_long(reactor, inside):
    """A flush sends what was released by datagram and by stream: another snapshot is not waited for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, bound(socket.SOCK_STREAM) as tcp:
        udp.bind(("0.0.0.0", 0))
        inside.doors.adopt(("udp4", "tcp4"), duplicates(udp, tcp))
        with (
            socket.create_connection(tcp.getsockname(), 5) as stream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(5)
            client.sendto(b"one", ("127.0.0.1", udp.getsockname()[1]))
            stream.sendall(b"\0\3one")
            reactor.spin(lambda: len(inside.received) == 2)
            for _, asker in inside.received:
                inside.doors.reply(b"ONE", asker)
            inside.doors.flush()
            assert client.recv(10) == b"ONE"
            assert stream.recv(10) == b"\0\3ONE"


def test_draining_leaves_the_sockets_to_the_next_process(reactor, inside):
    """After stop_reading queries stay in the shared buffers: whoever comes next answers them."""
    with bound(socket.SOCK_DGRAM) as udp, bound(socket.SOCK_STREAM) as tcp:
        inside.doors.adopt(("udp4", "tcp4"), duplicates(udp, tcp))
        inside.doors.stop_reading()
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
            socket.create_connection(tcp.getsockname(), 5) as stream,
        ):
            client.sendto(b"later", udp.getsockname())
            stream.sendall(b"\0\5later")
            reactor.spin_for(0.1)
            assert inside.received == []
            assert udp.recv(10) == b"later"
            accepted, _ = tcp.accept()
            assert accepted.recv(10) == b"\0\5later"
            accepted.close()


def test_a_muted_pod_is_heard_by_who_comes_next(reactor, inside):
    """What one resolver had the kernel drop, another hears: when it adopts the socket, or the first stops."""
    source = b"\x7f\0\0\1"
    with bound(socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(udp.getsockname())
        transport.mute(udp, [source])
        inside.doors.adopt(("udp4",), duplicates(udp))
        client.send(b"one")
        reactor.spin(lambda: inside.received)
        inside.doors.mute(frozenset({source}))
        client.send(b"two")
        reactor.spin_for(0.05)
        assert [wire for wire, _ in inside.received] == [b"one"]
        assert inside.doors.take_drops() == 1
        assert inside.doors.take_drops() == 0
        inside.doors.stop_reading()
        client.send(b"three")
        assert udp.recv(10) == b"three"
