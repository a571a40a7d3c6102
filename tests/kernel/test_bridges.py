"""Pods behind a bridge, with and without bridge-nf-call-iptables: on the real kernel."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from enforcer.bridge import bridge_table, contents, located, pods_bridges
from enforcer.bridge_sets import Turn, plan
from enforcer.elements import Add, Element, Endpoint, KnownPod, Remove, interface_key, node_elements
from enforcer.kernel import Kernel, KernelRejected
from enforcer.nflog import DeniedPacket, Nflog
from enforcer.ruleset import Layout
from tests.kernel.conftest import (
    NODE,
    OTHER,
    PODS,
    RESOLVER_UID,
    SILENCE_S,
    WORLD,
    Lab,
    Node,
    checksum,
    heard,
    is_silent,
    pack,
    pod_address,
    udp_packet,
    until,
)
from tests.kernel.test_dns import Echo, ask_tcp, ask_udp

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])
BRIDGE = {4: "10.244.0.1", 6: "fd44::1"}


class P(NamedTuple):
    """Ports of a permit."""

    protocol: str
    first: int = 0
    last: int = 65535


class BridgedLab(Lab):
    """Pods are ports of br0, which has the address they call their gateway."""

    def _pod(self, name: str) -> None:
        if name == next(iter(PODS)):
            self.ip("node", "link", "add", "br0", "type", "bridge")
            self.ip("node", "link", "set", "br0", "up", "address", "02:00:00:00:00:01")
            self.ip("node", "addr", "add", f"{BRIDGE[4]}/24", "dev", "br0")
            self.ip("node", "addr", "add", f"{BRIDGE[6]}/64", "dev", "br0", "nodad")
        self._connect(f"p{name}", name)
        self.ip("node", "link", "set", f"p{name}", "master", "br0")
        self.ip(name, "addr", "add", f"{pod_address(name, 4)}/24", "dev", "eth0")
        self.ip(name, "addr", "add", f"{pod_address(name, 6)}/64", "dev", "eth0", "nodad")
        self.ip(name, "route", "add", "default", "via", BRIDGE[4])
        self.ip(name, "-6", "route", "add", "default", "via", BRIDGE[6])

    def hardware(self, name: str) -> bytes:
        """A pod's hardware address."""
        with self.inside(name):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            made.bind(("eth0", 0))
            found = made.getsockname()[4]
            made.close()
        return found


class BridgedNode(Node):
    """As ``Node``; what is behind which port comes from the kernel."""

    def install(self) -> None:
        """The bridge table, too."""
        super().install()
        self.kernel.install(self.text())

    def text(self) -> str:
        """Text of the bridge table."""
        bridged = pods_bridges(self.layout, self.routes.bridges(), self.routes.uplinks())
        assert bridged.names == ("br0",)
        pods = {pack(pod_address(n, v)): n != "u" for n in "abu" for v in (4, 6)}
        self.ports = located(bridged, dict.fromkeys(pods, "br0"))
        return bridge_table(self.layout, contents(self.layout, bridged, pods, self.ports))

    def elements(self) -> dict[str, dict[bytes, Element]]:
        """Pods are admitted by the bridge."""
        pods = [KnownPod(pack(pod_address(n, v)), "br0", n != "u") for n in "abu" for v in (4, 6)]
        upstreams = [Endpoint(pack(OTHER[v]), proto, 53) for v in (4, 6) for proto in ("udp", "tcp")]
        cluster = ["10.244.0.0/16", "fd44::/64"] if self.layout.cluster_traffic == "exempt" else []
        return node_elements(
            pods, cluster_cidrs=cluster, uplinks=["up0"], bridges=["br0"], upstreams=upstreams
        )

    def dropped(self, name: str = "forged") -> int:
        """Packets that a counter of the bridge table has seen."""
        words = self.lab.nft(f"list counter bridge nameward {name}")
        return int(words.split("packets ")[1].split()[0])


