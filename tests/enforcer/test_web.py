"""Metrics and health over HTTP: who may read what, and over which way."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry, Gauge
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure

from enforcer import web
from enforcer.demo.certificates import Certificates
from enforcer.demo.stores import free_ports
from policy.runtime.clock import MonotonicReactor
from policy.runtime.sections import MetricsSettings
from tests.enforcer.rig import KeptRecords

LONG_S = 30.0


class Turned(MonotonicReactor):
    """The real reactor, turned by the test."""

    def until(self, done: Future[Got] | Future[bytes]) -> None:
        """Turn until it is done."""
        end_at = self.seconds() + LONG_S
        while not done.done():
            assert self.seconds() < end_at, "no answer in time"
            self.iterate(0.01)


class Got(NamedTuple):
    """An answer."""

    code: int
    text: str
    asks_for: str | None


class Rig:
    """The pages of a node, and a client of them in a thread."""

    def __init__(self) -> None:
        self.reactor = Turned()
        self.records = KeptRecords()
        self.missing: list[str] = []
        self.registry = CollectorRegistry()
        Gauge("seen", "A number.", registry=self.registry).set(7)
        self.doors: list[web.Door] = []
        self.client = ThreadPoolExecutor(1)

    def door(self, **settings: str) -> web.Door:
        """Open one on a port that is free, unless ``listen`` says another."""
        asked = MetricsSettings(**{"listen": f"127.0.0.1:{free_ports(1)[0]}", **settings})
        pages = web.site(
            self.registry, lambda: self.missing, token_file=asked.token_file, reactor=self.reactor
        )
        door = web.Door(self.reactor, asked, pages, self.records)
        self.doors.append(door)
        door.open()
        return door

    def get(self, path: str, door: web.Door, header: str = "", trusted: ssl.SSLContext | None = None) -> Got:
        """Ask for a page."""

        def ask() -> Got:
            port = door.number
            assert port is not None
            if trusted is None:
                line = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
            else:
                line = http.client.HTTPSConnection("127.0.0.1", port, timeout=LONG_S, context=trusted)
            line.request("GET", path, headers={"Authorization": header} if header else {})
            answer = line.getresponse()
            got = Got(answer.status, answer.read().decode(), answer.getheader("www-authenticate"))
            line.close()
            return got

        asked = self.client.submit(ask)
        self.reactor.until(asked)
        return asked.result()

    def close(self) -> None:
        """Let go of everything."""
        for door in self.doors:
            door.close()
        self.client.shutdown()
        for _ in range(5):
            self.reactor.iterate(0)
        for selectable in self.reactor.removeAll() + list(self.reactor._internalReaders):
            selectable.connectionLost(Failure(CONNECTION_LOST))
        for call in self.reactor.getDelayedCalls():
            call.cancel()
        self.reactor._poller.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """The pages."""
    made = Rig()
    yield made
    made.close()


def test_without_a_token_file_everybody_reads(rig: Rig) -> None:
    """Loopback needs no token."""
    door = rig.door()
    assert "seen 7.0" in rig.get("/metrics", door).text
    assert rig.get("/livez", door) == Got(200, "ok\n", None)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer right", 200),
        ("bearer right", 200),
        ("Bearer wrong", 401),
        ("Bearer right2", 401),
        ("Bearer", 401),
        ("Basic cmlnaHQ=", 401),
        ("", 401),
    ],
)
def test_metrics_are_given_to_the_token_alone(rig: Rig, tmp_path: Path, header: str, code: int) -> None:
    """Nobody else learns a number; the scheme's name is case-blind (RFC 9110, section 11.1)."""
    file = tmp_path / "token"
    file.write_text("right\n")
    door = rig.door(token_file=str(file))
    got = rig.get("/metrics", door, header)
    assert got.code == code
    assert ("seen" in got.text) is (code == 200)
    assert got.asks_for == ("Bearer" if code == 401 else None)


def test_health_needs_no_token(rig: Rig, tmp_path: Path) -> None:
    """What asks whether the node is there knows no secret; it is told no number either."""
    file = tmp_path / "token"
    file.write_text("right")
    rig.missing.append("no policy yet")
    door = rig.door(token_file=str(file))
    assert rig.get("/livez", door).code == 200
    assert rig.get("/readyz", door) == Got(503, "no policy yet\n", None)


