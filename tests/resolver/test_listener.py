"""Queries over UDP and TCP on real sockets: source, aim, bounds, and clients that misbehave."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import socket
import struct

import pytest

from resolver import stream_connection, stream_listener, stream_turns, transport
from resolver.effects import Client
from resolver.hits import STREAM
from resolver.listener import UdpListener
from resolver.stream_listener import StreamListener


class Echo:
    """Stands in for the core: hits are told in advance, the rest is kept."""

    def __init__(self):
        self.hits = {}
        self.received = []
        self.closed = []
        self.broken = []
        self.strangers = set()

    def owner(self, source):
        return source if transport.text(source) in self.strangers else transport.text(source)

    def hit(self, wire, source, now):
        return self.hits.get((wire, source))

    def take(self, wire, client, now):
        self.received.append((wire, client))


@pytest.fixture(params=["in batches", "singly"])
def udp(reactor, request):
    """Make a UDP listener on a wildcard socket, of either way to read; return it, its port and its echo."""
    made = []

    def make(family=socket.AF_INET):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        sock.settimeout(0)
        echo = Echo()
        listener = UdpListener(
            reactor, sock, 3, hit=echo.hit, received=echo.take, owner=echo.owner, broken=echo.broken.append
        )
        assert listener._batch is not None
        if request.param == "singly":
            listener._batch = None
        reactor.turn_ends.append(listener.flush)
        listener.start()
        made.append(listener)
        return listener, sock.getsockname()[1], echo

    yield make
    for listener in made:
        listener.close()


def test_questions_are_read_after_what_is_under_way(reactor, udp):
    """In a turn that brings answers too, those come first: as long as the socket is read, no longer."""
    listener, _, _ = udp()
    assert listener in reactor.last
    listener.stop()
    assert listener not in reactor.last


def client_socket(address, port):
    """Return a connected UDP client."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.connect((address, port))
    return sock


def readable(sock):
    """Say whether something arrived."""
    return bool(select.select([sock], [], [], 0)[0])


@pytest.mark.parametrize(("family", "aimed"), [(socket.AF_INET, "127.0.0.53"), (socket.AF_INET6, "::1")])
def test_hits_and_misses_are_answered_from_the_aimed_address(reactor, udp, family, aimed):
    """A connected client takes a reply only from the address it asked: both ways keep it."""
    listener, port, echo = udp(family)
    with client_socket(aimed, port) as client:
        source = transport.packed(client.getsockname()[0])
        echo.hits[b"hot", source] = b"HOT"
        client.send(b"hot")
        reactor.spin(lambda: readable(client))
        assert client.recv(100) == b"HOT"
        assert echo.received == []
        client.send(b"cold")
        reactor.spin(lambda: echo.received)
        expected = Client(source, client.getsockname()[1], transport.packed(aimed), "udp", 3)
        assert echo.received == [(b"cold", expected)]
        listener.reply(b"COLD", expected)
        reactor.spin(lambda: readable(client))
        assert client.recv(100) == b"COLD"
        assert listener.unsent == 0


def test_a_turn_is_bounded(reactor, udp):
    """A flood on one socket leaves the reactor to others after a bounded number of datagrams."""
    listener, port, echo = udp()
    with client_socket("127.0.0.1", port) as client:
        listener.datagrams_per_turn = 64
        for number in range(74):
            client.send(b"%d" % number)
        listener.doRead()
        assert len(echo.received) == 64
        listener.doRead()
        assert len(echo.received) == 74


def test_more_than_is_read_mutes_the_loudest_until_the_socket_is_empty(reactor, udp):
    """From the second turn in a row that did not empty the socket; who asked little is heard meanwhile."""
    listener, port, echo = udp()
    listener.datagrams_per_turn = 64
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loud, client_socket("127.0.0.1", port) as quiet:
        loud.bind(("127.0.0.7", 0))
        loud.connect(("127.0.0.1", port))
        for number in range(150):
            loud.send(b"loud")
            if number % 50 == 0:
                quiet.send(b"quiet")
        listener.doRead()
        loud.send(b"heard still")
        listener.doRead()
        loud.send(b"dropped")
        quiet.send(b"quiet at last")
        assert listener.take_drops() == 1
        reactor.spin(lambda: echo.received[-1][0] == b"quiet at last")
        assert [wire for wire, _ in echo.received].count(b"heard still") == 1
        assert not [wire for wire, _ in echo.received if wire == b"dropped"]
        reactor.iterate(0)
        loud.send(b"heard again")
        reactor.spin(lambda: echo.received[-1][0] == b"heard again")