@pytest.fixture(scope="module")
def lab() -> Iterator[BridgedLab]:
    """Namespaces of this module."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes network namespaces")
    made = BridgedLab()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=[0, 1], ids=["bridge-nf=0", "bridge-nf=1"])
def filtered(request: pytest.FixtureRequest, lab: BridgedLab) -> int:
    """Whether the bridge shows what it forwards to the inet hooks as well."""
    if not Path("/proc/sys/net/bridge").is_dir():
        if request.param:
            pytest.skip("br_netfilter is not loaded: to load it would change this host's bridges")
        return 0
    with lab.inside("node"):
        for family in ("iptables", "ip6tables", "arptables"):
            lab.sysctl(f"net/bridge/bridge-nf-call-{family}", str(request.param))
    return int(request.param)


@pytest.fixture
def node(lab: BridgedLab, layout: Layout, filtered: int) -> Iterator[BridgedNode]:
    """A node that enforces."""
    for name in ("node", *PODS):
        lab.ip(name, "neigh", "flush", "all")
    made = BridgedNode(lab, layout)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def echo(lab: BridgedLab, node: BridgedNode) -> Iterator[Echo]:
    """The resolver's stand-in."""
    made = Echo(lab, node.layout.dns_port)
    yield made
    made.close()


def frame(  # noqa: PLR0917 - what a frame consists of, in its order
    lab: BridgedLab, pod: str, destination: bytes, kind: int, body: bytes, source: bytes = b""
) -> None:
    """Send an Ethernet frame of a pod's own making; the IPv4 header's checksum is made right."""
    if kind == 0x0800:
        body = body[:10] + struct.pack(">H", checksum(body[:20])) + body[12:]
    with lab.inside(pod):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        made.bind(("eth0", 0))
    made.send(destination + (source or lab.hardware(pod)) + struct.pack(">H", kind) + body)
    made.close()


def arp(hardware: bytes, sender: str, target: str, operation: int = 2) -> bytes:
    """An ARP message (RFC 826)."""
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
    return head + hardware + pack(sender) + b"\xff" * 6 + pack(target)


def test_ports_are_known_before_their_pods_speak(node):
    """Each address is at the port whose peer has it, both families."""
    assert node.ports == {pack(pod_address(n, v)): f"p{n}" for n in "abu" for v in (4, 6)}


@V
def test_grants_open_and_nothing_else_does(node, wire, v):
    """A granted port answers, another is refused at once, revocation closes it again."""
    for port in (443, 80):
        wire.server(v, socket.SOCK_STREAM, port)
    node.grant("a", WORLD[v], P("tcp", 443, 443))
    assert wire.connect("a", v, WORLD[v], 443) == "open"
    assert wire.connect("a", v, WORLD[v], 80) == "refused"
    assert wire.connect("b", v, WORLD[v], 443) == "refused"
    node.revoke("a", WORLD[v], P("tcp", 443, 443))
    assert wire.connect("a", v, WORLD[v], 443) == "refused"


@V
def test_an_ungoverned_pod_is_left_alone(node, wire, v):
    """The world, its port 53, the node and its neighbours."""
    server = wire.server(v, socket.SOCK_DGRAM, 53, address=WORLD[v])
    wire.udp("u", v).sendto(b"question", (WORLD[v], 53))
    assert heard(server) == b"question"
    wire.server(v, socket.SOCK_STREAM, 22, where="node")
    assert wire.connect("u", v, BRIDGE[v], 22) == "open"


@V
def test_an_unknown_pod_is_dropped_in_silence_and_heard(echo, node, wire, v):
    """No way to the world, the node or a neighbour; its lookups wait in the resolver."""
    for where in ("world", "u", "node"):
        wire.server(v, socket.SOCK_STREAM, 443, where=where)
    for target in (WORLD[v], pod_address("u", v), BRIDGE[v]):
        assert wire.connect("c", v, target, 443, wait_s=SILENCE_S) == "silence"
    assert node.kernel.counters()["unknown"][0] >= 3
    assert ask_udp(wire, echo, "c", v, OTHER[v]) == b"answer to question"


