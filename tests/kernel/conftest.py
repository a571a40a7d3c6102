"""A node, the world and four pods, each a network namespace, routed by veth pairs, both families."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import secrets
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from enforcer.conntrack import Conntrack
from enforcer.elements import (
    GUARD_SETS,
    Add,
    Element,
    Endpoint,
    KnownPod,
    Remove,
    grant_keys,
    live_twin,
    node_elements,
    settled,
)
from enforcer.kernel import Kernel
from enforcer.routes import Routes
from enforcer.ruleset import Layout, guard, structure

PODS = {"a": 10, "b": 11, "c": 12, "u": 13}
WORLD = {4: "45.1.0.2", 6: "2600:1::2"}
OTHER = {4: "8.8.4.4", 6: "2600:9::9"}
NODE = {4: "45.1.0.1", 6: "2600:1::1"}
RESOLVER_UID = 65353
PATIENCE_S = 30.0
"""How long a slow machine may take for what comes at once."""
SILENCE_S = 0.3
"""How long is waited for what must not come."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def pack(address: str) -> bytes:
    """Packed form of an address."""
    return ipaddress.ip_address(address).packed


def pod_address(name: str, version: int) -> str:
    """Address of a pod of the lab."""
    return f"10.244.0.{PODS[name]}" if version == 4 else f"fd44::{PODS[name]:x}"


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


