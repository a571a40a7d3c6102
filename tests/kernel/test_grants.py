"""What a grant opens on the real kernel, and what it does not."""

from __future__ import annotations

import socket
from typing import NamedTuple

import pytest

from enforcer.elements import Add, Remove, settled, static_elements
from tests.kernel.conftest import OTHER, SILENCE_S, WORLD, heard, is_silent, pack, pod_address, until

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])


class P(NamedTuple):
    """Ports of a permit."""

    protocol: str
    first: int = 0
    last: int = 65535


@V
def test_a_tcp_grant_opens_one_pod_one_address_one_port(node, wire, v):
    """Nothing else of pod, address, port or protocol is opened by it, and refusals come at once."""
    for port in (80, 443):
        wire.server(v, socket.SOCK_STREAM, port)
    assert wire.connect("a", v, WORLD[v], 443) == "refused"
    node.grant("a", WORLD[v], P("tcp", 443, 443))
    assert wire.connect("a", v, WORLD[v], 443) == "open"
    assert wire.connect("a", v, WORLD[v], 80) == "refused"
    assert wire.connect("a", v, OTHER[v], 443) == "refused"
    assert wire.connect("b", v, WORLD[v], 443) == "refused"
    assert not wire.ping("a", v, WORLD[v], wait_s=SILENCE_S)


@V
def test_a_udp_grant_opens_both_directions_of_its_flow(node, wire, v):
    """Question and answer pass, a second server's datagram does not."""
    server = wire.server(v, socket.SOCK_DGRAM, 4433)
    stranger = wire.server(v, socket.SOCK_DGRAM, 4434)
    client = wire.udp("a", v)
    node.grant("a", WORLD[v], P("udp", 4433, 4433))
    client.sendto(b"question", (WORLD[v], 4433))
    data, sender = server.recvfrom(100)
    assert data == b"question"
    server.sendto(b"answer", sender)
    assert heard(client) == b"answer"
    stranger.sendto(b"attack", sender)
    assert is_silent(client)


@V
def test_an_icmp_grant_opens_icmp_alone(node, wire, v):
    """Echo passes and TCP does not."""
    wire.server(v, socket.SOCK_STREAM, 80)
    node.grant("a", WORLD[v], P("icmp"))
    assert wire.ping("a", v, WORLD[v])
    assert wire.connect("a", v, WORLD[v], 80) == "refused"


@V
@pytest.mark.parametrize(
    "ports",
    [
        (P("tcp", 8000, 8063), (8000, 8063), (7999, 8064)),
        (P("tcp", 8000, 8100), (8000, 8063, 8064, 8100), (7999, 8101)),
        (P("tcp", 1024, 65535), (1024, 4096, 30000, 65535), (1023,)),
        (P("any", 9000, 9000), (9000,), (9001,)),
        (P("tcp"), (1, 65535), ()),
        (P("any"), (1, 65535), ()),
    ],
)
def test_ranges_open_their_ports_and_no_others(node, wire, v, ports):
    """Ranges cut into blocks have exact ends (a closed port answers with the server's own reset)."""
    permit, inside, outside = ports
    node.grant("a", WORLD[v], permit)
    before = node.kernel.counters()["denied"][0]
    for port in inside:
        assert wire.connect("a", v, WORLD[v], port) == "refused"
    assert node.kernel.counters()["denied"][0] == before
    for number, port in enumerate(outside, 1):
        assert wire.connect("a", v, WORLD[v], port) == "refused"
        assert node.kernel.counters()["denied"][0] == before + number


@V
@pytest.mark.parametrize("permit", [P("any"), P("tcp"), P("udp"), P("tcp", 1, 65535)])
@pytest.mark.parametrize("port", [853, 5353])
def test_no_grant_opens_a_dns_port(node, wire, v, permit, port):
    """853 and 5353 are denied whatever stands in the grants (53 is the resolver's, test_dns)."""
    wire.server(v, socket.SOCK_STREAM, port)
    udp = wire.server(v, socket.SOCK_DGRAM, port)
    node.grant("a", WORLD[v], permit)
    assert wire.connect("a", v, WORLD[v], port) == "refused"
    wire.udp("a", v).sendto(b"tunnel", (WORLD[v], port))
    assert is_silent(udp)
    assert node.kernel.counters()["port"][0] == 2