def test_strangers_of_many_addresses_mute_no_pod(reactor, udp):
    """However many they write, each asking once, a pod that asks a few times is not the loud one."""
    listener, port, echo = udp()
    listener.datagrams_per_turn = 64
    addresses = [f"127.0.2.{number}" for number in range(1, 201)]
    echo.strangers.update(addresses)
    with contextlib.ExitStack() as opened:
        pod = opened.enter_context(client_socket("127.0.0.1", port))
        for number, address in enumerate(addresses):
            stranger = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            stranger.bind((address, 0))
            stranger.sendto(b"flood", ("127.0.0.1", port))
            if number % 10 == 0:
                pod.send(b"a few")
        listener.doRead()
        listener.doRead()
        pod.send(b"heard")
        assert listener.take_drops() == 0
        reactor.spin(lambda: echo.received[-1][0] == b"heard")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_each_reply_goes_to_its_asker_from_the_address_that_was_aimed_at(reactor, udp, family):
    """Hits of every length and misses of many clients at once, one of whom is gone, at several addresses."""
    listener, port, echo = udp(family)
    aims = [f"127.0.0.{number}" for number in range(50, 57)] if family == socket.AF_INET else ["::1"]
    chosen = random.Random(3)
    clients = [client_socket(chosen.choice(aims), port) for _ in range(40)]
    gone = client_socket(aims[0], port)
    try:
        expected = {client: [] for client in clients}
        for number in range(200):
            client = chosen.choice([*clients, gone])
            wire = b"%03d" % number + bytes(chosen.choice((0, 1, 40, 900)))
            if chosen.random() < 0.7:
                source = transport.packed(client.getsockname()[0])
                echo.hits[wire, source] = reply = b"to " + wire + bytes(chosen.choice((0, 1, 300)))
                if client is not gone:
                    expected[client].append(reply)
            client.send(wire)
            if number % 70 == 69:
                listener.doRead()
        gone.close()
        reactor.iterate(0)
        for wire, client in echo.received:
            listener.reply(b"late " + wire, client)
        listener.flush()
        for client, replies in expected.items():
            client.settimeout(5)
            late = [b"late " + wire for wire, asked in echo.received if asked.port == client.getsockname()[1]]
            assert sorted(client.recv(4096) for _ in replies + late) == sorted(replies + late)
        assert len(echo.received) == 200 - len(echo.hits)
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize(("family", "aimed"), [(socket.AF_INET, "127.0.0.53"), (socket.AF_INET6, "::1")])
def test_replies_of_a_turn_leave_together(reactor, udp, family, aimed):
    """With its end and not before, however many; hits that come meanwhile overwrite none of them."""
    listener, port, echo = udp(family)
    if listener._batch is None:
        pytest.skip("singly each leaves at once")
    with client_socket(aimed, port) as client:
        source, own_port = transport.packed(client.getsockname()[0]), client.getsockname()[1]
        asker = Client(source, own_port, transport.packed(aimed), "udp", 3)
        replies = [b"%02d" % number for number in range(50)]
        for wire in replies:
            listener.reply(wire, asker)
        assert not readable(client)
        for number in range(20):
            echo.hits[b"hot%d" % number, source] = b"HOT%d" % number
            client.send(b"hot%d" % number)
        listener.doRead()
        expected = replies + [b"HOT%d" % number for number in range(20)]
        assert [client.recv(100) for _ in expected] == expected
        for wire in replies * 3:
            listener.reply(wire, asker)
        reactor.iterate(0)
        assert [client.recv(100) for _ in replies * 3] == replies * 3
        assert not readable(client)
        assert listener.unsent == 0


@pytest.mark.parametrize("first", ["hit", "miss"])
def test_replies_made_among_hits_take_nobody_s_place(reactor, udp, first):
    """A question that is answered at once, between two that are hits: to each its own reply, once."""
    listener, port, echo = udp()
    listener._received = lambda wire, client, now: listener.reply(b"made of " + wire, client)
    with client_socket("127.0.0.1", port) as one, client_socket("127.0.0.2", port) as other:
        source = transport.packed("127.0.0.1")
        for number in range(60):
            echo.hits[b"hot %d" % number, source] = b"HOT %d" % number
            both = ((one, b"hot %d" % number), (other, b"cold %d" % number))
            for client, wire in both if first == "hit" else reversed(both):
                client.send(wire)
        reactor.iterate(0)
        for client, expected in ((one, b"HOT %d"), (other, b"made of cold %d")):
            client.settimeout(5)
            assert [client.recv(100) for _ in range(60)] == [expected % number for number in range(60)]
            assert not readable(client)
        assert listener.unsent == 0


