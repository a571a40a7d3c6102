"""A resolver that runs the attacker's code, on the real node: its uid and its sockets open nothing new.

The honest resolver is stopped and this process takes its place: its uid on the authority socket, the
transparent sockets that come over it. Each trick ends with the enforcer standing and the others served.
"""

from __future__ import annotations

import ipaddress
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from enforcer.demo import places
from enforcer.demo.pods import Pod
from enforcer.demo.processes import LONG_S, uid_of, wait_until
from enforcer.demo.scenes import Stage
from policy.authority import (
    CountersReported,
    GrantAnswered,
    GrantRequested,
    Hello,
    LookupRecord,
    LookupsRecorded,
    SnapshotPublished,
    UpstreamState,
    WorldChanged,
)
from policy.publication import held
from policy.runtime.framing import encode, resolver_decoder
from policy.world import World

pytestmark = pytest.mark.kernel

REQUESTS = 100_000
GOOD4, SITE = places.SITE_OF[places.CRM][0], places.SITE_OF[places.LEDGER][0]
NAN = float("nan")


def packed(address: str) -> bytes:
    """Packed form of an address."""
    return ipaddress.ip_address(address).packed


class Hijacked:
    """One connection of the resolver's uid to the real enforcer, and whatever came over it."""

    def __init__(self, stage: Stage, uid: int) -> None:
        self._peer = socket.socket(socket.AF_UNIX)
        self._peer.settimeout(LONG_S)
        os.seteuid(uid)
        try:
            self._peer.connect(str(stage.lab.folder / "run" / "authority.sock"))
        except OSError:
            self._peer.close()
            raise
        finally:
            os.seteuid(0)
        self._decoder = resolver_decoder()
        self.sockets: dict[str, socket.socket] = {}
        self.world: World | None = None
        self.answers: list[GrantAnswered] = []
        self.closed = False
        self._names: tuple[str, ...] = ()
        self._unnamed: list[socket.socket] = []
        self._next = 0

    def close(self) -> None:
        """Let go of the connection and of the node's sockets."""
        self._peer.close()
        for each in (*self.sockets.values(), *self._unnamed):
            each.close()

    def greet(self) -> Hijacked:
        """Take the sockets and the snapshot."""
        assert wait_until(lambda: self.read() or (self.world is not None and "udp6" in self.sockets), LONG_S)
        return self

    def read(self) -> bool:
        """Take what is there, without waiting; True once the connection is closed."""
        while not self.closed and select.select([self._peer], [], [], 0)[0]:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._peer, 1 << 18, 16)
            except ConnectionResetError:
                data, descriptors = b"", []
            self.closed = not data
            for message in self._decoder.feed(data):
                if isinstance(message, Hello):
                    self._names = message.sockets
                elif isinstance(message, SnapshotPublished | WorldChanged):
                    self.world = held(self.world, message)
                elif isinstance(message, GrantAnswered):
                    self.answers.append(message)
            self._unnamed += [socket.socket(fileno=descriptor) for descriptor in descriptors]
            while self._names and self._unnamed:
                self.sockets[self._names[len(self.sockets)]] = self._unnamed.pop(0)
        return self.closed

    def send(self, data: bytes) -> None:
        """Send octets, reading meanwhile; whatever the enforcer still takes."""
        view = memoryview(data)
        limit_at = time.monotonic() + 60
        while view and not self.closed and time.monotonic() < limit_at:
            readable, writable, _ = select.select([self._peer], [self._peer], [], 1.0)
            if readable:
                self.read()
            if writable:
                try:
                    view = view[self._peer.send(view, socket.MSG_DONTWAIT) :]
                except (BrokenPipeError, ConnectionResetError):
                    self.closed = True

    def request(self, pod: Pod, name: str, *addresses: bytes, **claimed: object) -> GrantRequested:
        """Return a request as an honest resolver makes it, but for what is ``claimed``."""
        assert self.world is not None
        self._next += 1
        uid = next((each.uid for each in self.world.pods if each.name == pod.name), "no-such-uid")
        made = GrantRequested(
            self._next, self.world.generation, uid, packed(pod.addresses[0]), name, addresses, 1
        )
        return msgspec.structs.replace(made, **claimed)

    def ask(self, request: GrantRequested) -> GrantAnswered:
        """Send one request and wait for its answer."""
        self.send(encode(request))
        assert wait_until(lambda: self.read() or any(a.id == request.id for a in self.answers), LONG_S, 0.001)
        return next(answer for answer in self.answers if answer.id == request.id)


