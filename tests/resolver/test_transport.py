"""Socket options and ancillary data: a reply leaves from the address that was asked."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket

import pytest

from resolver import transport


def _datagram(sock):
    assert select.select([sock], [], [], 5)[0]
    return sock.recvmsg(4096, transport.CONTROL_BYTES)


@pytest.mark.parametrize(
    ("family", "wildcard", "aimed"),
    [(socket.AF_INET, "0.0.0.0", "127.0.0.77"), (socket.AF_INET6, "::", "::1")],
)
def test_a_wildcard_socket_answers_from_the_aimed_address(family, wildcard, aimed):
    """PKTINFO tells the destination of the query, and the reply's source is that address."""
    with (
        socket.socket(family, socket.SOCK_DGRAM) as server,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((wildcard, 0))
        transport.report_aims(server)
        client.connect((aimed, server.getsockname()[1]))
        client.send(b"question")
        data, control, _, sender = _datagram(server)
        aim = transport.aim(control, server)
        assert transport.text(aim.address) == aimed
        server.sendmsg([data.upper()], aim.reply, 0, sender)
        assert _datagram(client)[0] == b"QUESTION"


def test_a_bound_socket_without_pktinfo_aims_at_itself():
    """A socket bound to one address needs no ancillary data."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.9", 0))
        assert transport.aim([], server) == (b"\x7f\0\0\x09", [])


@pytest.mark.parametrize("address", ["10.1.2.3", "2a0e::7", "fe80::1"])
def test_packed_and_text_are_inverse(address):
    """An address survives both conversions; a zone does not belong to it."""
    assert transport.text(transport.packed(address)) == address
    assert transport.packed("fe80::1%eth0") == transport.packed("fe80::1")


def test_question_sockets_take_unpredictable_ports():
    """Ports of 200 questions are neither sequential nor few (RFC 5452, 4.5)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        ports = []
        sock = transport.question_socket(is_ipv6=False)
        assert not sock.getblocking()
        for _ in range(200):
            sock.connect(transport.question_address(*server.getsockname()))
            ports.append(sock.getsockname()[1])
            assert transport.disconnect(sock.fileno())
            assert sock.getsockname()[1] == 0
        sock.close()
    assert len(set(ports)) > 180
    assert sum(abs(one - other) < 16 for one, other in itertools.pairwise(ports)) < 10


def test_a_question_socket_hears_its_server_only():
    """A datagram from another address never arrives on a connected socket."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        server.bind(("127.0.0.1", 0))
        question = transport.question_socket(is_ipv6=False)
        question.connect(transport.question_address(*server.getsockname()))
        stranger.sendto(b"forged", question.getsockname())
        server.sendto(b"true", question.getsockname())
        assert _datagram(question)[0] == b"true"
        with pytest.raises(BlockingIOError):
            question.recv(100)
        question.close()


def test_duplicates_of_a_descriptor_are_one_socket():
    """A descriptor that came again over the authority link is known by its inode."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket() as other:
        again = transport.adopt(os.dup(one.fileno()))
        assert transport.same_socket(one, again)
        assert not transport.same_socket(one, other)
        assert transport.is_datagram(again)
        assert not transport.is_datagram(other)
        assert not again.getblocking()
        again.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_kernel_drops_what_is_muted_and_nothing_else(family):
    """Datagrams of muted addresses do not come; they are counted, and come again afterwards."""
    own = ["127.0.0.2", "127.0.0.3"] if family == socket.AF_INET else ["::1"]
    near = b"\x7f\0\0\4" if family == socket.AF_INET else bytes(14) + b"\1\1"
    far = b"\x80" + (b"\0\0\2" if family == socket.AF_INET else bytes(14) + b"\1")
    with contextlib.ExitStack() as opened:
        sock = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.bind((own[-1], 0))
        sock.settimeout(0)
        clients = [opened.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in own]
        for client, address in zip(clients, own, strict=True):
            client.bind((address, 0))

        def came():
            for client in clients:
                client.sendto(b"x", sock.getsockname())
            found = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.append(sock.recvfrom(10)[1][0])
            return found

        before = transport.drops(sock)
        transport.mute(sock, [])
        assert came() == own
        transport.mute(sock, [near, far, bytes(4), bytes(16)])
        assert came() == own
        transport.mute(sock, [near, transport.packed(own[0]), far])
        assert came() == own[1:]
        transport.mute(sock, [transport.packed(address) for address in own])
        assert came() == []
        assert transport.drops(sock) - before == 1 + len(own)
        transport.mute(sock, frozenset())
        assert came() == own


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_of_more_than_a_filter_holds_some_are_dropped_and_nobody_else(family):
    """Who was muted before and is not now is heard, however many others are."""
    own = "127.0.0.2" if family == socket.AF_INET else "::1"
    size = 4 if family == socket.AF_INET else 16
    with socket.socket(family, socket.SOCK_DGRAM) as sock, socket.socket(family, socket.SOCK_DGRAM) as client:
        sock.bind((own, 0))
        client.bind((own, 0))
        client.connect(sock.getsockname())
        transport.mute(sock, [transport.packed(own)])
        client.send(b"x")
        transport.mute(sock, [number.to_bytes(size, "big") for number in range(1 << 24, (1 << 24) + 3000)])
        client.send(b"y")
        assert _datagram(sock)[0] == b"y"
        transport.mute(sock, [transport.packed(own)] * 3000)
        client.send(b"z")
        sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            sock.recv(10)
