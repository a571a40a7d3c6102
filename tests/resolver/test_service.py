"""The whole process against a scripted enforcer: what it does in its life, and at its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import pytest

from policy.authority import (
    CountersReported,
    GrantAnswered,
    GrantRequested,
    Hello,
    LookupsRecorded,
    SnapshotPublished,
)
from policy.pods import Pod
from policy.rules import Destination, Policy, PortRange, Rule
from policy.runtime.framing import encode, enforcer_decoder
from policy.world import World

POD = "127.0.0.7"
ADDRESS = "93.184.216.34"


def world(generation=1, name="api.example.com"):
    """One pod that may reach one name."""
    rule = Rule(
        name="api",
        action="permit",
        destinations=(Destination(kind="public"),),
        web_groups=(name,),
        protocol="tcp",
        ports=PortRange(443, 443),
    )
    policy = Policy(namespace="obot-mcp", name="crm", kind="FirewallPolicy", rules=(rule,))
    pod = Pod(namespace="obot-mcp", name="crm", uid="u1", addresses=(POD,))
    return World(generation=generation, pods=(pod,), policies=(policy,))


class Enforcer:
    """Plays the enforcer's end of the authority socket, one connection at a time."""

    def __init__(self, folder, sockets):
        self.sockets = sockets
        self.messages = []
        self.grants_answered = True
        self.connections = 0
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{folder}/authority.sock")
        os.chmod(f"{folder}/authority.sock", 0o666)
        self._listening.listen(4)
        self._connection = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def of(self, kind):
        """Return the messages of a kind so far."""
        return [message for message in self.messages if isinstance(message, kind)]

    def send(self, message):
        """Send to the resolver."""
        self._connection.sendall(encode(message))

    def drop(self):
        """Cut the connection, as a dying enforcer does."""
        self._connection.shutdown(socket.SHUT_RDWR)

    def end(self):
        """Close everything."""
        self._ended.set()
        self._thread.join()
        self._listening.close()

    def _serve(self):
        while not self._ended.is_set():
            if not select.select([self._listening], [], [], 0.02)[0]:
                continue
            with self._listening.accept()[0] as self._connection:
                self.connections += 1
                names = tuple(self.sockets)
                descriptors = [one.fileno() for one in self.sockets.values()]
                socket.send_fds(self._connection, [encode(Hello("test", names))], descriptors)
                self.send(SnapshotPublished(world()))
                with contextlib.suppress(ConnectionError):
                    self._converse()

    def _converse(self):
        decoder = enforcer_decoder()
        while not self._ended.is_set():
            if not select.select([self._connection], [], [], 0.02)[0]:
                continue
            data = self._connection.recv(65536)
            if not data:
                return
            for message in decoder.feed(data):
                self.messages.append(message)
                if isinstance(message, GrantRequested) and self.grants_answered:
                    outcomes = ("realized",) * len(message.addresses)
                    self.send(GrantAnswered(message.id, message.generation, outcomes, 120.0))


