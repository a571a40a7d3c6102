"""Two supervisors of one node: the rules pass from one to the other, and come back if the other dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from enforcer.cli import main
from enforcer.health import Told, ask
from enforcer.tenure import SOCKET
from tests.enforcer.supervised import Running, ended, until

Start = Callable[..., Running]
READY = Told(live=True, ready=True, said="ready")


def not_ready(said: str) -> Told:
    """Alive, and why no more than that."""
    return Told(live=True, ready=False, said=said)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts supervisors that share a runtime folder, each with its own health socket."""
    running: list[Running] = []

    def one(name: str, **environ: str) -> Running:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pulse").write_bytes(b"+")
        own = {"RUNTIME": str(tmp_path / "run"), "HEALTH": str(folder / "health"), "TAKES_OVER": "1"}
        running.append(Running(folder, {**own, **environ}))
        running[-1].runtime = tmp_path / "run"
        return running[-1]

    yield one
    for each in running:
        each.end()


def dns_socket(running: Running, life: int = 0) -> str:
    """The kernel's number of the socket that the enforcer of this life was given."""
    running.pid("enforcer", life)
    [found] = [kept for kept in running.lives("enforcer")[life][2].split("|") if kept.startswith("socket:")]
    return found


def told(running: Running) -> Told:
    """What the pod says of itself; waits until somebody answers."""
    found: list[Told] = []

    def answers() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            found.append(ask(str(running.folder / "health"), 10))
        return bool(found)

    until(answers)
    return found[0]


def owner(running: Running) -> str:
    """Who wrote its number into the lock."""
    return (running.runtime / "lock").read_text().strip()


class TestHandover:
    """By processes."""

    def test_the_next_one_gets_the_rules_and_the_very_same_sockets(self, start: Start) -> None:
        """The old enforcer ends, the new one begins; the old supervisor and its resolver stay."""
        old = start("old")
        old_enforcer, resolver = old.pid("enforcer"), old.pid("resolver")
        new = start("new")
        assert dns_socket(new) == dns_socket(old)
        assert ended(old_enforcer)
        assert owner(new) == str(new.process.pid)
        assert old.process.poll() is None
        assert not ended(resolver)
        until(lambda: told(old) == not_ready("handed over to another Nameward of this node"))

    def test_what_arrives_meanwhile_waits_in_the_socket(self, start: Start) -> None:
        """A datagram that nobody read before is there for the successor."""
        old = start("old")
        old.pid("enforcer")
        assert old.process.stdout is not None
        port = int(old.process.stdout.readline())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", port))
            client.send(b"a lookup")
            new = start("new")
            new.pid("enforcer")
            old.process.kill()
            old.process.wait(60)
            until(lambda: all(ended(old.pid(kind)) for kind in ("enforcer", "resolver")))
            assert client.send(b"another") == 7  # else ECONNREFUSED: the socket had gone with its opener
        table = Path("/proc/net/udp").read_text().splitlines()
        [waiting] = [row.split()[4] for row in table if row.split()[1].endswith(f":{port:04X}")]
        assert int(waiting.partition(":")[2], 16) > 0

    def test_the_end_of_the_old_one_changes_nothing(self, start: Start) -> None:
        """As the kubelet does once the new pod is ready."""
        old = start("old")
        old.pid("enforcer")
        new = start("new")
        new.pid("enforcer")
        old.process.terminate()
        assert old.process.wait(20) == 0
        assert not ended(new.pid("enforcer"))
        assert len(new.lives("enforcer")) == 1

    def test_a_successor_that_dies_leaves_the_rules_to_the_one_before_it(self, start: Start) -> None:
        """With the same sockets; the old version enforces again."""
        old = start("old")
        old.pid("enforcer")
        new = start("new")
        new.pid("enforcer")
        new.process.kill()
        assert dns_socket(old, 1) == dns_socket(old)
        assert owner(old) == str(old.process.pid)

    def test_a_third_one_takes_over_from_the_second(self, start: Start) -> None:
        """The first has handed over: it asks for nothing any more."""
        old = start("old")
        old.pid("enforcer")
        new = start("new")
        new.pid("enforcer")
        newest = start("newest")
        assert dns_socket(newest) == dns_socket(old)
        until(lambda: told(new).said.startswith("handed over"))
        assert (len(old.lives("enforcer")), len(new.lives("enforcer"))) == (1, 1)

    def test_one_that_is_killed_leaves_its_place_without_a_word(self, start: Start) -> None:
        """Nobody hands over; the lock is free once its enforcer has ended."""
        old = start("old")
        old.pid("enforcer")
        old.process.send_signal(signal.SIGSTOP)
        new = start("new")
        until(lambda: told(new) == not_ready("waits for another Nameward of this node"))
        old.process.kill()
        assert dns_socket(new) != dns_socket(old)

    def test_one_by_hand_still_says_that_the_folder_is_in_use(self, start: Start) -> None:
        """Without the option nothing is taken over, and nobody waits for ever."""
        old = start("old")
        old.pid("enforcer")
        other = start("other")
        other.process.kill()
        environ = {**os.environ, "RUNTIME": str(old.runtime)}
        code = (
            "from enforcer.tenure import Lock\nimport os\n"
            "try: Lock(os.environ['RUNTIME']).take(0)\nexcept Exception as error: print(error)"
        )
        until(lambda: owner(old) == str(old.process.pid))
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
        )
        assert done.stdout == (
            f"another Nameward (process {old.process.pid}) uses {old.runtime};"
            " end it or set another runtimeDir\n"
        )


