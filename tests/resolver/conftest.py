"""A reactor per test, and real DNS servers on loopback that behave or misbehave as told."""

from __future__ import annotations

import datetime
import ipaddress
import time

import dns.message
import dns.rrset
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import ssl
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from policy.runtime.clock import MonotonicReactor

TURN_S = 0.05


class LoopbackReactor(MonotonicReactor):
    """The real reactor, turned by the test instead of running for ever.

    Its clock goes on by ``TURN_S`` a turn at most: where the machine pauses, nothing that arrived is late.
    """

    def __init__(self):
        self._turn_at, self._turn_began = 0.0, time.monotonic()
        super().__init__()

    def seconds(self):
        """Seconds of turns."""
        return self._turn_at + min(time.monotonic() - self._turn_began, TURN_S)

    def iterate(self, delay=0.0):
        """One turn."""
        self._turn_at, self._turn_began = self.seconds(), time.monotonic()
        super().iterate(delay)

    def spin(self, until, within_s=5.0):
        """Turn until the condition holds; fail if it does not in time."""
        deadline_at = self.seconds() + within_s
        while not until():
            assert self.seconds() < deadline_at, "the condition did not come true in time"
            self.iterate(0.01)

    def spin_for(self, seconds):
        """Turn for a while, to see that something does not happen."""
        deadline_at = self.seconds() + seconds
        while self.seconds() < deadline_at:
            self.iterate(0.01)


@pytest.fixture
def reactor():
    """A reactor of this test's own, closed with everything in it."""
    turning = LoopbackReactor()
    yield turning
    for _ in range(3):
        turning.iterate(0)
    for selectable in turning.removeAll() + list(turning._internalReaders):
        if hasattr(selectable, "close_all"):
            selectable.close_all()  # sockets left open would warn in another test
        selectable.connectionLost(Failure(CONNECTION_LOST))
    for call in turning.getDelayedCalls():
        call.cancel()
    turning._poller.close()


def reply(wire, *, address="192.0.2.80", flags=0):
    """A true answer to an address query, by dnspython."""
    query = dns.message.from_wire(wire)
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text(query.question[0].name, 300, "IN", "A", address))
    response.flags |= flags
    return response.to_wire()


class _Udp(DatagramProtocol):
    def __init__(self, server):
        self.server = server

    def datagramReceived(self, data, addr):
        self.server.datagrams.append(data)
        self.server.ports.append(addr[1])
        for answer in self.server.by_udp(data):
            self.transport.write(answer, addr)


class _Tcp(Protocol):
    def __init__(self, server):
        self.server = server
        self.pending = b""

    def connectionMade(self):
        self.server.connections.append(self)

    def dataReceived(self, data):
        self.pending += data
        while len(self.pending) >= 2 and len(self.pending) >= 2 + int.from_bytes(self.pending[:2], "big"):
            end = 2 + int.from_bytes(self.pending[:2], "big")
            wire, self.pending = self.pending[2:end], self.pending[end:]
            self.server.messages.append(wire)
            for answer in self.server.by_tcp(wire):
                self.transport.write(len(answer).to_bytes(2, "big") + answer)


class LoopbackServer:
    """A DNS server over UDP and TCP (or TLS); ``by_udp`` and ``by_tcp`` give the replies to a query."""

    def __init__(self, reactor, address="127.0.0.1", certificate=None):
        self.by_udp = lambda wire: [reply(wire)]
        self.by_tcp = lambda wire: [reply(wire)]
        self.datagrams, self.ports, self.messages, self.connections = [], [], [], []
        self.address = address
        self._reactor = reactor
        factory = Factory.forProtocol(lambda: _Tcp(self))
        factory.noisy = False
        if certificate is not None:
            factory = TLSMemoryBIOFactory(
                certificate.options(), isClient=False, wrappedFactory=factory, clock=reactor
            )
        self.tcp_port = reactor.listenTCP(0, factory, interface=address)
        self.port = self.tcp_port.getHost().port
        udp = _Udp(self)
        udp.noisy = False
        self.udp_port = reactor.listenUDP(self.port, udp, interface=address)

    def send_datagram(self, wire, port):
        """Send a datagram to a port of loopback, from this server's address."""
        self.udp_port.write(wire, (self.address, port))

    def end(self):
        """Close both ports: datagrams and connections are refused from now on."""
        self.tcp_port.stopListening()
        self.udp_port.stopListening()
        for connection in self.connections:
            connection.transport.abortConnection()
        self._reactor.spin(lambda: not self.udp_port.connected and not self.tcp_port.connected)


@pytest.fixture
def server(reactor):
    """Make a server on loopback."""

    def make(address="127.0.0.1", certificate=None):
        return LoopbackServer(reactor, address, certificate)

    return make


@pytest.fixture(scope="session")
def certificate():
    """A self-signed certificate for dns.example, as a Twisted PrivateCertificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dns.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("dns.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ssl.PrivateCertificate.loadPEM(pem)


@pytest.fixture(scope="session")
def true_reply():
    """The function that answers truly."""
    return reply