def test_a_reply_that_has_no_place_among_others_is_sent_alone(udp):
    """Longer than nearly all, up to what a datagram may have; for an address of another family it is lost."""
    listener, port, _ = udp()
    with client_socket("127.0.0.1", port) as client:
        asker = Client(b"\x7f\0\0\1", client.getsockname()[1], b"\x7f\0\0\1", "udp", 3)
        for size in (2048, 2049, 60_000):
            listener.reply(bytes(size), asker)
        listener.flush()
        client.settimeout(5)
        assert sorted(len(client.recv(65_535)) for _ in range(3)) == [2048, 2049, 60_000]
        listener.reply(b"nobody", Client(bytes(16), asker.port, asker.aimed, "udp", 3))
        assert listener.unsent == 1


def test_a_closed_socket_s_number_is_not_written_to(reactor, udp):
    """What is to be sent through it is lost, and nobody's who has the number now."""
    listener, _, _ = udp()
    number = listener.fileno()
    with client_socket("127.0.0.1", 9) as asker:
        listener.stop()
        listener.sock.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
            assert another.fileno() == number
            client = Client(b"\x7f\0\0\1", asker.getsockname()[1], b"\x7f\0\0\1", "udp", 3)
            listener.reply(b"lost", client)
            listener.flush()
            assert another.getsockname()[1] == 0
            assert listener.unsent == 1


def test_odd_datagrams(reactor, udp):
    """Zero octets are handed on, of what exceeds the largest query so much that it shows."""
    _, port, echo = udp()
    with client_socket("127.0.0.1", port) as client:
        client.send(b"")
        client.send(bytes(60_000))
        client.send(bytes(4096))
        client.send(b"last")
        reactor.spin(lambda: echo.received and echo.received[-1][0] == b"last")
        assert [len(wire) for wire, _ in echo.received] == [0, 4097, 4096, 4]


def test_a_client_that_is_gone_costs_nothing(reactor, udp):
    """The ICMP error for a reply to a closed port neither stops the loop nor raises."""
    listener, port, echo = udp()
    gone = client_socket("127.0.0.1", port)
    gone.send(b"bye")
    reactor.spin(lambda: echo.received)
    gone.close()
    listener.reply(b"nobody", echo.received[0][1])
    asker = echo.received[0][1]
    listener.reply(b"nobody", Client(asker.source, 0, asker.aimed, "udp", asker.via))
    listener.flush()
    assert listener.unsent >= 1
    with client_socket("127.0.0.1", port) as client:
        client.send(b"next")
        reactor.spin(lambda: len(echo.received) == 2)


def test_many_addresses_do_not_grow_the_memory(udp):
    """What is remembered of addresses is bounded whatever clients aim at."""
    listener, _, _ = udp()
    for number in range(20_000):
        listener._source(f"10.0.{number >> 8}.{number & 255}")
    assert len(listener._sources) <= 8192


def test_a_bug_is_told_and_not_hidden(reactor, udp):
    """An exception out of the loop reaches ``broken``: the process ends on it."""
    listener, port, echo = udp()
    listener._received = lambda *_: 1 / 0
    with client_socket("127.0.0.1", port) as client:
        client.send(b"x")
        reactor.spin(lambda: echo.broken)
    assert echo.broken[0].check(ZeroDivisionError)


class Tcp:
    """A stream listener on loopback with its port and its echo."""

    def __init__(self, reactor, max_per_client, owner, address):
        self.echo = Echo()
        self.listener = StreamListener(
            reactor,
            self.echo.take,
            lambda via, now: self.echo.closed.append(via),
            max_per_client,
            owner,
            hit=self.echo.hit,
            broken=self.echo.broken.append,
        )
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.door = socket.create_server((address, 0), family=family, backlog=512)
        self.door.settimeout(0)
        self.listener.listen(self.door)

    def connect(self, source=""):
        sock = socket.create_connection(self.door.getsockname()[:2], 5, (source, 0))
        sock.settimeout(0)
        return sock


@pytest.fixture
def tcp(reactor):
    """Make a TCP listener."""
    made = []

    def make(max_per_client=64, owner=bytes, address="127.0.0.1"):
        made.append(Tcp(reactor, max_per_client, owner, address))
        return made[-1]

    yield make
    for one in made:
        one.listener.close()
        one.door.close()