class TestWords:
    """What is said on handover.sock, by one that knows no manners."""

    @pytest.fixture
    def old(self, start: Start) -> Running:
        """The owner."""
        running = start("old")
        running.pid("enforcer")
        return running

    @pytest.fixture
    def other(self, old: Running) -> Iterator[socket.socket]:
        """A connection to it."""
        path = old.runtime / SOCKET
        until(path.exists)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.settimeout(20)
            other.connect(str(path))
            yield other

    def test_the_socket_is_roots_alone(self, old: Running) -> None:
        """Whoever gets the DNS sockets could answer pods."""
        assert (old.runtime / SOCKET).stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize(
        "said", [b"", b"\xff", b"[]", b'{"take": 2}', b'{"mine": 1}', b'{"free": 1}', b"9" * 9999]
    )
    def test_what_is_not_understood_ends_the_connection(
        self, old: Running, other: socket.socket, said: bytes
    ) -> None:
        """And nothing else."""
        if said:
            other.send(said)
        else:
            other.shutdown(socket.SHUT_WR)
        assert other.recv(100) == b""
        assert len(old.lives("enforcer")) == 1

    def test_one_that_asks_and_goes_is_forgotten(self, old: Running, other: socket.socket) -> None:
        """Its enforcer was never disturbed, and the next one is served."""
        other.send(b'{"take": 1}')
        data, descriptors, _, _ = socket.recv_fds(other, 1000, 10)
        assert json.loads(data) == {"give": 1, "sockets": ["udp4"]}
        assert len(descriptors) == 1
        os.close(descriptors[0])
        other.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as next_one:
            next_one.settimeout(20)
            next_one.connect(str(old.runtime / SOCKET))
            next_one.send(b'{"take": 1}')
            assert json.loads(next_one.recv(1000))["give"] == 1
        assert len(old.lives("enforcer")) == 1

    @pytest.mark.parametrize("waits_for_the_lock", [False, True])
    def test_one_that_dies_after_it_got_all_leaves_the_owner_as_it_was(
        self, old: Running, other: socket.socket, waits_for_the_lock: bool
    ) -> None:
        """The enforcer had to end for it: another one begins, with the same sockets."""
        first = old.pid("enforcer")
        other.send(b'{"take": 1}')
        _, descriptors, _, _ = socket.recv_fds(other, 1000, 10)
        other.send(b'{"have": 1}')
        if waits_for_the_lock:
            assert json.loads(other.recv(1000)) == {"free": 1}
            assert ended(first)
        other.close()
        for each in descriptors:
            os.close(each)
        assert dns_socket(old, 1) == dns_socket(old)
        assert owner(old) == str(old.process.pid)