class Upstream:
    """A DNS server on a thread that knows one answer to everything."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(0.05)
        self.asked = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def end(self):
        """Close it."""
        self._ended.set()
        self._thread.join()
        self.sock.close()

    def _serve(self):
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                wire, peer = self.sock.recvfrom(4096)
                query = dns.message.from_wire(wire)
                self.asked.append(query)
                response = dns.message.make_response(query)
                response.answer.append(dns.rrset.from_text(query.question[0].name, 300, "IN", "A", ADDRESS))
                self.sock.sendto(response.to_wire(), peer)


class Running:
    """A resolver's process with everything around it."""

    def __init__(self, folder):
        self.folder = folder
        self.sockets = {
            "udp4": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "tcp4": socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        }
        for one in self.sockets.values():
            one.bind(("0.0.0.0", 0))
        self.sockets["tcp4"].listen(16)
        self.upstream = Upstream()
        self.config = Path(folder, "nameward.yaml")
        self.write("")
        self.enforcer = Enforcer(folder, self.sockets)
        self.errors = Path(folder, "stderr")
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "resolver", "--config", str(self.config)],
                stderr=errors,
                cwd=Path(__file__).parents[2],
            )

    def write(self, more):
        """Write the configuration."""
        port = self.upstream.sock.getsockname()[1]
        self.config.write_text(
            f"node: node-t\nruntimeDir: {self.folder}\npolicy: {{governedNamespaces: [obot-mcp]}}\n"
            f"dns:\n  upstreams: ['127.0.0.1:{port}']\n  searchDomains: [lan]\n"
            f"  holdTimeout: 4s\n  deadline: 4.5s\n{more}"  # a slow machine loses nothing by it
        )

    def wait(self, what, within_s=60.0):
        """Poll until it is true."""
        deadline_at = time.monotonic() + within_s
        while not what():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline_at, self.errors.read_text()
            select.select([], [], [], 0.01)

    def log(self, event):
        """Return the log records of an event."""
        lines = self.errors.read_text().splitlines()
        return [one for one in map(json.loads, lines) if one["event"] == event]

    def client(self, source=POD):
        """Return a UDP client socket of a source."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", self.sockets["udp4"].getsockname()[1]))
        sock.settimeout(60)
        return sock

    def ask(self, name, *, source=POD):
        """Ask for A over UDP; return the answer."""
        with self.client(source) as sock:
            query = dns.message.make_query(name, "A")
            sock.send(query.to_wire())
            return dns.message.from_wire(sock.recv(4096))

    def end(self):
        """End everything that is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self.enforcer.end()
        self.upstream.end()
        for one in self.sockets.values():
            one.close()


@pytest.fixture
def running():
    """A resolver that serves."""
    folder = tempfile.mkdtemp(prefix="nameward-test-")
    os.chmod(folder, 0o755)
    one = Running(folder)
    try:
        one.wait(lambda: one.log("snapshot.loaded"))
        yield one
    finally:
        one.end()
        shutil.rmtree(folder)


def test_a_lookup_is_granted_before_it_is_answered(running):
    """Permitted: asked upstream, granted, answered; afterwards answered from memory, upstream or not."""
    assert running.ask("api.example.com").answer[0][0].address == ADDRESS
    running.upstream.end()
    for _ in range(2):
        assert running.ask("api.example.com").answer[0][0].address == ADDRESS
    (request,) = running.enforcer.of(GrantRequested)
    assert request.addresses == (socket.inet_aton(ADDRESS),)
    assert (request.pod_uid, request.source) == ("u1", socket.inet_aton(POD))


def test_blocked_lookups_are_recorded_and_counted(running):
    """NXDOMAIN, one record with a count for three equal ones, the counters each second."""
    for _ in range(3):
        assert running.ask("attacker.example.net").rcode() == dns.rcode.NXDOMAIN
    running.wait(
        lambda: sum(one.count for batch in running.enforcer.of(LookupsRecorded) for one in batch.records) == 3
    )
    record = running.enforcer.of(LookupsRecorded)[0].records[0]
    assert (record.verdict, record.pod, record.name) == ("blocked", "crm", "attacker.example.net")
    assert running.upstream.asked == []
    running.wait(lambda: any(one.counters for one in running.enforcer.of(CountersReported)))
    assert running.enforcer.of(CountersReported)[-1].upstreams[0].healthy


def test_tcp_is_served_beside_udp(running):
    """Two pipelined queries on one connection are both answered."""
    with socket.create_connection(
        ("127.0.0.1", running.sockets["tcp4"].getsockname()[1]), 60, (POD, 0)
    ) as sock:
        for name in ("api.example.com", "attacker.example.net"):
            wire = dns.message.make_query(name, "A").to_wire()
            sock.sendall(len(wire).to_bytes(2, "big") + wire)
        data = b""
        rcodes = set()
        while len(rcodes) < 2:
            data += sock.recv(4096)
            while len(data) > 2 and len(data) >= 2 + int.from_bytes(data[:2], "big"):
                end = 2 + int.from_bytes(data[:2], "big")
                rcodes.add(dns.message.from_wire(data[2:end]).rcode())
                data = data[end:]
    assert rcodes == {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}