def message(wire):
    """Return the wire with its length in front."""
    return len(wire).to_bytes(2, "big") + wire


def is_closed(sock):
    """Say whether the other end closed or reset the connection."""
    if not readable(sock):
        return False
    try:
        return sock.recv(65536) == b""
    except ConnectionResetError:
        return True


def test_pipelined_queries_and_replies_in_any_order(reactor, tcp):
    """Messages split anywhere are taken whole; replies go to their connection as they come."""
    one = tcp()
    with one.connect() as sock:
        stream = message(b"first") + message(b"second") + message(b"third")
        for at in range(0, len(stream), 4):
            sock.send(stream[at : at + 4])
            reactor.spin_for(0.005)
        reactor.spin(lambda: len(one.echo.received) == 3)
        (first, client), (_, same), (third, _) = one.echo.received
        assert client == same
        assert client == Client(b"\x7f\0\0\1", sock.getsockname()[1], b"\x7f\0\0\1", "tcp", client.via)
        one.listener.reply(third.upper(), client)
        one.listener.reply(first.upper(), client)
        reactor.spin(lambda: readable(sock))
        assert sock.recv(100) == message(b"THIRD") + message(b"FIRST")
        one.listener.reply(b"SECOND", client)
    reactor.spin(lambda: one.echo.closed == [client.via])
    one.listener.reply(b"late", client)
    assert one.listener.open_count == 0


@pytest.mark.parametrize("address", ["127.0.0.53", "::1"])
def test_a_client_is_known_by_both_ends_of_its_connection(reactor, tcp, address):
    """Its own address and port, and the address it aimed at; nothing that is written waits for more."""
    one = tcp(address=address)
    with one.connect() as sock:
        sock.send(message(b"who?"))
        reactor.spin(lambda: one.echo.received)
        source, port = sock.getsockname()[:2]
        client = one.echo.received[0][1]
        assert client == Client(transport.packed(source), port, transport.packed(address), "tcp", client.via)
        (connection,) = one.listener._connections.values()
        with socket.socket(fileno=os.dup(connection.descriptor)) as ours:
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not os.get_blocking(ours.fileno())


def test_prepared_replies_leave_in_one_piece_and_in_order(reactor, tcp):
    """What is ready is not handed on; all replies of a turn are one write, whoever gave them."""
    one = tcp()
    one.echo.hits = {(wire, b"\x7f\0\0\1" + STREAM): wire.upper() for wire in (b"first", b"third")}
    with one.connect() as sock:
        sock.sendall(message(b"first") + message(b"second") + message(b"third") + b"\0")
        reactor.spin(lambda: readable(sock))
        assert [wire for wire, _ in one.echo.received] == [b"second"]
        assert sock.recv(100) == message(b"FIRST") + message(b"THIRD")
        client = one.echo.received[0][1]
        one.listener.reply(b"SECOND", client)
        one.listener.reply(b"AND MORE", client)
        assert not readable(sock)
        reactor.iterate(0)
        assert sock.recv(100) == message(b"SECOND") + message(b"AND MORE")


def test_prepared_replies_to_a_reader_that_never_reads_are_bounded(reactor, tcp):
    """It asks on and on and takes nothing: it is not read any more, then cut for its silence."""
    one = tcp()
    one.echo.hits = {(b"big", b"\x7f\0\0\1" + STREAM): bytes(4000)}
    one.listener.idle_s = 1.0
    with one.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reactor.spin(lambda: one.listener.open_count == 1)
        (connection,) = one.listener._connections.values()
        most = 0
        while one.listener.open_count:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sock.send(message(b"big") * 1000)
            reactor.iterate(0.001)
            most = max(most, len(connection._rest))
        assert 0 < most <= stream_connection.MESSAGES_PER_TURN * 4002


def test_long_answers_given_at_once_wait_for_their_reader(reactor, tcp):
    """It asks much in one piece: no more is taken than it reads, it is not cut, and gets all in the end."""
    one = tcp()
    one.door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    taken = []
    one.listener.received = lambda wire, client, now: (
        taken.append(wire),
        one.listener.reply(wire * 30_000, client),
    )
    wires = [b"%02d" % number for number in range(80)]
    with one.connect() as sock:
        sock.sendall(b"".join(map(message, wires)))
        reactor.spin_for(0.1)
        (connection,) = one.listener._connections.values()
        assert len(connection._rest) < stream_connection.MAX_UNREAD_BYTES + 65_537
        assert 1 < len(taken) < 8
        sock.shutdown(socket.SHUT_WR)
        expected, data = b"".join(message(wire * 30_000) for wire in wires), bytearray()
        while len(data) < len(expected):
            reactor.spin(lambda: readable(sock))
            data += sock.recv(1 << 20)
        assert data == expected
        reactor.spin(lambda: is_closed(sock))


