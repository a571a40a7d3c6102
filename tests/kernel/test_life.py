"""Revocation under load, somebody's flush, the guard, connection tracking, the log: on the real kernel."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from enforcer.conntrack import Conntrack, candidates
from enforcer.kernel import Kernel
from enforcer.netlink import NETLINK_NETFILTER, Message, NetlinkSocket
from enforcer.ruleset import PASSED, structure
from tests.kernel.conftest import (
    WORLD,
    heard,
    is_silent,
    outcome,
    pack,
    pod_address,
    udp_packet,
    until,
)

pytestmark = pytest.mark.kernel
V = pytest.mark.parametrize("v", [4, 6])
TOTAL_RETRANS = 100
"""Offset of ``tcpi_total_retrans`` in the kernel's ``struct tcp_info`` (linux/tcp.h)."""


class P(NamedTuple):
    """Ports of a permit."""

    protocol: str
    first: int = 0
    last: int = 65535


@contextmanager
def flood(*pairs: tuple[socket.socket, tuple[str, int]]) -> Iterator[None]:
    """Send datagrams that say when over sockets until the block ends, a thread for all."""
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.0001):
            for made, target in pairs:
                try:
                    made.sendto(time.monotonic_ns().to_bytes(8, "big"), target)
                except OSError:
                    continue  # an ICMP refusal of an earlier one

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def drain(*receivers: socket.socket, since_ns: int = 0) -> int:
    """Take what is queued; count what was sent from then on."""
    count = 0
    for made in receivers:
        made.settimeout(0)
        try:
            while data := made.recv(100):
                count += int.from_bytes(data, "big") >= since_ns
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            pass
    return count


@V
def test_revocation_under_flood_leaves_no_packet_in_either_direction(node, wire, v):
    """From the acknowledgement on nothing passes, up or down, in each of 60 revocations."""
    server, client = wire.server(v, socket.SOCK_DGRAM, 7), wire.udp("a", v, bind=("", 7777))
    there, back = (WORLD[v], 7), (pod_address("a", v), 7777)
    permit = P("udp", 7, 7)
    with flood((client, there), (server, back)):
        for _ in range(60):
            node.grant("a", WORLD[v], permit)
            until(lambda: drain(server) and drain(client))
            node.revoke("a", WORLD[v], permit)
            acknowledged_ns = time.monotonic_ns()  # what was accepted before it may still be on its way
            time.sleep(0.03)
            assert drain(server, client, since_ns=acknowledged_ns) == 0


@V
def test_revocation_resets_tcp_on_both_sides(node, wire, v):
    """Both ends learn of it with their next packet."""
    listener = wire.server(v, socket.SOCK_STREAM, 443)
    permit = P("tcp", 443, 443)
    for speaker in (0, 1):
        node.grant("a", WORLD[v], permit)
        flow = wire.connection("a", v, WORLD[v], 443)
        other = wire.keep(listener.accept()[0])
        node.revoke("a", WORLD[v], permit)
        end = (flow, other)[speaker]
        end.sendall(b"late")
        assert outcome(lambda end=end: end.recv(10)) == "reset"


@V
def test_the_first_packet_after_the_acknowledgement_passes(node, wire, v):
    """200 grants, each connected to at once: every SYN is accepted, none has to be sent again."""
    listener = wire.server(v, socket.SOCK_STREAM, 443)
    permit = P("tcp", 443, 443)
    for _ in range(200):
        node.grant("a", WORLD[v], permit)
        made = wire.lab.socket("a", v, socket.SOCK_STREAM)
        made.connect((WORLD[v], 443))
        info = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        assert struct.unpack_from("=I", info, TOTAL_RETRANS) == (0,)
        listener.accept()[0].close()
        made.close()
        node.revoke("a", WORLD[v], permit)


@V
def test_a_flush_by_others_leaks_nothing_while_the_guard_stands(node, wire, lab, v):
    """Under flood, governed and unknown pods send nothing through until the table is back; then it works."""
    denied = wire.server(v, socket.SOCK_DGRAM, 9)
    granted = wire.server(v, socket.SOCK_DGRAM, 7)
    client, unknown = wire.udp("a", v), wire.udp("c", v)
    node.raise_guard()
    node.grant("a", WORLD[v], P("udp", 7, 7))
    client.sendto(b"before", (WORLD[v], 7))
    assert heard(granted) == b"before"
    with flood((client, (WORLD[v], 9)), (unknown, (WORLD[v], 9))):
        for _ in range(5):
            lab.nft("flush ruleset")
            threading.Event().wait(0.05)
            with lab.inside("node"):
                node.install()
    assert drain(denied) == 0
    node.grant("a", WORLD[v], P("udp", 7, 7))
    client.sendto(b"after", (WORLD[v], 7))
    assert heard(granted) == b"after"
    granted.sendto(b"answer", (pod_address("a", v), client.getsockname()[1]))
    assert heard(client) == b"answer"


@V
def test_an_ungoverned_pod_lives_through_a_flush(node, wire, lab, v):
    """The guard holds governed and unknown pods, and nobody else."""
    server = wire.server(v, socket.SOCK_DGRAM, 9)
    node.raise_guard()
    lab.nft("flush ruleset")
    wire.udp("u", v).sendto(b"mine", (WORLD[v], 9))
    assert heard(server) == b"mine"
    wire.udp("a", v).sendto(b"governed", (WORLD[v], 9))
    wire.raw("a", udp_packet(pod_address("u", v), WORLD[v], 7777, 9, b"in u's name"), WORLD[v])
    wire.raw("c", udp_packet(pod_address("u", v), WORLD[v], 7777, 9, b"in u's name"), WORLD[v])
    wire.udp("world", v).sendto(b"in", (pod_address("a", v), 9))
    assert is_silent(server)