def test_without_the_enforcer_nothing_is_answered_unheld_and_nothing_is_lost(running):
    """The enforcer dies with a grant open: the lookup waits, is asked again, and then answered."""
    running.enforcer.grants_answered = False
    with running.client() as sock:
        sock.send(dns.message.make_query("api.example.com", "A").to_wire())
        running.wait(lambda: running.enforcer.of(GrantRequested))
        assert not select.select([sock], [], [], 0.1)[0]
        running.enforcer.grants_answered = True
        running.enforcer.drop()
        answer = dns.message.from_wire(sock.recv(4096))
    assert answer.answer[0][0].address == ADDRESS
    assert len(running.enforcer.of(GrantRequested)) >= 2
    assert running.enforcer.connections == 2
    assert running.ask("api.example.com").answer


def test_sigterm_finishes_what_is_on_hold(running):
    """A lookup under way is still answered; then the process ends with 0."""
    running.enforcer.grants_answered = False
    with running.client() as sock:
        sock.send(dns.message.make_query("api.example.com", "A").to_wire())
        running.wait(lambda: running.enforcer.of(GrantRequested))
        running.process.send_signal(signal.SIGTERM)
        running.wait(lambda: running.log("resolver.ending"))
        request = running.enforcer.of(GrantRequested)[0]
        running.enforcer.send(GrantAnswered(request.id, request.generation, ("realized",), 120.0))
        assert dns.message.from_wire(sock.recv(4096)).answer
    assert running.process.wait(60) == 0
    assert running.log("authority.lost") == []


def test_sighup_takes_good_settings_and_keeps_the_old_ones_against_bad(running):
    """A mistake is named in the log and reported; the next good file is taken."""
    running.write("  blockedReply: nonsense\n")
    running.process.send_signal(signal.SIGHUP)
    running.wait(lambda: running.log("settings.rejected"))
    assert "blockedReply" in running.log("settings.rejected")[0]["reason"]
    assert running.ask("attacker.example.net").rcode() == dns.rcode.NXDOMAIN
    running.wait(
        lambda: (
            running.enforcer.of(CountersReported)[-1:]
            and running.enforcer.of(CountersReported)[-1].gauges["nameward_settings_rejected"] == 1
        )
    )
    running.write("  blockedReply: refused\n")
    running.process.send_signal(signal.SIGHUP)
    running.wait(lambda: running.log("settings.loaded"))
    assert running.ask("other.example.net").rcode() == dns.rcode.REFUSED


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to give up")
def test_the_serving_process_has_no_privileges(running):
    """What the kernel says of the running process: no capabilities, no_new_privs, its own user."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    fields = {name: value.strip() for name, value in (line.split(":", 1) for line in status.splitlines())}
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert "0" not in fields["Uid"].split()


def test_a_configuration_that_cannot_be_used_is_exit_code_2(tmp_path):
    """The mistakes go to standard error, one line each."""
    config = tmp_path / "bad.yaml"
    config.write_text("dns: {maxTTL: soon}\n")
    ran = subprocess.run(
        [sys.executable, "-m", "resolver", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 2
    assert "dns.maxTTL" in ran.stderr


def test_a_bug_ends_the_process_and_says_so(running):
    """What must not happen (here: a descriptor that is no socket) is a record and exit code 1."""
    with Path("/dev/null").open("rb") as no_socket:
        running.enforcer.sockets = {"udp4": no_socket}
        running.enforcer.drop()
        assert running.process.wait(60) == 1
    (failed,) = running.log("resolver.failed")
    assert "OSError" in failed["reason"]


def test_preload_installs_no_reactor():
    """A supervisor preloads before it forks: the reactor (and its epoll) belongs to the worker."""
    code = (
        "import sys, resolver.service\n"
        "resolver.service.preload()\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
        "before = set(sys.modules)\n"
        "import resolver.wiring, dns.rdtypes.IN.A, service_identity\n"
        "print(len(set(sys.modules) - before))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert ran.stdout == "0\n"
