"""A pod that plays every trick on the resolver's front door: nobody else notices."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import time
from collections.abc import Iterator

import dns.message
import pytest

from enforcer.demo import places
from enforcer.demo.pods import Pod
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Stage

pytestmark = pytest.mark.kernel

GOOD = dns.message.make_query(places.CRM, "A").to_wire()
HEADER = GOOD[:12]
LOOP = HEADER + b"\xc0\x0c\x00\x01\x00\x01"
MALFORMED = [
    b"",
    b"\x00",
    HEADER,
    GOOD[:-3],
    LOOP,
    HEADER + b"\x3f" + b"a" * 20,
    HEADER + b"\xc0\xff\x00\x01\x00\x01",
    HEADER[:4] + b"\x00\x02" + HEADER[6:] + GOOD[12:] * 2,
    HEADER[:2] + b"\x81\x80" + GOOD[4:],
    GOOD + b"\x00" * 1200,
    b"\xff" * 512,
]
CONNECTIONS = 10_000
NAMES = 3_000


def _framed(wire: bytes) -> bytes:
    return len(wire).to_bytes(2, "big") + wire


@pytest.fixture(scope="module")
def hostile(stage: Stage) -> Iterator[Pod]:
    """A declared pod of a server of its own, with one wildcard."""
    stage.lab.set_domains("ms1evl0x", [f"*.{places.FILES}"])
    pod = stage.lab.add_pod("ms1evl0x", 30)
    assert wait_until(lambda: pod.stub.ask(f"a.{places.FILES}").rcode == "NOERROR", LONG_S)
    yield pod
    stage.lab.remove_pod(pod)


@pytest.fixture(autouse=True)
def nobody_else_suffers(stage: Stage) -> Iterator[None]:
    """Around each trick the others are answered at their first sending, by the same resolver process."""
    before = stage.lab.ward.worker("resolver")
    yield
    for answer in (
        stage.ledger.stub.once(places.LEDGER, wait_s=LONG_S),
        stage.ledger.stub.ask(places.LEDGER, tcp=True),
    ):
        assert answer.addresses == (places.SITE_OF[places.LEDGER][0],)
    assert stage.ledger.connect(places.SITE_OF[places.LEDGER][0]).ok
    assert stage.lab.ward.worker("resolver") == before


@pytest.mark.parametrize("wire", MALFORMED, ids=lambda wire: f"{len(wire)} octets {wire[12:16].hex()}")
def test_malformed_datagrams_and_messages_hurt_nobody(hostile: Pod, wire: bytes) -> None:
    """Malformed messages over UDP and TCP, 200 of each, end in an error reply or silence."""
    with hostile.space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((places.CLUSTER_DNS, 53))
        for _ in range(200):
            opened.send(wire)
    with hostile.space.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
        opened.settimeout(2)
        opened.connect((places.CLUSTER_DNS, 53))
        with contextlib.suppress(OSError):
            opened.sendall(_framed(wire) * 200)


def test_a_65535_octet_message_and_pipelined_garbage_hurt_nobody(hostile: Pod) -> None:
    """The largest message DNS over TCP can carry, then garbage behind good questions."""
    for stream in (_framed(HEADER + bytes(65523)), _framed(GOOD) * 300 + secrets.token_bytes(60_000)):
        with hostile.space.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
            opened.settimeout(2)
            opened.connect((places.CLUSTER_DNS, 53))
            with contextlib.suppress(OSError):
                opened.sendall(stream)


def test_a_reader_that_never_reads_hurts_nobody(hostile: Pod) -> None:
    """A client that asks over TCP and never reads is cut or ignored."""
    with hostile.space.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
        opened.settimeout(0.5)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        opened.connect((places.CLUSTER_DNS, 53))
        limit_at = time.monotonic() + 1.0
        with contextlib.suppress(OSError):
            while time.monotonic() < limit_at:
                opened.sendall(_framed(GOOD) * 100)


def test_10000_connections_left_open_hurt_nobody(hostile: Pod, stage: Stage) -> None:
    """Connections over the cap of a pod are refused or closed; others get theirs all the while."""
    with contextlib.ExitStack() as left:
        for _ in range(CONNECTIONS):
            opened = left.enter_context(hostile.space.socket(socket.AF_INET, socket.SOCK_STREAM))
            opened.settimeout(0)
            opened.connect_ex((places.CLUSTER_DNS, 53))
        assert stage.ledger.stub.ask(places.LEDGER, tcp=True).addresses


def test_a_flood_of_distinct_names_ends_at_the_tunnel_limit(hostile: Pod, stage: Stage) -> None:
    """Of thousands of names under its own wildcard 300 are resolved; the rest is refused by reason."""
    before = stage.lab.world.counted("upstream")
    rcodes = [hostile.stub.ask(f"{secrets.token_hex(12)}.{places.FILES}").rcode for _ in range(NAMES)]
    assert rcodes.count("NOERROR") <= 300
    assert rcodes[-1] == "NXDOMAIN"
    assert stage.lab.world.counted("upstream") - before <= 2 * 300
    reason = hostile.stub.ask(f"{secrets.token_hex(12)}.{places.FILES}", edns=True).reason
    assert "300 names" in reason


def test_a_forged_answer_of_the_upstream_never_arrives(hostile: Pod, stage: Stage) -> None:
    """A datagram "from the upstream server, port 53" out of a pod reaches no socket of the node."""
    with (
        stage.lab.node.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim,
        hostile.space.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger,
    ):
        victim.bind((places.NODE4, 0))
        forger.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT
        forger.bind((places.UPSTREAM4, 53))
        for _ in range(100):
            forger.sendto(GOOD, victim.getsockname())
            forger.sendto(GOOD, (places.NODE4, 15353))
        readable, _, _ = select.select([victim], [], [], 0.3)
        assert not readable