class TestHealth:
    """``--health`` and ``nameward health``."""

    def test_a_resolver_of_its_own_needs_no_lock(self, start: Start) -> None:
        """Its container has runtimeDir read-only; what it says of itself is its health."""
        start("old").pid("enforcer")
        resolver = start("resolver", WORKERS="resolver", TAKES_OVER="")
        resolver.pid("resolver")
        until(lambda: told(resolver) == READY)
        (resolver.folder / "pulse").write_bytes(b"-the enforcer does not answer")
        until(lambda: told(resolver) == not_ready("the enforcer does not answer"))

    def test_it_is_asked_by_exec(self, start: Start) -> None:
        """One sentence, exit 0 or 1; a stranger's characters do not reach the terminal."""
        running = start("resolver", WORKERS="resolver")
        path = str(running.folder / "health")
        until(lambda: told(running).ready)
        done = CliRunner().invoke(main, ["health", "--ready", path])
        assert (done.exit_code, done.output) == (0, "ready\n")
        (running.folder / "pulse").write_bytes(b"-\x1b[2Jno")
        until(lambda: not told(running).ready)
        done = CliRunner().invoke(main, ["health", "--ready", path])
        assert (done.exit_code, done.output) == (1, "\\u001b[2Jno\n")
        assert CliRunner().invoke(main, ["health", path]).exit_code == 0

    def test_nobody_there(self, tmp_path: Path) -> None:
        """Exit 1, and why."""
        done = CliRunner().invoke(main, ["health", str(tmp_path / "none")])
        assert done.exit_code == 1
        assert done.output == f"nobody answers at {tmp_path}/none: No such file or directory\n"

    def test_an_enforcer_that_answers_nothing_is_not_ready(self, start: Start) -> None:
        """It lives, and has said nothing yet."""
        running = start("old", WORKERS="enforcer")
        running.pid("enforcer")
        until(lambda: told(running) == not_ready("the enforcer does not answer yet"))

    def test_an_enforcers_own_words_are_its_health(self, start: Start) -> None:
        """What its inspection socket says, while it is the owner."""
        running = start("old", WORKERS="enforcer")
        running.pid("enforcer")
        with socket.socket(socket.AF_UNIX) as inspection:
            inspection.bind(str(running.runtime / "inspect.sock"))
            inspection.listen()
            inspection.settimeout(20)
            for row, expected in (
                (
                    {"enforcing": False, "problems": ["the guard is gone"]},
                    not_ready("the guard is gone"),
                ),
                ({"enforcing": True, "problems": []}, READY),
            ):
                peer, _ = inspection.accept()
                with peer:
                    assert peer.recv(500)
                    peer.sendall(json.dumps({"row": row}).encode() + b'\n{"end": true}\n')
                until(lambda expected=expected: told(running) == expected)

    def test_a_folder_that_is_not_there_is_said(self, start: Start) -> None:
        """At the start, with what to do."""
        running = start("old", HEALTH="/nowhere/health")
        _, errors = running.process.communicate(timeout=60)
        assert running.process.returncode == 1
        assert "--health /nowhere/health: No such file or directory; name a path in a folder" in errors


def test_what_ends_in_a_container_is_reaped(start: Start) -> None:
    """Its first process is every orphan's parent: no zombie stays."""
    running = start("old", REAPER="1", orphans="1")
    running.pid("enforcer")
    path = running.folder / "orphan"
    until(lambda: path.exists() and path.read_text() != "")
    orphan = int(path.read_text())
    until(lambda: not Path(f"/proc/{orphan}").exists())
