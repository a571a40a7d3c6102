"""Other nodes' resolvers with real packets: asked where port 53 is not captured, and answering from here."""

from __future__ import annotations

import socket
import threading

import pytest

from enforcer.elements import Add, Endpoint, Remove, node_elements
from enforcer.ruleset import Layout
from enforcer.sockets import open_listen_sockets
from tests.kernel.conftest import (
    NODE,
    OTHER,
    PATIENCE_S,
    RESOLVER_UID,
    SILENCE_S,
    WORLD,
    heard,
    is_silent,
    pack,
    pod_address,
    udp_packet,
)

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])
UNCAPTURED = pytest.mark.parametrize("layout", [Layout(resolver_uid=RESOLVER_UID, capture=False)])
SERVICE = {4: "10.96.0.10", 6: "fd96::a"}
ELSEWHERE = {4: "10.244.9.9", 6: "fd44:9::9"}
"""A pod of another node, which routes its packets with their own source address."""


def peers(*texts: str) -> list[Add]:
    """Elements of the sets of peers."""
    found = node_elements([], peers=texts)
    return [Add(element) for name in ("peers4", "peers6") for element in found[name].values()]


def served(server: socket.socket) -> threading.Thread:
    """Accept one connection and answer it; begun already."""

    def serve() -> None:
        connection, _ = server.accept()
        connection.settimeout(PATIENCE_S)
        connection.sendall(b"answer to " + connection.recv(100))
        connection.close()

    serving = threading.Thread(target=serve)
    serving.start()
    return serving


def ask_udp(
    wire, server: socket.socket, pod: str, v: int, address: str, *, wait_s: float = PATIENCE_S
) -> bytes | None:
    """One question to a server that answers if it hears it."""
    client = wire.udp(pod, v)
    client.connect((address, 53))
    client.send(b"question")
    if heard_at(server, wait_s) is None:
        return None
    return heard(client)


def heard_at(server: socket.socket, wait_s: float = PATIENCE_S) -> bytes | None:
    """Answer one question, if one comes; return it."""
    server.settimeout(wait_s)
    try:
        data, sender = server.recvfrom(2000)
    except TimeoutError:
        return None
    server.sendto(b"answer to " + data, sender)
    return data


def ask_tcp(wire, pod: str, v: int, address: str) -> bytes:
    """One question by TCP to somebody who answers."""
    client = wire.connection(pod, v, address, 53)
    client.sendall(b"question")
    return client.recv(100)


@V
@UNCAPTURED
def test_a_governed_pod_may_ask_a_peer(node, wire, v):
    """Both transports and families; and nothing more than that of the same address."""
    node.kernel.commit(peers(WORLD[v]))
    server = wire.server(v, socket.SOCK_DGRAM, 53, address=WORLD[v])
    stream = wire.server(v, socket.SOCK_STREAM, 53, address=WORLD[v])
    assert ask_udp(wire, server, "a", v, WORLD[v]) == b"answer to question"
    serving = served(stream)
    assert ask_tcp(wire, "a", v, WORLD[v]) == b"answer to question"
    serving.join()
    for port in (443, 853, 5353, 54):
        wire.server(v, socket.SOCK_STREAM, port, address=WORLD[v])
        assert wire.connect("a", v, WORLD[v], port) == "refused", port
    assert not wire.ping("a", v, WORLD[v], wait_s=SILENCE_S)


@V
@UNCAPTURED
def test_no_other_server_may_be_asked(node, wire, v):
    """Port 53 of whoever is no peer stays refused, also beside a peer; a range is all of it."""
    node.kernel.commit(peers("45.1.0.0/30", "2600:1::/126"))
    other = wire.server(v, socket.SOCK_DGRAM, 53, address=OTHER[v])
    wire.server(v, socket.SOCK_STREAM, 53, address=OTHER[v])
    assert ask_udp(wire, other, "a", v, OTHER[v], wait_s=SILENCE_S) is None
    assert wire.connect("a", v, OTHER[v], 53) == "refused"
    peer = wire.server(v, socket.SOCK_DGRAM, 53, address=WORLD[v])
    assert ask_udp(wire, peer, "a", v, WORLD[v]) == b"answer to question"


@V
@UNCAPTURED
def test_a_peer_that_is_struck_off_is_cut(node, wire, v):
    """An open connection's next packet is refused: there is no debt."""
    changes = peers(WORLD[v])
    node.kernel.commit(changes)
    stream = wire.server(v, socket.SOCK_STREAM, 53, address=WORLD[v])
    client = wire.connection("a", v, WORLD[v], 53)
    there = wire.keep(stream.accept()[0])
    node.kernel.commit([Remove(each.element.set, each.element.key, each.element.key_end) for each in changes])
    client.sendall(b"question")
    there.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        there.recv(100)


@V
@UNCAPTURED
def test_that_nobody_answers_at_a_peer_is_heard_at_once(node, wire, v):
    """A port unreachable of that flow comes through: the pod's client asks its next server."""
    node.kernel.commit(peers(WORLD[v]))
    client = wire.udp("a", v)
    client.connect((WORLD[v], 53))
    client.send(b"question")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)


def translation(v: int, to: str, port: int) -> str:
    """Somebody's Service in front of the resolvers."""
    family = "ip" if v == 4 else "ip6"
    target = f"{to}:{port}" if v == 4 else f"[{to}]:{port}"
    return "\n".join(
        [
            f"table {family} services {{",
            "chain p {",
            "type nat hook prerouting priority dstnat;",
            f"{family} daddr {SERVICE[v]} udp dport 53 dnat to {target}",
            f"{family} daddr {SERVICE[v]} tcp dport 53 dnat to {target}",
            "}\n}",
        ]
    )