@V
@pytest.mark.parametrize("server", [OTHER, WORLD, NODE, BRIDGE, "pod"])
def test_every_question_is_answered_from_where_it_aimed(echo, wire, v, server):
    """UDP and TCP: the world's servers, the node's and the bridge's address, a pod of the same bridge."""
    aimed = pod_address("u", v) if server == "pod" else server[v]
    theirs = wire.server(v, socket.SOCK_DGRAM, 53, where="u")
    assert ask_udp(wire, echo, "a", v, aimed) == b"answer to question"
    assert ask_tcp(wire, echo, "a", v, aimed) == b"answer to question"
    assert is_silent(theirs, 0.05)


@V
@pytest.mark.parametrize("port", [53, 853, 5353])
def test_no_question_crosses_the_bridge(node, wire, v, port):
    """Nobody answers for us: without a resolver's socket the question ends at the node."""
    server = wire.server(v, socket.SOCK_DGRAM, port, where="u")
    wire.udp("a", v).sendto(b"question", (pod_address("u", v), port))
    wire.udp("c", v).sendto(b"question", (pod_address("u", v), port))
    assert is_silent(server)


@V
def test_neighbours_speak_as_cluster_traffic(node, wire, v):
    """Exempt: governed and ungoverned reach each other, and large transfers both ways work."""
    for one, other in (("a", "u"), ("u", "a"), ("a", "b")):
        listener = wire.server(v, socket.SOCK_STREAM, 8080, where=other)
        flow = wire.connection(one, v, pod_address(other, v), 8080)
        there = wire.keep(listener.accept()[0])
        flow.sendall(b"x" * 30000)
        there.sendall(b"y" * 30000)
        assert len(there.recv(30000, socket.MSG_WAITALL)) == 30000
        assert len(flow.recv(30000, socket.MSG_WAITALL)) == 30000
        listener.close()


@V
@pytest.mark.parametrize("layout", [Layout(resolver_uid=RESOLVER_UID, cluster_traffic="govern")])
def test_neighbours_are_governed_where_cluster_traffic_is(node, wire, v):
    """With or without bridge-nf: refused without a grant, open with one, in both directions of the flow."""
    listener = wire.server(v, socket.SOCK_STREAM, 8080, where="u")
    assert wire.connect("a", v, pod_address("u", v), 8080) == "refused"
    node.grant("a", pod_address("u", v), P("tcp", 8080, 8080))
    flow = wire.connection("a", v, pod_address("u", v), 8080)
    wire.keep(listener.accept()[0]).sendall(b"hello")
    assert heard(flow) == b"hello"
    wire.server(v, socket.SOCK_STREAM, 8080, where="a")
    tried = wire.connect("u", v, pod_address("a", v), 8080, wait_s=SILENCE_S)
    assert tried in ("refused", "silence", "No route to host")


@V
def test_a_pod_cannot_borrow_its_neighbours_address(node, wire, lab, v):
    """Neither to the world nor to a pod of the bridge, from a known port or an unknown one."""
    world = wire.server(v, socket.SOCK_DGRAM, 7)
    inside = wire.server(v, socket.SOCK_DGRAM, 7, where="u")
    node.grant("a", WORLD[v], P("udp", 7, 7))
    before = node.dropped()
    for target in (WORLD[v], pod_address("u", v)):
        packet = udp_packet(pod_address("a", v), target, 7777, 7, b"x")
        kind, gateway = (0x0800, 0x86DD)[v == 6], bytes.fromhex("020000000001")
        to = gateway if target == WORLD[v] else lab.hardware("u")
        for pod in ("b", "c"):
            frame(lab, pod, to, kind, packet)
    assert is_silent(world)
    assert is_silent(inside)
    assert node.dropped() == before + 4
    wire.raw("a", udp_packet(pod_address("a", v), WORLD[v], 7777, 7, b"mine"), WORLD[v])
    assert heard(world) == b"mine"


@V
def test_a_forged_packet_is_recorded_with_the_port_it_came_from(node, lab, v):
    """Who did it is the port, whatever address he took."""
    with lab.inside("node"):
        log = Nflog(node.layout.nflog_group)
    try:
        packet = udp_packet(pod_address("a", v), WORLD[v], 7777, 7, b"x")
        frame(lab, "b", bytes.fromhex("020000000001"), (0x0800, 0x86DD)[v == 6], packet)
        seen: list[DeniedPacket] = []

        def recorded() -> bool:
            with lab.inside("node"):
                seen.extend(log.read()[0])
            return bool(seen)

        until(recorded)
    finally:
        log.close()
    said = (seen[0].prefix, seen[0].interface, seen[0].source, seen[0].port, seen[0].hook)
    assert said == ("forged", "pb", pack(pod_address("a", v)), 7, "prerouting")


