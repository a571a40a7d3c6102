"""Captured questions on the real kernel: answered from the address they aimed at, whoever else is there."""

from __future__ import annotations

import select
import socket
import struct
import threading

import pytest

from enforcer.ruleset import Layout
from enforcer.sockets import SocketRefused, open_dns_sockets
from tests.kernel.conftest import (
    NODE,
    OTHER,
    PATIENCE_S,
    RESOLVER_UID,
    SILENCE_S,
    WORLD,
    heard,
    is_silent,
    pod_address,
    udp_packet,
)

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])


class Echo:
    """A resolver that says which address was aimed at."""

    def __init__(self, lab, port: int) -> None:
        """Open the real sockets in the node."""
        with lab.inside("node"):
            self.sockets = open_dns_sockets(port, RESOLVER_UID)

    def udp(self, v: int, wait_s: float = PATIENCE_S) -> bytes | None:
        """Answer one datagram, from the address it aimed at; return that address, None if none comes."""
        made = self.sockets[f"udp{v}"]
        if not select.select([made], [], [], wait_s)[0]:
            return None
        data, ancillary, _, sender = made.recvmsg(65535, 256)
        body = ancillary[0][2]
        aimed = body[8:12] if v == 4 else body[:16]
        control = struct.pack("=i4s4s", 0, aimed, b"") if v == 4 else struct.pack("=16si", aimed, 0)
        level, kind = (socket.IPPROTO_IP, 8) if v == 4 else (socket.IPPROTO_IPV6, 50)
        made.sendmsg([b"answer to " + data], [(level, kind, control)], 0, sender)
        return aimed

    def tcp(self, v: int) -> str:
        """Accept one connection and answer it; return the address that was aimed at."""
        listener = self.sockets[f"tcp{v}"]
        listener.settimeout(PATIENCE_S)
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE_S)
        connection.sendall(b"answer to " + connection.recv(100))
        aimed = connection.getsockname()[0]
        connection.close()
        return aimed

    def close(self) -> None:
        """Close all."""
        for made in self.sockets.values():
            made.close()


@pytest.fixture
def echo(lab, node):
    """The resolver's stand-in."""
    made = Echo(lab, node.layout.dns_port)
    yield made
    made.close()


@V
def test_questions_have_room_while_a_worker_starts_again(echo, v):
    """8 MiB a socket, as `getsockopt` tells it: twice what was asked for, beyond the host's own limit."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        assert echo.sockets[f"udp{v}"].getsockopt(socket.SOL_SOCKET, option) >= 16 << 20


def ask_udp(wire, echo, pod: str, v: int, server: str, *, wait_s: float = PATIENCE_S) -> bytes | None:
    """One question by UDP over a connected socket: an answer from elsewhere would not be heard."""
    client = wire.udp(pod, v)
    client.connect((server, 53))
    client.send(b"question")
    echo.udp(v, wait_s)
    return heard(client, wait_s)


def ask_tcp(wire, echo, pod: str, v: int, server: str) -> bytes:
    """One question by TCP."""
    answering = threading.Thread(target=echo.tcp, args=(v,))
    answering.start()
    client = wire.keep(wire.lab.socket(pod, v, socket.SOCK_STREAM))
    client.connect((server, 53))
    client.sendall(b"question")
    answer = client.recv(100)
    answering.join()
    return answer


@V
@pytest.mark.parametrize("server", [OTHER, WORLD, NODE, "pod"])
def test_every_question_is_answered_from_where_it_aimed(echo, wire, v, server):
    """UDP and TCP, whatever server it aimed at: the world's, the node's own address, another pod's."""
    aimed = pod_address("u", v) if server == "pod" else server[v]
    assert ask_udp(wire, echo, "a", v, aimed) == b"answer to question"
    assert ask_tcp(wire, echo, "a", v, aimed) == b"answer to question"