@V
@UNCAPTURED
@pytest.mark.parametrize(
    "case",
    [
        (("service", "peer"), WORLD, 53, True),
        (("service",), WORLD, 53, False),
        (("peer",), WORLD, 53, False),
        (("service", "peer"), OTHER, 53, False),
        (("service", "peer"), WORLD, 5300, False),
    ],
)
def test_a_service_in_front_of_peers(node, wire, v, case):
    """Both its address and the one behind it are peers', and the port stays 53; or nothing passes."""
    (named, to, port, answered), lab = case, wire.lab
    names = {"service": SERVICE[v], "peer": WORLD[v]}
    node.kernel.commit(peers(*(names[each] for each in named)))
    server = wire.server(v, socket.SOCK_DGRAM, port, address=to[v])
    stream = wire.server(v, socket.SOCK_STREAM, port, address=to[v])
    lab.nft(translation(v, to[v], port))
    try:
        got = ask_udp(wire, server, "a", v, SERVICE[v], wait_s=PATIENCE_S if answered else SILENCE_S)
        assert got == (b"answer to question" if answered else None)
        if answered:
            serving = served(stream)
            assert ask_tcp(wire, "a", v, SERVICE[v]) == b"answer to question"
            serving.join()
        else:
            assert wire.connect("a", v, SERVICE[v], 53) == "refused"
    finally:
        lab.nft(f"delete table {'ip' if v == 4 else 'ip6'} services")


@V
def test_with_capture_a_peer_is_captured_as_everybody(node, wire, v):
    """Nothing of the setting is in force then."""
    node.kernel.commit(peers(WORLD[v]))
    server = wire.server(v, socket.SOCK_DGRAM, 53, address=WORLD[v])
    assert ask_udp(wire, server, "a", v, WORLD[v], wait_s=SILENCE_S) is None
    assert wire.connect("a", v, WORLD[v], 53, wait_s=SILENCE_S) in {"refused", "silence"}


@pytest.fixture
def far_pod(lab):
    """The world has another node's pod behind it."""
    for v, length in ((4, 32), (6, 128)):
        lab.ip("world", "addr", "add", f"{ELSEWHERE[v]}/{length}", "dev", "lo")
    yield ELSEWHERE
    for v, length in ((4, 32), (6, 128)):
        lab.ip("world", "addr", "del", f"{ELSEWHERE[v]}/{length}", "dev", "lo")


@V
@pytest.mark.parametrize("layout", [Layout(resolver_uid=RESOLVER_UID, capture=c) for c in (True, False)])
def test_dns_listen_answers_another_nodes_pod(node, wire, lab, far_pod, v):
    """It comes by the uplink with its own source address; the fence lets the answer out, nothing else."""
    with lab.inside("node"):
        sockets = open_listen_sockets([(NODE[v], 53)], RESOLVER_UID)
    node.kernel.commit(
        [
            Add(element)
            for end in (Endpoint(pack(NODE[v]), "udp", 53), Endpoint(pack(NODE[v]), "tcp", 53))
            for element in node_elements([], listen=[end])[f"listen{v}"].values()
        ]
    )
    datagrams, stream = (sockets[f"listen:{kind}:{NODE[v]}:53"] for kind in ("udp", "tcp"))
    for made in (datagrams, stream):
        wire.keep(made).settimeout(PATIENCE_S)
    client = wire.udp("world", v, bind=(far_pod[v], 0))
    client.connect((NODE[v], 53))
    client.send(b"question")
    assert heard_at(datagrams) == b"question"
    assert heard(client) == b"answer to question"
    serving = served(stream)
    asking = wire.keep(lab.socket("world", v, socket.SOCK_STREAM, bind=(far_pod[v], 0)))
    asking.connect((NODE[v], 53))
    asking.sendall(b"question")
    assert asking.recv(100) == b"answer to question"
    serving.join()
    with pytest.raises(PermissionError):  # it answers; it does not begin to speak
        datagrams.sendto(b"unasked", (far_pod[v], 4000))


@V
def test_a_pod_here_cannot_pretend_to_be_one_elsewhere(node, wire, lab, v):
    """Its question in another node's pod's name is dropped before any socket hears it."""
    with lab.inside("node"):
        sockets = open_listen_sockets([(NODE[v], 53)], RESOLVER_UID)
    datagrams = wire.keep(sockets[f"listen:udp:{NODE[v]}:53"])
    wire.keep(sockets[f"listen:tcp:{NODE[v]}:53"])
    for pod in ("a", "u", "c"):
        wire.raw(pod, udp_packet(ELSEWHERE[v], NODE[v], 5000, 53, b"forged"), NODE[v])
    assert is_silent(datagrams)
    assert node.kernel.counters()["forged"][0] == 2  # c is unknown: what it asks waits in the resolver


@V
def test_the_uplink_cannot_pretend_to_be_a_pod_here(node, wire, lab, v):
    """A question from outside in this node's pod's name is none."""
    with lab.inside("node"):
        sockets = open_listen_sockets([(NODE[v], 53)], RESOLVER_UID)
    datagrams = wire.keep(sockets[f"listen:udp:{NODE[v]}:53"])
    wire.keep(sockets[f"listen:tcp:{NODE[v]}:53"])
    wire.raw("world", udp_packet(pod_address("a", v), NODE[v], 5000, 53, b"forged"), NODE[v])
    assert is_silent(datagrams)
    assert node.kernel.counters()["forged"][0] == 1