class Lab:
    """The namespaces; actors are sockets opened inside them by this process."""

    def __init__(self) -> None:
        """Make them all."""
        self._id = f"nwe1-{os.getpid()}-{secrets.token_hex(2)}"
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        names = ["node", "world", *PODS]
        for name in names:
            _run("ip", "netns", "add", self.ns(name))
            self.ip(name, "link", "set", "lo", "up")
            with self.inside(name):  # no duplicate address detection: sockets bind at once
                for key in ("all", "default"):
                    self.sysctl(f"net/ipv6/conf/{key}/accept_dad", "0")
        self._connect("up0", "world")
        for where, addresses in (("node", NODE), ("world", WORLD)):
            device = "up0" if where == "node" else "eth0"
            self.ip(where, "addr", "add", f"{addresses[4]}/24", "dev", device)
            self.ip(where, "addr", "add", f"{addresses[6]}/64", "dev", device, "nodad")
        for version, other in OTHER.items():
            self.ip("world", "addr", "add", other, "dev", "lo")
            self.ip("node", f"-{version}", "route", "add", "default", "via", WORLD[version])
            self.ip("world", f"-{version}", "route", "add", "default", "via", NODE[version])
        with self.inside("node"):
            self.sysctl("net/ipv4/ip_forward", "1")
            self.sysctl("net/ipv6/conf/all/forwarding", "1")
        for name in PODS:
            self._pod(name)

    def _connect(self, device: str, name: str) -> None:
        _run("ip", "link", "add", device, "netns", self.ns("node"), "type", "veth", "peer", "name", "eth0",
             "netns", self.ns(name))  # fmt: skip
        self.ip("node", "link", "set", device, "up")
        self.ip(name, "link", "set", "eth0", "up")

    def _pod(self, name: str) -> None:
        device = f"p{name}"
        self._connect(device, name)
        self.ip("node", "addr", "add", "169.254.1.1/32", "dev", device)
        self.ip("node", "addr", "add", "fe80::1/64", "dev", device, "nodad")
        for version, length in ((4, 32), (6, 128)):
            address = f"{pod_address(name, version)}/{length}"
            self.ip(name, "addr", "add", address, "dev", "eth0", *(["nodad"] if version == 6 else []))
            self.ip("node", f"-{version}", "route", "add", address, "dev", device)
        self.ip(name, "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        self.ip(name, "route", "add", "default", "via", "169.254.1.1")
        self.ip(name, "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")

    def ns(self, name: str) -> str:
        """Full name of a namespace."""
        return f"{self._id}-{name}"

    def ip(self, name: str, *words: str) -> None:
        """Run ip in a namespace."""
        _run("ip", "-n", self.ns(name), *words)

    def nft(self, text: str) -> str:
        """Be somebody else who uses nft on the node."""
        words = ["ip", "netns", "exec", self.ns("node"), "nft", "-f", "-"]
        return subprocess.run(words, input=text, check=True, capture_output=True, text=True).stdout

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Sockets opened here are that namespace's for ever."""
        there = os.open(f"/run/netns/{self.ns(name)}", os.O_RDONLY)
        try:
            assert _LIBC.setns(there, 0x40000000) == 0, "setns"
            yield
        finally:
            assert _LIBC.setns(self._home, 0x40000000) == 0, "setns back"
            os.close(there)

    def sysctl(self, path: str, value: str) -> None:
        """Write a sysctl of the namespace we are inside of."""
        with open(f"/proc/sys/{path}", "w") as file:
            file.write(value)

    def socket(self, name: str, version: int, kind: int, proto: int = 0, bind: tuple[str, int] | None = None):
        """Open a socket in a namespace."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with self.inside(name):
            made = socket.socket(family, kind, proto)
        made.settimeout(PATIENCE_S)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bind:
            made.bind(bind)
        return made

    def close(self) -> None:
        """Take all namespaces away."""
        for name in ("node", "world", *PODS):
            subprocess.run(["ip", "netns", "del", self.ns(name)], check=False, capture_output=True)
        os.close(self._home)


class Node:
    """The enforcer's kernel side on the lab's node: pods a and b governed, u not, c unknown."""

    def __init__(self, lab: Lab, layout: Layout) -> None:
        """Install structure, elements, guard and the DNS rule."""
        self.lab, self.layout = lab, layout
        with lab.inside("node"):
            self.kernel = Kernel()
            self.kernel.probe()
            self.routes = Routes()
            self.install()
            Conntrack().delete_flows([pack(pod_address(name, v)) for name in PODS for v in (4, 6)])
            if layout.capture:
                self.routes.install_dns_rule()

    def install(self) -> None:
        """Structure and elements; the caller is inside the node."""
        self.kernel.install(structure(self.layout))
        self.kernel.commit([Add(element) for kind in self.elements().values() for element in kind.values()])
        self.kernel.commit([Add(element) for element in settled()])

    def elements(self) -> dict[str, dict[bytes, Element]]:
        """What the node's sets hold."""
        pods = [KnownPod(pack(pod_address(n, v)), f"p{n}", n != "u") for n in "abu" for v in (4, 6)]
        upstreams = [Endpoint(pack(OTHER[v]), proto, 53) for v in (4, 6) for proto in ("udp", "tcp")]
        return node_elements(
            pods, cluster_cidrs=["10.244.0.0/16", "fd44::/64"], uplinks=["up0"], upstreams=upstreams
        )

    def raise_guard(self) -> None:
        """Install the guard with its elements."""
        with self.lab.inside("node"):
            self.kernel.install_guard(guard(self.layout))
            found = self.elements()
            self.kernel.commit_guard([Add(e) for name in GUARD_SETS for e in found[name].values()])

    def changes(self, pod: str, destination: str, permit: object, *, timeout_ms: int = 60_000) -> list[Add]:
        """A grant: both elements of each key."""
        version = ipaddress.ip_address(destination).version
        made = []
        for name, key, _ in grant_keys(pack(pod_address(pod, version)), pack(destination), permit):  # type: ignore[arg-type]
            made.append(Add(Element(name, key, timeout_ms=timeout_ms, comment=b"lab/policy/rule|name")))
            made.append(Add(Element(live_twin(name), key)))
        return made

    def grant(self, pod: str, destination: str, permit: object, *, timeout_ms: int = 60_000) -> None:
        """Open a destination for a pod."""
        self.kernel.commit(self.changes(pod, destination, permit, timeout_ms=timeout_ms))

    def revoke(self, pod: str, destination: str, permit: object) -> None:
        """Close it again."""
        added = [change.element for change in self.changes(pod, destination, permit)]
        self.kernel.commit([Remove(element.set, element.key) for element in added])

    def close(self) -> None:
        """Leave no table, rule or socket."""
        with self.lab.inside("node"):
            self.routes.remove_dns_rule()
            subprocess.run(["nft", "flush", "ruleset"], check=True)
        self.routes.close()
        self.kernel.close()


class Wire:
    """What pods and servers do, and what they see."""

    def __init__(self, lab: Lab) -> None:
        """Sockets are closed at the end."""
        self.lab = lab
        self._open: list[socket.socket] = []

    def keep(self, made: socket.socket) -> socket.socket:
        """Close it at the end."""
        self._open.append(made)
        return made

    def server(
        self, version: int, kind: int, port: int, where: str = "world", address: str = ""
    ) -> socket.socket:
        """Listen in a namespace on all addresses (or one)."""
        any_address = "0.0.0.0" if version == 4 else "::"
        made = self.keep(self.lab.socket(where, version, kind, bind=(address or any_address, port)))
        if kind == socket.SOCK_STREAM:
            made.listen(16)
        return made

    def connect(self, pod: str, version: int, address: str, port: int, *, wait_s: float = PATIENCE_S) -> str:
        """Try TCP: ``open``, ``refused`` (reset), ``silence`` or the error's name."""
        made = self.keep(self.lab.socket(pod, version, socket.SOCK_STREAM))
        made.settimeout(wait_s)
        return outcome(lambda: made.connect((address, port)))

    def connection(self, pod: str, version: int, address: str, port: int) -> socket.socket:
        """Open a TCP connection that is expected to work."""
        made = self.keep(self.lab.socket(pod, version, socket.SOCK_STREAM))
        made.connect((address, port))
        return made

    def udp(self, pod: str, version: int, bind: tuple[str, int] | None = None) -> socket.socket:
        """Open a UDP socket in a namespace."""
        return self.keep(self.lab.socket(pod, version, socket.SOCK_DGRAM, bind=bind))

    def ping(self, pod: str, version: int, address: str, *, wait_s: float = PATIENCE_S) -> bool:
        """Send one ICMP echo and say whether the reply came."""
        number = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
        made = self.keep(self.lab.socket(pod, version, socket.SOCK_RAW, number))
        kind, reply = (8, 0) if version == 4 else (128, 129)
        body = struct.pack(">BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, 1)
        if version == 4:
            body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
        made.sendto(body, (address, 0))
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([made], [], [], left)[0]:
                return False
            data = made.recv(2000)
            if data[20 if version == 4 else 0] == reply:
                return True
        return False

    def raw(self, where: str, packet: bytes, destination: str) -> None:
        """Send an IPv4 or IPv6 packet with a header of our own making."""
        version = packet[0] >> 4
        made = self.keep(self.lab.socket(where, version, socket.SOCK_RAW, socket.IPPROTO_RAW))
        if version == 6:
            made.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
        made.sendto(packet, (destination, 0))

    def close(self) -> None:
        """Close all."""
        for made in self._open:
            made.close()


def outcome(attempt) -> str:
    """Word what a socket call came to."""
    try:
        attempt()
    except TimeoutError:
        return "silence"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    except OSError as refused:
        return os.strerror(refused.errno or 0)
    return "open"


def heard(receiver: socket.socket, wait_s: float = PATIENCE_S) -> bytes | None:
    """One datagram, or None if none comes."""
    if not select.select([receiver], [], [], wait_s)[0]:
        return None
    return receiver.recv(65535)


def is_silent(receiver: socket.socket, wait_s: float = SILENCE_S) -> bool:
    """Say that nothing comes, and none has."""
    return heard(receiver, wait_s) is None


def until(what: Callable[[], object], wait_s: float = PATIENCE_S) -> None:
    """Poll a condition: what a packet does to the kernel need not be done when it is sent."""
    deadline = time.monotonic() + wait_s
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_packet(source: str, destination: str, sport: int, dport: int, data: bytes) -> bytes:
    """A UDP packet with any source; checksum 0 in IPv4, right in IPv6."""
    body = struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data
    if ipaddress.ip_address(source).version == 4:
        return (
            struct.pack(
                ">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0, pack(source), pack(destination)
            )
            + body
        )
    pseudo = pack(source) + pack(destination) + struct.pack(">IxxxB", len(body), 17)
    odd = b"\0" * (len(body) % 2)
    body = body[:6] + struct.pack(">H", checksum(pseudo + body + odd) or 0xFFFF) + body[8:]
    return struct.pack(">IHBB", 0x60000000, len(body), 17, 64) + pack(source) + pack(destination) + body


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Namespaces of this module."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes network namespaces")
    made = Lab()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def layout() -> Layout:
    """The layout of a test; override with ``@pytest.mark.parametrize("layout", …)``."""
    return Layout(resolver_uid=RESOLVER_UID)


@pytest.fixture
def node(lab: Lab, layout: Layout) -> Iterator[Node]:
    """A node that enforces."""
    made = Node(lab, layout)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def wire(lab: Lab) -> Iterator[Wire]:
    """Traffic."""
    made = Wire(lab)
    try:
        yield made
    finally:
        made.close()