@pytest.fixture(scope="module")
def uid(stage: Stage) -> Iterator[int]:
    """The resolver's uid, while the honest one is stopped; afterwards it works as if nothing had been."""
    honest = stage.lab.ward.worker("resolver")
    uid = uid_of(honest)
    assert uid
    os.kill(honest, signal.SIGSTOP)
    try:
        yield uid
    finally:
        os.kill(honest, signal.SIGCONT)
    assert wait_until(lambda: stage.ledger.stub.ask(places.LEDGER).rcode == "NOERROR", LONG_S)
    answer = stage.crm.stub.ask(places.CRM)
    assert stage.crm.connect(answer.addresses[0]).ok
    assert stage.crm.stub.ask(places.DROP).rcode == "NXDOMAIN"
    assert stage.lab.ward.worker("resolver") == honest


@pytest.fixture
def hijacked(stage: Stage, uid: int) -> Iterator[Hijacked]:
    """A connection of the hijacked resolver; afterwards the same enforcer still serves and enforces."""
    enforcer = stage.lab.ward.worker("enforcer")
    opened = Hijacked(stage, uid).greet()
    try:
        yield opened
    finally:
        opened.close()
    again = Hijacked(stage, uid).greet()
    try:
        answer = again.ask(again.request(stage.crm, places.CRM, packed(GOOD4)))
        assert answer.outcomes == ("realized",)
    finally:
        again.close()
    assert stage.lab.ward.worker("enforcer") == enforcer
    assert stage.lab.ward.status()["enforcing"] is True
    assert not stage.ledger.connect(places.ATTACKER4).ok


def _open(stage: Stage) -> set[tuple[object, ...]]:
    """Everything that is open on the node, however long yet."""
    fields = ("pod", "name", "address", "protocol", "port", "rule")
    return {tuple(row[field] for field in fields) for row in stage.lab.ward.ask("grants")}


def _opens_nothing(stage: Stage, hijacked: Hijacked, request: GrantRequested) -> None:
    before = _open(stage)
    answer = hijacked.ask(request)
    assert len(answer.outcomes) == len(request.addresses)
    assert set(answer.outcomes) <= {"denied", "failed", "limit"}
    assert answer.remaining_s == 0
    assert _open(stage) <= before


def test_another_users_process_is_refused(stage: Stage, uid: int) -> None:
    """A local user who is not the resolver cannot even connect; root's connection is closed unheard."""
    with pytest.raises(PermissionError):
        Hijacked(stage, uid + 1)
    root = Hijacked(stage, 0)
    try:
        assert wait_until(root.read, LONG_S)
        assert root.world is None
        assert not root.sockets
    finally:
        root.close()


@pytest.mark.parametrize(
    "claimed",
    [
        {"pod_uid": "somebody-else"},
        {"pod_uid": ""},
        {"source": packed("10.244.0.11")},  # ledger's address with crm's uid
        {"source": packed("10.244.0.66")},  # the undeclared pod
        {"source": packed(places.NODE4)},
        {"source": packed("::ffff:10.244.0.10")},
        {"source": b""},
        {"source": b"\x0a\xf4\x00"},
        {"source": bytes(4096)},
    ],
    ids=lambda claimed: " ".join(f"{key} {value!r:.40}" for key, value in claimed.items()),
)
def test_it_opens_nothing_for_pods_that_are_not_as_it_says(
    stage: Stage, hijacked: Hijacked, claimed: dict[str, object]
) -> None:
    """A pod is an address and the uid that this node knows it by."""
    _opens_nothing(stage, hijacked, hijacked.request(stage.crm, places.CRM, packed(GOOD4), **claimed))


@pytest.mark.parametrize(
    "name",
    [
        places.DROP,
        places.LEDGER,
        places.FILES,
        f"{places.CRM}.",
        f"x{places.CRM}",
        f"{places.CRM}\0",
        f"{places.CRM}\n.{places.FILES}",
        "",
        ".",
        "*",
        f"*.{places.FILES}",
        f"..{places.FILES}",
        f"\u202ea.{places.FILES}",
        "a" * 200_000,
    ],
    ids=lambda name: repr(name)[:40],
)
def test_it_opens_nothing_for_names_that_are_not_permitted(
    stage: Stage, hijacked: Hijacked, name: str
) -> None:
    """The enforcer matches the name itself; what no question can be is no name."""
    _opens_nothing(stage, hijacked, hijacked.request(stage.crm, name, packed(GOOD4)))


FORMS = ("::ffff:{}", "::{}", "64:ff9b::{}")
GUARDED4 = (
    places.METADATA,
    "127.0.0.1",
    "10.244.0.11",
    "10.96.0.10",
    places.NODE4,
    "192.168.1.1",
    "224.0.0.1",
)
GUARDED = (
    *GUARDED4,
    *(form.format(address) for address in GUARDED4 for form in FORMS),
    *(str(ipaddress.IPv6Address(b"\x20\x02" + packed(address) + bytes(10))) for address in GUARDED4),  # 6to4
    *(  # Teredo: the client's address inverted
        str(ipaddress.IPv6Address(b"\x20\x01" + bytes(10) + bytes(255 - octet for octet in packed(address))))
        for address in GUARDED4
    ),
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "ff02::1",
    "fec0::1",
    places.NODE6,
    "fd00:10:244::b",
    "64:ff9b:1::a9fe:a9fe",
    "2001:db8::1",
)