def test_a_slow_reader_gets_all_in_order_and_asks_on(reactor, tcp):
    """What the socket did not take is sent when there is room, later replies behind it."""
    one = tcp()
    one.door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections have it too
    with one.connect() as sock:
        sock.send(message(b"much"))
        reactor.spin(lambda: one.echo.received)
        client = one.echo.received[0][1]
        (connection,) = one.listener._connections.values()
        replies = []
        while not connection._rest:
            replies.append(bytes([len(replies) % 251]) * 60_000)
            one.listener.reply(replies[-1], client)
            reactor.iterate(0)
        replies.append(b"behind")
        one.listener.reply(b"behind", client)
        expected, data = b"".join(map(message, replies)), bytearray()
        sock.send(message(b"more?"))
        reactor.iterate(0)
        assert len(one.echo.received) == 1
        while len(data) < len(expected):
            reactor.spin(lambda: readable(sock))
            data += sock.recv(65536)
        assert data == expected
        reactor.spin(lambda: one.echo.received[-1][0] == b"more?")


def test_a_burst_is_taken_in_turns(reactor, tcp):
    """A thousand pipelined messages are all taken, a bounded number a turn."""
    one = tcp()
    with one.connect() as sock:
        sock.sendall(b"".join(message(b"%d" % number) for number in range(1000)))
        reactor.spin(lambda: len(one.echo.received) == 1000)
    assert [wire for wire, _ in one.echo.received] == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize("how", ["taken", "answered at once"])
def test_all_connections_share_a_turn(reactor, tcp, how):
    """Sixty that ask a hundred questions each have no more of a turn than one budget; all are taken."""
    one = tcp()
    wires = [b"%03d" % number for number in range(100)]
    if how == "answered at once":
        one.echo.hits = {(wire, b"\x7f\0\0\1" + STREAM): wire for wire in wires}
        taken = []
        one.listener.hit = lambda *asked: (taken.append(asked[0]), one.echo.hit(*asked))[1]
    else:
        taken = one.echo.received
    socks = [one.connect() for _ in range(60)]
    reactor.spin(lambda: one.listener.open_count == 60)
    for sock in socks:
        sock.sendall(b"".join(map(message, wires)))
    turns = 0
    while len(taken) < 60 * 100:
        before, turns = len(taken), turns + 1
        assert turns < 1000
        reactor.iterate(0)  # timers, then descriptors: each is a turn
        assert len(taken) - before <= 2 * stream_turns.PER_TURN
    for sock in socks:
        sock.close()


def test_who_asks_little_is_taken_before_many_connections_of_another(reactor, tcp):
    """A client with sixty full connections has one of them served before another client's question."""
    one = tcp()
    socks = [one.connect() for _ in range(60)]
    with one.connect("127.0.0.2") as quiet:
        reactor.spin(lambda: one.listener.open_count == 61)
        for sock in socks:
            sock.sendall(message(b"loud") * 1000)
        while len(one.echo.received) < stream_turns.PER_TURN:
            reactor.iterate(0)
        for _ in range(20):
            before = len(one.echo.received)
            quiet.send(message(b"quiet"))
            while (b"quiet", b"\x7f\0\0\2") not in [
                (wire, client.source) for wire, client in one.echo.received[before:]
            ]:
                assert len(one.echo.received) - before <= 2 * stream_turns.PER_TURN
                reactor.iterate(0)
    for sock in socks:
        sock.close()


