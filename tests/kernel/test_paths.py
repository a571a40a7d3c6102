"""Services, metadata, the resolver's fence, the log and the routes: on the real kernel."""

from __future__ import annotations

import socket
import time
from typing import NamedTuple

import pytest

from enforcer.elements import Add
from enforcer.nflog import Nflog
from enforcer.routes import Routes
from enforcer.sockets import open_listen_sockets
from tests.kernel.conftest import (
    NODE,
    OTHER,
    RESOLVER_UID,
    WORLD,
    heard,
    is_silent,
    outcome,
    pack,
    pod_address,
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
def test_denied_packets_are_read_with_pod_destination_and_port(node, wire, lab, v):
    """What the log says is what was sent, from which pod, and why it was dropped."""
    with lab.inside("node"):
        log = Nflog(node.layout.nflog_group)
    try:
        wire.connect("a", v, WORLD[v], 8443)
        wire.udp("c", v).sendto(b"x", (WORLD[v], 99))
        wire.udp("a", v).sendto(b"x", (WORLD[v], 853))
        wire.connect("a", v, NODE[v], 22)
        seen: list = []

        def enough() -> bool:
            seen.extend(log.read()[0])
            return len({packet.prefix for packet in seen}) >= 3 and len(seen) >= 4

        until(enough)
    finally:
        log.close()
    found = {(p.prefix, p.source, p.destination, p.protocol, p.port, p.hook) for p in seen}
    a, c = pack(pod_address("a", v)), pack(pod_address("c", v))
    assert ("denied", a, pack(WORLD[v]), "tcp", 8443, "forward") in found
    assert ("unknown", c, pack(WORLD[v]), "udp", 99, "prerouting") in found
    assert ("port", a, pack(WORLD[v]), "udp", 853, "forward") in found
    assert ("denied", a, pack(NODE[v]), "tcp", 22, "input") in found


def test_a_noisy_pod_does_not_hide_another(node, wire, lab):
    """Records are limited per pod: after a thousand refusals of one, the other's is still recorded."""
    with lab.inside("node"):
        log = Nflog(node.layout.nflog_group)
    try:
        noisy, began_at = wire.udp("a", 4), time.monotonic()
        for _ in range(1000):
            try:
                noisy.sendto(b"x", (WORLD[4], 9))
            except OSError:
                continue
        other = wire.udp("b", 4)
        seen: list = []

        def other_seen() -> bool:
            outcome(lambda: other.sendto(b"x", (WORLD[4], 9)))  # again: what all may have is 500 a second
            seen.extend(log.read()[0])
            return any(packet.source == pack(pod_address("b", 4)) for packet in seen)

        until(other_seen)
        assert len(seen) < 150 + 20 * (time.monotonic() - began_at)  # a burst of 100, then 20 a second
    finally:
        log.close()


@V
def test_the_resolvers_user_reaches_its_upstreams_alone(node, wire, lab, v):
    """A socket of its uid: the upstream's port passes, the metadata service and everything else does not."""
    upstream = wire.server(v, socket.SOCK_DGRAM, 53, address=OTHER[v])
    elsewhere = wire.server(v, socket.SOCK_DGRAM, 53, address=WORLD[v])
    with lab.inside("node"):
        made = open_listen_sockets([("0.0.0.0" if v == 4 else "::", 5300)], RESOLVER_UID)
    try:
        udp = made[f"listen:udp:{'0.0.0.0' if v == 4 else '::'}:5300"]
        udp.sendto(b"question", (OTHER[v], 53))
        assert heard(upstream) == b"question"
        for target in ((OTHER[v], 54), (WORLD[v], 53), (pod_address("a", v), 9)):
            outcome(lambda target=target: udp.sendto(b"leak", target))
        assert is_silent(elsewhere)
        assert node.kernel.counters()["fence"][0] == 3
        wire.udp("world", v).sendto(b"asked", (NODE[v], 5300))
        until(lambda: heard(udp, 0.05) == b"asked" if _readable(udp) else False)
    finally:
        for each in made.values():
            each.close()


def _readable(made: socket.socket) -> bool:
    import select

    return bool(select.select([made], [], [], 0.05)[0])


@V
def test_root_is_not_fenced(node, wire, v):
    """The fence is the resolver's, by uid: the node itself goes where it wants."""
    server = wire.server(v, socket.SOCK_DGRAM, 99)
    wire.udp("node", v).sendto(b"node", (WORLD[v], 99))
    assert heard(server) == b"node"


@V
def test_routes_find_pods_and_uplinks(node, lab, v):
    """A pod's interface by its address; not for what lies behind a gateway or an uplink."""
    with lab.inside("node"):
        routes = Routes()
    try:
        here = pack(pod_address("a", v))
        assert routes.pod_interfaces([here, *(pack(x[v]) for x in (OTHER, WORLD, NODE))]) == {here: "pa"}
        assert routes.uplinks() == {"up0"}
        assert pack(NODE[v]) in routes.addresses()
        assert {link.name: link.kind for link in routes.links().values()}["pa"] == "veth"
    finally:
        routes.close()


def test_routes_report_what_changes(node, lab):
    """Links, routes and rules, also those that somebody else takes away."""
    with lab.inside("node"):
        routes = Routes()
        routes.monitor_fd()
    try:
        assert routes.drain_changes() == set()
        lab.ip("node", "rule", "del", "pref", "54")
        until(lambda: "rules" in routes.drain_changes())
        assert not routes.dns_rule_stands()
        lab.ip("node", "route", "add", "198.51.100.0/24", "dev", "up0")
        until(lambda: "routes" in routes.drain_changes())
        lab.ip("node", "route", "del", "198.51.100.0/24", "dev", "up0")
        routes.install_dns_rule()
        assert routes.dns_rule_stands()
    finally:
        routes.close()


@V
def test_a_service_address_is_granted_as_it_was_asked_for(node, wire, lab, v):
    """Translated by somebody's DNAT: the grant is for the original destination, the answer comes back."""
    listener = wire.server(v, socket.SOCK_STREAM, 8443)
    family, virtual = ("ip", "203.0.113.9") if v == 4 else ("ip6", "2600:5::9")
    target = f"{WORLD[v]}:8443" if v == 4 else f"[{WORLD[v]}]:8443"
    lab.nft(
        f"table {family} svc {{\n chain p {{\n type nat hook prerouting priority dstnat;\n"
        f" {family} daddr {virtual} tcp dport 443 dnat to {target}\n"
        f" {family} daddr {virtual} tcp dport 444 dnat to {target.rsplit(':', 1)[0]}:853\n }}\n}}"
    )
    try:
        assert wire.connect("a", v, virtual, 443) == "refused"
        node.grant("a", WORLD[v], P("tcp", 8443, 8443))
        assert wire.connect("a", v, virtual, 443) == "refused"
        node.grant("a", virtual, P("tcp"))
        flow = wire.connection("a", v, virtual, 443)
        other = wire.keep(listener.accept()[0])
        other.sendall(b"hello")
        assert heard(flow) == b"hello"
        assert wire.connect("a", v, virtual, 444) == "refused"
        assert node.kernel.counters()["port"][0] == 1
    finally:
        lab.nft(f"delete table {family} svc")


def test_metadata_is_never_exempt(node, wire, lab):
    """Also where the cluster's CIDRs cover it and a foreign rule translates it to the node."""
    node.kernel.commit([Add(e) for e in _cluster("169.254.0.0/16")])
    wire.server(4, socket.SOCK_STREAM, 80, where="node")
    lab.nft(
        "table ip metadata {\n chain p {\n type nat hook prerouting priority dstnat;\n"
        " ip daddr 169.254.169.254 tcp dport 80 redirect to :80\n }\n}"
    )
    try:
        assert wire.connect("a", 4, "169.254.169.254", 80) == "refused"
        assert wire.connect("u", 4, "169.254.169.254", 80) == "open"
    finally:
        lab.nft("delete table ip metadata")


def _cluster(cidr: str):
    from enforcer.elements import node_elements

    return node_elements([], cluster_cidrs=[cidr])["cluster4"].values()


def test_icmp_errors_of_a_live_flow_come_through(node, wire):
    """Port unreachable of a granted flow reaches the pod; nothing else of ICMP does."""
    client = wire.udp("a", 4)
    node.grant("a", WORLD[4], P("udp", 9999, 9999))
    client.connect((WORLD[4], 9999))
    client.send(b"nobody listens")
    assert outcome(lambda: client.recv(10)) == "refused"