def test_it_opens_no_guarded_address_in_any_form(stage: Stage, hijacked: Hijacked) -> None:
    """Metadata, loopback, pods, Services, the node, private, multicast: plain and inside IPv6."""
    addresses = [packed(address) for address in GUARDED]
    for pod in (stage.crm, stage.bulk):
        name = places.CRM if pod is stage.crm else places.BULK_NAMES[0]
        _opens_nothing(stage, hijacked, hijacked.request(pod, name, *addresses))


def test_it_opens_nothing_that_is_no_address(stage: Stage, hijacked: Hijacked) -> None:
    """Octets of other lengths; none at all."""
    odd = [bytes(length) for length in (0, 1, 3, 5, 8, 15, 17, 64, 4096)]
    _opens_nothing(stage, hijacked, hijacked.request(stage.crm, places.CRM, *odd))
    _opens_nothing(stage, hijacked, hijacked.request(stage.crm, places.CRM))


def test_what_remains_is_a_public_address_for_a_permitted_name_on_the_record(
    stage: Stage, hijacked: Hijacked
) -> None:
    """The threat model's sentence: for that pod, on the rule's ports, for the claimed name, not for long."""
    stage.lab.world.forget()
    before = _open(stage)
    claim = hijacked.request(stage.crm, places.CRM, packed(SITE), ttl_s=1)
    assert hijacked.ask(claim).outcomes == ("realized",)
    rows = [row for row in stage.lab.ward.grants(stage.crm.name) if row["address"] == SITE]
    opened = _open(stage) - before
    assert {row[:3] for row in opened} == {(stage.crm.name, places.CRM, SITE)}
    assert {row["port"] for row in rows} == {443}
    assert max(row["remainingSeconds"] for row in rows) <= 1 + places.GRACE_S
    assert not stage.crm.connect(SITE, port=80).ok
    assert not stage.bulk.connect(SITE).ok
    gone = wait_until(lambda: not _open(stage) & opened, LONG_S, 0.1)
    assert gone
    assert not stage.crm.connect(SITE).ok


def test_times_and_numbers_that_it_claims_are_clamped(stage: Stage, hijacked: Hijacked) -> None:
    """A TTL of centuries is maxTTL; a generation of tomorrow is nothing."""
    for ttl_s in (2**62, 0, -(2**62)):
        claim = hijacked.request(stage.crm, places.CRM, packed(GOOD4), ttl_s=ttl_s, generation=2**62)
        answer = hijacked.ask(claim)
        assert answer.outcomes == ("realized",)
        assert 0 < answer.remaining_s <= 60 + places.GRACE_S