@V
@pytest.mark.parametrize("guarded", [True, False])
def test_the_mark_is_gone_before_others_look(node, wire, lab, v, guarded):
    """With and without the guard no foreign chain and no later hook sees our mark bit."""
    if guarded:
        node.raise_guard()
    lab.nft(
        "table inet other {\n counter marked { }\n counter seen { }\n"
        " chain f {\n type filter hook forward priority filter;\n"
        f' meta mark & {PASSED} != 0 counter name "marked"\n counter name "seen"\n }}\n}}'
    )
    try:
        node.grant("a", WORLD[v], P("udp", 7, 7))
        server = wire.server(v, socket.SOCK_DGRAM, 7)
        wire.udp("a", v).sendto(b"x", (WORLD[v], 7))
        assert heard(server) == b"x"
        with lab.inside("node"):
            other = Kernel(table="other")
        counters = other.counters()
        other.close()
        assert counters["marked"][0] == 0
        assert counters["seen"][0] > 0
    finally:
        lab.nft("delete table inet other")


def test_a_mark_that_somebody_set_before_does_not_pass_the_guard(node, wire, lab):
    """After a flush, a foreign rule that marks everything opens nothing."""
    server = wire.server(4, socket.SOCK_DGRAM, 9)
    node.raise_guard()
    lab.nft("flush ruleset")
    lab.nft(
        "table ip early {\n chain p {\n type filter hook prerouting priority -350;\n"
        f" meta mark set {PASSED}\n }}\n}}"
    )
    wire.udp("a", 4).sendto(b"x", (WORLD[4], 9))
    assert is_silent(server)


@V
def test_flows_of_a_pod_are_deleted_and_no_others(node, wire, lab, v):
    """Both those it opened and those it answers; another pod's stay."""
    for port in (7, 8):
        wire.server(v, socket.SOCK_DGRAM, port)
    for pod in ("a", "b"):
        node.grant(pod, WORLD[v], P("udp", 7, 7))
        wire.udp(pod, v).sendto(b"x", (WORLD[v], 7))
    wire.udp("u", v).sendto(b"in", (pod_address("a", v), 9))
    pairs = [(pack(pod_address(pod, v)), pack(WORLD[v])) for pod in ("a", "b")]
    with lab.inside("node"):
        conntrack = Conntrack()
        assert conntrack.used(pairs) == {(*pair, "udp", 7) for pair in pairs}
        assert conntrack.count() >= 3
        assert conntrack.delete_flows([pairs[0][0]]) == 2
        assert conntrack.used(pairs) == {(*pairs[1], "udp", 7)}
        assert conntrack.delete_flows([pairs[0][0]]) == 0
        assert conntrack.delete_flows([bytes((192, 0, 2, n)) for n in range(6)] + [pairs[1][0]]) == 1


class Walks(NetlinkSocket):
    """Counts the dumps, each of which is a walk of conntrack's whole table."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER, receive_bytes=4 << 20)
        self.walks = 0

    def dump(self, kind: int, payload: bytes) -> list[Message]:
        self.walks += 1
        return super().dump(kind, payload)


def test_a_pods_flows_are_found_by_one_walk_while_there_are_few(node, wire, lab):
    """Both families at once; where many would have to be read the kernel picks them, address by address."""
    ours = frozenset(pack(pod_address("a", v)) for v in (4, 6))
    for v in (4, 6):
        node.grant("a", WORLD[v], P("udp", 7, 7))
        wire.udp("a", v).sendto(b"x", (WORLD[v], 7))
    with lab.inside("node"):
        door = Walks()
    assert len(candidates(door, ours)) >= 2
    assert door.walks == 1
    other = wire.udp("u", 4)
    for port in range(2000, 3200):
        other.sendto(b"x", (WORLD[4], port))
    found = candidates(door, ours)
    assert door.walks == 5
    assert len(found) == 2
    assert len(candidates(door, ours | {bytes((192, 0, 2, n)) for n in range(6)})) > 1200
    assert door.walks == 6
    door.close()
    with lab.inside("node"):
        assert Conntrack().delete_flows([*ours, pack(pod_address("u", 4))]) >= 1202


@V
def test_a_flow_from_before_does_not_outlive_its_deletion(node, wire, lab, v):
    """A TCP flow that a live element kept ends with the element, and cannot come back without a grant."""
    listener = wire.server(v, socket.SOCK_STREAM, 443)
    permit = P("tcp", 443, 443)
    node.grant("a", WORLD[v], permit)
    flow = wire.connection("a", v, WORLD[v], 443)
    wire.keep(listener.accept()[0])
    node.revoke("a", WORLD[v], permit)
    with lab.inside("node"):
        assert Conntrack().delete_flows([pack(pod_address("a", v))]) == 1
    flow.sendall(b"late")
    assert outcome(lambda: flow.recv(10)) == "reset"


def test_an_adopted_table_keeps_its_elements(node, lab):
    """A second process reads what the first left: structure, grants, remaining time, comments."""
    node.grant("a", WORLD[4], P("tcp", 443, 443))
    fingerprint = node.kernel.fingerprint()
    with lab.inside("node"):
        later = Kernel()
    try:
        assert later.fingerprint() == fingerprint
        (grant,) = later.elements("grants4")
        assert grant.comment == b"lab/policy/rule|name"
        assert 0 < (grant.expires_ms or 0) <= 60_000
        with lab.inside("node"):
            later.install(structure(node.layout))
        assert later.elements("grants4") == []
    finally:
        later.close()