@pytest.mark.parametrize("size", [1, 4000], ids=["short", "long"])
def test_a_flood_over_streams_delays_no_datagram(reactor, tcp, udp, size):
    """Attack: a pod fills all connections that it may have; a datagram waits for one turn of them."""
    one = tcp()
    _, port, echo = udp()
    socks = [one.connect() for _ in range(64)]
    reactor.spin(lambda: one.listener.open_count == 64)
    full = message(b"x" * size) * (1 << 16 >> (size.bit_length()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        for number in range(1, 30):
            for sock in socks:
                with contextlib.suppress(BlockingIOError):
                    sock.send(full)
            before = len(one.echo.received)
            client.send(b"datagram")
            while len(echo.received) < number:
                reactor.iterate(0)
            assert len(one.echo.received) - before <= 3 * stream_turns.PER_TURN
    for sock in socks:
        sock.close()


def test_a_connection_that_has_gone_waits_for_no_turn(reactor, tcp):
    """What is cut while it waits is forgotten: its descriptor may be another's."""
    one = tcp()
    socks = [one.connect() for _ in range(20)]
    reactor.spin(lambda: one.listener.open_count == 20)
    for sock in socks:
        sock.sendall(message(b"much") * 500)
    one.listener.doRead()
    for connection in list(one.listener._connections.values())[1:]:
        connection.cut()
    reactor.spin(lambda: len(one.echo.received) >= 500)
    assert len({client.via for _, client in one.echo.received[stream_turns.PER_TURN :]}) == 1
    for connection in list(one.listener._connections.values()):
        connection.cut()
    assert not one.listener.turns._waiting
    for sock in socks:
        sock.close()


@pytest.mark.parametrize("prefix", [b"\0\0", b"\x10\x01", b"\xff\xff"], ids=["zero", "4097", "65535"])
def test_lengths_that_no_query_has_end_the_connection(reactor, tcp, prefix):
    """Zero and more than 4 KiB: cut at once, before the bytes come."""
    one = tcp()
    with one.connect() as sock:
        sock.send(message(b"good") + prefix)
        reactor.spin(lambda: is_closed(sock))
    assert [wire for wire, _ in one.echo.received] == [b"good"]


def test_one_source_cannot_take_more_than_its_number(reactor, tcp):
    """Connections over the cap of a source are closed at once; another source still gets in."""
    one = tcp(max_per_client=4)
    socks = [one.connect() for _ in range(20)]
    reactor.spin(lambda: sum(is_closed(sock) for sock in socks) >= 1 and one.listener.open_count == 4)
    with one.connect("127.0.0.2") as other:
        other.send(message(b"me too"))
        reactor.spin(lambda: one.echo.received)
        one.listener.reply(b"ME TOO", one.echo.received[0][1])
    socks[0].close()
    reactor.spin(lambda: one.listener.open_count == 3)
    for sock in socks:
        sock.close()


def test_at_the_total_cap_the_idlest_makes_room(reactor, tcp):
    """Connections opened and left give way to one that has something to ask."""
    one = tcp(max_per_client=stream_listener.MAX_CONNECTIONS)
    idle = [one.connect() for _ in range(3)]
    reactor.spin(lambda: one.listener.open_count == 3)
    idle[0].send(message(b"active"))
    reactor.spin(lambda: one.echo.received)
    one.listener.max_connections = 3
    with one.connect() as fresh:
        reactor.spin(lambda: is_closed(idle[1]))
        fresh.send(message(b"fresh"))
        reactor.spin(lambda: len(one.echo.received) == 2)
    for sock in idle:
        sock.close()


def test_a_flood_of_connections_is_taken_in_turns(reactor, tcp):
    """A turn accepts a bounded number, and the others are served in between."""
    one = tcp(max_per_client=stream_listener.MAX_CONNECTIONS)
    first = stream_listener.CONNECTIONS_PER_TURN
    socks = [one.connect() for _ in range(first + 20)]
    one.listener.doRead()
    assert one.listener.open_count == first
    one.listener.doRead()
    assert one.listener.open_count == first + 20
    for sock in socks:
        sock.close()


def test_who_has_gone_makes_room_in_the_same_turn(reactor, tcp):
    """A client at its number that ends its connections and opens others at once is not refused."""
    one = tcp(max_per_client=4)
    socks = [one.connect() for _ in range(4)]
    reactor.spin(lambda: one.listener.open_count == 4)
    for sock in socks:
        sock.close()
    socks = [one.connect() for _ in range(4)]
    reactor.spin(lambda: len(one.echo.closed) == 4)
    reactor.spin(lambda: one.listener.open_count == 4)
    assert one.listener.refused == 0
    for sock in socks:
        sock.close()


def test_without_a_descriptor_left_the_idlest_makes_room(reactor, tcp):
    """Connections that were opened and left do not keep out who has something to ask."""
    one = tcp()
    idle = [one.connect() for _ in range(3)]
    reactor.spin(lambda: one.listener.open_count == 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with one.connect() as fresh:
        fresh.send(message(b"fresh"))
        with open(os.devnull) as highest:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest.fileno(), hard))
        try:
            reactor.spin(lambda: one.echo.received)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert is_closed(idle[0])
        assert one.listener.open_count == 3
    for sock in idle:
        sock.close()


@pytest.mark.parametrize("open_before", [0, 8])
def test_without_any_descriptor_left_nobody_is_accepted_for_a_while(reactor, tcp, open_before):
    """With no connection to cut, or when that brings no room: the loop rests, and goes on when there is."""
    one = tcp()
    idle = [one.connect() for _ in range(open_before)]
    reactor.spin(lambda: one.listener.open_count == open_before)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with one.connect() as fresh:
        fresh.send(message(b"fresh"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            turns, until = 0, reactor.seconds() + 3.5 * stream_listener.PAUSE_S
            while reactor.seconds() < until:
                reactor.iterate(1)
                turns += 1
            assert turns < 20
            assert one.listener.open_count >= open_before - 4
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        reactor.spin(lambda: one.echo.received)
    for sock in idle:
        sock.close()


def test_a_door_that_is_left_in_a_pause_stays_left(reactor, tcp):
    """Draining while there is no descriptor left: the next process has the connections."""
    one = tcp()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with one.connect() as fresh:
        fresh.send(message(b"fresh"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            reactor.iterate(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        one.listener.leave(one.door)
        reactor.spin_for(1.5 * stream_listener.PAUSE_S)
        assert one.echo.received == []
        one.listener.listen(one.door)
        reactor.spin(lambda: one.echo.received)


def test_the_addresses_of_one_pod_share_its_number(reactor, tcp):
    """A dual-stack pod has one cap, whichever of its addresses it comes from."""
    one = tcp(max_per_client=2, owner=lambda source: "pod" if source[-1] < 9 else source)
    socks = [one.connect("127.0.0.1"), one.connect("127.0.0.2"), one.connect("127.0.0.3")]
    reactor.spin(lambda: is_closed(socks[2]))
    assert one.listener.open_count == 2
    assert one.listener.refused == 1
    with one.connect("127.0.0.9") as other:
        other.send(message(b"me too"))
        reactor.spin(lambda: one.echo.received)
        one.listener.reply(b"ME TOO", one.echo.received[0][1])
    socks[0].close()
    reactor.spin(lambda: one.listener.open_count == 1)
    with one.connect("127.0.0.3") as third:
        third.send(message(b"room again"))
        reactor.spin(lambda: len(one.echo.received) == 2)
    for sock in socks:
        sock.close()


def test_a_client_that_sends_no_more_gets_its_answers(reactor, tcp):
    """FIN after the questions (a half-closed connection): all are answered, then it is closed."""
    one = tcp()
    with one.connect() as sock:
        sock.sendall(b"".join(message(b"%d" % number) for number in range(100)))
        sock.shutdown(socket.SHUT_WR)
        reactor.spin(lambda: len(one.echo.received) == 100)
        reactor.spin_for(0.05)
        assert one.listener.open_count == 1
        for wire, client in one.echo.received:
            one.listener.reply(wire, client)
        data = b""
        while len(data) < len(b"".join(message(b"%d" % number) for number in range(100))):
            reactor.spin(lambda: readable(sock))
            data += sock.recv(65536)
        reactor.spin(lambda: is_closed(sock))
    reactor.spin(lambda: one.listener.open_count == 0)


def test_answers_given_at_once_do_not_end_a_half_closed_connection_early(reactor, tcp):
    """More messages than a turn takes, FIN, and replies from within: none is lost."""
    one = tcp()
    one.listener.received = lambda wire, client, now: one.listener.reply(wire, client)
    with one.connect() as sock:
        sock.sendall(message(b"ab") * 200)
        sock.shutdown(socket.SHUT_WR)
        data = b""
        while len(data) < 800:
            reactor.spin(lambda: readable(sock))
            data += sock.recv(65536)
        assert data == message(b"ab") * 200
        reactor.spin(lambda: is_closed(sock))


def test_a_half_closed_connection_without_an_answer_is_cut(reactor, tcp):
    """Questions that stay unanswered, or answers nobody takes, keep no connection beyond the idle time."""
    one = tcp()
    one.listener.idle_s = 0.2
    with one.connect() as silent, one.connect() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.send(message(b"silence"))
        silent.shutdown(socket.SHUT_WR)
        deaf.send(message(b"much"))
        deaf.shutdown(socket.SHUT_WR)
        reactor.spin(lambda: len(one.echo.received) == 2)
        much = next(client for wire, client in one.echo.received if wire == b"much")
        for _ in range(200):
            one.listener.reply(bytes(60_000), much)
        reactor.spin(lambda: one.listener.open_count == 0)
        reactor.spin(lambda: is_closed(silent))


def test_idle_and_trickling_connections_are_cut(reactor, tcp):
    """Bytes that never make a message do not keep a connection open; a message does."""
    one = tcp()
    one.listener.idle_s = 1.5
    with one.connect() as idle, one.connect() as half, one.connect() as trickling, one.connect() as asking:
        began_at = reactor.seconds()
        half.send(b"\0")  # of a length
        trickling.send(b"\x01\0")
        ended = set()
        while len(ended) < 3:
            assert reactor.seconds() - began_at < 5
            if trickling not in ended:
                trickling.send(b"x")
            asking.send(message(b"?"))
            reactor.spin_for(0.2)
            ended |= {sock for sock in (idle, half, trickling) if sock not in ended and is_closed(sock)}
        assert one.listener.open_count == 1
        assert all(wire == b"?" for wire, _ in one.echo.received)


def test_a_reader_that_never_reads_is_cut(reactor, tcp):
    """Replies nobody takes do not pile up: the connection ends, others go on."""
    one = tcp()
    with one.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.send(message(b"big"))
        reactor.spin(lambda: one.echo.received)
        client = one.echo.received[0][1]
        for _ in range(2000):
            one.listener.reply(bytes(60_000), client)
            reactor.iterate(0)
            if one.listener.open_count == 0:
                break
        assert one.listener.open_count == 0
        assert one.echo.closed == [client.via]


def test_ten_thousand_connections_left_open_hurt_nobody(reactor, tcp):
    """One source opens and leaves 10,000 connections; another one's query is taken meanwhile."""
    one = tcp()
    kept = []
    for number in range(10_000):
        sock = one.connect()
        kept.append(sock)
        if len(kept) > 200:
            kept.pop(0).close()
        if number % 16 == 0:
            reactor.iterate(0)
        assert one.listener.open_count <= 64
    with one.connect("127.0.0.9") as other:
        other.send(message(b"still there?"))
        reactor.spin(lambda: any(wire == b"still there?" for wire, _ in one.echo.received))
    for sock in kept:
        sock.close()


def test_draining_takes_no_query_and_sends_replies(reactor, tcp):
    """After ``stop_reading`` what is on hold can still be answered."""
    one = tcp()
    with one.connect() as sock:
        sock.send(message(b"held"))
        reactor.spin(lambda: one.echo.received)
        one.listener.stop_reading()
        sock.send(message(b"too late"))
        reactor.spin_for(0.1)
        assert len(one.echo.received) == 1
        one.listener.reply(b"HELD", one.echo.received[0][1])
        reactor.spin(lambda: readable(sock))
        assert sock.recv(100) == message(b"HELD")


def test_resets_are_no_errors(reactor, tcp):
    """A client that resets its connection in the middle of a message leaves nothing behind."""
    one = tcp()
    sock = one.connect()
    sock.send(b"\0\x20half")
    reactor.spin(lambda: one.listener.open_count == 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    reactor.spin(lambda: one.listener.open_count == 0)


@pytest.mark.parametrize("waiting", ["answer", "room", "end"])
def test_a_reset_is_seen_whatever_the_connection_waits_for(reactor, tcp, waiting):
    """For an answer, for its client to read, for the last answer after FIN: it ends, and is told to."""
    one = tcp()
    sock = one.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.send(message(b"?"))
    if waiting == "end":
        sock.shutdown(socket.SHUT_WR)
    reactor.spin(lambda: one.echo.received)
    client = one.echo.received[0][1]
    (connection,) = one.listener._connections.values()
    while waiting == "room" and not connection._rest:
        one.listener.reply(bytes(60_000), client)
        reactor.iterate(0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    reactor.spin(lambda: one.echo.closed == [client.via])
    one.listener.reply(b"late", client)
    reactor.iterate(0)
    assert not one.echo.broken


def test_a_bug_in_a_stream_is_told_and_not_hidden(reactor, tcp):
    """An exception out of the reading reaches ``broken``: the process ends on it."""
    one = tcp()
    one.listener.received = lambda *_: 1 / 0
    with one.connect() as sock:
        sock.send(message(b"x"))
        reactor.spin(lambda: one.echo.broken)
    assert one.echo.broken[0].check(ZeroDivisionError)