@pytest.mark.parametrize("server", [OTHER, NODE, "pod"])
def test_strict_reverse_path_filtering_does_no_harm(echo, wire, lab, server):
    """With rp_filter 1, src_valid_mark and tcp_fwmark_accept all is answered as well (IPv4 only has them)."""
    with lab.inside("node"):
        for name in ("all", "pa"):
            lab.sysctl(f"net/ipv4/conf/{name}/rp_filter", "1")
            lab.sysctl(f"net/ipv4/conf/{name}/src_valid_mark", "1")
        lab.sysctl("net/ipv4/tcp_fwmark_accept", "1")
    try:
        aimed = pod_address("b", 4) if server == "pod" else server[4]
        assert ask_udp(wire, echo, "a", 4, aimed) == b"answer to question"
        assert ask_tcp(wire, echo, "a", 4, aimed) == b"answer to question"
    finally:
        with lab.inside("node"):
            for name in ("all", "pa"):
                lab.sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")
                lab.sysctl(f"net/ipv4/conf/{name}/src_valid_mark", "0")
            lab.sysctl("net/ipv4/tcp_fwmark_accept", "0")


@V
def test_an_unknown_pod_is_heard(echo, wire, v):
    """Its lookup waits in the resolver, not on the wire."""
    assert ask_udp(wire, echo, "c", v, OTHER[v]) == b"answer to question"


@V
def test_a_forged_question_is_not(echo, wire, v):
    """Neither another pod's address nor anybody else's asks in its name."""
    for pod in ("b", "c"):
        wire.raw(pod, udp_packet(pod_address("a", v), OTHER[v], 5000, 53, b"question"), OTHER[v])
    wire.raw("b", udp_packet(WORLD[v], OTHER[v], 5000, 53, b"question"), OTHER[v])
    assert echo.udp(v, SILENCE_S) is None


def test_a_question_without_checksum_is_answered(echo, wire):
    """RFC 768: checksum 0 is none; rewriting the port must not make it a wrong one."""
    client = wire.udp("a", 4, bind=("0.0.0.0", 5001))
    wire.raw("a", udp_packet(pod_address("a", 4), OTHER[4], 5001, 53, b"question"), OTHER[4])
    echo.udp(4)
    assert heard(client) == b"answer to question"


@V
def test_a_fragmented_question_is_put_together(echo, wire, v):
    """4,000 octets come whole: the table uses conntrack, which defragments."""
    client = wire.udp("a", v)
    client.connect((OTHER[v], 53))
    client.send(b"q" * 4000)
    echo.udp(v)
    assert heard(client) == b"answer to " + b"q" * 4000


@V
def test_nobody_reaches_the_resolvers_port_directly(echo, wire, v):
    """Only captured packets: not a pod's own, not the world's, not over TCP."""
    for where in ("a", "u", "world"):
        wire.udp(where, v).sendto(b"question", (NODE[v], 15353))
    assert echo.udp(v, SILENCE_S) is None
    assert wire.connect("world", v, NODE[v], 15353, wait_s=SILENCE_S) == "silence"


@V
def test_the_capturing_sockets_speak_to_pods_only(echo, node, wire, v):
    """A hijacked resolver cannot send from any address to the world: the output chain drops it."""
    victim = wire.server(v, socket.SOCK_DGRAM, 9, address=WORLD[v])
    aimed = socket.inet_pton(socket.AF_INET if v == 4 else socket.AF_INET6, OTHER[v])
    control = struct.pack("=i4s4s", 0, aimed, b"") if v == 4 else struct.pack("=16si", aimed, 0)
    level, kind = (socket.IPPROTO_IP, 8) if v == 4 else (socket.IPPROTO_IPV6, 50)
    with pytest.raises(PermissionError):
        echo.sockets[f"udp{v}"].sendmsg([b"x"], [(level, kind, control)], 0, (WORLD[v], 9))
    assert is_silent(victim)
    assert node.kernel.counters()["fence"][0] == 1


@V
def test_a_lost_rule_closes_and_opens_nothing(echo, node, wire, lab, v):
    """Without the ip rule captured questions go nowhere, and its return heals it."""
    server = wire.server(v, socket.SOCK_DGRAM, 15353, address=WORLD[v])
    assert node.routes.dns_rule_stands()
    node.routes.remove_dns_rule()
    assert not node.routes.dns_rule_stands()
    assert ask_udp(wire, echo, "a", v, WORLD[v], wait_s=SILENCE_S) is None
    assert ask_udp(wire, echo, "c", v, WORLD[v], wait_s=SILENCE_S) is None
    assert is_silent(server)
    node.routes.install_dns_rule()
    node.routes.install_dns_rule()
    assert node.routes.dns_rule_stands()
    assert ask_udp(wire, echo, "a", v, WORLD[v]) == b"answer to question"


