"""The short way of live flows: it passes nothing that the whole way would not."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from enforcer.conntrack import Conntrack
from enforcer.elements import Add, Element, Remove, settled
from enforcer.ruleset import structure
from tests.kernel.conftest import (
    PODS,
    SILENCE_S,
    WORLD,
    Lab,
    Node,
    Wire,
    heard,
    is_silent,
    pack,
    pod_address,
)

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])


class P(NamedTuple):
    """Ports of a permit."""

    protocol: str
    first: int
    last: int


class Flow(NamedTuple):
    """Who sends to whom, by which port; the sender's own port tells it from the others."""

    sender: str
    receiver: str
    port: int
    source: int


FLOWS = tuple(
    Flow(sender, receiver, port, 20_000 + number)
    for number, (sender, receiver, port) in enumerate(
        [
            ("a", "world", 443),
            ("b", "world", 443),
            ("a", "b", 7000),
            ("b", "a", 7000),
            ("a", "u", 7000),
            ("u", "a", 7000),
            ("world", "a", 7000),
        ]
    )
)
GRANTS = (("a", "world", 443), ("a", "b", 7000), ("b", "a", 7000), ("a", "u", 7000))


def address(name: str, v: int) -> str:
    """Return where an actor is."""
    return WORLD[v] if name == "world" else pod_address(name, v)


class Traffic:
    """Each flow's two sockets."""

    def __init__(self, wire: Wire, v: int) -> None:
        """Open all."""
        self._v = v
        self._round = 0
        here = "0.0.0.0" if v == 4 else "::"
        self._clients = {flow: wire.udp(flow.sender, v, bind=(here, flow.source)) for flow in FLOWS}
        servers = {(flow.receiver, flow.port) for flow in FLOWS}
        self._servers = {
            (name, port): wire.server(v, socket.SOCK_DGRAM, port, where=name) for name, port in servers
        }

    def seen(self) -> frozenset[tuple[Flow, str]]:
        """Send a datagram each way of every flow; return which came."""
        self._round += 1
        for flow, client in self._clients.items():
            client.sendto(self._said(flow), (address(flow.receiver, self._v), flow.port))
        came = self._came(self._servers.values())
        for flow in FLOWS:
            server = self._servers[flow.receiver, flow.port]
            server.sendto(self._said(flow), (address(flow.sender, self._v), flow.source))
        back = self._came(self._clients.values())
        return frozenset({(flow, "up") for flow in came} | {(flow, "down") for flow in back})

    def _said(self, flow: Flow) -> bytes:
        return b"%d %d" % (self._round, flow.source)

    def _came(self, sockets: Iterable[socket.socket]) -> set[Flow]:
        flows = {self._said(flow): flow for flow in FLOWS}
        found: set[Flow] = set()
        while ready := select.select([*sockets], [], [], SILENCE_S)[0]:
            found |= {flows[said] for each in ready if (said := each.recv(100)) in flows}
        return found


def without_the_short_way(text: str) -> str:
    """Return the structure without the rules that lead into it."""
    whole, taken = re.subn(r".* jump opened[46]\n", "", text)
    assert taken == 2
    return whole


@contextmanager
def open_node(lab: Lab) -> Iterator[None]:
    """While it lasts the node forwards everything, and tracks it: flows from before any rule."""
    lab.nft(
        "flush ruleset\ntable inet other {\n chain f {\n"
        "  type filter hook forward priority filter; ct state established accept\n }\n}"
    )
    yield
    lab.nft("delete table inet other")


def verdicts(node: Node, lab: Lab, traffic: Traffic, text: str, v: int) -> list[frozenset[tuple[Flow, str]]]:
    """Return what passes in every state, of flows that were all there before the first rule."""
    found = []
    everything = {(flow, way) for flow in FLOWS for way in ("up", "down")}
    for exempt, kept in ((False, ()), (False, GRANTS[:1]), (False, GRANTS), (True, GRANTS)):
        with lab.inside("node"):
            Conntrack().delete_flows([pack(pod_address(name, v)) for name in PODS])
            with open_node(lab):
                assert traffic.seen() == everything
            node.kernel.install(text)
        elements = [each for kind in node.elements().values() for each in kind.values()]
        node.kernel.commit(
            [Add(each) for each in elements if exempt or not each.set.startswith("cluster")]
            + [Add(each) for each in settled()]
        )
        for pod, to, port in kept:
            node.grant(pod, address(to, v), P("udp", port, port))
        found.append(traffic.seen())
    return found


@V
def test_it_passes_what_the_whole_way_passes(node, wire, lab, v):
    """Every flow of pods, both directions, with and without grants and exemption: the same packets."""
    traffic = Traffic(wire, v)
    text = structure(node.layout)
    short = verdicts(node, lab, traffic, text, v)
    assert short == verdicts(node, lab, traffic, without_the_short_way(text), v)
    assert len(set(short)) == len(short)


@V
def test_the_pod_at_the_other_end_has_its_say(node, wire, v):
    """A live flow to a governed pod ends when that pod may not be reached any more."""
    server = wire.server(v, socket.SOCK_DGRAM, 7000, where="b")
    client = wire.udp("a", v)
    node.grant("a", pod_address("b", v), P("udp", 7000, 7000))
    client.sendto(b"first", (pod_address("b", v), 7000))
    assert heard(server) == b"first"
    cluster = node.elements()[f"cluster{v}"].values()
    node.kernel.commit([Remove(each.set, each.key, each.key_end) for each in cluster])
    client.sendto(b"second", (pod_address("b", v), 7000))
    assert is_silent(server)


@V
def test_it_opens_no_new_flow(node, wire, v):
    """What is live without a grant decides packets of flows that there are, and begins none."""
    server = wire.server(v, socket.SOCK_DGRAM, 443)
    grant = node.changes("a", WORLD[v], P("udp", 443, 443))
    node.kernel.commit([each for each in grant if each.element.set.startswith("live")])
    wire.udp("a", v).sendto(b"new", (WORLD[v], 443))
    assert is_silent(server)


@V
def test_a_flow_that_the_server_begins_is_none_of_the_grant(node, wire, lab, v):
    """After conntrack forgot a live flow, what the server sends first is a flow of its own: refused."""
    server = wire.server(v, socket.SOCK_DGRAM, 443)
    client = wire.udp("a", v)
    node.grant("a", WORLD[v], P("udp", 443, 443))
    client.sendto(b"up", (WORLD[v], 443))
    assert heard(server) == b"up"
    with lab.inside("node"):
        assert Conntrack().delete_flows([pack(pod_address("a", v))]) == 1
    server.sendto(b"down", (pod_address("a", v), client.getsockname()[1]))
    assert is_silent(client)
    client.sendto(b"again", (WORLD[v], 443))
    assert heard(server) == b"again"


@V
def test_while_elements_are_refilled_it_is_closed(node, wire, v):
    """Before ``settled`` nobody knows whose packet it is: a live element alone passes nothing."""
    server = wire.server(v, socket.SOCK_DGRAM, 443)
    client = wire.udp("a", v)
    node.grant("a", WORLD[v], P("udp", 443, 443))
    client.sendto(b"first", (WORLD[v], 443))
    assert heard(server) == b"first"
    node.kernel.commit([Remove(each.set, each.key) for each in settled()])
    client.sendto(b"second", (WORLD[v], 443))
    assert is_silent(server)
    node.kernel.commit([Add(Element(each.set, each.key)) for each in settled()])
    client.sendto(b"third", (WORLD[v], 443))
    assert heard(server) == b"third"