GARBAGE = {
    "zero length": bytes(4),
    "four gigabytes": b"\xff\xff\xff\xff",
    "one octet too long": (256 * 1024 + 1).to_bytes(4, "big"),
    "no message": (64).to_bytes(4, "big") + b"\xc1" * 64,
    "nested": (200_000).to_bytes(4, "big") + b"\x91" * 200_000,
    "an array of four billion": (5).to_bytes(4, "big") + b"\xdd\xff\xff\xff\xff",
    "the enforcer's own message": encode(GrantAnswered(1, 1, ("realized",), 60.0)),
    "letters": b"GET / HTTP/1.1\r\n\r\n" * 100,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_closes_its_own_connection(stage: Stage, hijacked: Hijacked, uid: int, data: bytes) -> None:
    """A frame that is none ends its connection; another one is served on."""
    other = Hijacked(stage, uid).greet()
    try:
        other.send(data)
        assert wait_until(other.read, LONG_S)
    finally:
        other.close()
    assert hijacked.ask(hijacked.request(stage.crm, places.CRM, packed(GOOD4))).outcomes == ("realized",)


def test_half_frames_and_silence_keep_nobody_waiting(stage: Stage, hijacked: Hijacked, uid: int) -> None:
    """Connections that say half a thing and no more: the one that speaks is answered."""
    silent = [Hijacked(stage, uid).greet() for _ in range(4)]
    try:
        for each in silent:
            each.send((256 * 1024).to_bytes(4, "big") + bytes(200_000))
        answer = hijacked.ask(hijacked.request(stage.crm, places.CRM, packed(GOOD4)))
        assert answer.outcomes == ("realized",)
    finally:
        for each in silent:
            each.close()


def test_numbers_that_are_none_break_no_listing(stage: Stage, hijacked: Hijacked) -> None:
    """NaN and infinities in records, counters and health; control characters in every text."""
    text = "\x1b[2J\u202e\n" * 20
    record = LookupRecord("blocked", text, text, text, text, text, text, text, text, 2**62, NAN)
    hijacked.send(
        encode(LookupsRecorded((record, msgspec.structs.replace(record, age_s=float("inf"), count=-5)) * 50))
    )
    numbers = {"nameward_dns_queries_total": NAN, text: 1.0}
    states = tuple(UpstreamState(text, healthy=True, latency_ms=each) for each in (NAN, float("inf"))) * 100
    histograms = {"nameward_hold_seconds": (NAN,) * 3}
    hijacked.send(encode(CountersReported(numbers, histograms, numbers, states)))
    assert hijacked.ask(hijacked.request(stage.crm, places.CRM, packed(GOOD4))).outcomes == ("realized",)
    assert stage.lab.ward.ask("blocked")
    assert stage.lab.ward.ask("blocked", raw=True)
    shown = stage.lab.ward.command("blocked")
    assert shown.returncode == 0
    assert "\x1b[2J" not in shown.stdout
    assert "\u202e" not in shown.stdout
    assert stage.lab.ward.status()["enforcing"] is True
    assert stage.lab.ward.command("status").returncode == 0


def test_a_flood_of_requests_opens_no_more_and_starves_nobody(
    stage: Stage, hijacked: Hijacked, uid: int
) -> None:
    """100,000 requests, millions of octets: another connection is answered within the flood."""
    before = _open(stage)
    flood = Hijacked(stage, uid).greet()
    claims = [
        flood.request(stage.crm, places.DROP, packed(places.ATTACKER4)),
        flood.request(stage.crm, places.CRM, packed(places.METADATA)),
        flood.request(stage.ledger, places.CRM, packed(places.ATTACKER4)),
        flood.request(stage.crm, places.CRM, packed(GOOD4)),
    ]
    data = b"".join(map(encode, claims))
    try:
        pieces = 20
        for _ in range(pieces):
            flood.send(data * (REQUESTS // len(claims) // pieces))
            answer = hijacked.ask(hijacked.request(stage.ledger, places.LEDGER, packed(SITE)))
            assert answer.outcomes == ("realized",)
        assert wait_until(lambda: flood.read() or len(flood.answers) >= REQUESTS, 4 * LONG_S)
        assert len(flood.answers) == REQUESTS
        assert sum(answer.outcomes == ("realized",) for answer in flood.answers) == REQUESTS // len(claims)
    finally:
        flood.close()
    opened = {row[:3] for row in _open(stage) - before}
    assert opened <= {
        (stage.crm.name, places.CRM, GOOD4),
        (stage.ledger.name, places.LEDGER, SITE),
    }


def _from(source: str) -> Sequence[tuple[int, int, bytes]]:
    """Ancillary data that has a transparent socket send from any source (ip(7), ipv6(7))."""
    if ":" in source:
        return [(socket.IPPROTO_IPV6, 50, packed(source) + struct.pack("=I", 0))]
    return [(socket.IPPROTO_IP, 8, struct.pack("=i4s4s", 0, packed(source), bytes(4)))]


def test_its_sockets_reach_pods_only_whatever_source_they_claim(stage: Stage, hijacked: Hijacked) -> None:
    """UDP from any source to anyone: refused by the kernel (EPERM) but towards pods."""
    stage.lab.world.forget()
    nowhere = (places.ATTACKER4, places.SITE_OF[places.CRM][0], places.WORLD4, places.UPSTREAM4, "127.0.0.1")
    nowhere6 = (places.ATTACKER6, places.SITE_OF[places.CRM][1], places.WORLD6, places.UPSTREAM6, "::1")
    sources = (places.NODE4, stage.crm.addresses[0], places.CLUSTER_DNS, "8.8.8.8")
    sources6 = (places.NODE6, stage.crm.addresses[1], "2001:4860:4860::8888")
    for kind, targets, claimed in (("udp4", nowhere, sources), ("udp6", nowhere6, sources6)):
        for target in targets:
            for source in claimed:
                for port in (53, 443, 15353):
                    with pytest.raises(PermissionError):
                        hijacked.sockets[kind].sendmsg([b"stolen"], _from(source), 0, (target, port))
    assert stage.lab.world.counted("attacker") == 0
    with stage.crm.space.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.settimeout(LONG_S)
        heard.bind((stage.crm.addresses[0], 4242))
        answered = (stage.crm.addresses[0], 4242)
        hijacked.sockets["udp4"].sendmsg([b"an answer"], _from(places.CLUSTER_DNS), 0, answered)
        assert heard.recvfrom(64) == (b"an answer", (places.CLUSTER_DNS, 53))