@V
@pytest.mark.parametrize("layout", [Layout(resolver_uid=RESOLVER_UID, capture=False)])
def test_without_capture_port_53_is_denied(node, wire, v):
    """``dns.capture: false`` closes 53 as every other port; only ``dns.listen`` is left."""
    server = wire.server(v, socket.SOCK_DGRAM, 53, address=WORLD[v])
    wire.udp("a", v).sendto(b"question", (WORLD[v], 53))
    assert is_silent(server)
    assert node.kernel.counters()["port"][0] == 1


@V
@pytest.mark.parametrize(
    "layout", [Layout(resolver_uid=RESOLVER_UID, capture_by="rewrite", rewrite_to=tuple(NODE.values()))]
)
@pytest.mark.parametrize("server", [OTHER, NODE])
def test_where_the_host_refuses_the_rule_rewriting_answers_too(echo, node, wire, v, server):
    """UDP and TCP, from the address aimed at, beside foreign tables; and nothing else becomes reachable."""
    node.routes.remove_dns_rule()
    wire.lab.nft(FOREIGN)
    try:
        assert ask_udp(wire, echo, "a", v, server[v]) == b"answer to question"
        assert ask_tcp(wire, echo, "a", v, server[v]) == b"answer to question"
        assert ask_udp(wire, echo, "c", v, server[v]) == b"answer to question"
    finally:
        wire.lab.nft("delete table ip kube\ndelete table inet nodelocal\ndelete table inet host")
    for where in ("a", "u", "world"):
        wire.udp(where, v).sendto(b"question", (NODE[v], 15353))
    assert echo.udp(v, SILENCE_S) is None


FOREIGN = """
table ip kube {
  chain nat {
    type nat hook prerouting priority dstnat;
    ip daddr 8.8.4.4 udp dport 53 dnat to 45.1.0.2:5300
    ip daddr 8.8.4.4 tcp dport 53 dnat to 45.1.0.2:5300
  }
}
table inet nodelocal {
  chain raw {
    type filter hook prerouting priority raw;
    udp dport 53 notrack
    tcp dport 53 notrack
  }
  chain out {
    type filter hook output priority raw;
    udp sport 53 notrack
    tcp sport 53 notrack
  }
}
table inet host {
  chain in {
    type filter hook input priority filter;
    udp dport 53 drop
    tcp dport 53 drop
  }
  chain post {
    type nat hook postrouting priority srcnat;
    oifname "up0" masquerade
  }
}
"""


@V
def test_foreign_tables_change_nothing(echo, wire, lab, v):
    """Beside somebody's NOTRACK, DNAT and drop of port 53, and his own server on it."""
    theirs = [wire.server(v, kind, 53, where="node") for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    lab.nft(FOREIGN)
    try:
        assert ask_udp(wire, echo, "a", v, OTHER[v]) == b"answer to question"
        assert ask_tcp(wire, echo, "a", v, OTHER[v]) == b"answer to question"
        assert is_silent(theirs[0])
    finally:
        lab.nft("delete table ip kube\ndelete table inet nodelocal\ndelete table inet host")


def test_sockets_that_a_living_resolver_holds_are_opened_beside_it(lab) -> None:
    """An enforcer's container that was killed comes back while the resolver's holds what it was given."""
    port = Layout().dns_port + 1
    with lab.inside("node"):
        before = open_dns_sockets(port, RESOLVER_UID, beside=True)
        after = open_dns_sockets(port, RESOLVER_UID, beside=True)
        assert set(after) == set(before)
        for uid, beside in ((RESOLVER_UID + 1, True), (RESOLVER_UID, False)):
            with pytest.raises(SocketRefused, match="Address already in use"):
                open_dns_sockets(port, uid, beside=beside)
    for made in (*before.values(), *after.values()):
        made.close()