def test_a_changed_token_holds_at_once(rig: Rig, tmp_path: Path) -> None:
    """The file is read at every request: a Secret is rotated without a restart."""
    file = tmp_path / "token"
    file.write_text("old")
    door = rig.door(token_file=str(file))
    file.write_text("new")
    assert rig.get("/metrics", door, "Bearer old").code == 401
    assert rig.get("/metrics", door, "Bearer new").code == 200


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_without_a_readable_token_nobody_reads(rig: Rig, tmp_path: Path, content: str | None) -> None:
    """A file that is missing or empty opens nothing: an empty token is sent by everyone."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    door = rig.door(token_file=str(file))
    for header in ("", "Bearer ", "Bearer x"):
        got = rig.get("/metrics", door, header)
        assert got.code == 503
        assert "seen" not in got.text


def test_over_tls(rig: Rig, tmp_path: Path) -> None:
    """A client that trusts the authority reads; a renewed certificate is shown to the next."""
    made = Certificates(tmp_path)
    files = {"cert_file": str(tmp_path / "server.pem"), "key_file": str(tmp_path / "server.key")}
    door = rig.door(**files)
    trusted = ssl.create_default_context(cafile=str(made.ca_file))
    assert rig.get("/livez", door, trusted=trusted).code == 200

    def shown() -> bytes:
        assert door.number is not None
        with (
            socket.create_connection(("127.0.0.1", door.number), timeout=LONG_S) as plain,
            trusted.wrap_socket(plain, server_hostname="127.0.0.1") as line,
        ):
            return line.getpeercert(binary_form=True) or b""

    def seen() -> bytes:
        asked = rig.client.submit(shown)
        rig.reactor.until(asked)
        return asked.result()

    first = seen()
    made.issue("server")
    assert seen() != first


def test_a_certificate_that_cannot_be_used_is_told_and_tried_again(rig: Rig, tmp_path: Path) -> None:
    """Never without TLS then; when the files are there, it listens."""
    files = {"cert_file": str(tmp_path / "server.pem"), "key_file": str(tmp_path / "server.key")}
    door = rig.door(**files)
    assert door.number is None
    assert rig.records.events() == ["metrics.closed"]
    made = Certificates(tmp_path)
    _wait(rig, door)
    trusted = ssl.create_default_context(cafile=str(made.ca_file))
    assert rig.get("/livez", door, trusted=trusted).code == 200


def test_an_address_that_is_taken_is_taken_over(rig: Rig) -> None:
    """While the agent before this one still listens, this one waits, and says so once."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        door = rig.door(listen=f"127.0.0.1:{number}")
        end_at = rig.reactor.seconds() + 2.5 * web.RETRY_S
        while rig.reactor.seconds() < end_at:
            rig.reactor.iterate(0.05)
        assert door.number is None
    assert rig.records.events() == ["metrics.closed"]
    _wait(rig, door)
    assert rig.get("/livez", door).code == 200


def test_connections_are_bounded(rig: Rig) -> None:
    """Whoever holds them all open keeps others from the metrics, and takes no more descriptors."""
    door = rig.door()
    assert door.number is not None
    held = []
    for _ in range(web.MAX_CONNECTIONS):
        held.append(socket.create_connection(("127.0.0.1", door.number), timeout=LONG_S))
        rig.reactor.iterate(0.01)
    over = socket.create_connection(("127.0.0.1", door.number), timeout=LONG_S)
    asked = rig.client.submit(lambda: _closed(over))
    rig.reactor.until(asked)
    assert asked.result() == b""
    for each in (*held, over):
        each.close()


def _closed(line: socket.socket) -> bytes:
    """What comes until the other end closes."""
    try:
        return line.recv(1)
    except ConnectionResetError:
        return b""


def _wait(rig: Rig, door: web.Door) -> None:
    end_at = rig.reactor.seconds() + LONG_S
    while door.number is None:
        assert rig.reactor.seconds() < end_at, "it never listened"
        rig.reactor.iterate(0.05)