@V
def test_dns_ports_are_denied_inside_the_exempt_cluster(node, wire, v):
    """The exemption of cluster addresses covers no DNS port, and covers the others."""
    wire.server(v, socket.SOCK_STREAM, 853, where="u")
    wire.server(v, socket.SOCK_STREAM, 8080, where="u")
    assert wire.connect("a", v, pod_address("u", v), 853) == "refused"
    assert wire.connect("a", v, pod_address("u", v), 8080) == "open"


@V
def test_the_exemption_covers_no_tunnel(node, wire, lab, v):
    """What another node would unwrap (VXLAN, IPIP) is not cluster traffic of a pod."""
    vxlan = wire.server(v, socket.SOCK_DGRAM, 8472, where="u")
    wire.udp("a", v).sendto(b"inner packet", (pod_address("u", v), 8472))
    assert is_silent(vxlan)
    tunnel = wire.keep(lab.socket("a", v, socket.SOCK_RAW, 4))
    before = node.kernel.counters()["denied"][0]
    tunnel.sendto(b"E" + bytes(19), (pod_address("u", v), 0))
    until(lambda: node.kernel.counters()["denied"][0] == before + 1)


@V
def test_an_expired_grant_stops_new_connections_only(node, wire, v):
    """A flow outlives its grant while its live element stands (invariant 5)."""
    listener = wire.server(v, socket.SOCK_STREAM, 443)
    permit = P("tcp", 443, 443)
    node.grant("a", WORLD[v], permit)
    flow = wire.connection("a", v, WORLD[v], 443)
    other, _ = listener.accept()
    wire.keep(other)
    ending, _ = (change.element for change in node.changes("a", WORLD[v], permit, timeout_ms=300))
    node.kernel.commit([Remove(ending.set, ending.key), Add(ending)])
    until(lambda: not node.kernel.elements(f"grants{v}"))
    assert wire.connect("a", v, WORLD[v], 443) == "refused"
    flow.sendall(b"still here")
    assert heard(other) == b"still here"
    other.sendall(b"me too")
    assert heard(flow) == b"me too"


@V
def test_inbound_comes_from_the_cluster_only_and_its_answers_pass(node, wire, v):
    """A pod of the cluster reaches a governed pod; the world does not."""
    wire.server(v, socket.SOCK_STREAM, 8080, where="a")
    assert wire.connect("u", v, pod_address("a", v), 8080) == "open"
    assert wire.connect("world", v, pod_address("a", v), 8080) == "refused"


@V
def test_without_settled_refusals_are_silent(node, wire, v, lab):
    """While elements are refilled a refused packet is dropped, so that flows live on."""
    node.kernel.commit([Remove(element.set, element.key) for element in settled()])
    assert wire.connect("a", v, WORLD[v], 443, wait_s=SILENCE_S) == "silence"


@V
def test_a_static_box_opens_its_range(node, wire, v):
    """Static elements open both directions without DNS, exactly their ports."""

    class Box(NamedTuple):
        first: bytes
        last: bytes
        protocol: str
        first_port: int
        last_port: int

    listener = wire.server(v, socket.SOCK_STREAM, 443)
    first = pack("45.1.0.0" if v == 4 else "2600:1::")
    last = pack("45.1.0.255" if v == 4 else "2600:1::ffff")
    box = Box(first, last, "tcp", 443, 450)
    node.kernel.commit([Add(e) for e in static_elements(pack(pod_address("a", v)), [box])])
    assert wire.connect("a", v, WORLD[v], 443) == "open"
    assert wire.connect("a", v, WORLD[v], 451) == "refused"
    assert wire.connect("b", v, WORLD[v], 443) == "refused"
    assert wire.connect("a", v, OTHER[v], 443) == "refused"
    listener.close()
