"""Attacks by what a pod sends back: errors about others' flows, answers to who asked too early."""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import NamedTuple

import pytest

from enforcer.conntrack import Conntrack
from enforcer.elements import Add, Remove
from tests.kernel.conftest import (
    NODE,
    OTHER,
    SILENCE_S,
    WORLD,
    Lab,
    Node,
    Wire,
    checksum,
    heard,
    is_silent,
    outcome,
    pack,
    pod_address,
    udp_packet,
)

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])
SECRET = b"EXFILTRATED-" * 20
ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
ANY = {4: "0.0.0.0", 6: "::"}
NODE_PORT = """table ip node_port {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ip daddr %s udp dport 30080 dnat to %s:8080
  }
}"""


class P(NamedTuple):
    """Ports of a permit."""

    protocol: str
    first: int
    last: int


def complain(wire: Wire, pod: str, v: int, destination: str, quoted: bytes) -> None:
    """Send "port unreachable" about a packet that this pod may never have seen."""
    head = (3, 3) if v == 4 else (1, 4)
    body = struct.pack(">BBHI", *head, 0, 0) + quoted
    if v == 4:  # the kernel fills in that of ICMPv6
        body += b"\0" * (len(body) % 2)
        body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
    wire.keep(wire.lab.socket(pod, v, socket.SOCK_RAW, ICMP[v])).sendto(body, (destination, 0))


def errors_at(wire: Wire, where: str, v: int) -> socket.socket:
    """Return a socket that gets all ICMP of this place."""
    return wire.keep(wire.lab.socket(where, v, socket.SOCK_RAW, ICMP[v]))


def is_secret_kept(receiver: socket.socket) -> bool:
    """Say whether nothing of the pod's came for a while; other ICMP may come."""
    until = time.monotonic() + SILENCE_S
    while (left := until - time.monotonic()) > 0 and select.select([receiver], [], [], left)[0]:
        if SECRET[:12] in receiver.recv(65535):
            return False
    return True


def granted_flow(node: Node, wire: Wire, v: int) -> None:
    """Pod a speaks from port 4444 to the world's port 7777, by a grant."""
    server = wire.server(v, socket.SOCK_DGRAM, 7777)
    node.grant("a", WORLD[v], P("udp", 7777, 7777))
    wire.udp("a", v, bind=(pod_address("a", v), 4444)).sendto(b"hello", (WORLD[v], 7777))
    assert heard(server) == b"hello"


@V
def test_a_stranger_of_the_nodes_hears_no_complaint_of_a_pods(node: Node, wire: Wire, lab: Lab, v: int):
    """He sends the node one datagram; a pod without a grant says to him that it did not arrive."""
    stranger = wire.udp("world", v, bind=(OTHER[v], 5555))
    wire.keep(lab.socket("node", v, socket.SOCK_DGRAM, bind=(ANY[v], 6666)))
    stranger.sendto(b"hello", (NODE[v], 6666))
    spy = errors_at(wire, "world", v)
    complain(wire, "b", v, OTHER[v], udp_packet(OTHER[v], NODE[v], 5555, 6666, SECRET))
    assert is_secret_kept(spy)


def test_a_stranger_of_another_pods_node_port_hears_none_either(node: Node, wire: Wire, lab: Lab):
    """Its answers leave with the node's own address: no masquerading would stop them."""
    lab.nft(NODE_PORT % (NODE[4], pod_address("u", 4)))
    try:
        served = wire.server(4, socket.SOCK_DGRAM, 8080, where="u")
        wire.udp("world", 4, bind=(OTHER[4], 5555)).sendto(b"hello", (NODE[4], 30080))
        assert heard(served) == b"hello"
        spy = errors_at(wire, "world", 4)
        complain(wire, "b", 4, OTHER[4], udp_packet(OTHER[4], pod_address("u", 4), 5555, 8080, SECRET))
        assert is_secret_kept(spy)
    finally:
        lab.nft("delete table ip node_port")


@V
def test_anothers_grant_carries_no_complaints(node: Node, wire: Wire, v: int):
    """Pod b says to whom a may speak that his answer did not arrive, and to a that its question did not."""
    granted_flow(node, wire, v)
    a = pod_address("a", v)
    outside, inside = errors_at(wire, "world", v), errors_at(wire, "a", v)
    complain(wire, "b", v, WORLD[v], udp_packet(WORLD[v], a, 7777, 4444, SECRET))
    complain(wire, "b", v, a, udp_packet(a, WORLD[v], 4444, 7777, SECRET))
    assert is_secret_kept(outside)
    assert is_secret_kept(inside)


@V
def test_honest_complaints_come_through(node: Node, wire: Wire, lab: Lab, v: int):
    """Of who was asked, to another pod and to the node; and of who asked, to whom it may speak."""
    for asking in (wire.udp("u", v), wire.keep(lab.socket("node", v, socket.SOCK_DGRAM))):
        asking.connect((pod_address("b", v), 9999))
        asking.send(b"anyone?")
        assert outcome(lambda asking=asking: asking.recv(10)) == "refused"
    server = wire.server(v, socket.SOCK_DGRAM, 7778)
    level, receive_errors = (socket.IPPROTO_IP, 11) if v == 4 else (socket.IPPROTO_IPV6, 25)
    server.setsockopt(level, receive_errors, 1)
    node.grant("a", WORLD[v], P("udp", 7778, 7778))
    one = wire.udp("a", v)
    one.sendto(b"hello", (WORLD[v], 7778))
    peer = server.recvfrom(100)[1]
    one.close()
    server.sendto(b"late", peer)
    select.select([], [], [server], 5)
    assert server.recvmsg(100, 1000, socket.MSG_ERRQUEUE)[2]


@V
def test_who_spoke_to_a_pod_before_its_admission_gets_no_answer_after_it(
    node: Node, wire: Wire, lab: Lab, v: int
):
    """A stranger's packet after the deletion of old flows, before the elements are in: conntrack keeps it."""
    mine = pack(pod_address("a", v))
    of_a = [
        element
        for held in node.elements().values()
        for element in held.values()
        if mine in element.key or (element.set == "podifs" and element.key.startswith(b"pa\0"))
    ]
    node.kernel.commit([Remove(element.set, element.key) for element in of_a])
    with lab.inside("node"):
        Conntrack().delete_flows([mine])
    stranger = wire.udp("world", v, bind=(OTHER[v], 5555))
    pod = wire.udp("a", v, bind=(pod_address("a", v), 4444))
    stranger.sendto(b"now", (pod_address("a", v), 4444))
    assert heard(pod) == b"now"
    node.kernel.commit([Add(element) for element in of_a])
    stranger.sendto(b"dropped", (pod_address("a", v), 4444))
    assert is_silent(pod)
    pod.sendto(SECRET, (OTHER[v], 5555))
    assert is_silent(stranger)
