"""Sockets of several resolvers on one port: which one the kernel chooses, and how a set comes and goes."""

from __future__ import annotations

import contextlib
import select
import socket

import pytest

from enforcer.ruleset import Layout
from enforcer.sockets import of_process, open_dns_sockets, open_listen_sockets, processes_of
from tests.kernel.conftest import NODE, OTHER, PATIENCE_S, RESOLVER_UID

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])
PORT = Layout().dns_port + 2
COUNT = 3


@pytest.fixture
def opened(lab):
    """Opens sockets in the node; they are closed afterwards."""
    made = []

    def open_them(processes, given=None, port=PORT):
        with lab.inside("node"):
            sockets = open_dns_sockets(port, RESOLVER_UID, given, processes=processes)
            sockets |= open_listen_sockets(
                [(NODE[4], port + 1), (NODE[6], port + 1)], RESOLVER_UID, given, processes=processes
            )
        made.extend(sockets.values())
        return sockets

    yield open_them
    for sock in made:
        sock.close()


class Asked:
    """Which set hears a source address."""

    def __init__(self, lab, sockets):
        self.lab = lab
        self.sets = [of_process(sockets, number) for number in range(processes_of(sockets))]

    def udp(self, name, source, to):
        """Send from some ports of that address; return the numbers of the sets that heard it."""
        return self._heard(name, source, to, socket.SOCK_DGRAM)

    def tcp(self, name, source, to):
        """Connect from that address; return the numbers of the sets that accepted it."""
        return self._heard(name, source, to, socket.SOCK_STREAM)

    def _heard(self, name, source, to, kind):
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        with contextlib.ExitStack() as asking, self.lab.inside("node"):
            for _ in range(5):
                client = asking.enter_context(socket.socket(family, kind))
                client.bind((source, 0))
                client.connect(to)
                if kind == socket.SOCK_DGRAM:
                    client.send(b"x")
            socks = [each[name] for each in self.sets]
            found = []
            while len(found) < 5:
                ready = select.select(socks, [], [], PATIENCE_S)[0]
                assert ready
                for sock in ready:
                    found.append(socks.index(sock))
                    if kind == socket.SOCK_DGRAM:
                        sock.recv(10)
                    else:
                        sock.accept()[0].close()
        return set(found)


def local(number):
    """An address of the node's own, among many."""
    return f"127.0.5.{number}"


def test_a_source_address_is_always_heard_by_the_same_process(lab, opened):
    """Whatever its port, over UDP and TCP, at the sockets for captured questions and those of dns.listen."""
    asked = Asked(lab, opened(COUNT))
    heard = set()
    for number in range(1, 10):
        (udp,) = asked.udp("udp4", local(number), ("127.0.0.1", PORT))
        (tcp,) = asked.tcp("tcp4", local(number), ("127.0.0.1", PORT))
        (listen,) = asked.udp(f"listen:udp:{NODE[4]}:{PORT + 1}", local(number), (NODE[4], PORT + 1))
        assert udp == tcp == listen
        heard.add(udp)
    assert heard == set(range(COUNT))
    (udp,) = asked.udp("udp6", "::1", ("::1", PORT))
    (tcp,) = asked.tcp("tcp6", "::1", ("::1", PORT))
    assert udp == tcp == 1 % COUNT


@V
def test_pods_are_led_to_their_process(wire, node, opened, v):
    """Captured questions too, which come by our mark and route: each pod's to one, not all to one."""
    sockets = opened(COUNT, port=node.layout.dns_port)
    sets = [of_process(sockets, number) for number in range(COUNT)]
    heard = {}
    for pod in ("a", "b", "c") * 3:
        client = wire.udp(pod, v)
        client.connect((OTHER[v], 53))
        client.send(b"question")
        ready = select.select([each[f"udp{v}"] for each in sets], [], [], PATIENCE_S)[0]
        heard.setdefault(pod, set()).update(n for n, each in enumerate(sets) if each[f"udp{v}"] in ready)
        assert [sock.recv(10) for sock in ready] == [b"question"]
    assert sorted(map(tuple, heard.values())) == [(0,), (1,), (2,)]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 3), (3, 1), (2, 2)])
def test_the_next_one_may_have_more_or_fewer(lab, opened, before, after):
    """What a predecessor gave is kept with what waits in it; each that asks is heard by one that is read."""
    given = opened(before)
    asked = Asked(lab, given)
    number = next(n for n in range(1, 9) if asked.udp("udp4", local(n), ("127.0.0.1", PORT)) == {0})
    with lab.inside("node"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((local(number), 0))
        client.sendto(b"waits", ("127.0.0.1", PORT))
    taken = opened(after, given)
    assert {name: sock for name, sock in taken.items() if name in given} == {
        name: sock for name, sock in given.items() if name in taken
    }
    assert taken["udp4"].recv(10) == b"waits"
    asked = Asked(lab, taken)
    heard = set()
    for n in range(1, 9):
        udp = asked.udp("udp4", local(n), ("127.0.0.1", PORT))
        assert udp == asked.tcp("tcp4", local(n), ("127.0.0.1", PORT))
        heard |= udp
    assert heard == set(range(after))
