"""Forged sources, unknown pods and the way round by link-local addresses, on the real kernel."""

from __future__ import annotations

import socket
from typing import NamedTuple

import pytest

from enforcer.ruleset import Layout
from tests.kernel.conftest import (
    NODE,
    OTHER,
    RESOLVER_UID,
    SILENCE_S,
    WORLD,
    heard,
    is_silent,
    pod_address,
    udp_packet,
    until,
)

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])


class P(NamedTuple):
    """Ports of a permit."""

    protocol: str
    first: int = 0
    last: int = 65535


@V
def test_a_pod_cannot_borrow_the_address_of_a_granted_one(node, wire, v):
    """Pod b's packet from pod a's address is dropped in raw prerouting; a's own passes."""
    server = wire.server(v, socket.SOCK_DGRAM, 7)
    node.grant("a", WORLD[v], P("udp", 7, 7))
    packet = udp_packet(pod_address("a", v), WORLD[v], 7777, 7, b"x")
    wire.raw("b", packet, WORLD[v])
    wire.raw("c", packet, WORLD[v])
    assert is_silent(server)
    assert node.kernel.counters()["forged"][0] == 2
    wire.raw("a", packet, WORLD[v])
    assert heard(server) == b"x"


@V
def test_a_pod_address_from_the_uplink_is_forged(node, wire, v):
    """The world cannot speak as a pod, to a pod or to the node."""
    inside = wire.server(v, socket.SOCK_DGRAM, 7, where="b")
    wire.raw("world", udp_packet(pod_address("a", v), pod_address("b", v), 7777, 7, b"x"), NODE[v])
    assert is_silent(inside)
    assert node.kernel.counters()["forged"][0] == 1


@V
def test_foreign_sources_of_a_pod_reach_nobody(node, wire, v):
    """Neither the upstream's answers nor packets to open the pod's own return path can be forged."""
    resolver = wire.server(v, socket.SOCK_DGRAM, 40000, where="node")
    peer = wire.server(v, socket.SOCK_DGRAM, 7, where="u")
    wire.raw("a", udp_packet(OTHER[v], NODE[v], 53, 40000, b"forged answer"), NODE[v])
    wire.raw("a", udp_packet(OTHER[v], pod_address("u", v), 53, 7, b"x"), pod_address("u", v))
    wire.raw("c", udp_packet(OTHER[v], NODE[v], 53, 40000, b"forged answer"), NODE[v])
    assert is_silent(resolver)
    assert is_silent(peer)
    counters = node.kernel.counters()
    assert counters["forged"][0] + counters["unknown"][0] == 3


@V
def test_an_unknown_pod_is_dropped_in_silence(node, wire, v):
    """Its SYN is sent again until the pod is known: no reset, no ICMP error."""
    wire.server(v, socket.SOCK_STREAM, 443)
    assert wire.connect("c", v, WORLD[v], 443, wait_s=SILENCE_S) == "silence"
    assert wire.connect("c", v, NODE[v], 443, wait_s=SILENCE_S) == "silence"
    assert node.kernel.counters()["unknown"][0] >= 2


@V
@pytest.mark.parametrize("layout", [Layout(resolver_uid=RESOLVER_UID, unknown_pods="allow")])
def test_unknown_pods_pass_where_the_administrator_allows_it(node, wire, v):
    """But not with a known pod's address, and governed pods stay governed."""
    server = wire.server(v, socket.SOCK_DGRAM, 7)
    wire.udp("c", v).sendto(b"mine", (WORLD[v], 7))
    assert heard(server) == b"mine"
    wire.raw("c", udp_packet(pod_address("u", v), WORLD[v], 7777, 7, b"x"), WORLD[v])
    wire.udp("a", v).sendto(b"denied", (WORLD[v], 7))
    assert is_silent(server)


@V
def test_a_known_ungoverned_pod_is_left_alone(node, wire, v):
    """It reaches the world, port 53 included, and is not captured."""
    server = wire.server(v, socket.SOCK_DGRAM, 53, address=WORLD[v])
    client = wire.udp("u", v)
    client.sendto(b"question", (WORLD[v], 53))
    data, sender = server.recvfrom(100)
    server.sendto(b"world's own", sender)
    assert data == b"question"
    assert heard(client) == b"world's own"


@V
def test_the_node_meets_the_same_rules(node, wire, v):
    """A pod reaches no port of the node without a grant, and with one only that."""
    for port in (22, 10250):
        wire.server(v, socket.SOCK_STREAM, port, where="node")
    assert wire.connect("a", v, NODE[v], 10250) == "refused"
    node.grant("a", NODE[v], P("tcp", 22, 22))
    assert wire.connect("a", v, NODE[v], 22) == "open"
    assert wire.connect("a", v, NODE[v], 10250) == "refused"


def test_link_local_is_no_way_round(node, wire, lab):
    """From fe80:: a pod does neighbour discovery and nothing else: no port of the node."""
    wire.server(6, socket.SOCK_STREAM, 22, where="node")
    udp = wire.server(6, socket.SOCK_DGRAM, 4789, where="node")
    with lab.inside("a"):
        scope = socket.if_nametoindex("eth0")
    client = wire.keep(lab.socket("a", 6, socket.SOCK_STREAM))
    client.settimeout(SILENCE_S)
    with pytest.raises(OSError, match="timed out"):
        client.connect(("fe80::1", 22, 0, scope))
    wire.udp("a", 6).sendto(b"x", ("fe80::1", 4789, 0, scope))
    assert is_silent(udp)


def test_a_pod_is_no_router(node, wire, lab):
    """Router advertisements and redirects of a pod die at its interface."""
    made = wire.keep(lab.socket("a", 6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    with lab.inside("a"):
        scope = socket.if_nametoindex("eth0")
    made.sendto(bytes((134, 0, 0, 0, 64, 0, 0, 30)) + bytes(8), ("ff02::1", 0, 0, scope))
    until(lambda: node.kernel.counters()["forged"][0] == 1)
    made.sendto(bytes((137, 0)) + bytes(38), (NODE[6], 0))  # from its own, known address
    until(lambda: node.kernel.counters()["forged"][0] == 2)


def test_fragments_and_echoes_without_checksum_open_nothing(node, wire):
    """An ICMP echo meets no port element; tiny fragments are put together before they are judged."""
    node.grant("a", WORLD[4], P("tcp", 443, 443))
    before = node.kernel.counters()["denied"][0]
    assert not wire.ping("a", 4, WORLD[4], wait_s=SILENCE_S)
    assert node.kernel.counters()["denied"][0] == before + 1
    server = wire.server(4, socket.SOCK_DGRAM, 7)
    packet = udp_packet(pod_address("a", 4), WORLD[4], 7777, 7, b"x" * 64)
    for offset, more in ((0, True), (1, False)):
        data = packet[20 + 8 * offset : 28 + 8 * offset] if more else packet[28:]
        head = packet[:2] + (20 + len(data)).to_bytes(2, "big") + b"\0\x07"
        head += ((0x2000 if more else 0) | offset).to_bytes(2, "big") + packet[8:20]
        wire.raw("a", head + data, WORLD[4])
    assert is_silent(server)