def test_nobody_answers_for_another_in_arp(node, lab):
    """A neighbour's address, the bridge's, one's own with another's hardware address: not learned."""
    before = node.dropped()
    mac = lab.hardware("b")
    for pod, sender in (("b", "a"), ("c", "a")):
        frame(lab, pod, b"\xff" * 6, 0x0806, arp(lab.hardware(pod), pod_address(sender, 4), BRIDGE[4]))
    for pod in ("b", "c"):
        frame(lab, pod, b"\xff" * 6, 0x0806, arp(lab.hardware(pod), BRIDGE[4], pod_address("u", 4)))
    frame(lab, "b", b"\xff" * 6, 0x0806, arp(lab.hardware("a"), pod_address("b", 4), BRIDGE[4]))
    frame(lab, "b", b"\xff" * 6, 0x0806, arp(mac, pod_address("b", 4), BRIDGE[4]), source=lab.hardware("a"))
    until(lambda: node.dropped() == before + 6)
    frame(lab, "b", b"\xff" * 6, 0x0806, arp(mac, pod_address("b", 4), BRIDGE[4]))
    assert node.dropped() == before + 6


def test_nobody_advertises_another_in_neighbour_discovery(node, wire, lab):
    """A neighbour's address and the bridge's as target, from one's own source; nor is a pod a router."""
    with lab.inside("b"):
        scope = socket.if_nametoindex("eth0")
    made = wire.keep(lab.socket("b", 6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    made.bind((pod_address("b", 6), 0, 0, scope))
    before = node.dropped()
    for target in (pod_address("a", 6), BRIDGE[6]):
        made.sendto(bytes((136, 0, 0, 0, 0x20, 0, 0, 0)) + pack(target), ("ff02::1", 0, 0, scope))
    made.sendto(bytes((134, 0, 0, 0, 64, 0, 0, 30)) + bytes(8), ("ff02::1", 0, 0, scope))
    until(lambda: node.dropped() == before + 3)
    made.sendto(bytes((136, 0, 0, 0, 0x20, 0, 0, 0)) + pack(pod_address("b", 6)), ("ff02::1", 0, 0, scope))
    assert node.dropped() == before + 3


@V
def test_foreign_sources_reach_no_neighbour(node, wire, lab, v):
    """A forged answer of the world dies at the port, link-local and broadcast are no way round."""
    inside = wire.server(v, socket.SOCK_DGRAM, 7, where="u")
    kind = (0x0800, 0x86DD)[v == 6]
    for source in (OTHER[v], "fe80::7" if v == 6 else "169.254.9.9"):
        frame(lab, "a", lab.hardware("u"), kind, udp_packet(source, pod_address("u", v), 53, 7, b"x"))
    everybody = "10.244.0.255" if v == 4 else "ff02::1"
    frame(lab, "a", b"\xff" * 6, kind, udp_packet(pod_address("a", v), everybody, 7777, 7, b"x"))
    frame(lab, "a", b"\xff" * 6, kind, udp_packet(pod_address("a", v), pod_address("u", v), 7777, 53, b"x"))
    tagged = struct.pack(">HH", 7, kind) + udp_packet(OTHER[v], pod_address("u", v), 53, 7, b"x")
    frame(lab, "a", lab.hardware("u"), 0x8100, tagged)
    assert is_silent(inside)


@V
def test_until_the_way_home_is_known_nothing_crosses(node, wire, lab, v):
    """A bridge that the inet table does not know yet, or one whose hardware address changed: closed."""
    inside = wire.server(v, socket.SOCK_DGRAM, 7, where="u")
    client = wire.udp("a", v)
    client.sendto(b"open", (pod_address("u", v), 7))
    assert heard(inside) == b"open"
    lab.nft("flush map bridge nameward home")
    client.sendto(b"x", (pod_address("u", v), 7))
    assert is_silent(inside)
    lab.nft(f'add element bridge nameward home {{ "pa" : {lab.hardware("u").hex(":")} }}')
    client.sendto(b"x", (pod_address("u", v), 7))
    assert is_silent(inside)
    assert node.dropped("astray") >= 1


def test_others_changes_are_seen(node, lab):
    """A flush, and an element in our map: each an event, and the fingerprint knows the table's absence."""
    with lab.inside("node"):
        watching = Kernel()
        watching.monitor_fd()
    try:
        assert watching.bridge_fingerprint()
        lab.nft("flush map bridge nameward home")
        assert "changed" in watching.drain_events()
        lab.nft("flush ruleset")
        assert "changed" in watching.drain_events()
        assert watching.bridge_fingerprint() == ""
    finally:
        watching.close()


def test_an_uplink_bridge_is_nobodys(node, lab, wire):
    """What carries the node's default route is not a pods' bridge, whatever its ports are."""
    bridged = pods_bridges(node.layout, node.routes.bridges(), {"br0"})
    assert bridged.names == ()
    assert bridged.aside == ("pa", "pb", "pc", "pu")
    key = interface_key("br0")
    node.kernel.commit([Remove("bridges", key), Add(Element("uplinks", key))])
    node.kernel.install(bridge_table(node.layout, contents(node.layout, bridged, {}, {})))
    server = wire.server(4, socket.SOCK_DGRAM, 7, where="u")
    frame(lab, "c", lab.hardware("u"), 0x0800, udp_packet(OTHER[4], pod_address("u", 4), 53, 7, b"x"))
    assert heard(server) == b"x"


def test_a_change_of_elements_is_what_the_whole_text_would_be(node, lab):
    """Every set, both ways, more elements than one message holds, and another way home for a port."""
    layout, routes = node.layout, node.routes
    bridged = pods_bridges(layout, routes.bridges(), routes.uplinks())
    (bridge,) = bridged.bridges
    pods = {pack(pod_address(n, v)): n != "u" for n in "abu" for v in (4, 6)}
    before = contents(layout, bridged, pods, located(bridged, dict.fromkeys(pods, "br0")))
    moved = bridge._replace(
        hardware=b"\2\0\0\0\0\x77", addresses=frozenset({pack("10.9.9.9"), pack("fd99::9")})
    )
    other = dict.fromkeys((pack(f"10.244.{n >> 8}.{n & 255}") for n in range(1200)), True)
    other |= {pack(pod_address("a", v)): True for v in (4, 6)}
    at = {pack(pod_address("a", v)): "pb" for v in (4, 6)}
    named = Layout(resolver_uid=RESOLVER_UID, pod_interface_kinds=(), pod_interface_names=("br0",))
    after = contents(named, bridged._replace(bridges=(moved,), aside=("veth9",)), other, at)
    assert {name for name, entries in after.items() if not entries} == set()
    listed = []
    for one, two in ((before, after), (after, before)):
        node.kernel.install(bridge_table(layout, two))
        listed.append(lab.nft("list table bridge nameward"))
        node.kernel.install(bridge_table(layout, one))
        stands = node.kernel.bridge_fingerprint()
        node.kernel.commit_bridge(plan(one, two))
        assert _sorted(lab.nft("list table bridge nameward")) == _sorted(listed[-1])
        assert node.kernel.bridge_fingerprint() == stands


def test_a_change_that_cannot_be_made_whole_is_not_made(node, lab):
    """What is not there cannot go, and nothing comes then."""
    with pytest.raises(KernelRejected):
        node.kernel.commit_bridge(
            [Turn("ports", ("nobody",), comes=False), Turn("ports", ("px",), comes=True)]
        )
    assert "px" not in lab.nft("list set bridge nameward ports")
    lab.nft("delete table bridge nameward")
    with pytest.raises(KernelRejected):
        node.kernel.commit_bridge([Turn("ports", ("px",), comes=True)])


def _sorted(listing: str) -> list[str]:
    """The words of a listing, for nft lists the elements of a set in no order."""
    return sorted(listing.replace(",", " ").split())
